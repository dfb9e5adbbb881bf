"""Raw objects as the API server answers them, made from hand-made observations: what `observe` reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from observations import NOW, SETTINGS, built, index, spec

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Live
from vectorindex_operator.core import identity
from vectorindex_operator.core.judging.judge import PodEvidence
from vectorindex_operator.core.observation import IndexView, Observation, RevisionView
from vectorindex_operator.core.plan import CreateRevision, EnsureSearchers, StartBuild, StartResolve
from vectorindex_operator.core.traffic import Decision, DecisionKind
from vectorindex_operator.manifests import jobs, labels, revisions, searchers, service
from vectorindex_operator.reconcile import raw
from vectorindex_operator.reconcile.observe import observe
from vectorindex_searcher.contract import BuildTask, ResolveTask, TrafficLease

Raw = dict[str, Any]
NAMESPACE, NAME = "team-a", "docs"


class Stored:
    """A cluster that answers from what it is given; labels select as they do in Kubernetes."""

    def __init__(self, *objects: Raw) -> None:
        self.objects = list(objects)

    def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        return next((o for o in self.objects if o["kind"] == kind and raw.name(o) == name), None)

    def children(self, kind: str, namespace: str, selector: str) -> list[Raw]:
        return [o for o in self.objects if o["kind"] == kind]


class Silent:
    """Searchers that say nothing."""

    def evidence(self, pods: Iterable[tuple[str, str]], since: float) -> tuple[PodEvidence, ...]:
        return tuple(PodEvidence(name, None, 0.0) for name, _ in pods)

    def tell(self, addresses: Iterable[str], lease: TrafficLease) -> None: ...


def look(*objects: Raw, now: float) -> Observation:
    """What `observe` makes of these objects, of which the VectorIndex is one."""
    cluster: Any = Stored(*objects)
    seen = observe(cluster, Silent(), NAMESPACE, NAME, now)
    assert seen is not None
    return seen


def stored(manifest: Raw, uid: str, created: float, **status: Any) -> Raw:
    """A manifest as it is stored, with a status."""
    added = {"uid": uid, "resourceVersion": "41", "generation": 1, "creationTimestamp": to_text(created)}
    whole = {**manifest, "metadata": {**manifest["metadata"], **added}}
    return whole | ({"status": status} if status else {})


def index_raw(view: IndexView) -> Raw:
    assert view.spec is not None
    meta = {"name": view.name, "namespace": view.namespace}
    manifest = {"apiVersion": "vectorindex.dev/v1alpha1", "kind": "VectorIndex", "metadata": meta}
    return stored(manifest | {"spec": view.spec.wire()}, view.uid, view.created_at, **view.status.wire())


def revision_raw(view: RevisionView) -> Raw:
    made = CreateRevision(view.name, view.spec.digest, view.spec.fingerprint)
    manifest = revisions.revision(made, index(spec()), spec(), SETTINGS)
    return stored(manifest | {"spec": view.spec.wire()}, view.uid, view.created_at, **view.status.wire())


def deployment_raw(view: RevisionView, replicas: int = 2) -> Raw:
    result = view.status.build or built(view.spec.digest)
    action = EnsureSearchers(
        view.name,
        Live.of(spec(searcher={"replicas": replicas})),
        result.manifest_sha256,
        "gate",
        "report",
        result.resident_bytes,
    )
    manifest = searchers.deployment(action, index(spec()), view)
    return stored(manifest, f"uid-deployment-{view.name}", view.created_at, readyReplicas=replicas)


def searcher_pod(view: RevisionView, number: int = 0) -> Raw:
    """A ready pod of its Deployment."""
    template = "5d9c7b"
    marks = labels.common(NAME, labels.SEARCHER, view.name) | {"pod-template-hash": template}
    owner = {"kind": "ReplicaSet", "name": f"{view.name}-{template}", "uid": f"uid-rs-{view.name}", "controller": True}
    at = to_text(view.created_at)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{view.name}-{template}-{number}",
            "namespace": NAMESPACE,
            "uid": f"uid-{view.name}-{number}",
            "labels": marks,
            "ownerReferences": [owner],
            "creationTimestamp": at,
        },
        "spec": {"containers": [{"name": "searcher"}]},
        "status": {
            "podIP": f"10.0.0.{number + 1}",
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": at},
                {"type": "Ready", "status": "True", "lastTransitionTime": at},
            ],
            "containerStatuses": [{"name": "searcher", "restartCount": 0, "state": {"running": {"startedAt": at}}}],
        },
    }


def front_raw(view: RevisionView, serial: int = 1) -> Raw:
    """The front Service, given to this revision."""
    decision = Decision(DecisionKind.SWITCH, "", view.name, "Surge", "Ready", "ready", view.created_at, "", serial)
    manifest = service.service(decision, "", index(spec()), tls=False)
    return stored(manifest, "uid-service", view.created_at)


def job_raw(task: ResolveTask | BuildTask, view: RevisionView | None = None, name: str = "") -> Raw:
    """A running Job: a build of `view`, or a listing of the source."""
    if isinstance(task, BuildTask):
        assert view is not None
        build = StartBuild(
            name or f"{view.name}-build-1", view.name, f"{identity.build_hash(spec())}/0/cpu", 0, False, task
        )
        manifest = jobs.build(build, index(spec()), view, spec(), SETTINGS)
    else:
        listing = StartResolve(name or f"{NAME}-resolve-1", f"{identity.source_hash(spec())}/", 0, task)
        manifest = jobs.resolve(listing, index(spec()), spec(), SETTINGS)
    return stored(manifest, f"uid-{manifest['metadata']['name']}", NOW - 60)


def ended(job: Raw, message: str, code: int = 0) -> list[Raw]:
    """The Job at its end, and the pod that said `message`."""
    kind = "Failed" if code else "Complete"
    at = to_text(NOW - 30)
    condition = {"type": kind, "status": "True", "lastTransitionTime": at, "reason": "R", "message": "m"}
    owner = {"kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"], "controller": True}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{job['metadata']['name']}-x",
            "namespace": NAMESPACE,
            "uid": f"uid-{job['metadata']['name']}-x",
            "labels": job["spec"]["template"]["metadata"]["labels"],
            "ownerReferences": [owner],
            "creationTimestamp": at,
        },
        "spec": {},
        "status": {"containerStatuses": [{"state": {"terminated": {"exitCode": code, "message": message}}}]},
    }
    return [job | {"status": {"conditions": [condition]}}, pod]
