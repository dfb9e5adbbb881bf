"""`spec.suspend`: nothing new begins. What serves, soaks and goes back is looked after all the same: that is safety's.

Jobs that run end by themselves; what they found is read once the index is no longer suspended. What no user has met
yet steps back to Validated: it loses no proof, its searchers make room for as long as that lasts, and it is surged, and
goes into shadow, anew.
"""

from __future__ import annotations

from vectorindex_operator.core.phase import BEFORE_TRAFFIC, IN_PREPARATION, Phase
from vectorindex_operator.core.progress import desired, resolve, surge
from vectorindex_operator.core.state import ReconcileState
from vectorindex_operator.core.story import NOTHING_BEGINS, SUSPENDED


def step(state: ReconcileState) -> None:
    state.desired = desired.find(state)
    resolve.say_that_it_failed(state)
    step_back(state, state.candidate)
    if not state.candidate:
        surge.resume_outgoing(state)  # what was to take its place does not come
    waiting = [name for name, status in state.statuses.items() if status.phase in IN_PREPARATION]
    state.preparing = max(waiting, key=lambda n: (n == state.desired, state.revision(n).created_at, n), default="")
    name = state.preparing or state.desired
    if name and name != state.stable and not state.candidate:
        state.block(SUSPENDED, name, NOTHING_BEGINS)


def step_back(state: ReconcileState, name: str) -> None:
    """A candidate that has no traffic waits without searchers. One that has it soaks on."""
    if not name or name == state.serving or state.statuses[name].phase not in BEFORE_TRAFFIC:
        return
    state.update(name, phase=Phase.VALIDATED, rollout=None, message="the index is suspended: it is surged anew later")
    state.keep_loaded.discard(name)
    state.find_slots()
