"""Verbs that show: `list`, `get`, `history`, `why`, `diff`. They write nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator

import click
from rich.live import Live

from vectorindex_operator.reconcile.errors import UnreachableError
from vectorindex_plugin.facts import decisions
from vectorindex_plugin.facts.difference import DiffFacts
from vectorindex_plugin.facts.index import IndexFacts, rows
from vectorindex_plugin.screens import index as index_screen
from vectorindex_plugin.screens import tables
from vectorindex_plugin.screens.style import console
from vectorindex_plugin.seen import look, two_revisions
from vectorindex_plugin.verbs.common import Session, with_cluster

WATCH_SECONDS = 2.0


@click.command("list")
@click.option("-A", "--all-namespaces", is_flag=True, help="indexes of all namespaces")
@with_cluster
def list_(session: Session, all_namespaces: bool) -> None:
    """Every index of the namespace, a line each."""
    namespace = "" if all_namespaces else session.namespace
    pages = session.hands.pages("VectorIndex", namespace, "", metadata_only=False)
    found = rows(one for page in pages for one in page)
    session.show(found, tables.listing(found, session.clock(), namespaces=all_namespaces))


@click.command()
@click.argument("name")
@click.option("-w", "--watch", is_flag=True, help="draw it anew every two seconds, until Ctrl-C")
@with_cluster
def get(session: Session, name: str, watch: bool) -> None:
    """One index on one screen: where it stands, why, what it waits for, and what comes next."""
    if watch:
        return _watch(session, name)
    seen = look(session.hands, session.namespace, name, session.clock())
    facts = IndexFacts.of(seen)
    return session.show(facts, index_screen.screen(facts, seen.now))


def _watch(session: Session, name: str) -> None:
    """Ends by Ctrl-C. A look that gets no answer leaves the last screen where it is, and says so. Into a file or a pipe
    a screen is written where it says something new."""
    out, before = console(), None
    if not out.is_terminal:
        for found in _looks(session, name):
            if isinstance(found, str):
                out.print(found)
            elif found[0] != before:
                before = found[0]
                out.print(index_screen.screen(*found))
        return
    with Live(console=out, screen=False, auto_refresh=False) as live:
        for found in _looks(session, name):
            if isinstance(found, str):
                live.console.print(found)
            else:
                live.update(index_screen.screen(*found), refresh=True)


def _looks(session: Session, name: str) -> Iterator[tuple[IndexFacts, float] | str]:
    """What each look finds, and when; or why it found nothing."""
    while True:
        try:
            seen = look(session.hands, session.namespace, name, session.clock())
        except UnreachableError as error:
            yield f"no answer since {time.strftime('%H:%M:%S')}: {error}"
        else:
            yield IndexFacts.of(seen), seen.now
        time.sleep(WATCH_SECONDS)


@click.command()
@click.argument("name")
@with_cluster
def history(session: Session, name: str) -> None:
    """Every revision that there still is, and how it ended."""
    seen = look(session.hands, session.namespace, name, session.clock())
    found = decisions.history(seen)
    session.show(found, tables.history(found, seen.now))


@click.command()
@click.argument("name")
@with_cluster
def why(session: Session, name: str) -> None:
    """The last decision: by which rule, with which numbers, and what the runbook says."""
    seen = look(session.hands, session.namespace, name, session.clock())
    found = decisions.last_decision(seen)
    session.show(found, tables.decision(found, seen.now))


@click.command()
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@with_cluster
def diff(session: Session, before: str, after: str) -> None:
    """What tells revision B from revision A: spec, data, image, and what came of it."""
    facts = DiffFacts.of(*two_revisions(session.hands, session.namespace, (before, after)))
    session.show(facts, tables.difference(facts))


VERBS = (list_, get, history, why, diff)
