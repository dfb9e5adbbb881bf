"""Raw objects as the API server answers them, made from hand-made observations: what `observe` reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from observations import SETTINGS, built, index, spec

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Live
from vectorindex_operator.core.judging.judge import PodEvidence
from vectorindex_operator.core.observation import IndexView, Observation, RevisionView
from vectorindex_operator.core.plan import CreateRevision, EnsureSearchers
from vectorindex_operator.manifests import labels, revisions, searchers
from vectorindex_operator.reconcile.observe import observe
from vectorindex_searcher.contract import TrafficLease

Raw = dict[str, Any]
NAMESPACE, NAME = "team-a", "docs"


class Stored:
    """A cluster that answers from what it is given; labels select as they do in Kubernetes."""

    def __init__(self, *objects: Raw) -> None:
        self.objects = list(objects)

    def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        return next((o for o in self.objects if o["kind"] == kind and o["metadata"]["name"] == name), None)

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
