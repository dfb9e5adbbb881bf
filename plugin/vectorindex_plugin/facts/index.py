"""What `get` and `list` say of an index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Condition
from vectorindex_operator.core.observation import IndexView
from vectorindex_operator.core.phase import FAILED
from vectorindex_operator.reconcile.views import index_view
from vectorindex_plugin.facts.next_step import next_step
from vectorindex_plugin.facts.revision import RevisionFacts
from vectorindex_plugin.seen import Seen


@dataclass(frozen=True, slots=True)
class WaitFacts:
    """A row of status.blockedBy."""

    rule: str
    subject: str
    message: str


@dataclass(frozen=True, slots=True)
class ConditionFacts:
    type_: str
    status: str
    reason: str
    message: str
    since: str


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """One index with the revisions that have a slot or pods, and what failed last; the one with the traffic first."""

    namespace: str
    name: str
    phase: str
    reason: str
    why: str
    next: str
    serving: str
    rows: int | None
    revisions: tuple[RevisionFacts, ...]
    waits_for: tuple[WaitFacts, ...]
    conditions: tuple[ConditionFacts, ...]
    hidden: dict[str, str]
    """Kinds that this person may not read -> the API server's words."""

    @classmethod
    def of(cls, seen: Seen) -> IndexFacts:
        status, index = seen.status, seen.obs.index
        facts = [RevisionFacts.of(seen, view) for view in seen.obs.revisions.values()]
        failed = max((one for one in facts if one.phase == status.phase in FAILED), key=_made, default=None)
        shown = [one for one in facts if one.roles or one.pods or one is failed]
        serving = seen.obs.revisions.get(seen.serving)
        build = serving.status.build if serving is not None else None
        return cls(
            namespace=index.namespace,
            name=index.name,
            phase=status.phase or "Unseen",
            reason=status.reason,
            why=_why(status.conditions) or index.spec_error or "no operator has looked at it yet",
            next=next_step(seen),
            serving=seen.serving,
            rows=build.count if build is not None else None,
            revisions=_in_order(shown),
            waits_for=tuple(WaitFacts(row.rule, row.subject, row.message) for row in status.blocked_by),
            conditions=tuple(
                ConditionFacts(one.type, one.status, one.reason, one.message, one.last_transition_time)
                for one in status.conditions
            ),
            hidden=seen.hidden,
        )


def _made(one: RevisionFacts) -> str:
    return one.created_at


def _in_order(shown: Iterable[RevisionFacts]) -> tuple[RevisionFacts, ...]:
    """What serves first, then the others, the newest first."""
    newest_first = sorted(shown, key=_made, reverse=True)
    return tuple(sorted(newest_first, key=lambda one: "serving" not in one.roles))


def _why(conditions: Iterable[Condition]) -> str:
    """The sentence that the operator says of the whole."""
    messages = {one.type: one.message for one in conditions}
    return messages.get("Stalled") or messages.get("RolledOut", "")


@dataclass(frozen=True, slots=True)
class RowFacts:
    """A row of `list`."""

    namespace: str
    name: str
    phase: str
    stable: str
    candidate: str
    recall: str
    ready: str
    rolled_out: str
    reason: str
    created_at: str

    @classmethod
    def of(cls, view: IndexView) -> RowFacts:
        status = view.status
        rolled_out = next((one.status for one in status.conditions if one.type == "RolledOut"), "")
        return cls(
            view.namespace,
            view.name,
            status.phase,
            status.stable,
            status.candidate or status.next,
            status.recall,
            status.ready,
            rolled_out,
            status.reason,
            to_text(view.created_at),
        )


def rows(indexes: Iterable[Mapping[str, Any]]) -> tuple[RowFacts, ...]:
    """Of raw VectorIndexes, by namespace and name."""
    found = (RowFacts.of(index_view(one)) for one in indexes)
    return tuple(sorted(found, key=lambda row: (row.namespace, row.name)))
