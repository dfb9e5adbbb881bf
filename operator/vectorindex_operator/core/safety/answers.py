"""Requests that are open, and what became of the others: status.verbs, and an Event."""

from __future__ import annotations

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import VerbResult
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.state import ReconcileState


def unanswered(state: ReconcileState) -> list[Command]:
    """Requests that no status tells the end of."""
    answered = {(one.verb, one.nonce) for one in state.verbs.values()}
    return [one for one in state.obs.index.commands if (one.name, one.nonce) not in answered]


def answer(state: ReconcileState, command: Command, *, done: bool, message: str) -> None:
    """Write what became of a request, and tell it."""
    state.verbs[command.name] = VerbResult(
        verb=command.name,
        nonce=command.nonce,
        result="Done" if done else "Refused",
        message=message,
        at=to_text(state.now),
    )
    reason = EventReason.COMMAND_DONE if done else EventReason.COMMAND_REFUSED
    state.event(reason, f"{command.name}: {message}", command=command.name)
