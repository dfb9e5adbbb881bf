"""Raw objects as the API server answers them, made from hand-made observations: what `observe` reads."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

from observations import NOW, SETTINGS, built, index, spec

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Live
from vectorindex_operator.core import identity
from vectorindex_operator.core.internal_keys import Addressee
from vectorindex_operator.core.judging.evidence import PodEvidence
from vectorindex_operator.core.judging.questions import Question
from vectorindex_operator.core.judging.shadow import PodPairs
from vectorindex_operator.core.observation import IndexView, Observation, RevisionView
from vectorindex_operator.core.plan import CreateRevision, EnsureSearchers, StartBuild, StartResolve
from vectorindex_operator.core.source_poll import SourceAnswer, SourceQuestion
from vectorindex_operator.core.traffic import Decision, DecisionKind
from vectorindex_operator.manifests import jobs, labels, revisions, searchers, service
from vectorindex_operator.reconcile import raw
from vectorindex_operator.reconcile.errors import ConflictError
from vectorindex_operator.reconcile.observe import observe
from vectorindex_searcher.contract import BuildTask, MirrorLease, PointOrder, ResolveTask, TrafficLease

Raw = dict[str, Any]
Answers = TypeVar("Answers")
NAMESPACE, NAME = "team-a", "docs"


class Stored:
    """A cluster that holds what it is given. `refuse`: (verb, kind) -> what it says to such a write."""

    def __init__(self, *objects: Raw, refuse: dict[tuple[str, str], Exception] | None = None) -> None:
        self.objects = list(objects)
        self.refuse = refuse or {}
        self.writes: list[tuple[str, str]] = []
        """Verb and Kind/name of each write that was taken."""

    def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        return next((o for o in self.objects if o["kind"] == kind and raw.name(o) == name), None)

    def children(self, kind: str, namespace: str, selector: str) -> list[Raw]:
        return [o for o in self.objects if o["kind"] == kind]

    def create(self, manifest: Raw) -> Raw | None:
        if self.get(manifest["kind"], NAMESPACE, raw.name(manifest)) is not None:
            return None
        return self._put("create", manifest)

    def apply(self, manifest: Raw, *, force: bool = True) -> Raw:
        return self._put("apply" if force else "apply unforced", manifest)

    def judge(self, manifest: Raw) -> None:
        if ("judge", manifest["kind"]) in self.refuse:
            raise self.refuse["judge", manifest["kind"]]

    def merge(self, manifest: Raw) -> Raw:
        live = self.get(manifest["kind"], NAMESPACE, raw.name(manifest))
        if live is None:
            raise ConflictError("gone")
        if manifest["metadata"].get("resourceVersion") not in (None, live["metadata"]["resourceVersion"]):
            raise ConflictError("not the latest version")
        return self._put("merge", merged(live, manifest))

    def take_over(self, live: Raw) -> str:
        if live["metadata"].get("managedFields"):
            live = self._put("take over", live)
        return str(live["metadata"].get("resourceVersion", ""))

    def apply_status(self, manifest: Raw) -> Raw:
        live = self.get(manifest["kind"], NAMESPACE, raw.name(manifest))
        assert live is not None
        if manifest["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]:
            raise ConflictError("not the latest version")
        return self._put("status", live | {"status": manifest["status"]})

    def delete(self, kind: str, namespace: str, name: str, uid: str, version: str = "") -> None:
        live = self.get(kind, namespace, name)
        if live is not None and live["metadata"]["uid"] == uid:
            if version not in ("", live["metadata"].get("resourceVersion")):
                raise ConflictError(f"{kind}/{name}: {version} is not the latest version")
            self._put("delete", live)
            self.objects = [one for one in self.objects if one["metadata"].get("uid") != uid]

    def _put(self, verb: str, new: Raw) -> Raw:
        kind, name = new["kind"], raw.name(new)
        if (verb.split()[0], kind) in self.refuse:
            raise self.refuse[verb.split()[0], kind]
        self.writes.append((verb, f"{kind}/{name}"))
        old = self.get(kind, NAMESPACE, name)
        added = {"uid": f"uid-{kind}-{name}", "resourceVersion": "41", "creationTimestamp": to_text(NOW)}
        meta = added | (old["metadata"] if old else {}) | new["metadata"]
        stored = (old or {}) | new | {"metadata": meta | {"resourceVersion": str(int(meta["resourceVersion"]) + 1)}}
        self.objects = [*(one for one in self.objects if one is not old), stored]
        return stored


def merged(old: Any, patch: Any) -> Any:
    """JSON merge patch."""
    if not isinstance(patch, dict):
        return patch
    out = dict(old) if isinstance(old, dict) else {}
    kept = {key: value for key, value in patch.items() if value is not None}
    return {key: value for key, value in out.items() if key not in patch} | {
        key: merged(out.get(key), value) for key, value in kept.items()
    }


def at_once(answers: Answers) -> Future[Answers]:
    """Answers of pods that nobody has to wait for."""
    done: Future[Answers] = Future()
    done.set_result(answers)
    return done


class Silent:
    """Searchers that say nothing."""

    def evidence(
        self, to: Addressee, pods: Iterable[tuple[str, str]], question: Question
    ) -> Future[tuple[PodEvidence, ...]]:
        return at_once(tuple(PodEvidence(name, None, 0.0) for name, _ in pods))

    def pairs(self, to: Addressee, pods: Iterable[tuple[str, str]], shadow: str) -> Future[tuple[PodPairs, ...]]:
        return at_once(tuple(PodPairs(name, None, "it says nothing") for name, _ in pods))

    def source(self, to: Addressee, question: SourceQuestion) -> Future[SourceAnswer]:
        done: Future[SourceAnswer] = Future()
        done.set_result(SourceAnswer(problem="it says nothing"))
        return done

    def tell(self, to: Any, addresses: Iterable[str], lease: TrafficLease) -> None: ...

    def order(self, to: Any, addresses: Iterable[str], order: PointOrder) -> None: ...

    def mirror(self, to: Any, addresses: Iterable[str], receiver: Any, lease: MirrorLease) -> None: ...


def look(*objects: Raw, now: float) -> Observation:
    """What `observe` makes of these objects, of which the VectorIndex is one."""
    cluster: Any = Stored(*objects)
    seen = observe(cluster, NAMESPACE, NAME, now)
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
    made = CreateRevision(view.name, view.spec.digest, view.spec.fingerprint, view.spec.served_as())
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
    manifest = searchers.deployment(action, index(spec()), view, SETTINGS.internal_keys)
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


def slice_raw(*views: RevisionView) -> Raw:
    """The EndpointSlice of the front Service, with two ready pods of each."""
    marks = {"kubernetes.io/service-name": NAME}
    endpoints = [
        {"addresses": [f"10.0.{at}.{number}"], "conditions": {"ready": True}}
        for at, _ in enumerate(views)
        for number in range(2)
    ]
    meta = {"name": f"{NAME}-x7k", "namespace": NAMESPACE, "labels": marks}
    manifest = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, "endpoints": endpoints}
    return stored(manifest, "uid-slice", NOW)


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
