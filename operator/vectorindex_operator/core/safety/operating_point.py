"""The last resort of a revision whose live recall is too low and that nothing can be gone back from: the same pods
answer at their conservative operating point, which finds more and takes longer.

Decided once, in the write that says who has the traffic, and recorded in the revision's status. Pods are told at each
look, new ones while they still load, and keep to it; who says that it answers at another point is told again, and what
it counted is no evidence. It never ends by itself: at the default point recall would be too low again, and then wide
again, without end. It ends with `retry`, and matters no more once another revision has the traffic.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.core.judging.evidence import PodCounts, PodEvidence
from vectorindex_operator.core.judging.rules import RuleVerdict, Verdict
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.plan import TellPoint
from vectorindex_operator.core.safety.record_decision import point_decided, record_point
from vectorindex_operator.core.safety.roll_back import rollback_target
from vectorindex_operator.core.state import ReconcileState
from vectorindex_operator.core.traffic import PointDecision
from vectorindex_searcher.contract import BuildResult, OperatingPoint, ServingPoint

LIVE_RECALL = "LiveRecall"
MOST_COST = 4.0
"""A conservative point that takes more than so many times the CPU of the default one is not used: pods that are
overloaded answer nobody."""
LONGEST_WORDS = 512
"""Of the reason: it stands on the front Service beside that of the traffic."""
TELL_SECONDS = 3600.0
"""For how long pods are told that they go back to the default point: who could not be reached has ended by then."""


def step(state: ReconcileState) -> None:
    """Tell the pods of every loaded revision that was decided about."""
    for name, loaded in sorted(state.obs.loaded.items()):
        point = point_decided(state, name)
        if point is None or (point.point is ServingPoint.DEFAULT and state.now - point.at > TELL_SECONDS):
            continue
        obeys = {one.pod for one in state.obs.evidence.get(name, ()) if _said(one) == point.point}
        told = [pod.address for pod in loaded.answering if pod.address and not pod.deleting and pod.name not in obeys]
        if told:
            state.act(TellPoint(name, tuple(sorted(told)), point.point, point.at))
        state.requeue_at(state.now + state.settings.watch_look_seconds)  # one whose process began anew does not know it


def evidence_of(state: ReconcileState, name: str) -> tuple[PodEvidence, ...]:
    """What its pods counted at the point that was decided; who answers at another one is silent."""
    decided = point_decided(state, name)
    wanted = decided.point if decided is not None else ServingPoint.DEFAULT
    return tuple(_of_point(one, wanted) for one in state.obs.evidence.get(name, ()))


def _of_point(one: PodEvidence, wanted: ServingPoint) -> PodEvidence:
    # An image of before has the default point only, and says nothing of it.
    if one.evidence is None or _said(one) == wanted or (not _points(one) and wanted is ServingPoint.DEFAULT):
        return one
    return replace(one, evidence=None, problem=f"it does not answer at the {wanted} operating point yet")


def _points(one: PodEvidence) -> tuple[str, ...]:
    """Those that it says it can answer at."""
    return one.evidence.points if isinstance(one.evidence, PodCounts) else ()


def _said(one: PodEvidence) -> str:
    """The point that it says it answers at; empty: none."""
    return one.evidence.point if isinstance(one.evidence, PodCounts) else ""


# ---------------------------------------------------------------- deciding


def fall_back(state: ReconcileState, name: str, said: Iterable[RuleVerdict]) -> bool:
    """Live recall of the stable revision is too low, and nothing else is wrong with it. Whether this is what is done
    about it: else there is a way back, or no such point."""
    failed = [one for one in said if one.verdict is Verdict.FAIL and one.mode == "Enforce"]
    if any(one.metric != LIVE_RECALL for one in failed) or _can_go_back(state, name):
        return False
    if is_conservative(state, name) or why_not(state, name):
        return False
    build = state.statuses[name].build
    assert build is not None
    words = f"{failed[0].message}; nothing to go back to, so it answers at its conservative point: "
    _decide(state, name, ServingPoint.CONSERVATIVE, words + _numbers(build))
    return True  # where it could not be written now, the next pass finds the same


def end(state: ReconcileState, nonce: str) -> bool:
    """A person asks for the default point again. False: not in this pass."""
    return _decide(state, state.serving, ServingPoint.DEFAULT, f"a person asked for it: retry {nonce}", nonce)


def _decide(state: ReconcileState, name: str, point: ServingPoint, message: str, nonce: str = "") -> bool:
    """One write of the front Service, whose version is its precondition: the traffic stays where it is."""
    decision, before = state.obs.traffic.decision, point_decided(state, name)
    elsewhere = decision is not None and decision.to_revision != name
    if state.has_moved or state.obs.traffic.refused or elsewhere:
        state.requeue_at(state.now + 1)
        return False
    # Later than the one before it, whatever clocks say: pods refuse an earlier one.
    at = max(state.now, before.at + 1e-3) if before is not None else state.now
    # As much of the time as the status keeps.
    decided = PointDecision(point, to_unix(to_text(at)), message[:LONGEST_WORDS], nonce)
    if decision is not None:  # where somebody garbled it, the status alone has to keep it
        state.plan_move(replace(decision, point=decided))
    record_point(state, name, decided)
    state.requeue_at(state.now + state.settings.soak_look_seconds)
    return True


def is_conservative(state: ReconcileState, name: str) -> bool:
    decided = point_decided(state, name)
    return decided is not None and decided.point is ServingPoint.CONSERVATIVE


def _can_go_back(state: ReconcileState, name: str) -> bool:
    """Whether a rollback has a target whose pods are there, or whose artifact nobody has missed."""
    target = rollback_target(state, name)
    return bool(target) and (state.loaded(target).serving() or not state.statuses[target].artifact_gone_at)


def why_not(state: ReconcileState, name: str) -> str:
    """Why a stable revision does not fall back to its conservative point; empty: it may."""
    status = state.statuses[name]
    if status.rollout is None or status.rollout.guardrails.steady_state != "Rollback":
        return "guardrails.steadyState is Observe"
    if status.restored_at is not None:
        return "it was gone back to, and from then on nothing is done by itself"
    if status.build is None:
        return "nothing is known of its build"
    if problem := _no_point(status.build):
        return problem
    told = [one for one in state.obs.evidence.get(name, ()) if one.evidence is not None]
    if any(ServingPoint.CONSERVATIVE not in _points(one) for one in told):
        return "its searchers have no wider point: the gate chose one as wide, or their image knows none"
    return ""


def _no_point(build: BuildResult) -> str:
    point, default = build.conservative_point, build.default_point
    if point is None:
        return "its artifact has no conservative operating point: no search parameters reached a recall of 0.99"
    if all(value <= default.params.get(name, 0) for name, value in point.params.items()):
        return "its conservative operating point is no wider than its default one"
    if point.latency_us > MOST_COST * default.latency_us:
        return (
            f"its conservative operating point takes {_times(build)} the CPU of a query, and {MOST_COST:g} is the most"
        )
    return ""


# ---------------------------------------------------------------- telling people


def degraded(state: ReconcileState) -> tuple[str, str] | None:
    """Reason and message of the condition Degraded; None: it is not."""
    name = state.serving
    status = state.statuses.get(name)
    if status is None:
        return None
    decided = point_decided(state, name)
    if decided is not None and decided.point is ServingPoint.CONSERVATIVE:
        return "ConservativePoint", f"{name}: {decided.message}; `retry` goes back to the default one"
    rollout = status.rollout
    if rollout is None or status.phase != Phase.STABLE or _can_go_back(state, name):
        return None
    enforced = {rule.name for rule in rollout.guardrails.rules if rule.mode == "Enforce"}
    low = [row for row in rollout.verdicts if row.metric == LIVE_RECALL and row.verdict == "Fail"]
    words = next((row.message for row in low if row.rule in enforced), "")
    why = why_not(state, name)
    return ("NoConservativePoint", f"{name}: {words}; nothing to go back to, and {why}") if words and why else None


def _numbers(build: BuildResult) -> str:
    point, default = build.conservative_point, build.default_point
    assert point is not None
    return (
        f"{_params(point)} instead of {_params(default)}, with which recall was {point.recall:.4f} instead of "
        f"{default.recall:.4f} when it was built, at {_times(build)} the CPU of a query"
    )


def _params(point: OperatingPoint) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(point.params.items())) or "no parameters"


def _times(build: BuildResult) -> str:
    point, default = build.conservative_point, build.default_point
    assert point is not None
    return f"{point.latency_us / default.latency_us:.1f} times" if default.latency_us > 0 else "an unknown share of"
