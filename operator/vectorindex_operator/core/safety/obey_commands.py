"""What a person asked for by annotation. Consumed once; the answer is in status.verbs.

`rollback` becomes a trip of the revision that has the traffic; safety/roll_back.py carries it out. While a candidate is
in shadow, the step back is to give that up: the traffic is where it would go. What only the way forward can do stays
open for progress/obey_commands.py; what nobody knows is refused.
"""

from __future__ import annotations

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Trip, VerbResult
from vectorindex_operator.core.commands import COMMANDS, Command, known
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.safety.give_up import SHADOW, give_up
from vectorindex_operator.core.safety.roll_back import MANUAL, rollback_target
from vectorindex_operator.core.state import ReconcileState


def step(state: ReconcileState) -> None:
    for command in unanswered(state):
        if command.name in COMMANDS and not command.nonce:
            # Nothing would tell it from the next one, nor from a decision that nobody asked for.
            answer(state, command, done=False, message="there is no nonce: write NONCE or ARGUMENT@NONCE")
        elif command.name == "rollback":
            _rollback(state, command)
        elif command.name not in COMMANDS:
            answer(state, command, done=False, message=f"unknown command: use one of {known()}")


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


def _rollback(state: ReconcileState, command: Command) -> None:
    decision = state.obs.traffic.decision
    if decision is not None and decision.nonce == command.nonce:
        # The traffic moved, and the operator died before it could say so: one request is one step back, never two.
        way = f"from {decision.from_revision} to {decision.to_revision}"
        return answer(state, command, done=True, message=f"rolled back {way}")
    if not state.serving or state.serving not in state.statuses:
        return answer(state, command, done=False, message="no revision has the traffic")
    if command.argument in ("", state.serving) and (given_up := _out_of_shadow(state, command)):
        message = f"gave up {given_up}, which was in shadow; {state.serving} keeps the traffic"
        return answer(state, command, done=True, message=message)
    wish = command.argument
    target = rollback_target(state, state.serving, wish)
    if not target:
        why = f"revision {wish!r} is not one to go back to" if wish else "no earlier proven revision"
        return answer(state, command, done=False, message=f"nothing to roll back to: {why}")
    rollout = state.statuses[state.serving].rollout
    if rollout is None:
        return answer(state, command, done=False, message=f"{state.serving} was never rolled out")
    message = f"a person asked for {target}"
    trip = Trip(rule=MANUAL, reason=MANUAL, message=message, at=to_text(state.now), target=target)
    state.update(state.serving, rollout=rollout.model_copy(update={"trip": trip}))
    return answer(state, command, done=True, message=f"rolling back from {state.serving} to {target}")


def _out_of_shadow(state: ReconcileState, command: Command) -> str:
    """The candidate that this request takes out of shadow, or has taken already: one request is one step. Empty: there
    is none."""
    mark = f"a person asked for it: rollback {command.nonce}"
    for name, status in state.statuses.items():
        said = status.rejected
        if said is not None and (said.stage, said.reason, said.message) == (SHADOW, MANUAL, mark):
            return name
    name = state.candidate
    if not name or name == state.serving or state.statuses[name].phase != Phase.SHADOWING:
        return ""
    give_up(state, name, Phase.REJECTED, stage=SHADOW, reason=MANUAL, message=mark)
    return name
