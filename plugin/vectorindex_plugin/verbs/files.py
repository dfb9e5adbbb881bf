"""Verbs about manifests: `lint` needs no cluster, `plan` asks one and writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group
from rich.text import Text

from vectorindex_operator.core.observation import Observation
from vectorindex_operator.reconcile.errors import RefusedError
from vectorindex_operator.reconcile.ports import Raw
from vectorindex_operator.reconcile.views import index_view
from vectorindex_plugin import documents
from vectorindex_plugin.applying import applied
from vectorindex_plugin.exits import EndedError, Exit
from vectorindex_plugin.facts.plan import PlanFacts, of_edit
from vectorindex_plugin.lint.facts import FaultFacts, LintFacts
from vectorindex_plugin.screens import plan as plan_screen
from vectorindex_plugin.screens.style import console
from vectorindex_plugin.seen import look
from vectorindex_plugin.verbs.common import Session, with_cluster, with_output

if TYPE_CHECKING:
    from vectorindex_plugin.lint.manifests import Manifest


@click.command()
@click.argument("files", metavar="FILE", nargs=-1, required=True)
@click.option("--no-try", is_flag=True, help="do not have FAISS try factory strings (seconds for each kind)")
@with_output
def lint(files: tuple[str, ...], no_try: bool, output: str) -> None:
    """Judge manifests without a cluster: schema, rules across fields, factory string. FILE may be a folder, or - ."""
    from vectorindex_plugin.lint import check, manifests  # these take a second to load, and other verbs do without

    facts = check.lint((one for file in files for one in manifests.read(file)), tries=not no_try)
    if output == "json":
        click.echo(documents.text(facts))
    else:
        for line in _lines(facts):
            console().print(line, soft_wrap=True)  # an editor reads it line by line
    if facts.faults:
        click.get_current_context().exit(int(Exit.REFUSED))


@click.command()
@click.argument("file", metavar="FILE")
@with_cluster
def plan(session: Session, file: str) -> None:
    """What an edit would lead to, before it is applied: build, proof, rollout, restart or nothing; and its needs."""
    from vectorindex_plugin.lint import manifests

    planned = [_planned(session, one) for one in manifests.read(file) if one.problem or _is_index(one.value)]
    if not planned:
        raise EndedError(Exit.NOT_FOUND, f"{file} has no VectorIndex")
    session.show(planned, Group(*(plan_screen.screen(one) for one in planned)))


def _is_index(value: Any) -> bool:
    return isinstance(value, dict) and value.get("kind") == "VectorIndex"


def _planned(session: Session, manifest: Manifest) -> PlanFacts:
    """Raises EndedError for a manifest that the API server would refuse."""
    from vectorindex_plugin.lint import check

    faults = check.lint([manifest], tries=False).faults
    if faults:
        raise EndedError(Exit.REFUSED, "\n".join(_line(one).plain for one in faults))
    meta = manifest.value["metadata"]
    namespace, name = meta.get("namespace", session.namespace), meta["name"]
    quotas = _quotas(session, namespace)
    if session.hands.get("VectorIndex", namespace, name) is None:
        raw = {**manifest.value, "metadata": {**meta, "namespace": namespace, "uid": "", "generation": 1}}
        return of_edit(Observation(index=index_view(raw)), check.spec_of(manifest.value), session.clock(), quotas)
    seen = look(session.hands, namespace, name, session.clock())
    raw = dict(seen.obs.objects["VectorIndex", name])
    after = {**raw, "spec": applied(raw, manifest.value)}
    edited = [f"{check.dotted(path)}: {words}" for path, words in check.against_edit(raw, after)]
    if edited:
        raise EndedError(Exit.REFUSED, "\n".join(edited))
    return of_edit(seen.obs, check.spec_of(after), seen.now, quotas)


def _quotas(session: Session, namespace: str) -> list[Raw] | None:
    """Those of the namespace; None: this person may not read them."""
    try:
        pages = session.hands.pages("ResourceQuota", namespace, "", metadata_only=False)
        return [one for page in pages for one in page]
    except RefusedError:
        return None


def _lines(facts: LintFacts) -> Iterator[Text]:
    yield from (_line(one) for one in facts.faults)
    yield from (Text(note, style="dim") for note in facts.notes)
    faults = len(facts.faults)
    yield Text(f"{facts.checked} checked, {faults or 'no'} fault{'' if faults == 1 else 's'}")


def _line(one: FaultFacts) -> Text:
    """As compilers write it, so that editors find the place."""
    where = f"{one.file}:{one.line}: "
    subject = " ".join(part for part in (one.name, one.field) if part)
    return Text.assemble(where, (subject, "bold"), f"{': ' if subject else ''}{one.message}")


VERBS = (lint, plan)
