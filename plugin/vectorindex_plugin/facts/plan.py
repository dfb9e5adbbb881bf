"""What `plan` says of an edit: what it leads to, and what Jobs and pods of that take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vectorindex_operator.api.quantities import memory_bytes, whole_cores
from vectorindex_operator.api.v1alpha1 import JUDGED_IN_SHADOW, GuardrailMetric, RevisionSpec, VectorIndexSpec
from vectorindex_operator.core.observation import Observation, RevisionView
from vectorindex_operator.manifests import sizing
from vectorindex_operator.manifests.jobs import PARALLELISM
from vectorindex_operator.manifests.shards import ROUTER_RESOURCES
from vectorindex_plugin.estimate import Sizes, fewest_shards, has_faiss, sizes
from vectorindex_plugin.facts import peak
from vectorindex_plugin.facts.peak import MomentFacts, Pods, QuotaFacts
from vectorindex_plugin.planning import Effect, EffectFacts, effects, searchers
from vectorindex_plugin.words import size
from vectorindex_searcher.contract import AUTO_SHARDS, MAX_SHARDS, MEMORY_PER_SHARD, BuildResult

_EXACT = JUDGED_IN_SHADOW | {GuardrailMetric.LIVE_RECALL}
"""Rules for which pods keep all vectors (core/safety/keep_loaded.py)."""
SEARCHERS, ROUTERS = "searchers, beside those that serve", "routers, beside those that serve"
LOADED = (SEARCHERS, ROUTERS)
"""What is loaded; the others are Jobs."""


@dataclass(frozen=True, slots=True)
class NeedFacts:
    """A Job, or the pods of a revision. `requests` and `limits` as the pod has them; `note`: whether that is enough,
    or by what it was found."""

    what: str
    pods: int
    requests: dict[str, str]
    limits: dict[str, str]
    note: str = ""


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """`changes`: fields of the spec that are edited. No effects: the edit does nothing now."""

    namespace: str
    name: str
    new: bool
    changes: tuple[str, ...]
    effects: tuple[EffectFacts, ...]
    needs: tuple[NeedFacts, ...]
    at_once: tuple[MomentFacts, ...]
    """All pods of the index together, when there are most."""
    quotas: tuple[QuotaFacts, ...]
    """Of the namespace."""
    notes: tuple[str, ...]


def of_edit(
    obs: Observation, spec: VectorIndexSpec, now: float, quotas: Sequence[Mapping[str, Any]] | None = ()
) -> PlanFacts:
    """Of an index that is there, or (without a status) of one to be made. `quotas`: ResourceQuotas of the namespace;
    None: they may not be read."""
    old = obs.index.spec
    found = effects(obs, spec, now)
    new = not obs.index.uid
    if not obs.revisions and obs.index.status.source is None:
        found = (*found, *_first(spec))
    notes: list[str] = []
    needs = tuple(_needs(obs, spec, {one.effect for one in found}, notes))
    then, there = _at_once(obs, spec, now, found, needs)
    if then and quotas is None:
        notes.append("ResourceQuotas may not be read: whether there is room is not known")
    room = tuple(peak.room(quotas or (), there, then)) if then else ()
    at_once = tuple(peak.sums(when, pods) for when, pods in then)
    changes = tuple(_changes("spec", old.wire() if old is not None else {}, spec.wire()))
    name, changes = obs.index.name, () if new else changes
    return PlanFacts(obs.index.namespace, name, new, changes, found, needs, at_once, room, tuple(notes))


def _at_once(
    obs: Observation, spec: VectorIndexSpec, now: float, found: Sequence[EffectFacts], needs: Sequence[NeedFacts]
) -> tuple[list[tuple[str, list[Pods]]], list[Pods]]:
    """When the most pods are there, and which; and those that are there now."""
    before, after = searchers(obs, spec, now) if obs.index.uid else ({}, {})
    kinds: dict[bool, list[Pods]] = {True: [], False: []}
    for need in needs:
        kinds[need.what in LOADED].append(Pods(need.pods, need.requests, need.limits))
    jobs = kinds[False]
    replaced = {one.revision for one in found if one.effect is Effect.RESTART}
    scaled = any(one.effect is Effect.SCALE for one in found)
    serving = obs.traffic.revision
    then = list(peak.moments(after, serving, kinds[True], jobs[-1] if jobs else None, replaced, scaled=scaled))
    return then, [Pods.of(one) for some in before.values() for one in some]


def _first(spec: VectorIndexSpec) -> Iterator[EffectFacts]:
    """What comes of the first listing."""
    if not spec.suspend:
        yield EffectFacts(Effect.BUILD, "", "the first index is built")
        yield EffectFacts(Effect.PROVE, "", "its recall is measured, and judged by spec.gate")
        yield EffectFacts(Effect.ROLL_OUT, "", f"{spec.searcher.replicas} pods are loaded, and get the traffic")


def _changes(path: str, old: Any, new: Any) -> Iterator[str]:
    """Paths that differ, as deep as objects go."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys((*old, *new)):
            yield from _changes(f"{path}.{name}", old.get(name), new.get(name))
    elif old != new:
        yield path


def _needs(obs: Observation, spec: VectorIndexSpec, what: set[Effect], notes: list[str]) -> Iterator[NeedFacts]:
    last = max(
        (one for one in obs.revisions.values() if one.status.build), key=lambda one: one.created_at, default=None
    )
    build = last.status.build if last is not None else None
    shards, computed = 0, None
    if Effect.BUILD in what:
        shards, computed = _computed(spec, build, notes)
    elif last is not None:
        shards = last.spec.shards(build)
    given = spec.build.resources
    requests, limits = dict(given.requests), dict(given.limits)
    if Effect.LIST in what:
        yield NeedFacts("Job: list the source", 1, requests, limits)
    if Effect.BUILD in what:
        if spec.index.shards is not None:
            yield NeedFacts("Job: lay the rows of shards ready", 1, requests, limits)
        at_a_time = min(shards or 1, spec.build.parallelism or PARALLELISM)
        yield NeedFacts("Job: build", at_a_time, requests, limits, _fits(computed, limits, requests))
    if Effect.PROVE in what:
        yield NeedFacts("Job: measure recall", 1, requests, limits)
    if Effect.ROLL_OUT in what and last is not None and build is not None:
        held = computed.held if computed is not None else build.resident_bytes
        by = "computed, without metadata and text ids" if computed is not None else f"as {last.name}"
        vectors = build.vectors_bytes if computed is None else 4 * build.count * build.dimension
        if shards and vectors is not None and computed is not None:
            vectors = -(-vectors // shards)
        yield _searchers(spec, last, held, vectors, by, shards)
        if shards:
            given = spec.searcher.router_resources or ROUTER_RESOURCES
            yield NeedFacts(ROUTERS, spec.searcher.replicas, dict(given.requests), dict(given.limits))


def _computed(spec: VectorIndexSpec, build: BuildResult | None, notes: list[str]) -> tuple[int, Sizes | None]:
    """In how many shards it is to be built from as many rows as the last build had (0: in none), and the sizes of the
    largest part; None with a note: nothing tells."""
    asked = spec.index.shards
    shards = asked if isinstance(asked, int) else (build.shards or 0) if asked and build is not None else 0
    factory = spec.index.factory
    if factory == "Auto" and build is not None:
        factory = build.factory
        notes.append(f"sizes are those of {factory}, which Auto chose last; it may choose another")
    if build is None:
        notes.append("nothing was built yet: how many rows there are is not known, hence no sizes")
    elif not has_faiss():
        notes.append("sizes are those of the last build: to compute them needs FAISS (extra searcher)")
    else:
        if asked == AUTO_SHARDS:
            shards = _as_many_as_fit(factory, build, spec, notes) or shards
        return shards, _sizes(factory, build, shards, spec, notes)
    return shards, None


def _as_many_as_fit(factory: str, build: BuildResult, spec: VectorIndexSpec, notes: list[str]) -> int | None:
    """What `index.shards: Auto` comes to; None with a note: nothing tells."""
    memory = spec.memory_per_shard or MEMORY_PER_SHARD
    given = spec.searcher.resources
    cores = whole_cores(given.limits.get("cpu", given.requests.get("cpu", "1")))
    found = fewest_shards(lambda _: factory, build.count, build.dimension, memory, cores, spec.embedding.metric)
    if found is None:
        notes.append(f"{build.count:,} rows as {factory} do not fit {MAX_SHARDS} shards of {memory}, or none can tell")
    else:
        notes.append(f"Auto comes to {found} shards of {memory} with as many rows, metadata not counted")
    return found


def _sizes(factory: str, build: BuildResult, shards: int, spec: VectorIndexSpec, notes: list[str]) -> Sizes | None:
    from vectorindex_searcher.errors import TaskError

    try:
        found = sizes(factory, -(-build.count // max(1, shards)), build.dimension, spec.embedding.metric)
    except TaskError as error:
        notes.append(f"{factory} cannot be built: {error}")
        return None
    if found is None:
        notes.append(f"there is no formula for {factory}: sizes are those of the last build")
    return found


def _fits(computed: Sizes | None, *given: Mapping[str, str]) -> str:
    """Whether a build has room in its memory limit, else in its request."""
    if computed is None:
        return ""
    most = next((memory_bytes(one["memory"]) for one in given if "memory" in one), 0)
    needed = f"it needs {size(computed.least)} at least, {size(computed.whole)} for its whole sample"
    disk = f"{size(computed.build_disk)} of disk"
    if most and most < computed.least:
        return f"too little memory: {needed}, and {disk}"
    return f"{needed}, and {disk}"


def _searchers(
    spec: VectorIndexSpec, last: RevisionView, held: int, vectors: int | None, by: str, shards: int
) -> NeedFacts:
    """The searchers of a revision that is made now, by the formulas of manifests/sizing.py. `held`, `vectors`: bytes of
    the index, or of a shard of it, in memory, and of vectors.npy (None: not known, and no disk is asked for)."""
    exact = any(rule.metric in _EXACT for rule in spec.guardrails.rules)
    need = sizing.Need(
        held=held + exact * sizing.LIVE_RECALL_BYTES + (spec.gate.live is not None) * sizing.LIVE_QUERIES_BYTES,
        worker=exact * sizing.WORKER_SAMPLE_BYTES + (spec.gate.live is not None) * sizing.WORKER_QUERIES_BYTES,
        listing=sizing.LISTING_BYTES if spec.source.looked_at else 0,
    )
    frozen: RevisionSpec = last.spec.model_copy(
        update={"pod_template": {"metadata": {"annotations": sizing.frozen_sizing()}}}
    )
    resources = spec.searcher.resources
    processes = sizing.processes(frozen, resources, need)
    disk = None if vectors is None else held + exact * vectors
    if disk is not None and spec.searcher.cache is not None:
        disk = 0  # all of it lies in a volume of its own
    given = sizing.container_resources(resources, need, disk, processes)
    pods = spec.searcher.replicas * max(1, shards)
    return NeedFacts(SEARCHERS, pods, given.get("requests", {}), given.get("limits", {}), by)
