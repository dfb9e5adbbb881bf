"""Which revision the spec and the data ask for, and what becomes of one in preparation that nobody wants any more."""

from __future__ import annotations

from vectorindex_operator.core import identity
from vectorindex_operator.core.plan import CreateRevision
from vectorindex_operator.core.safety import roll_back
from vectorindex_operator.core.state import NEXT_PHASES, ReconcileState

REUSABLE_PHASES = frozenset({"Superseded", "Retired"})


def step(state: ReconcileState) -> None:
    source = state.source
    if source is None or source.source_hash != identity.source_hash(state.spec):
        return  # nothing is known about this source yet; what is in preparation goes on
    state.desired_digest = identity.digest(state.spec, source.fingerprint)
    state.desired = identity.revision_name(state.obs.index.name, state.desired_digest)
    in_preparation = [n for n, s in state.statuses.items() if s.phase in NEXT_PHASES and n != state.desired]
    for name in in_preparation:
        if not same_recipe(state, name):
            _abandon(state, name, "the spec changed before it was rolled out")
        elif _is_stuck(state, name):
            _abandon(state, name, "it could not be judged, and there is new data")
        else:
            state.preparing = name  # only the data changed: finish this one first, or it never gets served
    if state.preparing:
        return
    if state.desired == state.stable:
        if state.candidate:
            give_up_candidate(state, f"the spec asks for {state.stable} again")
        return
    if state.desired == state.candidate:
        return
    known = state.statuses.get(state.desired)
    if known is None:
        state.act(CreateRevision(state.desired, state.desired_digest, source.fingerprint))
        state.requeue_at(state.now + 1)
        return
    if known.phase in REUSABLE_PHASES and known.rejected is None:
        state.update(state.desired, phase="Pending", rollout=None, message="wanted again")
    if state.statuses[state.desired].phase in NEXT_PHASES:
        state.preparing = state.desired


def same_recipe(state: ReconcileState, name: str) -> bool:
    """Whether a revision is what the spec asks for, apart from the data."""
    spec = state.revision(name).spec
    return (
        spec.index_spec == state.spec.index
        and spec.columns == state.spec.source.columns
        and spec.embedding.metric == state.spec.embedding.metric
        and spec.source == state.spec.source.s3
    )


def _is_stuck(state: ReconcileState, name: str) -> bool:
    """Whether only a person could bring this revision on: it must not hold up the data that came after it."""
    status = state.statuses[name]
    held = status.gate is not None and status.gate.verdict == "Inconclusive"
    return held or (status.failure is not None and status.failure.permanent)


def _abandon(state: ReconcileState, name: str, why: str) -> None:
    state.update(name, phase="Superseded", message=why)


def give_up_candidate(state: ReconcileState, message: str) -> None:
    """The user changed the spec: the candidate is no longer wanted, which is no fault of its own."""
    if state.serving == state.candidate:
        roll_back.revert(state, message)
    else:
        state.update(state.candidate, phase="Superseded", message=message)
        state.find_slots()
