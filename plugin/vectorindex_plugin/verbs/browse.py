"""The verb `dashboard`: a page for a browser, on this machine, until Ctrl-C."""

from __future__ import annotations

import html
import tempfile
import webbrowser
from pathlib import Path
from typing import cast

import click

from vectorindex_plugin.cluster import Eyes
from vectorindex_plugin.dashboard.looks import Looks
from vectorindex_plugin.dashboard.server import Server
from vectorindex_plugin.exits import EndedError, Exit
from vectorindex_plugin.facts.command_lines import LineFacts, lines
from vectorindex_plugin.facts.index import IndexFacts
from vectorindex_plugin.verbs import ask, see, talk
from vectorindex_plugin.verbs.common import Session, with_cluster


@click.command()
@click.option("-A", "--all-namespaces", is_flag=True, help="indexes of all namespaces")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="of 127.0.0.1; else a free one")
@click.option("--open", "open_", is_flag=True, help="show the page in a browser")
@with_cluster
def dashboard(session: Session, all_namespaces: bool, port: int, open_: bool) -> None:
    """All indexes as a page for a browser, served to this machine alone until Ctrl-C. It only reads."""
    looks = looks_of(session, all_namespaces=all_namespaces)
    try:
        server = Server(looks, port)
    except OSError as error:
        raise EndedError(Exit.USAGE, f"port {port} of 127.0.0.1 cannot be had: {error.strerror}") from error
    with server, tempfile.TemporaryDirectory(prefix="vectorindex-") as folder:
        click.echo(server.url)
        click.echo("Whoever has this address sees what you may see. Ctrl-C ends it.", err=True)
        if open_:
            webbrowser.open(_way(Path(folder), server.url).as_uri())
        server.serve_forever()


def looks_of(session: Session, *, all_namespaces: bool) -> Looks:
    """What the page reads through."""
    flags = tuple(flag for flag in session.flags if not flag.startswith("--namespace="))

    def typed(index: IndexFacts) -> tuple[LineFacts, ...]:
        shown = lines(index, (*see.VERBS, *talk.VERBS), flags, writes=False)
        return shown + lines(index, ask.VERBS, flags, writes=True)

    return Looks(cast("Eyes", session.hands), "" if all_namespaces else session.namespace, typed, session.clock)


def _way(folder: Path, url: str) -> Path:
    """A page of one's own that leads to the address: as an argument of a program, others on this machine could read its
    token. `folder` is for this user alone."""
    path = folder / "dashboard.html"
    path.write_text(f'<meta http-equiv="refresh" content="0; url={html.escape(url)}">', encoding="utf-8")
    return path


VERBS = (dashboard,)
