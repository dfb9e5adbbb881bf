"""The world of one VectorIndex: the store, the controllers, the traffic, the user's hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

from simulator.clients import Clients
from simulator.clock import START, Clock
from simulator.controllers import Controllers
from simulator.gateway import Gateway
from simulator.pods import was_ready
from simulator.searchers import Searchers
from simulator.store import NAMESPACE, Json, Store, owners, stamp
from simulator.truth import Data, Truth

from vectorindex_operator.api.v1alpha1 import API_VERSION, GROUP, VectorIndexSpec
from vectorindex_operator.core import identity
from vectorindex_operator.core.judging.figures import FigureAnswer, FigureQuestion
from vectorindex_operator.core.notices import Notice
from vectorindex_operator.manifests import labels

NAME = "products"
USER = "kubectl"
"""The field manager of the user."""

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
        "shadow": {"maxPerSecond": 0},
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


def _without(spec: Json, path: tuple[str, ...]) -> Json:
    first, *rest = path
    left = {key: value for key, value in spec.items() if key != first}
    return {**left, first: _without(spec[first], tuple(rest))} if rest else left


@cache
def _name_of(factory: str, data: str, columns: tuple[str, ...], build: int, shards: int | str) -> str:
    changes: Json = {"source__columns": {"metadata": list(columns)}} if columns else {}
    changes |= {"index__shards": shards} if shards else {}
    spec = VectorIndexSpec.model_validate(edited(SPEC, index__factory=factory, **changes))
    return identity.revision_name(NAME, identity.digest(spec, Data(data).fingerprint, build))


class World:
    """Everything but the operators."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.clock = Clock()
        self.truth = Truth()
        self.store = Store(self.clock)
        self.controllers = Controllers(self.store, self.truth, self.clock, rng)
        self.spec = SPEC
        self.columns_of: dict[str, tuple[str, ...]] = {}
        """Metadata columns that the user names beside a factory; else none."""
        self.upgrade: Callable[[str], None] = lambda image: None
        """Replace the operators by ones with another searcher image."""
        self.nobody_until = 0.0
        """Until when no operator does anything: their node is gone, and nobody notices."""
        self.last_ready: dict[str, float] = {}
        """When a revision last had a ready endpoint; infinity while it has one."""
        self.ready_since: dict[str, float] = {}
        """Since when a revision has had a ready endpoint without a break; not in it: it has none."""
        self.specs: list[Json] = []
        """All that the user has applied so far."""
        self.made_of: dict[str, tuple[str, str]] = {}
        """Revision -> digest and image, also of revisions that are gone."""
        self.searchers = Searchers(self.store, self.truth, self.clock)
        self.clients = Clients(self.searchers, self.truth, self.clock, rng)
        self.searchers.share = self.clients.share
        self.searchers.shards_ready = self.controllers.shards_ready
        self.searchers.told_to_drain = self.clients.close_soon
        self.gateway = Gateway(self.store, self.clock, rng, NAME, self.targets)
        self.gateway.entitled = self.entitled
        self.terminating = False
        """Whether somebody deletes the namespace: nothing new can be made in it."""
        self.sent = 0
        """Writes that operators have sent and that were taken, whether they changed anything or not."""
        self.told: list[Notice] = []
        """What the webhook took."""
        self.made_again_at = START
        """When the VectorIndex was last made again."""
        self.listings = 0
        """Jobs that listed the source, or were to."""
        self._targets: list[tuple[float, str]] = [(START, "")]
        """Since when the front Service points to which revision."""

    @property
    def now(self) -> float:
        return self.clock.now

    def on_change(self, verb: str, kind: str, name: str, old: Json | None, new: Json | None) -> None:
        """To be called after every commit, before anybody judges it."""
        if kind == "Pod":
            self._pod_changed(name, old, new)
        elif kind == "Service":
            target = self.serving()
            if target != self._targets[-1][1]:
                self._targets.append((self.now, target))
                self._maybe_crash(target)
        elif kind == "HTTPRoute":
            self.gateway.on_change(kind, new, old)
        elif kind == "EndpointSlice" and name == NAME and new is not None:
            self.clients.hear(new)
        elif kind == "Job" and verb == "create" and new is not None:
            self.listings += new["metadata"]["labels"].get(labels.VERB) == "resolve"
        elif kind == "VectorIndexRevision" and new is not None:
            self.made_of[name] = new["spec"]["digest"], new["spec"]["image"]
        self.controllers.on_change(verb, kind, name, old, new)

    def _pod_changed(self, name: str, old: Json | None, new: Json | None) -> None:
        obj = new or old
        assert obj is not None
        if obj["metadata"]["labels"].get(labels.COMPONENT) != labels.SEARCHER:
            return
        owner = obj["metadata"]["labels"][labels.REVISION]
        if self.controllers.ready_pods(owner):
            self.last_ready[owner] = float("inf")
            self.ready_since.setdefault(owner, self.now)
        elif self.last_ready.get(owner) == float("inf"):
            self.last_ready[owner] = self.now
            self.ready_since.pop(owner, None)
        if address := obj["status"].get("podIP"):
            self.searchers.lived[address] = owner
        if new is None or not was_ready(new):
            self.clients.cut(name)
        elif "deletionTimestamp" in new["metadata"]:
            self.searchers.ends(name)
            self.clients.close_soon(name)

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

    def name_of(self, factory: str, data: str = "d1", build: int = 0) -> str:
        """Name of the revision of a factory and a state of the data; `build`: how often they were built before. In as
        many shards as the manifest says now."""
        return _name_of(factory, data, self.columns_of.get(factory, ()), build, self.spec["index"].get("shards", 0))

    def figures(self, question: FigureQuestion) -> FigureAnswer:
        """What Prometheus says of a revision."""
        digest = self.made_of[question.revision][0]
        return FigureAnswer((self.truth.served(digest).orders,) * question.count)

    def served_since(self, time: float) -> set[str]:
        """Every revision that the front Service pointed to from `time` until now."""
        ends = [at for at, _ in self._targets[1:]] + [self.now]
        return {target for (_, target), end in zip(self._targets, ends, strict=True) if end >= time}

    def phase_of(self, name: str) -> str:
        live = self.store.get("VectorIndexRevision", name)
        return str((live or {}).get("status", {}).get("phase", ""))

    def targets(self, start: float, stop: float) -> list[tuple[float, float, str]]:
        """From when to when in that time the front Service pointed to whom."""
        ends = [at for at, _ in self._targets[1:]] + [self.now]
        spans = [
            (max(at, start), min(end, stop), target) for (at, target), end in zip(self._targets, ends, strict=True)
        ]
        return [span for span in spans if span[1] > span[0]]

    def got_traffic(self) -> float:
        """Since when the front Service points where it points."""
        return self._targets[-1][0]

    def lost_traffic(self, revision: str) -> float:
        """When the front Service last stopped pointing to a revision; infinity while it does."""
        ends = [at for at, _ in self._targets[1:]] + [float("inf")]
        return max((end for (_, target), end in zip(self._targets, ends, strict=True) if target == revision), default=0)

    def entitled(self, revision: str) -> bool:
        """Whether its artifact was measured, and is as good as some spec of the user's has asked for."""
        measured = self.truth.measured.get(self.made_of.get(revision, ("", "")), ())
        return any(one.passes(spec) for one in measured for spec in self.specs)

    def jobs(self, verb: str) -> list[Json]:
        return [j for j in self.store.of_kind("Job") if j["metadata"]["labels"].get(labels.VERB) == verb and owners(j)]

    def trip_of(self, name: str) -> Json:
        """What a revision tripped over; empty: nothing."""
        status = (self.store.get("VectorIndexRevision", name) or {}).get("status", {})
        trip: Json = status.get("rollout", {}).get("trip") or {}
        return trip

    def replicas(self) -> int:
        """What the stored spec asks for, whoever wrote that."""
        live = self.index()
        return VectorIndexSpec.model_validate((live or {"spec": self.spec})["spec"]).searcher.replicas

    def loaded(self) -> set[str]:
        """Revisions whose searchers somebody has to keep: what nobody owns is somebody else's."""
        return {d["metadata"]["labels"][labels.REVISION] for d in self.store.of_kind("Deployment") if owners(d)}

    # ------------------------------------------------------------ users

    def use_gateway(self) -> None:
        """All queries come through the gateway, from now on and as long as there are users."""
        self.searchers.share = lambda revision, start, stop: self.gateway.share(
            revision, start, min(stop, self.clients.until)
        )

    def stop_traffic(self) -> None:
        """The users go home."""
        self.clients.go_home()

    def _maybe_crash(self, target: str) -> None:
        pods = self.controllers.ready_pods(target)
        if pods and self.controllers.quality_of(pods[0]).crashes:
            self.controllers.later(1.0, 6.0, lambda: self.controllers.crash(target))

    # ------------------------------------------------------------ the user's hand

    def apply(self, **changes: Any) -> None:
        """kubectl apply of the manifest with some fields changed."""
        self._apply(edited(self.spec, **changes))

    def take_away(self, *path: str) -> None:
        """kubectl apply of the manifest without a field that it had."""
        self._apply(_without(self.spec, path))

    def _apply(self, spec: Json) -> None:
        self.spec = spec
        self.specs.append(spec)
        meta = {"name": NAME, "namespace": NAMESPACE}
        self.store.apply({"apiVersion": API_VERSION, "kind": "VectorIndex", "metadata": meta, "spec": spec}, USER)

    def make_again(self) -> None:
        """The manifest as it was, when everything is gone: in another cluster, or after its namespace was lost."""
        self.made_again_at = self.now
        self._apply(self.spec)

    def scale(self, replicas: int) -> None:
        """An autoscaler's write through /scale: the field is its own from now on."""
        self.apply_as("autoscaler", "VectorIndex", NAME, spec={"searcher": {"replicas": replicas}})

    def apply_as(self, manager: str, kind: str, name: str, **fields: Any) -> None:
        """Another manager's server-side apply, which takes over what it names, and takes away what it named before."""
        meta = {"name": name, "namespace": NAMESPACE, **fields.pop("metadata", {})}
        self.store.apply({"kind": kind, "metadata": meta, **fields}, manager)

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

    def delete_namespace(self) -> None:
        """kubectl delete namespace: nothing more is made in it, and all that is there is deleted."""
        self.terminating = True
        for kind, name, _ in list(self.store.everything()):
            self.controllers.delete(kind, name)

    def delete(self, kind: str, name: str) -> None:
        """kubectl delete of one object."""
        self.controllers.delete(kind, name)
