"""The traffic is where nobody decided that it should be: it goes back to where it was decided, else to stable.

The front Service is gone, its selector was changed by hand, or what it points to was given up meanwhile.
"""

from __future__ import annotations

from vectorindex_operator.core.observation import Decision, DecisionKind
from vectorindex_operator.core.steps import rolling_back
from vectorindex_operator.core.working import Pass

RESTORED = "Restored"
GIVEN_UP = frozenset({"Superseded", "Retired", "RolledBack", "Rejected", "SurgeFailed", "BuildFailed"})


def step(p: Pass) -> None:
    decision = p.obs.service.decision
    decided = decision.target if decision is not None else ""
    if _is_rightful(p, decided):
        return
    soaking = p.candidate if p.candidate and p.statuses[p.candidate].phase == "Soaking" else ""
    target = decided if decided != p.traffic and _may_serve(p, decided) else p.stable
    if not target and soaking:
        _surge_again(p, soaking)
    if not target or target == p.traffic:
        return
    if p.loaded(target).ready == 0:
        p.keep.add(target)
        p.block("RestoreTargetNotReady", target, "the front Service does not point to where it was decided")
        return
    message = f"the front Service pointed at {p.traffic or 'nothing'}"
    if soaking and target != soaking:
        rolling_back.revert(p, message)
        return
    source = p.traffic if p.traffic in p.statuses else ""
    rolling_back.move(p, Decision(DecisionKind.SWITCH, source, target, RESTORED, RESTORED, message, p.decision_time()))


def _is_rightful(p: Pass, decided: str) -> bool:
    """Whether the revision that has the traffic was given it and has not been given up since."""
    if p.traffic not in p.statuses:
        return p.loaded(p.traffic).ready > 0  # somebody deleted its object: it goes on serving
    return decided in ("", p.traffic) and p.statuses[p.traffic].phase not in GIVEN_UP


def _may_serve(p: Pass, name: str) -> bool:
    return name in p.statuses and p.statuses[name].phase not in GIVEN_UP and p.loaded(name).ready > 0


def _surge_again(p: Pass, name: str) -> None:
    """The very first revision lost the Service before it was promoted."""
    rollout = p.statuses[name].rollout
    if rollout is not None:
        p.update(name, phase="Surging", rollout=rollout.model_copy(update={"switched_at": None}))
