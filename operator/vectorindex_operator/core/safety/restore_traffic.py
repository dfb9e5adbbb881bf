"""The traffic is where nobody decided that it should be: it goes back to where it was decided, else to stable.

The front Service is gone, its selector was changed by hand, or what it points to was given up meanwhile.
"""

from __future__ import annotations

from vectorindex_operator.core.phase import GIVEN_UP, Phase
from vectorindex_operator.core.safety import roll_back
from vectorindex_operator.core.safety.give_traffic import give_traffic
from vectorindex_operator.core.safety.record_decision import RESTORED
from vectorindex_operator.core.state import ReconcileState
from vectorindex_operator.core.traffic import DecisionKind


def step(state: ReconcileState) -> None:
    decision = state.obs.traffic.decision
    decided = decision.to_revision if decision is not None else ""
    if not state.obs.traffic.owned:
        return
    soaking = state.candidate if state.candidate and state.statuses[state.candidate].phase == Phase.SOAKING else ""
    if _is_rightful(state, decided):
        if soaking and state.serving in state.statuses and state.serving != soaking:
            # Somebody applied an old manifest of the Service, with the decision of its time, or another operator put
            # the traffic back on an older view: without traffic it would soak for ever.
            _surge_again(state, soaking)
        return
    target = decided if decided != state.serving and _may_serve(state, decided) else _fallback(state)
    if not target and soaking:
        _surge_again(state, soaking)
    if not target or target == state.serving:
        return
    if not state.loaded(target).serving():
        state.keep_loaded.add(target)
        state.block("RestoreTargetNotReady", target, "the front Service does not point to where it was decided")
        return
    message = f"the front Service pointed at {state.serving or 'nothing'}"
    if soaking and target != soaking:
        roll_back.revert(state, message)
        return
    give_traffic(
        state,
        DecisionKind.SWITCH,
        target,
        from_revision=state.serving if state.serving in state.statuses else "",
        rule=RESTORED,
        reason=RESTORED,
        message=message,
    )


def _is_rightful(state: ReconcileState, decided: str) -> bool:
    """Whether the revision that has the traffic was given it and has not been given up since."""
    if state.serving not in state.statuses:
        return state.loaded(state.serving).serving()  # somebody deleted its object: it goes on serving
    return decided in ("", state.serving) and state.statuses[state.serving].phase not in GIVEN_UP


def _may_serve(state: ReconcileState, name: str) -> bool:
    return name in state.statuses and state.statuses[name].phase not in GIVEN_UP and state.loaded(name).serving()


def _fallback(state: ReconcileState) -> str:
    """Stable, and never what is being judged; but when stable cannot answer, whatever does is better than nothing."""
    if state.loaded(state.stable).serving():
        return state.stable
    had = [n for n, s in state.statuses.items() if s.phase in (Phase.SOAKING, Phase.OUTGOING)]
    return next((name for name in (*had, state.kept) if state.loaded(name).serving()), state.stable)


def _surge_again(state: ReconcileState, name: str) -> None:
    """It lost the Service before it was promoted."""
    rollout = state.statuses[name].rollout
    if rollout is not None:
        state.update(name, phase=Phase.SURGING, rollout=rollout.model_copy(update={"switched_at": None}))
