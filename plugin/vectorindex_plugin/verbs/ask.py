"""Verbs that ask: the commands of core/commands.py, and fields of the spec. Each waits for its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from rich.text import Text

from vectorindex_operator.core.commands import COMMANDS, CommandKind
from vectorindex_plugin.asking import AnswerFacts, Asker
from vectorindex_plugin.screens.style import colour
from vectorindex_plugin.verbs.common import Session, with_cluster

PATIENCE_SECONDS = 30.0


def _with_patience(function: Callable[..., Any]) -> Callable[..., Any]:
    """How long a verb waits for its answer."""
    timeout = click.option(
        "--timeout", type=click.FloatRange(min=0.1), default=PATIENCE_SECONDS, show_default=True, metavar="SECONDS",
        help="for the operator's answer",
    )  # fmt: skip
    no_wait = click.option("--no-wait", is_flag=True, help="write it, and end without an answer")
    return timeout(no_wait(function))


def _asker(session: Session, name: str, timeout: float, no_wait: bool) -> Asker:
    return Asker(session.hands, session.namespace, name, 0.0 if no_wait else timeout)


def _tell(session: Session, answer: AnswerFacts) -> None:
    """Print the answer; the exit status says it as well."""
    session.show(answer, Text.assemble(colour(answer.result), f"  {answer.verb} {answer.name}: {answer.message}"))
    if answer.exit:
        click.get_current_context().exit(int(answer.exit))


def command_verb(kind: CommandKind) -> click.Command:
    """The verb of a command, as its row of core/commands.py describes it."""

    def run(session: Session, name: str, timeout: float, no_wait: bool, revision: str = "") -> None:
        _tell(session, _asker(session, name, timeout, no_wait).command(kind.name, revision))

    run.__doc__ = f"{kind.does[0].upper()}{kind.does[1:]}."
    wrapped = _with_patience(with_cluster(run))
    if kind.argument:
        wrapped = click.argument(kind.argument, default="")(wrapped)
    return click.command(kind.name)(click.argument("name")(wrapped))


def field_verb(name: str, field: str, value: object, text: str) -> click.Command:
    """A verb that sets a field of the spec to one value (None: takes it out)."""

    def run(session: Session, timeout: float, no_wait: bool, **given: str) -> None:
        asker = _asker(session, given["name"], timeout, no_wait)
        _tell(session, asker.set_field(name, field, value))

    run.__doc__ = text
    return click.command(name)(click.argument("name")(_with_patience(with_cluster(run))))


@click.command()
@click.argument("name")
@click.argument("revision")
@_with_patience
@with_cluster
def pin(session: Session, name: str, revision: str, timeout: float, no_wait: bool) -> None:
    """Have this revision serve, whatever spec and data ask for (spec.pinRevision)."""
    _tell(session, _asker(session, name, timeout, no_wait).set_field("pin", "pinRevision", revision))


VERBS = (
    *(command_verb(kind) for kind in COMMANDS.values()),
    pin,
    field_verb("unpin", "pinRevision", None, "Take spec.pinRevision out: what spec and data ask for serves again."),
    field_verb("suspend", "suspend", True, "Begin nothing new (spec.suspend); what serves is looked after."),
    field_verb("unsuspend", "suspend", None, "Take spec.suspend out: what waited goes on."),
)
