"""Identity: digests and hashes that decide when something is built, measured or tried again, and derived names.

A digest covers everything that changes the bytes of an artifact and nothing else, so an edit of replicas, guardrails
or the gate builds nothing, and a re-sync of a rejected manifest finds its rejection.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from vectorindex_operator.api.v1alpha1 import (
    Live,
    ServedReranker,
    Serving,
    VectorIndexSpec,
    by_kind,
    kept,
)
from vectorindex_searcher.contract import Embedding, IndexSpec, Location, Minimise, memory_bytes

DIGEST_FORMAT = 1
"""Part of every digest, and never to be changed: a manifest's own format version stands apart from it."""


def _hash(value: Mapping[str, object]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _embedding(embedding: Embedding) -> dict[str, object]:
    # Only the metric changes bytes: the model's name is a promise to clients, and filling in an empty field must not
    # rebuild what is there. The dimension is a fact of the data, hence already in the fingerprint.
    return {"metric": embedding.metric.value}


def _index(index: IndexSpec) -> dict[str, object]:
    """Fields that came after the first version count only when they are set: an upgrade must not rebuild anything."""
    wire = index.model_dump(mode="json", by_alias=True, exclude_none=True)
    if not index.search_params:
        del wire["searchParams"]
    if index.objective.minimise is Minimise.LATENCY:
        del wire["objective"]["minimise"]
    return wire


def _tombstones(spec: VectorIndexSpec) -> dict[str, object]:
    """Where they are, not which: a delete alone is hidden by searchers and waits for the next build."""
    return {"tombstones": spec.source.tombstones.wire()} if spec.source.tombstones else {}


def _texts(spec: VectorIndexSpec) -> dict[str, object]:
    """What makes vectors of rows that have texts. For vectors it is proven, and changes no byte."""
    return {"encoder": spec.embedding.of_texts()} if spec.source.columns.text is not None else {}


def _auto_shards(spec: VectorIndexSpec) -> dict[str, object]:
    """What is asked for, and not the number that it comes to: that follows from this and the data."""
    memory = spec.memory_per_shard
    return {"memoryPerShard": memory_bytes(memory)} if memory is not None else {}


def digest(spec: VectorIndexSpec, fingerprint: str, build_number: int = 0) -> str:
    """Hex digest of a revision. `fingerprint` is the dataset's; `build_number` rises when a rebuild is asked for."""
    return _hash(
        {
            "format": DIGEST_FORMAT,
            "build": build_number,
            "fingerprint": fingerprint,
            "columns": spec.source.columns.wire(),
            "embedding": _embedding(spec.embedding),
            "index": _index(spec.index),
            **_tombstones(spec),
            **_texts(spec),
            **_auto_shards(spec),
        }
    )


def source_hash(spec: VectorIndexSpec) -> str:
    """Hash of what `resolve` depends on: a changed bucket, column or embedding is resolved anew at once."""
    return _hash(
        {
            **by_kind(spec.source.place),
            "columns": spec.source.columns.wire(),
            "embedding": spec.embedding.of_vectors().wire(),
            "artifacts": kept(spec.artifacts.place),
            **_tombstones(spec),
            **({"queries": queries.wire()} if (queries := queries_below(spec)) else {}),
        }
    )[:16]


def queries_below(spec: VectorIndexSpec) -> Location | None:
    """Where the gate's queries are, if that is below the source: they are no rows of it. Elsewhere `resolve` need not
    know, so that to change them lists nothing anew."""
    queries = spec.gate.queries.where if spec.gate.queries else None
    return queries.location() if queries is not None and queries.below(spec.source.place) else None


def build_hash(spec: VectorIndexSpec) -> str:
    """Hash of `spec.build`: a failed build is tried again when this changes (more memory, another node)."""
    return _hash(spec.build.wire())[:16]


def segment_targets(spec: VectorIndexSpec) -> dict[str, float]:
    """Recall that `validate` tunes each declared segment's operating point for.

    The index's own objective, or the segment's floor where that is higher: a floor only ever asks for more, so lowering
    one never makes answers worse. Empty without queries that name segments, and when the user fixed the parameters.
    """
    given = spec.gate.given
    if given is None or not given.segment_column or spec.index.search_params:
        return {}
    floors = {floor.name: floor.min for floor in spec.gate.segments}
    return {s.name: max(spec.index.objective.recall, floors.get(s.name, 0.0)) for s in spec.segments}


def default_target(spec: VectorIndexSpec) -> float | None:
    """Recall that `validate` tunes the default point for by the user's queries or by live ones; None without any, or
    with fixed parameters.

    The index's own objective, and the floor of all queries where that is higher: a wider search that reaches the floor
    is better than a rejection. The objective is in the revision's digest, so only such a floor is in the gate's hash.
    """
    if spec.gate.queries is None or spec.index.search_params:
        return None
    return max(spec.index.objective.recall, spec.gate.recall.min)


def gate_hash(spec: VectorIndexSpec, salt: str = "", reranker: ServedReranker | None = None) -> str:
    """Hash of what a gate report was measured with. Thresholds are not in it: they are judged on the saved report.

    A segment's floor is, where it is above the objective: its operating point is tuned for it. `salt`: tells one image
    from another where both serve the same artifact. `reranker`: of the revision, where the gate measures its order.
    """
    gate = spec.gate
    targets, default = segment_targets(spec), default_target(spec)
    raised = default is not None and default > spec.index.objective.recall
    return _hash(
        {
            "format": DIGEST_FORMAT,
            "k": gate.k,
            "confidence": gate.recall.confidence,
            "queries": gate.queries.wire() if gate.queries else None,
            "relevant": gate.relevance.relevant_column if gate.relevance else None,
            "segments": [s.name for s in spec.segments],
            **({"targets": targets} if targets else {}),
            **({"default": default} if raised else {}),
            **({"salt": salt} if salt else {}),
            **({"encoder": encoder} if (encoder := spec.embedding.proven()) else {}),
            **({"reranker": reranker.measured()} if reranker is not None and gate.measures_rerank else {}),
        }
    )[:16]


def attempt_key(base: str, access: list[dict[str, object]]) -> str:
    """Key of a try: what it does, and how it reaches its data where that is no longer what the revision froze."""
    return _hash({"base": base, "access": access})[:16] if access else base


def live_hash(live: Live) -> str:
    """Hash of what the pods of loaded revisions take from the spec at once: an annotation of their Deployments."""
    none_of_theirs = {"searcher": {"network_policy", "service"}}
    wire = live.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=none_of_theirs)
    return _hash(wire)[:16]


def models_id(served: Serving) -> str:
    """Names what encodes for a revision, and what reorders; empty: nothing encodes."""
    if served.encoder is None:
        return ""
    if served.reranker is None:
        return _hash(served.encoder.wire())[:16]
    return _hash({"encoder": served.encoder.wire(), "reranker": served.reranker.wire()})[:16]


def serving_digest(revision_digest: str, serving: Serving) -> str:
    """Hex digest of an artifact with what serves it: names the second and later revisions of one artifact."""
    return _hash({"digest": revision_digest, "serving": serving.wire()})


def thresholds_hash(spec: VectorIndexSpec) -> str:
    """Hash of the whole gate: a rejection holds while this stays the same."""
    wire = spec.gate.wire()
    if not spec.gate.allow_column_changes:
        del wire["allowColumnChanges"]  # came after the first version: an upgrade must not judge anything again
    if spec.gate.max_cost_rise == "100%":
        del wire["maxCostRise"]  # so did this
    return _hash(wire)[:16]


def revision_name(index_name: str, revision_digest: str) -> str:
    """Name of a revision and of its Deployment: at most 40 + 1 + 8 characters."""
    return f"{index_name}-{revision_digest[:8]}"


def build_job_name(revision: str, attempt_key: str) -> str:
    """Derived from what makes an attempt one (build hash, tries so far), so a crash never starts it twice."""
    return f"{revision}-build-{_hash({'k': attempt_key})[:6]}"


def partition_job_name(revision: str, attempt_key: str) -> str:
    """As `build_job_name`, for the partition Job."""
    return f"{revision}-part-{_hash({'k': attempt_key})[:6]}"


def publish_job_name(revision: str, attempt_key: str) -> str:
    """As `build_job_name`, for the publish Job."""
    return f"{revision}-publish-{_hash({'k': attempt_key})[:6]}"


def gate_job_name(revision: str, attempt_key: str) -> str:
    """As `build_job_name`, for the validate Job."""
    return f"{revision}-gate-{_hash({'k': attempt_key})[:6]}"


def collect_job_name(revision: str) -> str:
    """The one Job that removes a revision's artifact."""
    return f"{revision}-collect"


def collect_left_job_name(index_name: str, uid: str, place: tuple[str, ...]) -> str:
    """The one Job that removes from one place what a VectorIndex left: never that of another one of its name."""
    return f"{index_name}-collect-{_hash({'uid': uid, 'place': place})[:10]}"


def resolve_job_name(index_name: str, attempt_key: str) -> str:
    """Derived from the source and the listing before it, so one listing is asked for once."""
    return f"{index_name}-resolve-{_hash({'k': attempt_key})[:6]}"


def outcomes_job_name(index_name: str, uid: str, key: str) -> str:
    """Of the Job that writes or reads outcomes: never that of an earlier VectorIndex of this name."""
    return f"{index_name}-outcomes-{_hash({'uid': uid, 'key': key})[:6]}"


def outcomes_key(place: tuple[str, ...], written: Mapping[str, str]) -> str:
    """Key of a try to write outcomes (revision -> which) to a place; of none of them, to read what is there."""
    return _hash({"place": place, "write": dict(written)})[:16]
