"""What people outside of the cluster are told: how revisions ended, and where the traffic went. Pure.

Nothing is recorded when something happens: what there is to tell is read off the revisions and the last decision, and
`status.notified` names what of it was taken. So what was decided by an operator that died then is told by the next one.
A notice may come twice, with the same id; it is missed only where its revision falls out of the history before anybody
took it, or, of the traffic, where it has moved again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import RevisionStatus
from vectorindex_operator.core.observation import IndexView
from vectorindex_operator.core.phase import FAILED, Phase
from vectorindex_operator.core.traffic import Decision, DecisionKind

LONGEST_MESSAGE = 2000


class NoticeKind(StrEnum):
    """The `type` of a CloudEvent."""

    SWITCHED = "dev.vectorindex.traffic.switched"
    """The traffic went to a new revision."""
    ROLLED_BACK = "dev.vectorindex.traffic.rolledback"
    """It went back to an earlier one."""
    STABLE = "dev.vectorindex.revision.stable"
    """A revision was promoted."""
    FAILED = "dev.vectorindex.revision.failed"
    """A revision was rejected, taken back, or could not be built or loaded: `outcome` says which."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One of them. `at`: RFC 3339. `before`: of the traffic, where it was. `rule`: the guardrail that decided; empty:
    none did."""

    id: str
    kind: NoticeKind
    namespace: str
    name: str
    revision: str
    outcome: str
    reason: str
    message: str
    at: str
    before: str = ""
    rule: str = ""


def notices(index: IndexView, statuses: Mapping[str, RevisionStatus], decision: Decision | None) -> tuple[Notice, ...]:
    """All that there is to tell, told or not, oldest first. `statuses`: by revision, as they are to be written."""
    found = [] if decision is None else [_of_decision(index, decision)]
    for name, status in statuses.items():
        found += _of_revision(index, name, status)
    return tuple(sorted(found, key=lambda one: (one.at, one.id)))


def notified(
    before: tuple[str, ...] | None, there_are: tuple[Notice, ...], taken: frozenset[str]
) -> tuple[str, ...] | None:
    """`status.notified` of now. Of what was there when telling began nobody is told: they would be told of last year.

    `taken`: ids that were taken since it was written.
    """
    ids = {one.id for one in there_are}
    return tuple(sorted(ids if before is None else ids & (taken | set(before))))


def _of_revision(index: IndexView, name: str, status: RevisionStatus) -> Iterator[Notice]:
    if status.promoted_at is not None:
        yield _ended(index, name, NoticeKind.STABLE, Phase.STABLE, "Promoted", status.message, status.promoted_at)
    at = status.phase_times.get(status.phase)
    if status.phase in FAILED and at is not None:
        said = status.rejected or status.failure
        reason, message = (said.reason, said.message) if said is not None else (status.phase, status.message)
        yield _ended(index, name, NoticeKind.FAILED, status.phase, reason, message, at)


def _ended(index: IndexView, name: str, kind: NoticeKind, outcome: str, reason: str, message: str, at: str) -> Notice:
    told = _id(index.uid, name, outcome, at)
    return Notice(told, kind, index.namespace, index.name, name, outcome, reason, message[:LONGEST_MESSAGE], at)


def _of_decision(index: IndexView, decision: Decision) -> Notice:
    back = decision.kind is DecisionKind.ROLL_BACK
    at = to_text(decision.at)
    return Notice(
        id=_id(index.uid, decision.to_revision, decision.kind, at),
        kind=NoticeKind.ROLLED_BACK if back else NoticeKind.SWITCHED,
        namespace=index.namespace,
        name=index.name,
        revision=decision.to_revision,
        outcome=decision.kind,
        reason=decision.reason,
        message=decision.message[:LONGEST_MESSAGE],
        at=at,
        before=decision.from_revision,
        rule=decision.rule,
    )


def _id(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
