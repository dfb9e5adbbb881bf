"""The VectorIndexRevision object: everything about a revision, frozen when it is made."""

from __future__ import annotations

from vectorindex_operator.api.v1alpha1 import (
    API_VERSION,
    ENCODER,
    OTHER_STORE,
    POD_ENV,
    RERANKER,
    S3,
    SHARDS,
    RevisionSpec,
    SourcePoll,
    VectorIndexSpec,
    Volume,
)
from vectorindex_operator.core import identity, outcomes, recipe
from vectorindex_operator.core.observation import IndexView
from vectorindex_operator.core.plan import CreateRevision
from vectorindex_operator.core.state import Installation
from vectorindex_operator.manifests import labels, searchers
from vectorindex_operator.manifests.labels import Manifest


def revision(action: CreateRevision, index: IndexView, spec: VectorIndexSpec, settings: Installation) -> Manifest:
    """The object of a new revision, owned by its VectorIndex."""
    if action.restored is not None:
        spec = outcomes.as_spec(spec, action.restored.outcome)
    template = searchers.pod_template(spec, index, action.name, settings)
    frozen = RevisionSpec(
        index=index.name,
        digest=action.digest,
        fingerprint=action.fingerprint,
        image=settings.searcher_image,
        source=spec.source.place,
        tombstones=spec.source.deleted(),
        tombstone_poll_seconds=recipe.tombstone_poll(spec),
        source_poll=_source_poll(spec),
        artifacts=spec.artifacts.place,
        columns=spec.source.columns,
        embedding=spec.embedding.of_vectors(),
        index_spec=spec.index,
        memory_per_shard=spec.memory_per_shard,
        segments=tuple(s.name for s in spec.segments),
        min_score=spec.searcher.min_score,
        tls=spec.searcher.tls is not None,
        serving=action.serving,
        encoder_store=spec.embedding.store(),
        encoder_secret=spec.embedding.token_secret(),
        reranker_store=spec.searcher.rerank.onnx.place if spec.searcher.rerank is not None else None,
        document_prefix=spec.embedding.document_prefix if spec.source.columns.text is not None else None,
        proof_salt=action.proof_salt,
        rebuild=action.rebuild,
        restored=action.restored,
        pod_template=template,
        requires=_requires(spec, template),
    )
    marks = labels.common(index.name, "revision", action.name)
    meta = labels.metadata(action.name, index.namespace, marks, labels.owner(index))
    if spec.artifacts.deletion_policy == "Delete":
        meta["finalizers"] = [settings.finalizer]
    return {"apiVersion": API_VERSION, "kind": "VectorIndexRevision", "metadata": meta, "spec": frozen.wire()}


def _requires(spec: VectorIndexSpec, template: Manifest) -> tuple[str, ...]:
    """What an operator must know to render its pods as they are meant."""
    env = (POD_ENV,) if "env" in template["spec"]["containers"][0] else ()
    encoder = (ENCODER,) if spec.embedding.encoder is not None else ()
    reranker = (RERANKER,) if spec.searcher.rerank is not None else ()
    model = spec.searcher.rerank.onnx.place if spec.searcher.rerank is not None else None
    places = (spec.source.place, spec.artifacts.place, spec.embedding.store(), model)
    shards = (SHARDS,) if spec.index.shards is not None else ()
    kinds = {place.kind for place in places if place is not None} - {S3.kind}
    return (*env, *encoder, *reranker, *shards, *(f"{OTHER_STORE}.{kind}" for kind in sorted(kinds)))


def _source_poll(spec: VectorIndexSpec) -> SourcePoll | None:
    """Searchers get the keys of the source only where they are to list it. A volume would have to be mounted for that:
    where its claim is gone they did not start. So Jobs list it, but where there are deleted ids, which need it anyway.
    """
    if spec.index.shards is not None:
        return None  # routers, which are asked, have no store
    if not spec.source.looked_at or (isinstance(spec.source.place, Volume) and spec.source.tombstones is None):
        return None
    below = identity.queries_below(spec) is not None and spec.gate.queries is not None
    return SourcePoll(queries=spec.gate.queries.where if below and spec.gate.queries else None)
