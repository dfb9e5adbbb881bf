"""What all verbs that talk to a cluster have: its options, and how they answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import click
from rich.console import RenderableType

from vectorindex_operator.reconcile.errors import ClusterError
from vectorindex_plugin import cluster, documents
from vectorindex_plugin.cluster import Hands
from vectorindex_plugin.screens.style import console


@dataclass(frozen=True, slots=True)
class Session:
    """A cluster, a namespace, and how answers are printed."""

    hands: Hands
    namespace: str
    output: str
    clock: Callable[[], float] = time.time
    flags: tuple[str, ...] = ()
    """What kubectl is to be told to be in the same place."""

    def show(self, facts: Any, screen: RenderableType) -> None:
        """The facts as JSON, or as a screen."""
        if self.output == "json":
            click.echo(documents.text(facts))
        else:
            console().print(screen)


def with_output(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option that every verb has which shows something."""
    choice = click.Choice(["screen", "json"])
    text = "a screen for people, or facts for programs"
    return click.option("-o", "--output", type=choice, default="screen", show_default=True, help=text)(function)


def with_cluster(function: Callable[..., None]) -> Callable[..., Any]:
    """Give a verb its Session, from the options that kubectl has, too. What the cluster refuses ends the verb."""

    @wraps(function)
    def run(kubeconfig: str | None, context: str | None, namespace: str | None, output: str, **given: Any) -> None:
        found = click.get_current_context().obj
        if isinstance(found, Session):  # a test's
            session = replace(found, namespace=namespace or found.namespace, output=output)
        else:
            hands, default = cluster.connect(kubeconfig, context)
            session = Session(hands, namespace or default, output, flags=_flags(kubeconfig, context, namespace))
        with cluster_errors():
            function(session, **given)

    options = (
        click.option("-n", "--namespace", metavar="NAME", help="namespace; else that of the context"),
        click.option("--context", metavar="NAME", help="context of the kubeconfig; else the current one"),
        click.option("--kubeconfig", metavar="FILE", help="else KUBECONFIG, else ~/.kube/config"),
    )
    decorated: Callable[..., Any] = with_output(run)
    for option in options:
        decorated = option(decorated)
    return decorated


def _flags(kubeconfig: str | None, context: str | None, namespace: str | None) -> tuple[str, ...]:
    given = {"--kubeconfig": kubeconfig, "--context": context, "--namespace": namespace}
    return tuple(f"{flag}={value}" for flag, value in given.items() if value)


@contextmanager
def cluster_errors() -> Iterator[None]:
    """What the cluster says as the end of a verb."""
    try:
        yield
    except ClusterError as error:
        raise cluster.unreachable(error) from error
