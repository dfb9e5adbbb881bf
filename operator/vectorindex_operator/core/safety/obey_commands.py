"""What a person asked for by annotation. Consumed once; the answer is in status.verbs.

`rollback` becomes a trip of the revision that has the traffic; safety/roll_back.py carries it out. While a candidate is
in shadow, or has only a share of the traffic, the step back is to give that up: the traffic is where it would go.
`abort` gives up all that is on its way (abort.py), `promote` ends a soak, or a canary's steps (promote.py), `pause`
holds what is on its way, and `resume` lets it go on (pause.py). What only the way forward can do stays open for
progress/obey_commands.py; what nobody knows is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Trip
from vectorindex_operator.core.commands import COMMANDS, Command, known
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.safety import abort, pause, promote
from vectorindex_operator.core.safety.answers import answer, unanswered
from vectorindex_operator.core.safety.give_up import SHADOW, give_up
from vectorindex_operator.core.safety.roll_back import MANUAL, rollback_target
from vectorindex_operator.core.safety.withdraw import withdraw
from vectorindex_operator.core.state import ReconcileState


def step(state: ReconcileState) -> None:
    for command in unanswered(state):
        if command.name in COMMANDS and not command.nonce:
            # Nothing would tell it from the next one, nor from a decision that nobody asked for.
            answer(state, command, done=False, message="there is no nonce: write NONCE or ARGUMENT@NONCE")
        elif command.name in OBEYED:
            OBEYED[command.name](state, command)
        elif command.name not in COMMANDS:
            answer(state, command, done=False, message=f"unknown command: use one of {known()}")


def _rollback(state: ReconcileState, command: Command) -> None:
    decision = state.obs.traffic.decision
    if decision is not None and decision.nonce == command.nonce:
        # The traffic moved, and the operator died before it could say so: one request is one step back, never two.
        way = f"from {decision.from_revision} to {decision.to_revision}"
        return answer(state, command, done=True, message=f"rolled back {way}")
    if not state.serving or state.serving not in state.statuses:
        return answer(state, command, done=False, message="no revision has the traffic")
    if command.argument in ("", state.serving) and (given_up := _before_the_switch(state, command)):
        message = f"gave up {given_up}, which was not switched to yet; {state.serving} keeps the traffic"
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


def _before_the_switch(state: ReconcileState, command: Command) -> str:
    """The candidate that this request takes out of shadow, or whose share it takes away, or has taken already: one
    request is one step. Empty: there is none."""
    mark = f"a person asked for it: rollback {command.nonce}"
    for name, status in state.statuses.items():
        said = status.rejected
        if said is not None and (said.reason, said.message) == (MANUAL, mark):
            return name
    name = state.candidate
    phase = state.statuses[name].phase if name and name != state.serving else ""
    if phase == Phase.SHIFTING:
        withdraw(state, name, rule=MANUAL, reason=MANUAL, message=mark)
    elif phase == Phase.SHADOWING:
        give_up(state, name, Phase.REJECTED, stage=SHADOW, reason=MANUAL, message=mark)
    return name if phase in (Phase.SHIFTING, Phase.SHADOWING) else ""


OBEYED: Mapping[str, Callable[[ReconcileState, Command], None]] = MappingProxyType(
    {
        "rollback": _rollback,
        "abort": abort.obey,
        "promote": promote.obey,
        "pause": pause.obey_pause,
        "resume": pause.obey_resume,
    }
)
"""What needs no spec that can be read, nor anything that may be refused."""
