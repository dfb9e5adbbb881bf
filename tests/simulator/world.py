"""The world of one VectorIndex: the store, the controllers, the traffic, the user's hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cache
from random import Random
from typing import Any

from simulator.clock import START, Clock
from simulator.controllers import Controllers, is_ready
from simulator.store import NAMESPACE, Json, Store, stamp
from simulator.truth import Data, Truth

from vectorindex_operator.api.v1alpha1 import API_VERSION, GROUP, VectorIndexSpec
from vectorindex_operator.core import identity
from vectorindex_operator.core.judging.evidence import PodEvidence
from vectorindex_operator.manifests import labels
from vectorindex_searcher.contract import (
    BUCKET_SECONDS,
    INTERNAL_KEY_ENV,
    RING_SECONDS,
    SIGNATURE_HEADER,
    TARGET_HEADER,
    TASK_ENV,
    Evidence,
    EvidenceBucket,
    InternalRequest,
    Sender,
    Target,
    verify,
)

NAME = "products"
ASKED = ("GET", "/v1/evidence")

SPEC: Json = {
    "source": {
        "s3": {"bucket": "embeddings", "prefix": "products/", "secretRef": {"name": "s3"}},
        "poll": "0",
        "minInterval": "1m",
    },
    "artifacts": {"s3": {"bucket": "indexes", "secretRef": {"name": "s3"}}},
    "index": {"factory": "A"},
    "build": {"retries": 1},
    "searcher": {"replicas": 2, "networkPolicy": {"mode": "Managed", "from": [{"podSelector": {}}]}},
    "rollout": {
        "soak": {"duration": "20s", "minQueries": 100, "maxDuration": "5m"},
        "progressDeadline": "2m",
    },
    "guardrails": {
        "rules": [
            {"name": "errors", "metric": "ErrorRate", "max": "2%", "window": "10s", "warmUp": "5s", "minSamples": 50},
            {"name": "zero", "metric": "ZeroResultRate", "max": "5%", "window": "10s", "warmUp": "5s"},
        ]
    },
    "history": 3,
}


def edited(spec: Json, **changes: Any) -> Json:
    """`spec` with fields changed; the path is spelled with double underscores: index__factory="B"."""
    for path, value in changes.items():
        *parents, last = path.split("__")
        spec = _set(spec, parents, last, value)
    return spec


def _set(spec: Json, parents: list[str], last: str, value: Any) -> Json:
    if not parents:
        return {**spec, last: value}
    return {**spec, parents[0]: _set(spec.get(parents[0], {}), parents[1:], last, value)}


@cache
def _name_of(factory: str, data: str) -> str:
    spec = VectorIndexSpec.model_validate(edited(SPEC, index__factory=factory))
    return identity.revision_name(NAME, identity.digest(spec, Data(data).fingerprint))


class World:
    """Everything but the operators."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.clock = Clock()
        self.truth = Truth()
        self.store = Store(self.clock)
        self.controllers = Controllers(self.store, self.truth, self.clock, rng)
        self.spec = SPEC
        self.upgrade: Callable[[str], None] = lambda image: None
        """Replace the operators by ones with another searcher image."""
        self.last_ready: dict[str, float] = {}
        """When a revision last had a ready endpoint; infinity while it has one."""
        self._traffic: list[tuple[float, str]] = [(START, "")]
        self._traffic_until = float("inf")
        self._buckets: dict[str, tuple[list[EvidenceBucket], int]] = {}
        """Per revision: its finished buckets, and up to which number they are counted."""

    @property
    def now(self) -> float:
        return self.clock.now

    def on_change(self, verb: str, kind: str, name: str, old: Json | None, new: Json | None) -> None:
        """To be called after every commit, before anybody judges it."""
        if kind == "Pod":
            obj = new or old
            assert obj is not None
            if obj["metadata"]["labels"].get(labels.COMPONENT) == labels.SEARCHER:
                owner = obj["metadata"]["labels"][labels.REVISION]
                if self.controllers.ready_pods(owner):
                    self.last_ready[owner] = float("inf")
                elif self.last_ready.get(owner) == float("inf"):
                    self.last_ready[owner] = self.now
        elif kind == "Service":
            target = self.serving()
            if target != self._traffic[-1][1]:
                self._traffic.append((self.now, target))
                self._maybe_crash(target)
        self.controllers.on_change(verb, kind, name, old, new)

    # ------------------------------------------------------------ what is so

    def index(self) -> Json | None:
        return self.store.get("VectorIndex", NAME)

    def status(self) -> Json:
        live = self.index()
        status: Json = (live or {}).get("status", {})
        return status

    def condition(self, kind: str) -> str:
        return next((c["status"] for c in self.status().get("conditions", ()) if c["type"] == kind), "")

    def serving(self) -> str:
        """The revision that the front Service points to."""
        front = self.store.get("Service", NAME)
        return ((front or {}).get("spec", {}).get("selector") or {}).get(labels.REVISION, "") if front else ""

    def name_of(self, factory: str, data: str = "d1") -> str:
        """Name of the revision of a factory and a state of the data."""
        return _name_of(factory, data)

    def served_since(self, time: float) -> set[str]:
        """Every revision that the front Service pointed to from `time` until now."""
        ends = [at for at, _ in self._traffic[1:]] + [self.now]
        return {target for (_, target), end in zip(self._traffic, ends, strict=True) if end >= time}

    def phase_of(self, name: str) -> str:
        live = self.store.get("VectorIndexRevision", name)
        return str((live or {}).get("status", {}).get("phase", ""))

    def jobs(self, verb: str) -> list[Json]:
        return [j for j in self.store.of_kind("Job") if j["metadata"]["labels"][labels.VERB] == verb]

    def trip_of(self, name: str) -> Json:
        """What a revision tripped over; empty: nothing."""
        status = (self.store.get("VectorIndexRevision", name) or {}).get("status", {})
        trip: Json = status.get("rollout", {}).get("trip") or {}
        return trip

    def loaded(self) -> set[str]:
        return {d["metadata"]["name"] for d in self.store.of_kind("Deployment")}

    # ------------------------------------------------------------ the searchers' admin port

    def evidence(self, pods: Iterable[tuple[str, str]], since: float, clock: float) -> tuple[PodEvidence, ...]:
        answers = []
        for name, _ in pods:
            live = self.store.get("Pod", name)
            if live is None or not is_ready(live) or self.truth.silent:
                answers.append(PodEvidence(name, None, clock))
                continue
            owner = live["metadata"]["labels"][labels.REVISION]
            first = int(max(since, self.now - RING_SECONDS) // BUCKET_SECONDS)
            rows = [row for row in self._rows(owner, live) if row.bucket >= first]
            answers.append(
                PodEvidence(
                    name, Evidence.model_construct(pod=name, revision=owner, now=self.now, buckets=tuple(rows)), clock
                )
            )
        return tuple(answers)

    def takes(self, pod: str, headers: dict[str, str]) -> bool:
        """Whether a pod takes a signed request, as a searcher decides it: by its key, and by whom it is for."""
        live = self.store.get("Pod", pod)
        if live is None:
            return False
        (one,) = live["spec"]["containers"]
        env = {variable["name"]: variable.get("value", "") for variable in one["env"]}
        task = json.loads(env[TASK_ENV])
        me = Target(task["identity"]["uid"], task["revision"])
        sent = (headers[TARGET_HEADER], headers.get(SIGNATURE_HEADER, ""))
        sender = verify(env.get(INTERNAL_KEY_ENV, ""), InternalRequest(*ASKED), me, *sent, self.now)
        return sender is Sender.GENUINE

    def _rows(self, owner: str, pod: Json) -> list[EvidenceBucket]:
        """All buckets of one pod so far that are not empty, from who had the traffic when. Pods are alike."""
        rows, counted = self._buckets.setdefault(owner, ([], int(START // BUCKET_SECONDS)))
        newest = int(self.now // BUCKET_SECONDS)
        for number in range(counted, newest):
            rows += self._counts(pod, number, self._seconds(owner, number))
        self._buckets[owner] = (rows, newest)
        return [*rows, *self._counts(pod, newest, self._seconds(owner, newest))]

    def _seconds(self, owner: str, number: int) -> float:
        """For how long a revision had traffic in a bucket."""
        start, stop = number * BUCKET_SECONDS, min((number + 1) * BUCKET_SECONDS, self._traffic_until)
        if start >= self._traffic_until:
            return 0.0
        ends = [at for at, _ in self._traffic[1:]] + [self.now]
        spans = zip(self._traffic, ends, strict=True)
        return sum(max(0.0, min(stop, end) - max(start, at)) for (at, target), end in spans if target == owner)

    def _counts(self, pod: Json, number: int, seconds: float) -> tuple[EvidenceBucket, ...]:
        queries = int(seconds * self.truth.queries_per_second / 2)
        if not queries:
            return ()
        quality = self.controllers.quality_of(pod)
        errors = int(queries * quality.errors)
        zero = int((queries - errors) * quality.zero_results)
        answered = queries - errors
        return (
            EvidenceBucket.model_construct(
                bucket=number,
                segment="other",
                requests=queries,
                failed_requests=errors,
                queries=queries,
                errors=errors,
                refused=0,
                zero_results=zero,
                top_count=answered,
                top_sum=0.5 * answered,
                top_sum_squares=0.25 * answered,
                latency={140: queries},
            ),
        )

    def stop_traffic(self) -> None:
        """The users go home."""
        self._traffic_until = self.now

    def _maybe_crash(self, target: str) -> None:
        pods = self.controllers.ready_pods(target)
        if pods and self.controllers.quality_of(pods[0]).crashes:
            self.controllers.later(1.0, 6.0, lambda: self.controllers.crash(target))

    # ------------------------------------------------------------ the user's hand

    def apply(self, **changes: Any) -> None:
        """kubectl apply of the manifest with some fields changed."""
        self.spec = edited(self.spec, **changes)
        if self.index() is not None:
            self.store.change("VectorIndex", NAME, spec=self.spec)
            return
        meta = {"name": NAME, "namespace": NAMESPACE}
        self.store.create({"apiVersion": API_VERSION, "kind": "VectorIndex", "metadata": meta, "spec": self.spec})

    def annotate(self, name: str, value: str) -> None:
        """kubectl annotate of the VectorIndex."""
        live = self.index()
        assert live is not None
        self.store.change(
            "VectorIndex", NAME, meta={"annotations": {**live["metadata"].get("annotations", {}), name: value}}
        )

    def ask(self, verb: str, nonce: str, argument: str = "") -> None:
        """kubectl vectorindex rollback, retry."""
        live = self.index()
        assert live is not None
        text = f"{argument}@{nonce}" if argument else nonce
        marks = {**live["metadata"].get("annotations", {}), f"{GROUP}/{verb}": text}
        self.store.change("VectorIndex", NAME, meta={"annotations": marks})

    def delete_index(self, *, foreground: bool) -> None:
        if foreground:
            self.store.change(
                "VectorIndex",
                NAME,
                meta={"deletionTimestamp": stamp(self.now), "finalizers": ["foregroundDeletion"]},
            )
            self.controllers.collect_soon()
        else:
            self.store.remove("VectorIndex", NAME)

    def delete(self, kind: str, name: str) -> None:
        """kubectl delete of one object."""
        self.controllers.delete(kind, name)
