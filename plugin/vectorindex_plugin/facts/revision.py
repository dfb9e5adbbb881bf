"""What there is to say of one revision: how good it is, where its pods stand, what guardrails say of it."""

from __future__ import annotations

from dataclasses import dataclass

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import GuardrailRule, RevisionStatus, RolloutStatus, RuleVerdict
from vectorindex_operator.core.judging.metrics import metric_of
from vectorindex_operator.core.judging.rules import rule_of
from vectorindex_operator.core.loaded import PodView
from vectorindex_operator.core.observation import RevisionView
from vectorindex_operator.core.phase import Phase
from vectorindex_plugin.seen import Seen
from vectorindex_searcher.contract import ValidateResult


@dataclass(frozen=True, slots=True)
class RecallFacts:
    """Recall of all queries of the gate. `low`: the lower bound, with this confidence."""

    k: int
    recall: float
    low: float
    confidence: float
    queries: int
    truth: str
    """Against what: Vectors of the source, or Reconstructions, which an imported index gives back."""

    @classmethod
    def of(cls, report: ValidateResult) -> RecallFacts:
        overall, truth = report.overall, report.truth or "Vectors"
        return cls(report.k, overall.recall, overall.recall_low, report.confidence, overall.queries, truth)


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A searcher. `state`: Ready, Loading, Unschedulable, Waiting, Failed or Ending."""

    name: str
    state: str
    restarts: int
    why: str

    @classmethod
    def of(cls, pod: PodView) -> PodFacts:
        state, why = _pod_state(pod)
        return cls(pod.name, state, pod.restarts, why)


def _pod_state(pod: PodView) -> tuple[str, str]:
    if pod.deleting:
        return "Ending", ""
    if pod.ready:
        return "Ready", ""
    if pod.unschedulable:
        return "Unschedulable", pod.unschedulable
    if pod.failure is not None:
        return "Failed", f"{pod.failure.reason}: {pod.failure.message}"
    return ("Waiting", pod.waiting) if pod.waiting else ("Loading", "")


@dataclass(frozen=True, slots=True)
class GuardrailFacts:
    """One rule and what it said last. `value` and `limit` as text with their units; `verdict` is empty before the first
    one. `at`: when the verdict last changed."""

    rule: str
    metric: str
    segment: str
    verdict: str
    value: str
    limit: str
    samples: int
    reason: str
    message: str
    at: str | None = None

    @classmethod
    def said(cls, row: RuleVerdict) -> GuardrailFacts:
        value, limit = (shown(row.metric, number) for number in (row.value, row.limit))
        return cls(
            row.rule, row.metric, row.segment, row.verdict, value, limit, row.samples, row.reason, row.message, row.at
        )

    @classmethod
    def unsaid(cls, rule: GuardrailRule) -> GuardrailFacts:
        bound = rule_of(rule)
        absolute = bound.max if bound.max is not None else bound.min
        relative = rule.max_drop_vs_stable or rule.max_rise_vs_stable or ""
        limit = shown(bound.metric, absolute) if absolute is not None else f"{relative} of stable's"
        return cls(rule.name, bound.metric, rule.segment, "", "", limit, 0, "", "")


def shown(metric: str, number: float | None) -> str:
    """A value of a metric with its unit, as the operator's messages have it; empty for none."""
    if number is None:
        return ""
    try:
        return metric_of(metric).show(number)
    except ValueError:  # of a rule that is always on, or of another release
        return f"{number:g}"


@dataclass(frozen=True, slots=True)
class RevisionFacts:
    """`roles`: stable, candidate, next, serving, kept; none: it is history. `replicas`: pods that are wanted."""

    name: str
    roles: tuple[str, ...]
    phase: str
    since: str | None
    message: str
    recall: RecallFacts | None
    p95_ms: float | None
    index_bytes: int | None
    memory_bytes: int | None
    rows: int | None
    factory: str
    device: str
    replicas: int
    ready: int
    pods: tuple[PodFacts, ...]
    guardrails: tuple[GuardrailFacts, ...]
    paused: bool
    created_at: str
    shards: int | None = None
    """In how many parts it was built, each with pods of its own: sizes in memory are of one. None: in one."""
    share: int | None = None
    """Percent of what comes through a gateway, while a canary's steps go on."""

    @classmethod
    def of(cls, seen: Seen, view: RevisionView) -> RevisionFacts:
        status, build, report = view.status, view.status.build, view.status.report
        loaded = seen.obs.loaded.get(view.name)
        return cls(
            name=view.name,
            roles=_roles(seen, view.name),
            phase=status.phase,
            since=status.phase_times.get(status.phase),
            message=_message(status),
            recall=RecallFacts.of(report) if report is not None else None,
            p95_ms=report.p95_ms if report is not None else None,
            index_bytes=build.index_bytes if build is not None else None,
            memory_bytes=build.resident_bytes if build is not None else None,
            rows=build.count if build is not None else None,
            factory=build.factory if build is not None else view.spec.index_spec.factory,
            device=build.device if build is not None else "",
            replicas=loaded.replicas if loaded is not None else 0,
            ready=loaded.ready if loaded is not None else 0,
            pods=tuple(PodFacts.of(pod) for pod in loaded.pods) if loaded is not None else (),
            guardrails=_guardrails(status.rollout),
            paused=status.pause is not None and not status.pause.resumed,
            created_at=to_text(view.created_at),
            shards=view.spec.shards(build) or None,
            share=seen.obs.route.weights.get(view.name) if status.phase == Phase.SHIFTING else None,
        )


def _roles(seen: Seen, name: str) -> tuple[str, ...]:
    status = seen.status
    stable = seen.obs.revisions.get(status.stable)
    rollout = stable.status.rollout if stable is not None else None
    kept = rollout.prior if rollout is not None and rollout.prior_kept_until is not None else ""
    roles = (
        ("stable", status.stable),
        ("candidate", status.candidate),
        ("next", status.next),
        ("kept", kept),
        ("serving", seen.serving),
    )
    return tuple(role for role, holder in roles if holder == name)


def _message(status: RevisionStatus) -> str:
    if status.rejected is not None:
        return f"{status.rejected.reason}: {status.rejected.message}"
    if status.failure is not None:
        return f"{status.failure.reason}: {status.failure.message}"
    return status.message


def _guardrails(rollout: RolloutStatus | None) -> tuple[GuardrailFacts, ...]:
    """Those that said something, in shadow or after the switch, then those of the rollout that have not."""
    if rollout is None:
        return ()
    in_shadow = rollout.shadow.verdicts if rollout.shadow is not None else ()
    said = [*rollout.verdicts, *(row for row in in_shadow if row.rule not in {one.rule for one in rollout.verdicts})]
    heard = {row.rule for row in said}
    unsaid = [GuardrailFacts.unsaid(rule) for rule in rollout.guardrails.rules if rule.name not in heard]
    return (*(GuardrailFacts.said(row) for row in said), *unsaid)
