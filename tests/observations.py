"""Hand-made observations: what a pass sees, said in few words.

`seen(spec, stable, candidate)` is a quiet world of these revisions; tests change what they are about. Everything holds
at `NOW`; what happened before it happened an hour ago unless a test says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import (
    RevisionSpec,
    RevisionStatus,
    RolloutStatus,
    Serving,
    SourceStatus,
    VectorIndexSpec,
    VectorIndexStatus,
)
from vectorindex_operator.core import identity
from vectorindex_operator.core.lifecycle import decide
from vectorindex_operator.core.loaded import LoadedRevision, PodView
from vectorindex_operator.core.observation import IndexView, JobState, JobView, Observation, RevisionView, Task
from vectorindex_operator.core.plan import MoveTraffic, Plan, WriteRevisionStatus
from vectorindex_operator.core.state import Installation
from vectorindex_operator.core.traffic import Decision, DecisionKind, Traffic
from vectorindex_operator.manifests import searchers
from vectorindex_searcher.contract import (
    BuildResult,
    Device,
    OperatingPoint,
    ResolveResult,
    SegmentRecall,
    ValidateResult,
)

NOW = 1_800_000_000.0
HOUR = 3600.0
AN_HOUR_AGO = to_text(NOW - HOUR)
DATA = "d1" * 32
NEW_DATA = "d2" * 32
SETTINGS = Installation(searcher_image="example/searcher:v1", gpu_image="example/searcher-gpu:v1")
REPLICAS = 2
A = TypeVar("A")

_SPEC: dict[str, Any] = {
    "source": {"s3": {"bucket": "vectors", "prefix": "docs/", "secretRef": {"name": "s3"}}, "poll": "5m"},
    "artifacts": {"s3": {"bucket": "indexes", "secretRef": {"name": "s3"}}},
    "index": {"factory": "IVF64,Flat"},
    "rollout": {"shadow": {"maxPerSecond": 0}},
}
_ROLLED_OUT = frozenset({"Surging", "Shadowing", "Shifting", "Soaking", "Stable", "Superseded", "RolledBack"})
_PROVEN = _ROLLED_OUT | {"Validated"}
_BUILT = _PROVEN | {"Validating", "Rejected"}
_SWITCHED = _ROLLED_OUT - {"Surging", "Shadowing", "Shifting"}


def spec(**changes: Any) -> VectorIndexSpec:
    """A spec with `changes` (camelCase, as a user writes them) merged into it."""
    return VectorIndexSpec.model_validate(merged(_SPEC, changes))


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` over `base`, objects key by key."""
    out = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merged(out[key], value) if both else value
    return out


def built(digest: str = "", **changes: Any) -> BuildResult:
    """What a build of 10,000 vectors answered."""
    point = OperatingPoint(params={"nprobe": 4}, recall=0.98, recall_low=0.97, latency_us=100.0)
    result = BuildResult(
        digest=digest, attempt="build-000000", manifest_sha256="aa" * 32, fingerprint=DATA, count=10_000,
        dimension=8, factory="IVF64,Flat", device=Device.CPU, duration_seconds=12.0, peak_memory_bytes=2**28,
        index_bytes=2**26, resident_bytes=2**27, vectors_bytes=2**25, faiss_version="1.15.1", default_point=point,
    )  # fmt: skip
    return result.model_copy(update=changes)


def report(of: VectorIndexSpec, recall: float = 0.98, low: float = 0.97, **changes: Any) -> ValidateResult:
    """What `validate` answered under the gate of `of`."""
    result = ValidateResult(
        gate_hash=identity.gate_hash(of), k=10, confidence=0.95,
        overall=SegmentRecall(queries=1000, recall=recall, recall_low=low), count=10_000, p50_ms=0.5, p95_ms=1.0,
        resident_bytes=2**27, canary_queries=300, canary_recall=recall, report_sha256="bb" * 32,
    )  # fmt: skip
    return result.model_copy(update=changes)


def resolved(data: str = DATA, **changes: Any) -> ResolveResult:
    return ResolveResult(fingerprint=data, objects=3, bytes=640_000, rows=10_000, dimension=8).model_copy(
        update=changes
    )


def index(of: VectorIndexSpec | None, status: VectorIndexStatus | None = None, **changes: Any) -> IndexView:
    """The VectorIndex `team-a/docs`."""
    view = IndexView("team-a", "docs", "uid-docs", 3, NOW - 24 * HOUR, of, status or VectorIndexStatus())
    return replace(view, **changes)


def a_revision(
    of: VectorIndexSpec, phase: str, *, data: str = DATA, created: float = NOW - HOUR, **status: Any
) -> RevisionView:
    """The revision that `of` asks for, with the evidence that its phase stands for; `status`: other fields of it."""
    digest = identity.digest(of, data)
    name = identity.revision_name("docs", digest)
    fields: dict[str, Any] = {"phase": phase, "phase_times": {phase: to_text(created)}}
    if phase in _BUILT:
        fields["build"] = built(digest, fingerprint=data)
    if phase in _PROVEN:
        fields |= {"report": report(of), "recall": "0.9800"}
    if phase in _ROLLED_OUT:
        rollout = RolloutStatus(
            settings=of.rollout, guardrails=of.guardrails, gate_hash=identity.gate_hash(of), started_at=to_text(created)
        )
        fields["rollout"] = rollout.model_copy(update={"switched_at": to_text(created)} if phase in _SWITCHED else {})
    if phase in _SWITCHED:
        fields["settled_at"] = to_text(created)
    if phase in ("Stable", "Superseded"):
        fields["promoted_at"] = to_text(created)
    frozen = RevisionSpec(
        index="docs", digest=digest, fingerprint=data, image=SETTINGS.searcher_image, source=of.source.place,
        artifacts=of.artifacts.place, columns=of.source.columns, embedding=of.embedding.of_vectors(),
        index_spec=of.index, memory_per_shard=of.memory_per_shard,
        segments=tuple(s.name for s in of.segments), min_score=of.searcher.min_score, tls=of.searcher.tls is not None,
        tombstones=of.source.deleted(),
        pod_template=searchers.pod_template(of, index(of), name, SETTINGS),
    )  # fmt: skip
    if of.embedding.encoder is not None:
        reached: dict[str, Any] = {"encoder_store": of.embedding.store(), "encoder_secret": of.embedding.token_secret()}
        if of.searcher.rerank is not None:
            reached["reranker_store"] = of.searcher.rerank.onnx.place
        frozen = frozen.model_copy(update={"serving": Serving.of(of), **reached})
    return RevisionView(name, f"uid-{name}", created, frozen, RevisionStatus(**(fields | status)))


def with_rollout(view: RevisionView, **changes: Any) -> RevisionView:
    """The same with other fields in its rollout."""
    rollout = view.status.rollout
    assert rollout is not None
    status = view.status.model_copy(update={"rollout": rollout.model_copy(update=changes)})
    return replace(view, status=status)


def pod(name: str, *, ready: bool = True, **changes: Any) -> PodView:
    address = f"10.0.0.{sum(name.encode()) % 250}"
    return replace(PodView(name, address, ready, scheduled_at=NOW - HOUR), **changes)


def loaded(view: RevisionView, *pods: PodView, unready_since: float | None = None) -> LoadedRevision:
    """Its Deployment with `pods`; all ready where none is given."""
    mine = pods or tuple(pod(f"{view.name}-{number}") for number in range(REPLICAS))
    return LoadedRevision.of(view.name, mine, unready_since, replicas=REPLICAS)


def front(view: RevisionView, decision: Decision | None = None) -> Traffic:
    """The Service as an earlier switch left it."""
    at = view.created_at
    known = decision or Decision(DecisionKind.SWITCH, "", view.name, "Surge", "Ready", f"{view.name} is ready", at)
    return Traffic.to(view.name, "41", known)


def source(of: VectorIndexSpec, data: str = DATA) -> SourceStatus:
    """The last listing of the source of `of`."""
    return SourceStatus(
        fingerprint=data, source_hash=identity.source_hash(of), objects=3, bytes=640_000, at=AN_HOUR_AGO, dimension=8
    )


def job(
    verb: Task, state: JobState = JobState.RUNNING, *, key: str, of: RevisionView | None = None, **changes: Any
) -> JobView:
    """A Job as old as a minute."""
    name = f"{of.name if of else 'docs'}-{verb.value}-1"
    at = NOW - 60
    done = None if state is JobState.RUNNING else at + 30
    view = JobView(name, f"uid-{name}", verb, of.name if of else "", key, 0, "cpu", state, at, done)
    return replace(view, **changes)


def listing(of: VectorIndexSpec, data: str = DATA, **changes: Any) -> JobView:
    """The finished resolve Job that found `data`."""
    key = f"{identity.source_hash(of)}/"
    return replace(job(Task.RESOLVE, JobState.SUCCEEDED, key=key, result=resolved(data)), **changes)


def seen(
    of: VectorIndexSpec,
    *revisions: RevisionView,
    traffic: RevisionView | Traffic | None = None,
    data: str = DATA,
    **changes: Any,
) -> Observation:
    """A quiet world: the source holds `data`, the revisions of two slots are loaded, `traffic` has the Service."""
    up = [r for r in revisions if r.status.phase in ("Surging", "Shadowing", "Shifting", "Soaking", "Stable")]
    obs = Observation(
        index=index(of, VectorIndexStatus(source=source(of, data))),
        revisions={r.name: r for r in revisions},
        jobs=(listing(of, data),),
        loaded={r.name: loaded(r) for r in up},
        traffic=front(traffic) if isinstance(traffic, RevisionView) else traffic or Traffic(),
    )
    return replace(obs, **changes)


def run(obs: Observation, now: float = NOW) -> Plan:
    """The decision of one pass."""
    return decide(obs, SETTINGS, now)


def actions(plan: Plan, kind: type[A]) -> list[A]:
    """The plan's actions of one kind."""
    return [one for one in plan.actions if isinstance(one, kind)]


def recorded(plan: Plan, view: RevisionView) -> RevisionStatus:
    """The status that the plan writes for a revision."""
    return next(one.status for one in actions(plan, WriteRevisionStatus) if one.revision == view.name)


def phase(plan: Plan, view: RevisionView) -> str:
    """The phase in it."""
    return recorded(plan, view).phase


def said(plan: Plan) -> tuple[str, str]:
    """Result and message of the one answer to a command."""
    (answer,) = plan.status.verbs
    return answer.result, answer.message


def moved(plan: Plan) -> list[str]:
    """To whom the plan gives the traffic."""
    return [one.decision.to_revision for one in actions(plan, MoveTraffic)]


def with_spec(obs: Observation, **changes: Any) -> Observation:
    """The same world with another VectorIndex: these fields of its view."""
    return replace(obs, index=replace(obs.index, **changes))


def after(obs: Observation, plan: Plan) -> Observation:
    """The world when the plan's statuses are written and nothing else happened."""
    written = {one.revision: one.status for one in actions(plan, WriteRevisionStatus)}
    revisions = {n: replace(r, status=written.get(n, r.status)) for n, r in obs.revisions.items()}
    return replace(obs, revisions=revisions, index=replace(obs.index, status=plan.status))


def condition(status: VectorIndexStatus, kind: str) -> tuple[str, str, str]:
    """(status, reason, message) of a condition; three empty texts when it is not there."""
    found = next((c for c in status.conditions if c.type == kind), None)
    return (found.status, found.reason, found.message) if found else ("", "", "")
