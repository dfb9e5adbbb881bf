"""One test's part of the cluster: a namespace under Pod Security "restricted", a bucket, a Secret, a VectorIndex."""

from __future__ import annotations

import copy
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from e2e.vectors import MIN_SCORE, Corpus, Floats, bodies

from harness import traffic
from harness.images import Images
from harness.kube import Json, Kube
from harness.s3 import ObjectStore
from harness.traffic import Snapshot, Traffic
from harness.vix import VectorIndexHandle

SECRET = "s3"
NAME = "products"
SMALL = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
TWO_CORES = {"requests": SMALL["requests"], "limits": {"cpu": "2", "memory": "2Gi"}}
"""Two search processes: no more is set aside on the node, and there is memory for both."""
RULES = [
    {"name": name, "metric": metric, "max": "5%"}
    | {"window": "10s", "warmUp": "0s", "minSamples": 100, "consecutive": 1}
    for name, metric in (("zero-results", "ZeroResultRate"), ("errors", "ErrorRate"))
]
RATE = 100.0
SLOW = 50.0
"""For stories that take minutes: several run at once."""
OK = 200


@dataclass(slots=True)
class Workspace:
    """Made empty by conftest.py; `put` data and `apply` a manifest."""

    kube: Kube
    store: ObjectStore
    images: Images
    namespace: str
    index: VectorIndexHandle
    rollout: Json = field(default_factory=lambda: {"shadow": {"maxPerSecond": 0}})
    """Of each manifest: no shadow, but where it is what a test is about."""

    @property
    def bucket(self) -> str:
        return self.namespace

    @classmethod
    def create(cls, kube: Kube, store: ObjectStore, images: Images, namespace: str) -> Workspace:
        """The namespace, a bucket of the same name and the Secret for it."""
        kube.ensure_namespace(namespace, **{"vectorindex.dev/e2e": "true"})
        store.make_bucket(namespace)
        space = cls(kube, store, images, namespace, VectorIndexHandle(kube, namespace, NAME))
        space.make_secret()
        return space

    def make_secret(self) -> None:
        self.kube.apply_secret(SECRET, self.namespace, self.store.access.secret())

    def retire(self) -> None:
        """Asks for the end of the index, which is all that uses the machine; waits for nothing."""
        self.kube.delete("VectorIndex", self.index.name, self.namespace)

    def remove(self) -> None:
        """Removes the bucket and, once the searchers are gone, asks for the end of the namespace.

        A namespace with a running pod is looked at again only after half of that pod's grace.
        """
        self.retire()
        self.store.remove_bucket(self.bucket)
        self.kube.wait_for(
            lambda: not [pod for pod in self.index.pods() if pod["status"]["phase"] == "Running"],
            60,
            f"the pods of {self.namespace} to end",
            last_seen=self.index.explain,
        )
        self.kube.delete("Namespace", self.namespace)

    # ------------------------------------------------------------ data, manifests

    def put(self, folder: str, data: Corpus | bytes, name: str = "part-0.parquet") -> None:
        """Writes one object of the source `folder`."""
        self.store.put(self.bucket, f"{folder}/{name}", data if isinstance(data, bytes) else data.parquet())

    def s3(self, prefix: str, **changes: str) -> Json:
        """A place in this workspace's bucket, as a manifest names it."""
        access = self.store.access
        place = {"bucket": self.bucket, "prefix": prefix, "endpoint": access.endpoint_in_cluster}
        return place | {"region": access.region, "secretRef": {"name": SECRET}} | changes

    def smallest(self, folder: str) -> Json:
        """What a user must say, and nothing else."""
        spec = {"source": {"s3": self.s3(f"{folder}/")}, "artifacts": {"s3": self.s3("indexes/")}}
        return {
            "apiVersion": "vectorindex.dev/v1alpha1",
            "kind": "VectorIndex",
            "metadata": {"name": self.index.name},
            "spec": spec,
        }

    def manifest(self, folder: str, **changes: Any) -> Json:
        """The smallest one, for a small machine and in a hurry. `changes` are merged into the spec.

        Nothing polls, so new data is a new folder: the source is listed again at once.
        """
        small = self.smallest(folder)
        quick = {
            "source": {"poll": "0", "minInterval": "1s"},
            "build": {"resources": SMALL, "retries": 0},
            "searcher": {"replicas": 1, "minScore": MIN_SCORE, "resources": SMALL},
            "rollout": {"soak": {"duration": "10s", "minQueries": 500, "maxDuration": "10m"}, **self.rollout},
            "guardrails": {"rules": RULES},
        }
        return {**small, "spec": merged(merged(small["spec"], quick), changes)}

    def apply(self, folder: str, **changes: Any) -> None:
        """Applies `manifest(folder, **changes)`."""
        self.index.apply(self.manifest(folder, **changes))

    # ------------------------------------------------------------ queries

    def ask(self, query: Floats, **fields: Any) -> Json:
        """The answer of one search through the Service."""
        path = f"/api/v1/namespaces/{self.namespace}/services/{self.index.name}:http/proxy/v1/search"
        body = {"vector": [float(x) for x in query], **fields}
        status, answer = self.kube.call("POST", path, body=body)
        assert status == OK, f"{status}: {answer}\n{self.index.explain()}"
        return answer

    @contextmanager
    def traffic(self, data: Corpus, rate: float = RATE, more: list[str] | None = None) -> Iterator[Traffic]:
        """Queries that do not stop, spread evenly over the clusters of `data`; `more`: further requests."""
        with self.asked(bodies(data.queries()) + (more or []), rate) as running:
            yield running

    @contextmanager
    def asked(self, sent: list[str], rate: float = RATE, **settings: Any) -> Iterator[Traffic]:
        """These requests, again and again; `settings` of harness.traffic."""
        with traffic.to_index(self.kube, self.images, self.index, sent, rate=rate, **settings) as running:
            running.wait(lambda seen: seen.queries + seen.failed >= rate, 30, "the first second of traffic")
            yield running

    # ------------------------------------------------------------ looks

    def say(self, verb: str, nonce: str, revision: str = "") -> Json:
        """Says a verb as a person does; what was answered (status.verbs)."""
        self.index.verb(verb, f"{revision}@{nonce}" if revision else nonce)

        def answered() -> Json | None:
            rows = self.index.status().get("verbs", [])
            return next((row for row in rows if (row["verb"], row["nonce"]) == (verb, nonce)), None)

        said: Json = self.index.wait(answered, 30, f"an answer to {verb} {nonce}")
        return said

    def blocked(self, rule: str) -> Json | None:
        """The row of this rule in status.blockedBy."""
        return next((row for row in self.index.status().get("blockedBy", []) if row["rule"] == rule), None)

    def searchers(self, revision: str) -> set[str]:
        """The uids of a revision's pods, those that end among them."""
        return {pod["metadata"]["uid"] for pod in self.index.pods(revision)}

    def lives(self, revision: str) -> set[tuple[str, int]]:
        """Of each of a revision's pods its uid and how often its containers began anew: "without a restart" is when
        these stay."""
        found = set()
        for pod in self.index.pods(revision):
            restarts = [one["restartCount"] for one in pod["status"].get("containerStatuses", [])]
            found.add((pod["metadata"]["uid"], sum(restarts)))
        return found

    def wait_phase(self, revision: str, *phases: str, timeout: float = 60) -> None:
        """Until the revision is in one of `phases`, whatever it was before (also Rejected, which may be undone)."""
        self.index.wait(
            lambda: self.index.revision(revision).get("phase") in phases,
            timeout,
            f"{revision} to be {' or '.join(phases)}",
        )

    def built(self) -> Counter[str]:
        """How many builds of each revision wrote an index: every attempt leaves its files under a prefix of its own."""
        keys = self.store.keys(self.bucket, f"indexes/{self.namespace}/{self.index.name}/")
        digests = {item["spec"]["digest"]: name for name, item in self.index.revisions().items()}
        return Counter(digests.get(key.split("/")[3], "unknown") for key in keys if key.endswith("/index.faiss"))

    def stored(self, index: str = NAME) -> set[str]:
        """Every key below the prefix of an index."""
        return set(self.store.keys(self.bucket, f"indexes/{self.namespace}/{index}/"))

    def index_file(self, revision: str) -> str:
        """The key of the FAISS file of a published revision."""
        digest = self.index.revisions()[revision]["spec"]["digest"]
        (key,) = (key for key in self.store.keys(self.bucket, "indexes/") if digest in key and "/index.faiss" in key)
        return key

    def work(self) -> set[str]:
        """Names of all build and validate Jobs."""
        return {job["metadata"]["name"] for job in self.index.jobs("build", "validate")}

    def processes(self, revision: str) -> set[str]:
        """How many processes answer the users of each of its pods, as these are told."""
        told = [pod["spec"]["containers"][0]["env"] for pod in self.index.pods(revision)]
        return {next((e["value"] for e in env if e["name"] == "VECTORINDEX_PROCESSES"), "1") for env in told}

    def has_event(self, reason: str) -> bool:
        return any(event["reason"] == reason for event in self.index.events())

    def wait_event(self, reason: str, *words: str, timeout: float = 30) -> Json:
        """The newest Event of this reason whose note has all of `words`; Events come after the status."""

        def sent() -> Json | None:
            events = [one for one in self.index.events() if one["reason"] == reason]
            return next((one for one in reversed(events) if all(word in one["note"] for word in words)), None)

        event: Json = self.index.wait(sent, timeout, f"an Event {reason} about {', '.join(words)}")
        return event

    def hold(self, probe: Callable[[], Any], seconds: float, what: str) -> None:
        """For this long `probe` gives what it gave first: how one sees that something does not happen."""
        first, deadline = probe(), time.monotonic() + seconds
        while time.monotonic() < deadline:
            now = probe()
            assert now == first, f"{what}: it was\n  {first}\nand is\n  {now}\n{self.index.explain()}"
            time.sleep(0.5)


MakeWorkspace = Callable[[str], Workspace]


def no_failures(seen: Snapshot, *, at_least: int = 0) -> None:
    """No query failed, and enough were sent to mean something."""
    assert seen.queries >= at_least, f"only {seen.queries} queries were sent"
    assert seen.failed == 0, seen.describe_failures()


def merged(base: Json, changes: Json) -> Json:
    """`base` with `changes` put over it, mapping by mapping."""
    out = copy.deepcopy(base)
    for key, value in changes.items():
        old = out.get(key)
        out[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else copy.deepcopy(value)
    return out


def pretty(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True)
