"""`abort`: what is on its way is given up, and remembered until spec or data change or somebody says `retry`.

What no user has met is rejected where it stands; a canary loses its share in one write. What has the traffic loses it
as by any rollback: it trips, and roll_back.py goes back in one write, or says what that waits for. What is stable is
not on its way.
"""

from __future__ import annotations

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import RevisionStatus, Trip
from vectorindex_operator.core import recipe
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.phase import UNDER_WAY, Phase
from vectorindex_operator.core.safety.answers import answer
from vectorindex_operator.core.safety.give_up import give_up
from vectorindex_operator.core.safety.roll_back import MANUAL, pending_trip, rollback_target
from vectorindex_operator.core.safety.withdraw import withdraw
from vectorindex_operator.core.state import ReconcileState

STAGE = "Abort"
ABORTED = "Aborted"


def obey(state: ReconcileState, command: Command) -> None:
    """Give up everything that is on its way, or the one that is named.

    The mark outlives an operator that dies before the answer is written: the next one finds what it had begun.
    """
    mark, keep = f"a person asked for it: abort {command.nonce}", ""
    for name in [one for one in state.statuses if command.argument in ("", one) and is_on_its_way(state, one)]:
        if name != state.serving and state.statuses[name].phase == Phase.SHIFTING:
            withdraw(state, name, rule=MANUAL, reason=ABORTED, message=mark)
        elif name != state.serving:
            give_up(state, name, Phase.REJECTED, stage=STAGE, reason=ABORTED, message=mark)
        else:
            keep = _go_back(state, name, mark)
    given_up = sorted(name for name, status in state.statuses.items() if _bears(status, mark))
    if given_up:
        message = "; ".join(filter(None, (f"gave up {', '.join(given_up)}", keep)))
        return answer(state, command, done=True, message=message)
    what = f"revision {command.argument!r} is not" if command.argument else "no revision is"
    return answer(state, command, done=False, message=keep or f"{what} being built, proven, loaded or soaked")


def is_on_its_way(state: ReconcileState, name: str) -> bool:
    """Whether a revision is being built, proven, loaded, compared or soaked, or will be without a word of anybody."""
    status = state.statuses[name]
    return status.phase in UNDER_WAY or _is_built_again(state, name, status)


def _is_built_again(state: ReconcileState, name: str, status: RevisionStatus) -> bool:
    """Whether its build failed, and begins anew by itself after a wait."""
    waits = status.phase == Phase.BUILD_FAILED and status.failure is not None and not status.failure.permanent
    return waits and state.known_spec is not None and recipe.is_desired(state, name)


def _go_back(state: ReconcileState, name: str, mark: str) -> str:
    """Have the traffic go back from `name`; answers why this request does not. A verdict that does so already stays."""
    rollout, before = state.statuses[name].rollout, pending_trip(state, name)
    if before is not None:
        return "" if before.message == mark else f"{name} is going back already: {before.message}"
    if rollout is None or not rollback_target(state, name):
        return f"{name} keeps the traffic: there is no earlier proven revision"
    trip = Trip(rule=MANUAL, reason=ABORTED, message=mark, at=to_text(state.now))
    state.update(name, rollout=rollout.model_copy(update={"trip": trip}))
    return ""


def _bears(status: RevisionStatus, mark: str) -> bool:
    trip = status.rollout.trip if status.rollout is not None else None
    return mark in (status.rejected.message if status.rejected else "", trip.message if trip else "")
