"""Where faults of the API server are met by the dozen: a real etcd and API server, a kubelet that is played, and for
each index an operator, a proxy and a namespace of its own.

The kubelet and its pods are those of bench/idle.py: Jobs end as the data plane would end them, pods answer at once.
"""

from __future__ import annotations

import itertools
import json
import os
import ssl
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.accounts import account, signing_key
from chaos.operators import Operator, Spawner
from chaos.proxy import FaultProxy
from control_plane import Json

from harness.errors import HarnessError
from harness.waiting import wait_for
from vectorindex_operator.api.v1alpha1 import API_VERSION
from vectorindex_operator.manifests import labels

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

from idle_cluster import IMAGE, Cluster, make_namespace
from idle_cluster import cluster as idle_cluster

NAME = "products"
SECONDS = 900.0
"""Of a rollout at most: it fails only where the end never comes. Of one that nothing befalls 45 are the drain of what
lost the traffic; where a tenth of the requests is refused, most passes meet one, and the waits between them double."""
KINDS = {
    "VectorIndexRevision": f"apis/{API_VERSION}:vectorindexrevisions",
    "Job": "apis/batch/v1:jobs",
    "Deployment": "apis/apps/v1:deployments",
    "PodDisruptionBudget": "apis/policy/v1:poddisruptionbudgets",
    "NetworkPolicy": "apis/networking.k8s.io/v1:networkpolicies",
    "Service": "api/v1:services",
}
FIRST, GOOD, BAD = "HNSW16", "HNSW32", "HNSW24"
RULE = {"name": "errors", "metric": "ErrorRate", "max": "5%", "window": "10s", "warmUp": "0s", "minSamples": 20}
LOOK_SECONDS = 0.5
"""A dozen lanes look at one API server."""
TOKEN_SECONDS = 24 * 3600
_numbers = itertools.count(1)


@dataclass(slots=True)
class Lane:
    """One index, and all that is its own. `since`: what the proxy had seen when the last edit was made."""

    cluster: Cluster
    namespace: str
    proxy: FaultProxy
    operator: Operator
    since: int = 0
    names: dict[str, str] = field(default_factory=dict)
    """Factories by the names of revisions."""

    # ------------------------------------------------------------ what a user does

    def apply(self, factory: str) -> None:
        """The index is to be of this factory."""
        self.since = len(self.proxy.seen)
        spec = {
            "source": {
                "s3": {"bucket": "embeddings", "prefix": f"{self.namespace}/"},
                "poll": "0",
                "minInterval": "1s",
            },
            "artifacts": {"s3": {"bucket": "indexes", "prefix": f"{self.namespace}/"}},
            "index": {"factory": factory},
            "searcher": {"replicas": 2},
            "guardrails": {"rules": [RULE | {"consecutive": 1}]},
            "rollout": {
                "shadow": {"maxPerSecond": 0},
                "soak": {"duration": "30s" if factory == BAD else "2s", "minQueries": 100},
            },
        }
        meta = {"name": NAME, "namespace": self.namespace}
        self.cluster.apply([{"apiVersion": API_VERSION, "kind": "VectorIndex", "metadata": meta, "spec": spec}])

    def spoil(self, factory: str) -> None:
        """As soon as there is a revision of this factory, its pods answer errors."""
        revision = self.wait(lambda: self.revision(factory) or None, "its revision")
        self.cluster.tell_pods(json.dumps({"load": revision, "segments": []}))
        self.cluster.tell_pods(json.dumps({"fail": revision}))

    # ------------------------------------------------------------ what became of it

    def revision(self, factory: str) -> str:
        """Its name, empty while there is none."""
        self.items("VectorIndexRevision")
        return next((name for name, one in self.names.items() if one == factory), "")

    def items(self, kind: str) -> list[Json]:
        """Objects of this kind in the namespace, of the index."""
        prefix, plural = KINDS[kind].split(":")
        answer = self.cluster.api.get(f"/{prefix}/namespaces/{self.namespace}/{plural}")
        found = [one for one in answer.body["items"] if labels.INDEX in one["metadata"].get("labels", {})]
        if kind == "VectorIndexRevision":
            self.names |= {one["metadata"]["name"]: one["spec"]["indexSpec"]["factory"] for one in found}
        return found

    def phase(self) -> str:
        """Of the index, empty while not all that was asked for is seen."""
        raw = self.cluster.api.get(f"/apis/{API_VERSION}/namespaces/{self.namespace}/vectorindexes/{NAME}").body
        status = raw.get("status", {})
        return str(status.get("phase")) if status.get("observedGeneration") == raw["metadata"]["generation"] else ""

    def phases(self) -> dict[str, Any]:
        """Those of its revisions, by their factories."""
        revisions = self.items("VectorIndexRevision")
        return {self.named(one): one.get("status", {}).get("phase") for one in revisions}

    def there(self) -> dict[str, Any]:
        """All that the operator made, with factories in the place of names that no two runs share."""
        told: dict[str, Any] = {"phase": self.phase(), "VectorIndexRevision": self.phases()}
        for kind in KINDS.keys() - {"VectorIndexRevision"}:
            told[kind] = sorted(self.named(one) for one in self.items(kind))
        fronts = [one for one in self.items("Service") if one["metadata"]["name"] == NAME]
        told["traffic"] = [self.names.get(one["spec"]["selector"].get(labels.REVISION, "")) for one in fronts]
        return told

    def named(self, raw: Json) -> str:
        """An object's name, with the factory of its revision in it, and no attempt's number or hash."""
        name = str(raw["metadata"]["name"])
        for revision, factory in self.names.items():
            if name.startswith(revision):
                return f"{factory} {raw['metadata']['labels'].get(labels.VERB, '')}".strip()
        return raw["metadata"]["labels"].get(labels.VERB, "") or name

    def orphans(self) -> list[str]:
        """What the garbage collector would leave behind when the index is deleted."""
        index = self.cluster.api.get(f"/apis/{API_VERSION}/namespaces/{self.namespace}/vectorindexes/{NAME}").body
        owners = {index["metadata"]["uid"], *(one["metadata"]["uid"] for one in self.items("VectorIndexRevision"))}
        found = [one for kind in KINDS for one in self.items(kind)]
        return [
            one["metadata"]["name"]
            for one in found
            if not owners & {owner["uid"] for owner in one["metadata"].get("ownerReferences", ())}
        ]

    def way(self) -> list[str]:
        """Factories that the front Service pointed to, one after the other, since the last edit."""
        writes = [
            one for one in self.proxy.seen[self.since :] if one.is_done and one.asked.name == NAME and one.revision
        ]
        return [factory for factory, _ in itertools.groupby(self.names[one.revision] for one in writes)]

    def unproven(self) -> list[str]:
        """Revisions that got the traffic and whose gate never passed."""
        gates = {one["metadata"]["name"]: one["status"].get("gate", {}) for one in self.items("VectorIndexRevision")}
        pointed = {one.revision for one in self.proxy.seen if one.is_done and one.revision}
        return sorted(name for name in pointed if gates.get(name, {}).get("verdict") != "Pass")

    def repeated(self) -> dict[str, int]:
        """Builds and validations that were begun more than once."""
        made = [one.asked.name for one in self.proxy.seen if one.is_done and one.asked.is_write_of("jobs")]
        made = [name for name in made if "resolve" not in name]
        return {name: count for name, count in Counter(made).items() if count > 1}

    def wait(self, probe: Any, what: str, seconds: float = SECONDS) -> Any:
        """As harness.waiting.wait_for; says what there is, and what the operator said last."""
        return wait_for(probe, seconds, f"{self.namespace}: {what}", last_seen=self.explain, every=LOOK_SECONDS)

    def explain(self) -> str:
        try:
            return f"{json.dumps(self.there(), indent=1)}\n{self.operator.log.read_text(errors='replace')[-1500:]}"
        except (OSError, KeyError, HarnessError) as error:
            return repr(error)


ADDRESSES = tuple(f"127.{100 + os.getpid() % 100}.{os.getpid() // 100 % 250}.{number}" for number in range(1, 17))
"""Of pods: others than those of bench/idle.py and of another run, which may go on beside this one."""


@contextmanager
def ground() -> Iterator[Cluster]:
    """etcd, API server, and the kubelet that is played."""
    with idle_cluster(relist_seconds=0, keep=bool(os.environ.get("CHAOS_KEEP")), addresses=ADDRESSES) as made:
        yield made


@contextmanager
def lane(cluster: Cluster, spawner: Spawner, *flags: str) -> Iterator[Lane]:
    """A namespace in which an operator begins to work, on its way to the API server the proxy."""
    namespace = f"chaos-{next(_numbers)}"
    make_namespace(cluster.api, namespace)
    name, objects = account(namespace)
    for one in objects:
        answer = cluster.api.apply(one, "helm", force=True)
        assert answer.ok, f"{one['kind']} {one['metadata']['name']}: {answer.message}"
    certificate = cluster.plane.folder / "certificates" / "apiserver.crt"
    proxy = FaultProxy(cluster.api.url, ssl.create_default_context(cafile=str(certificate)))
    with proxy.running():
        config = json.loads(cluster.plane.kubeconfig(namespace, name, TOKEN_SECONDS).read_text())
        config["clusters"][0]["cluster"] = {"server": proxy.url}
        kubeconfig = cluster.plane.folder / f"{namespace}.json"
        kubeconfig.write_text(json.dumps(config))
        quick = [f"--searcher-image={IMAGE}", f"--watch-namespaces={namespace}", "--soak-look-seconds=1"]
        quick.append(f"--internal-key-dir={signing_key(cluster.plane.folder)}")
        log = cluster.plane.folder / f"{namespace}.log"
        operator = Operator(spawner, kubeconfig, namespace, "operator-0", [*quick, *flags], log)
        proxy.crash = operator.kill
        with operator.running():
            yield Lane(cluster, namespace, proxy, operator)
