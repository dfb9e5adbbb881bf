"""Which revision the spec and the data ask for, and what becomes of one in preparation that nobody wants any more."""

from __future__ import annotations

from vectorindex_operator.core import revision
from vectorindex_operator.core.plan import CreateRevision
from vectorindex_operator.core.steps import rolling_back
from vectorindex_operator.core.working import NEXT_PHASES, Pass

REUSABLE_PHASES = frozenset({"Superseded", "Retired"})


def step(p: Pass) -> None:
    source = p.source
    if source is None or source.source_hash != revision.source_hash(p.spec):
        return  # nothing is known about this source yet; what is in preparation goes on
    p.wanted_digest = revision.digest(p.spec, source.fingerprint)
    p.wanted = revision.revision_name(p.obs.index.name, p.wanted_digest)
    in_preparation = [n for n, s in p.statuses.items() if s.phase in NEXT_PHASES and n != p.wanted]
    for name in in_preparation:
        if not same_recipe(p, name):
            _abandon(p, name, "the spec changed before it was rolled out")
        elif _is_stuck(p, name):
            _abandon(p, name, "it could not be judged, and there is new data")
        else:
            p.next = name  # only the data changed: finish this one first, or ever-changing data never gets served
    if p.next:
        return
    if p.wanted == p.stable:
        if p.candidate:
            give_up_candidate(p, f"the spec asks for {p.stable} again")
        return
    if p.wanted == p.candidate:
        return
    known = p.statuses.get(p.wanted)
    if known is None:
        p.act(CreateRevision(p.wanted, p.wanted_digest, source.fingerprint))
        p.wake_at(p.now + 1)
        return
    if known.phase in REUSABLE_PHASES and known.rejected is None:
        p.update(p.wanted, phase="Pending", rollout=None, message="wanted again")
    if p.statuses[p.wanted].phase in NEXT_PHASES:
        p.next = p.wanted


def same_recipe(p: Pass, name: str) -> bool:
    """Whether a revision is what the spec asks for, apart from the data."""
    spec = p.revision(name).spec
    return (
        spec.index_spec == p.spec.index
        and spec.columns == p.spec.source.columns
        and spec.embedding.metric == p.spec.embedding.metric
        and spec.source == p.spec.source.s3
    )


def _is_stuck(p: Pass, name: str) -> bool:
    """Whether only a person could bring this revision on: it must not hold up the data that came after it."""
    status = p.statuses[name]
    held = status.gate is not None and status.gate.verdict == "Inconclusive"
    return held or (status.failure is not None and status.failure.permanent)


def _abandon(p: Pass, name: str, why: str) -> None:
    p.update(name, phase="Superseded", message=why)


def give_up_candidate(p: Pass, message: str) -> None:
    """The user changed the spec: the candidate is no longer wanted, which is no fault of its own."""
    if p.traffic == p.candidate:
        rolling_back.revert(p, message)
    else:
        p.update(p.candidate, phase="Superseded", message=message)
        p.find_slots()
