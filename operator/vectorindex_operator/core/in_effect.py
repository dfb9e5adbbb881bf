"""What a person edited that is not in effect yet, and when it will be: the condition UpToDate.

Everything in a spec has one of three moments: loaded searchers take it at once (`Live`), a rollout takes it when it
starts (rollout, guardrails), or a new revision does (everything else).
"""

from __future__ import annotations

from vectorindex_operator.api.v1alpha1 import Place, RevisionSpec, Rollout, Serving, VectorIndexSpec
from vectorindex_operator.core import identity, recipe
from vectorindex_operator.core.state import ReconcileState
from vectorindex_searcher.contract import TOMBSTONE_POLL_SECONDS


def pending_edits(state: ReconcileState) -> list[str]:
    """One sentence for each group of fields that waits; empty when the whole spec is in effect."""
    if state.known_spec is None:
        return ["spec: it cannot be read; the last one that could be is in effect"]
    return [*_for_a_revision(state), *_for_a_rollout(state), *_for_searchers(state)]


def _for_a_revision(state: ReconcileState) -> list[str]:
    view = state.obs.revisions.get(state.serving)
    if view is None:
        return []
    frozen, spec = view.spec, state.spec
    # The same data in another place makes no revision; of what is pinned nobody knows whether it is the same.
    made_of_it = state.desired == state.serving and not state.pinned
    source, artifacts = spec.source.place, spec.artifacts.place
    same_place = made_of_it or recipe.place(frozen.source) == recipe.place(source)
    served, wanted = frozen.served_as(), Serving.of(spec, frozen.served_as().refresh)
    fields = [
        name
        for name, same in (
            ("index", frozen.index_spec == spec.index),
            ("source.columns", frozen.columns == spec.source.columns),
            (f"source.{source.kind}", same_place),
            ("source.tombstones", _place(frozen.tombstones) == _place(spec.source.deleted())),
            ("source.poll of source.tombstones", _polls_alike(frozen, spec)),
            (f"artifacts.{artifacts.kind}", recipe.place(frozen.artifacts) == recipe.place(artifacts)),
            ("embedding", frozen.embedding == spec.embedding.of_vectors()),
            ("segments", served.segments == wanted.segments),
            ("searcher.memoryPerShard", frozen.memory_per_shard == spec.memory_per_shard),
            ("searcher.minScore", served.min_score == wanted.min_score),
            ("searcher.pod", served.pod == wanted.pod),
            ("embedding.encoder", served.encoder == wanted.encoder),
            ("searcher.rerank", served.reranker == wanted.reranker),
        )
        if not same
    ]
    moment = "once spec.pinRevision is taken out" if state.pinned else "with the next revision"
    return [f"{', '.join(fields)}: {moment}"] if fields else []


def _place(tombstones: Place | None) -> tuple[str, ...] | None:
    return recipe.place(tombstones) if tombstones is not None else None


def _polls_alike(frozen: RevisionSpec, spec: VectorIndexSpec) -> bool:
    """Whether deleted ids are looked for as often as the spec asks; without any there is nothing to look for."""
    wanted = recipe.tombstone_poll(spec)
    return None in (wanted, frozen.tombstones) or (frozen.tombstone_poll_seconds or TOMBSTONE_POLL_SECONDS) == wanted


def _for_a_rollout(state: ReconcileState) -> list[str]:
    status = state.statuses.get(state.serving)
    rollout = status.rollout if status is not None else None
    if rollout is None:
        return []
    fields = [
        name
        for name, same in (
            ("rollout", _with_what_applies_at_once(rollout.settings, state.spec.rollout) == state.spec.rollout),
            ("guardrails", rollout.guardrails == state.spec.guardrails),
        )
        if not same
    ]
    return [f"{', '.join(fields)}: from the next rollout on"] if fields else []


def _with_what_applies_at_once(settings: Rollout, wanted: Rollout) -> Rollout:
    """What a rollout began with, but for what does not wait for the next one: the route, and `keepPrior: 0s`."""
    at_once: dict[str, object] = {"route": wanted.route}
    if not wanted.keep_prior_seconds:
        at_once["keep_prior"] = wanted.keep_prior
    return settings.model_copy(update=at_once)


def _for_searchers(state: ReconcileState) -> list[str]:
    if state.live is None:
        return []
    wanted = identity.live_hash(state.live)
    late = sorted(
        name
        for name in state.keep_loaded
        if state.loaded(name).exists and (state.loaded(name).live != wanted or state.loaded(name).outdated)
    )
    if not late:
        return []
    places = f"source.{state.live.source.kind}, artifacts.{state.live.artifacts.kind}"
    replaced = f"when the pods of {', '.join(late)} have been replaced"
    return [f"searcher, {places}, source.fresh or gate.queries.live: {replaced}"]
