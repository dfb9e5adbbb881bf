"""A candidate that nobody wants any more makes room for what is wanted: by the way back, or straight on without one."""

from __future__ import annotations

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.core.phase import BEFORE_SWITCH, Phase
from vectorindex_operator.core.safety import roll_back
from vectorindex_operator.core.state import ReconcileState


def supersede(state: ReconcileState, message: str, *, proven: str = "") -> None:
    """Give up the candidate, which is no fault of its own; `proven` is the revision that waits for its place.

    While it has the traffic, the traffic goes back to stable first, if a pod of stable is ready. If stable is dead,
    the candidate keeps the traffic until `proven` takes it: a way back that is broken must not hold up its own repair.
    """
    name = state.candidate
    if state.serving != name and state.statuses[name].phase in BEFORE_SWITCH:
        shifting = state.statuses[name].phase == Phase.SHIFTING
        lost_at = to_text(state.now) if shifting else state.statuses[name].lost_traffic_at
        state.update(name, phase=Phase.SUPERSEDED, lost_traffic_at=lost_at, message=message)
        state.find_slots()
    elif state.loaded(state.stable).serving():
        roll_back.revert(state, message)
    elif proven and has_no_way_back(state):
        state.update(name, phase=Phase.OUTGOING, message=f"{message}; it keeps the traffic until {proven} is ready")
        state.find_slots()
    else:
        state.block("RollbackTargetNotReady", state.stable, "no pod of it is ready: it is waited for")


def has_no_way_back(state: ReconcileState) -> bool:
    """Whether waiting for stable is in vain."""
    return not state.stable or roll_back.is_dead(state, state.stable)
