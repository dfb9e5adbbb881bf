"""What a revision is made of, compared with what the spec asks for. One comparison, by the digest itself.

A digest says which bytes are built from which data (core/identity.py). Computed again from today's spec and a
revision's own data it tells whether the user's part is still the same: no second list of fields can disagree.
"""

from __future__ import annotations

from vectorindex_operator.api.quantities import duration_seconds
from vectorindex_operator.api.v1alpha1 import Live, Place, Rebuild, RevisionSpec, Serving, VectorIndexSpec, kept
from vectorindex_operator.core import identity
from vectorindex_operator.core.observation import Observation
from vectorindex_operator.core.phase import FAILED
from vectorindex_operator.core.state import ReconcileState
from vectorindex_searcher.contract import (
    FRESH_COPIES,
    TOMBSTONE_POLL_SECONDS,
    BuildResult,
    EmbeddingsEndpoint,
    EncoderTask,
    FreshTask,
    Location,
    OnnxFolder,
    RerankTask,
    ValidateResult,
    most_fresh,
)

UNTOLD_RERANKER = 128 << 20
"""Bytes that the files of a cross-encoder are counted as until a gate has measured it: nobody else tells their size.
Whoever names a larger one and has no labelled queries gives searcher.resources."""


def is_desired(state: ReconcileState, name: str) -> bool:
    """Whether a revision is what the spec asks for, of the data that was listed last."""
    source, frozen = state.source, state.revision(name).spec
    if source is None or frozen.digest != identity.digest(state.spec, source.fingerprint, frozen.build_number):
        return False
    return _served_alike(state, name)


def last_build(state: ReconcileState, fingerprint: str) -> Rebuild | None:
    """Which build of the spec and this data is meant where how it is served has changed: the newest that did not fail.
    None: the first."""
    builds = [
        name
        for name in state.statuses
        if (frozen := state.revision(name).spec).fingerprint == fingerprint
        and frozen.digest == identity.digest(state.spec, fingerprint, frozen.build_number)
    ]
    made_at = {name: state.revision(name).created_at for name in builds}
    newest = max(builds, key=lambda n: (state.statuses[n].phase not in FAILED, made_at[n], n), default="")
    return state.revision(newest).spec.rebuild if newest else None


def highest_build(obs: Observation) -> int:
    """The highest build number there has been."""
    return max([obs.index.status.rebuilds or 0, *(view.spec.build_number for view in obs.revisions.values())])


def _served_alike(state: ReconcileState, name: str) -> bool:
    """Whether it is served as the spec asks; which `refresh` made it is no matter."""
    served = state.revision(name).spec.served_as()
    return served == Serving.of(state.spec, served.refresh)


def same_but_for_data(state: ReconcileState, name: str) -> bool:
    """Whether a revision is what the spec asks for, apart from the data: polls, not a person, made it differ."""
    frozen = state.revision(name).spec
    same_place = place(frozen.source) == place(state.spec.source.place)
    same_recipe = frozen.digest == identity.digest(state.spec, frozen.fingerprint, frozen.build_number)
    return same_place and same_recipe and _served_alike(state, name)


def place(of: Place) -> tuple[str, ...]:
    """Where data is, without how to reach it: another endpoint or Secret is no other place."""
    return (*of.held_in, of.root)


def gate_hash(state: ReconcileState, name: str) -> str:
    """Of the gate that a revision is to pass now."""
    frozen = state.revision(name).spec
    return identity.gate_hash(state.spec, frozen.proof_salt, frozen.served_as().reranker)


def tombstones(frozen: RevisionSpec, live: Place) -> Location | None:
    """Where a revision's deleted ids are listed, reached as its source is today."""
    return frozen.tombstones.reached_by(live).location() if frozen.tombstones else None


def encoder_place(frozen: RevisionSpec, live: Live) -> Place | None:
    """Where the files of a revision's encoder are, reached as those of the spec are today; None: it has none."""
    served, store = frozen.served_as().encoder, frozen.encoder_store
    if served is None or store is None:
        return None
    return store if live.encoder is None else store.reached_by(live.encoder)


def encoder_secret(frozen: RevisionSpec, live: Live) -> str | None:
    """Whose keys its pods use for the encoder: the store's, or the endpoint's. A token goes to the URL that it stands
    beside in the spec, and nowhere else: with another one there today it is the Secret of then."""
    served, place = frozen.served_as().encoder, encoder_place(frozen, live)
    if served is not None and served.url is not None:
        return live.encoder_secret if live.encoder_url == served.url else frozen.encoder_secret
    return (place.secret or None) if place is not None else None


def encoder_task(frozen: RevisionSpec, live: Live) -> EncoderTask | None:
    """What the pods of a revision encode queries with."""
    served, place = frozen.served_as().encoder, encoder_place(frozen, live)
    if served is not None and served.url is not None:
        endpoint = EmbeddingsEndpoint(url=served.url, model=served.model or "")
        return EncoderTask(endpoint=endpoint, query_prefix=served.query_prefix)
    if served is None or served.sha256 is None or place is None:
        return None
    onnx = OnnxFolder(location=place.location(), sha256=served.sha256)
    return EncoderTask(onnx=onnx, query_prefix=served.query_prefix)


def reranker_place(frozen: RevisionSpec, live: Live) -> Place | None:
    """Where a revision's cross-encoder is, reached as that of the spec is today; None: it has none."""
    store = frozen.reranker_store
    if frozen.served_as().reranker is None or store is None:
        return None
    return store if live.reranker is None else store.reached_by(live.reranker)


def reranker_secret(frozen: RevisionSpec, live: Live) -> str | None:
    """Whose keys its pods use for that."""
    place = reranker_place(frozen, live)
    return (place.secret or None) if place is not None else None


def rerank_task(frozen: RevisionSpec, live: Live) -> RerankTask | None:
    """What the pods of a revision reorder answers by."""
    served, place = frozen.served_as().reranker, reranker_place(frozen, live)
    if served is None or place is None:
        return None
    return RerankTask(
        onnx=OnnxFolder(location=place.location(), sha256=served.sha256),
        text_column=served.text_column,
        candidates=served.candidates,
        budget_seconds=served.budget_seconds,
    )


def reranker_bytes(frozen: RevisionSpec, report: ValidateResult) -> int:
    """Bytes of the files of a revision's cross-encoder: those that its gate saw, if it ran it; 0: it has none."""
    if frozen.served_as().reranker is None:
        return 0
    return report.rerank.bytes if report.rerank is not None else UNTOLD_RERANKER


def row_encoder(frozen: RevisionSpec, live: Live) -> EncoderTask | None:
    """What makes vectors of the texts of a revision's rows; None: they have vectors."""
    told = encoder_task(frozen, live) if frozen.columns.text is not None else None
    if told is None:
        return None
    return told.model_copy(update={"query_prefix": None, "document_prefix": frozen.document_prefix})


def fresh_place(frozen: RevisionSpec, live: Live) -> Place | None:
    """Where the fresh rows are that a revision answers. None: there are none, it was made of another source, beside
    whose rows these do not belong, or it is in shards, whose searchers do not start with any."""
    same = place(frozen.source) == place(live.source) and not frozen.in_shards
    return live.source.at(live.fresh.prefix) if live.fresh is not None and same else None


def fresh_task(frozen: RevisionSpec, live: Live) -> FreshTask | None:
    """What its pods are told of them."""
    where = fresh_place(frozen, live)
    if where is None or live.fresh is None:
        return None
    encoder = frozen.served_as().encoder
    compares = encoder is not None and encoder.of_rows() == live.fresh.encoder  # else the prefix is another model's
    return FreshTask(
        place=where.location(),
        columns=frozen.columns,
        max_rows=live.fresh.max_rows,
        poll_seconds=live.fresh.poll_seconds,
        text_column=(live.fresh.text_column or "") if compares else "",
        document_prefix=live.fresh.document_prefix if compares else None,
    )


def fresh_bytes(frozen: RevisionSpec, live: Live, build: BuildResult) -> int:
    """What they take in the memory of a process: as many as the bounds allow, while it takes a snapshot."""
    if live.fresh is None or fresh_place(frozen, live) is None:
        return 0
    rows, held = most_fresh(live.fresh.max_rows, build.count)
    return FRESH_COPIES * (4 * rows * build.dimension + held)


def tombstone_poll(spec: VectorIndexSpec) -> float | None:
    """Seconds between looks at the deleted ids; they take effect even where the source is only listed on demand."""
    if spec.source.tombstones is None:
        return None
    poll = 0.0 if spec.source.poll == "0" else duration_seconds(spec.source.poll)
    return max(1.0, poll) if poll else TOMBSTONE_POLL_SECONDS


def changed_access(*places: tuple[Place, Place]) -> list[dict[str, object]]:
    """How the (frozen, live) places are reached now; empty while that is as it was frozen."""
    reached = [(frozen, frozen.reached_by(live)) for frozen, live in places]
    return [kept(now) for _, now in reached] if any(before != now for before, now in reached) else []


def proof_salt(state: ReconcileState, digest: str) -> str:
    """Of a new revision of an artifact: what makes its proof one of its own image, not the one taken before."""
    same = [view.spec for view in state.obs.revisions.values() if view.spec.digest == digest]
    image = state.settings.searcher_image
    return next((one.proof_salt for one in same if one.image == image), image if same else "")


def inherit(state: ReconcileState, name: str) -> None:
    """Take over what another revision of this artifact knows: its build, and its report if one gate asks for both."""
    mine, status = state.revision(name).spec, state.statuses[name]
    for other, known in state.statuses.items():
        frozen = state.revision(other).spec
        if other == name or frozen.digest != mine.digest or place(frozen.artifacts) != place(mine.artifacts):
            continue
        if status.build is None and known.build is not None:
            status = state.update(name, build=known.build, size=known.size, failure=None)
        wanted = gate_hash(state, name)
        if status.report is None and known.report is not None and known.report.gate_hash == wanted:
            status = state.update(name, report=known.report, recall=known.recall, p95=known.p95)
