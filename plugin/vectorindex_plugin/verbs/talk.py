"""Verbs that go to an index's searchers: `query`, `report`."""

from __future__ import annotations

import json
import tempfile
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Group
from rich.text import Text

from vectorindex_operator.core.observation import IndexView
from vectorindex_operator.reconcile.views import index_view
from vectorindex_plugin import fetching, querying
from vectorindex_plugin.exits import EndedError, Exit
from vectorindex_plugin.facts.proof import ProofFacts
from vectorindex_plugin.forwarding import forwarded
from vectorindex_plugin.screens import proof as proof_screen
from vectorindex_plugin.screens.style import Columns
from vectorindex_plugin.seen import look
from vectorindex_plugin.verbs.common import Session, with_cluster


@click.command()
@click.argument("name")
@click.argument("vector", default="")
@click.option("--text", help="ask in words instead, where the index has an encoder")
@click.option("-k", type=click.IntRange(1, 1000), default=5, show_default=True, help="answers wanted")
@click.option("--filter", "filter_", metavar="JSON", help="only rows that fulfil it (docs/filters.md)")
@click.option("--token", envvar="VECTORINDEX_TOKEN", help="bearer token, or the variable VECTORINDEX_TOKEN")
@click.option("--ca", metavar="FILE", type=click.Path(), help="authority of the searchers' certificate (TLS)")
@with_cluster
def query(
    session: Session,
    name: str,
    vector: str,
    text: str | None,
    k: int,
    filter_: str | None,
    token: str | None,
    ca: str | None,
) -> None:
    """Ask an index through a forwarded port. VECTOR: JSON, @FILE or - ; without one and --text, random numbers."""
    if vector and text is not None:
        raise EndedError(Exit.USAGE, "VECTOR and --text are two queries: give one")
    raw = session.hands.get("VectorIndex", session.namespace, name)
    if raw is None:
        raise EndedError(Exit.NOT_FOUND, f"there is no VectorIndex {name!r} in namespace {session.namespace!r}")
    numbers, wanted = querying.vector_of(vector), _filter(filter_)
    scheme = _scheme(index_view(raw), ca)
    with forwarded(name, "http", session.flags) as port:
        url = f"{scheme}://127.0.0.1:{port}"
        facts = querying.ask(url, numbers, k, text=text, filter=wanted, token=token, ca=ca)
    table = Columns(("ID", "SCORE", "METADATA"), ())
    for hit in facts.hits:
        metadata = json.dumps(hit.metadata, ensure_ascii=False) if hit.metadata else ""
        table.add(str(hit.id), f"{hit.score:.4f}", metadata)
    took = f" in {facts.took_ms:.3g} ms" if facts.took_ms is not None else ""
    said = Text(f"{len(facts.hits)} answers of {facts.revision}{took}{f'; {facts.note}' if facts.note else ''}")
    session.show(facts, Group(table, said))


def _scheme(view: IndexView, ca: str | None) -> str:
    if view.spec is None or view.spec.searcher.tls is None:
        return "http"
    if ca is None:
        raise EndedError(Exit.USAGE, "its searchers speak TLS: name the authority of their certificate (--ca FILE)")
    return "https"


def _filter(text: str | None) -> Mapping[str, Any] | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise EndedError(Exit.USAGE, f"--filter is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise EndedError(Exit.USAGE, "--filter is no JSON object")
    return found


@click.command()
@click.argument("name")
@click.argument("revision", default="")
@click.option("--open", "open_", is_flag=True, help="show the page in a browser")
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="write the page")
@with_cluster
def report(session: Session, name: str, revision: str, open_: bool, html: Path | None) -> None:
    """What the gate measured of a revision (else of the one that serves); its page by --open or --html."""
    seen = look(session.hands, session.namespace, name, session.clock())
    view = seen.revision(revision or seen.serving or seen.status.candidate or seen.status.next)
    facts = ProofFacts.of(session.namespace, view)
    if not (open_ or html):
        return session.show(facts, proof_screen.screen(facts))
    data = fetching.fetch(seen, view, facts.report, session.flags)
    path = html or Path(tempfile.mkdtemp(prefix="vectorindex-")) / f"{view.name}.html"
    try:
        path.write_bytes(data)
    except OSError as error:
        raise EndedError(Exit.REFUSED, f"{path} is not written: {error}") from error
    click.echo(f"wrote {path}", err=True)
    if open_:
        webbrowser.open(path.resolve().as_uri())
    return None


VERBS = (query, report)
