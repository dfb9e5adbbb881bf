"""What was decided about an index, with its numbers and where the runbook is: `why` and `history`.

Read from what the operator wrote when it decided; nothing is judged again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import GuardrailMetric
from vectorindex_operator.core.observation import RevisionView
from vectorindex_operator.core.phase import Phase
from vectorindex_plugin.exits import EndedError, Exit
from vectorindex_plugin.facts.revision import GuardrailFacts, RecallFacts, RevisionFacts
from vectorindex_plugin.seen import Seen

_SECTIONS = {metric.value: metric.value for metric in GuardrailMetric} | {
    "Unavailable": "Unavailable",  # these two are always on
    "Restarts": "Restarts",
    GuardrailMetric.LATENCY_P99.value: GuardrailMetric.LATENCY_P95.value,  # one section is about both
}
"""Reason -> heading of the runbook in docs/guardrails.md."""
_REST = "docs/operations.md#what-wakes-you-and-what-to-do"


@dataclass(frozen=True, slots=True)
class DecisionFacts:
    """One decision. `what`: Promoted, RolledBack, Switched, FreshRowsOff, Passed the gate, Rejected ...; `rule`: what
    it was decided by, a guardrail's name or a part of the spec. `runbook`: the page and section; empty where nothing is
    wrong."""

    at: str
    what: str
    revision: str
    rule: str
    reason: str
    message: str
    runbook: str
    guardrails: tuple[GuardrailFacts, ...] = ()
    recall: RecallFacts | None = None


def runbook(reason: str) -> str:
    """The section that tells what to do about a reason."""
    section = _SECTIONS.get(reason)
    return f"docs/guardrails.md#{section.lower()}" if section else _REST


def last_decision(seen: Seen) -> DecisionFacts:
    """The newest one. Raises EndedError where nothing was decided yet."""
    found = sorted(decisions(seen), key=lambda one: one.at)
    if not found:
        name, phase = seen.obs.index.name, seen.status.phase or "not looked at"
        raise EndedError(Exit.NOT_FOUND, f"nothing was decided about {name} yet; it is {phase}")
    return found[-1]


def decisions(seen: Seen) -> Iterator[DecisionFacts]:
    """All that the objects still tell of, in no order."""
    decision = seen.obs.traffic.decision
    if decision is not None:
        moved = "Switched" if decision.kind.value == "Switch" else "RolledBack"
        subject = decision.to_revision if moved == "Switched" else decision.from_revision
        view = seen.obs.revisions.get(subject)
        rule, reason = decision.rule, decision.reason
        where = runbook(reason) if moved == "RolledBack" else ""
        said = _said(view, rule) if view is not None and moved == "RolledBack" else ()
        yield DecisionFacts(to_text(decision.at), moved, subject, rule, reason, decision.message, where, said)
    for view in seen.obs.revisions.values():
        yield from _of_revision(view)


def _of_revision(view: RevisionView) -> Iterator[DecisionFacts]:
    name, status = view.name, view.status
    recall = RecallFacts.of(status.report) if status.report is not None else None
    if status.gate is not None:
        gate = status.gate
        where = "" if gate.verdict == "Pass" else runbook(gate.reason)
        what = {"Pass": "Proven", "Fail": "Rejected"}.get(gate.verdict, "Held")
        yield DecisionFacts(gate.at, what, name, "spec.gate", gate.reason, gate.message, where, (), recall)
    if status.failure is not None:
        failure = status.failure
        rule = f"Job {failure.stage}"
        yield DecisionFacts(
            failure.at, "Failed", name, rule, failure.reason, failure.message, runbook(failure.reason), (), recall
        )
    if status.rejected is not None and status.rejected.stage != "Gate" and status.phase != Phase.ROLLED_BACK:
        said = status.rejected
        rows = _said(view, "")
        yield DecisionFacts(
            said.at, "Rejected", name, said.stage, said.reason, said.message, runbook(said.reason), rows
        )
    if (off := status.fresh_off) is not None and not off.ended:
        where = "docs/guardrails.md#with-fresh-rows"
        yield DecisionFacts(
            off.at, "FreshRowsOff", name, off.rule, "FreshRowsOff", off.message, where, _said(view, off.rule)
        )
    if status.promoted_at is not None:
        reason, _, message = status.message.partition(": ")
        said_so = status.phase == Phase.STABLE and status.restored_at is None and bool(message)
        words = (reason, message) if said_so else ("Promoted", "it passed its soak")
        yield DecisionFacts(status.promoted_at, "Promoted", name, "soak", *words, "", _said(view, ""))


def _said(view: RevisionView, rule: str) -> tuple[GuardrailFacts, ...]:
    """What guardrails said of a revision: the one named, or all."""
    rollout = view.status.rollout
    rows = rollout.verdicts if rollout is not None else ()
    if rollout is not None and rollout.shadow is not None and not rows:
        rows = rollout.shadow.verdicts
    return tuple(GuardrailFacts.said(row) for row in rows if rule in ("", row.rule)) or (
        tuple(GuardrailFacts.said(row) for row in rows)
    )


def history(seen: Seen) -> tuple[RevisionFacts, ...]:
    """Every revision that there still is, the newest first."""
    facts = [RevisionFacts.of(seen, view) for view in seen.obs.revisions.values()]
    return tuple(sorted(facts, key=lambda one: one.created_at, reverse=True))
