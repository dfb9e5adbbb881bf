"""What was decided about a revision, as it is kept beside its artifact, and a revision as that says it was. Pure.

Nothing is taken from there that says where pods run or what they run: image, pods and places are today's spec's and the
installation's. What a revision was built of is taken where its digest comes out of it.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

from vectorindex_operator.api.quantities import size_text
from vectorindex_operator.api.timestamps import to_unix
from vectorindex_operator.api.v1alpha1 import (
    GateStatus,
    Rebuild,
    Rejection,
    Restored,
    RevisionStatus,
    RolloutStatus,
    Segment,
    Serving,
    VectorIndexSpec,
)
from vectorindex_operator.core import identity, recipe
from vectorindex_operator.core.phase import REPLACED, Phase
from vectorindex_operator.core.state import ReconcileState
from vectorindex_searcher.contract import PROMOTED, REJECTED, Identity, Outcome

VERSION = 1
LONGEST_MESSAGE = 600
CLOCKS_DIFFER_SECONDS = 300.0
"""Between clusters, at most. What is of later than that would be newer than every promotion to come."""
TURNED_DOWN = frozenset({Phase.REJECTED, Phase.ROLLED_BACK})


def token(outcome: Outcome) -> str:
    """Which outcome of a revision it is: what its status notes once it is written."""
    return f"{outcome.outcome}/{outcome.at}"


def unwritten_at(state: ReconcileState, name: str) -> str:
    """When what is not written yet was decided about a revision; empty: nothing is. Without making a document, since
    most passes ask for every revision."""
    status = state.statuses[name]
    said = _decided(state, name)
    place, new = state.revision(name).spec.artifacts, state.spec.artifacts.place
    if said is None or status.recorded == "/".join(said) or recipe.place(place) != recipe.place(new):
        return ""
    return said[1]


def _decided(state: ReconcileState, name: str) -> tuple[str, str] | None:
    """The outcome of a revision, and its time; None: there is none yet."""
    status = state.statuses[name]
    if status.rejected is not None:
        return (REJECTED, status.rejected.at) if status.phase in TURNED_DOWN else None
    proven = bool(status.promoted_at) and status.build is not None and status.report is not None
    return (PROMOTED, state.good_since(name)) if proven and status.phase in {Phase.STABLE, *REPLACED} else None


def of_revision(state: ReconcileState, name: str) -> Outcome | None:
    """What was decided about a revision; None: nothing yet, or nothing that a document can say."""
    status, decided = state.statuses[name], _decided(state, name)
    if decided is None:
        return None
    outcome, at = decided
    if status.rejected is None:
        return _outcome(state, name, outcome=outcome, at=at, build=status.build, report=status.report)
    said = status.rejected
    message = said.message[:LONGEST_MESSAGE]
    why = {"stage": said.stage, "reason": said.reason, "message": message, "phase": status.phase}
    return _outcome(state, name, outcome=outcome, at=at, **why)


def _outcome(state: ReconcileState, name: str, **decided: Any) -> Outcome | None:
    index, frozen, gate = state.obs.index, state.revision(name).spec, state.statuses[name].gate
    served, rebuild = frozen.served_as(), frozen.rebuild
    if gate is not None:
        gate = gate.model_copy(update={"message": gate.message[:LONGEST_MESSAGE]})
    try:
        return Outcome(
            version=VERSION,
            identity=Identity(namespace=index.namespace, name=index.name, uid=index.uid),
            cluster=state.settings.cluster_uid,
            revision=name,
            digest=frozen.digest,
            fingerprint=frozen.fingerprint,
            rebuild=rebuild.number if rebuild is not None else None,
            rebuild_nonce=rebuild.nonce if rebuild is not None else "",
            columns=frozen.columns,
            embedding=frozen.embedding,
            index=frozen.index_spec,
            segments=served.segments,
            min_score=served.min_score,
            memory_per_shard=frozen.memory_per_shard,
            refresh=served.refresh,
            image=frozen.image,
            encoder=identity.models_id(served),
            proof_salt=frozen.proof_salt,
            gate=gate.wire() if gate is not None else None,
            **decided,
        )
    except ValidationError:  # another release wrote it, in words that are none here
        return None


def as_spec(spec: VectorIndexSpec, outcome: Outcome) -> VectorIndexSpec:
    """Today's spec, asking for what an outcome is of; with today's encoder. Raises ValueError where no spec can."""
    return spec.model_copy(
        update={
            "source": spec.source.model_copy(update={"columns": outcome.columns}),
            "embedding": spec.embedding.model_copy(update=dict(outcome.embedding)),
            "index": outcome.index,
            "segments": tuple(Segment(name=name) for name in outcome.segments),
            "searcher": spec.searcher.model_copy(
                update={"min_score": outcome.min_score, "memory_per_shard": outcome.memory_per_shard}
            ),
        }
    )


def serving(spec: VectorIndexSpec, outcome: Outcome) -> Serving:
    """What serves it: where its pods run is today's spec's word."""
    return Serving.of(as_spec(spec, outcome), outcome.refresh)


def proven_as(spec: VectorIndexSpec, outcome: Outcome) -> bool:
    """Whether it was judged with the encoder and the cross-encoder that today's spec asks for, or both have none."""
    return outcome.encoder == identity.models_id(Serving.of(spec))


def rebuild(outcome: Outcome) -> Rebuild | None:
    return Rebuild(number=outcome.rebuild, nonce=outcome.rebuild_nonce) if outcome.rebuild is not None else None


def is_of(state: ReconcileState, outcome: Outcome) -> bool:
    """Whether it is about a revision of this index, and of a time that was: named as such, and its digest comes out of
    what it says it was built of, with the deleted ids of today's spec."""
    index = state.obs.index
    if not re.fullmatch(rf"{re.escape(index.name)}-[0-9a-f]{{8}}", outcome.revision):
        return False
    try:
        built_of = as_spec(state.spec, outcome)
        if not 0 <= to_unix(outcome.at) <= state.now + CLOCKS_DIFFER_SECONDS:
            return False
    except (ValueError, OverflowError):
        return False
    mine = (outcome.identity.namespace, outcome.identity.name) == (index.namespace, index.name)
    return mine and outcome.digest == identity.digest(built_of, outcome.fingerprint, outcome.rebuild or 0)


def status_of(restored: Restored, spec: VectorIndexSpec, prior: str) -> RevisionStatus:
    """What a revision begins as. `prior`: what it replaced, as far as that is known."""
    outcome, phase = restored.outcome, restored.phase
    gate, times = _gate(outcome), {phase: outcome.at}
    noted = {"phase": phase, "phase_times": times, "recorded": token(outcome)}
    if outcome.outcome == REJECTED:
        message = f"{outcome.message} (decided at {outcome.at}, before this VectorIndex was made)"
        reason, stage = outcome.reason or outcome.stage or phase, outcome.stage or "Rollout"
        rejected = Rejection(stage=stage, reason=reason, message=message, at=outcome.at)
        return RevisionStatus(**noted, rejected=rejected, gate=gate, message=message)
    assert outcome.build is not None, "nothing is promoted without"
    size = size_text(outcome.build.index_bytes)
    if phase == Phase.VALIDATING:
        message = f"promoted at {outcome.at}, before this VectorIndex was made: it is proven again"
        return RevisionStatus(**noted | {"recorded": None}, build=outcome.build, size=size, message=message)
    assert outcome.report is not None, "nothing serves without"
    return RevisionStatus(
        **noted,
        build=outcome.build,
        report=outcome.report,
        gate=gate,
        promoted_at=outcome.at,
        rollout=RolloutStatus(
            settings=spec.rollout,
            guardrails=spec.guardrails,
            gate_hash=outcome.report.gate_hash,
            started_at=outcome.at,
            switched_at=outcome.at,
            prior=prior,
        ),
        recall=f"{outcome.report.overall.recall:.4f}",
        p95=f"{outcome.report.p95_ms:.2f}ms",
        size=size,
        message=f"promoted at {outcome.at}, before this VectorIndex was made",
    )


def _gate(outcome: Outcome) -> GateStatus | None:
    """None: it does not say, or in words of another release."""
    try:
        return GateStatus.read(outcome.gate) if outcome.gate is not None else None
    except ValidationError:
        return None
