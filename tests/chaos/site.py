"""A real cluster with real searchers and real queries; for each index an operator of this machine, and its proxy."""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from chaos.accounts import account, signing_key
from chaos.autoscaler import MetricsApi, metrics_api
from chaos.campaign import Turn
from chaos.ledger import BETWEEN, Ledger, Row
from chaos.operators import Operator, Spawner
from chaos.proxy import FaultProxy
from e2e.operator_release import Operator as Release
from e2e.vectors import Corpus, bodies
from e2e.workspace import Workspace
from layers import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "bench"))

from rollout_faults import PatientKube
from rollouts import CLIENT_RETRIES, QUICK, Rollout, put, roll_out

from harness import cluster as clusters
from harness import images, release, s3, traffic
from harness.errors import HarnessError
from harness.kube import Json, Kube, path_of
from harness.traffic import Snapshot, Traffic

HOME, PREFIX = "vectorindex-chaos", "chaos-"
FIRST_SECONDS, GONE_SECONDS = 300, 120
BESIDE_SECONDS = 300
"""So long after a rollout what happens beside it may go on."""


@dataclass(slots=True)
class Site:
    """The cluster, and what all indexes share."""

    kube: Kube
    store: s3.ObjectStore
    images: images.Images
    spawner: Spawner
    folder: Path
    ledger: Ledger
    metrics: MetricsApi


@dataclass(slots=True)
class Index:
    """One index under queries that do not stop. `turn`: whose turn it is; `cycle`: how many edits it has seen."""

    site: Site
    space: Workspace
    proxy: FaultProxy
    operator: Operator
    corpus: Corpus
    running: Traffic
    turn: Turn
    cycle: int = 0
    known: set[str] = field(default_factory=set)
    """Revisions that were there before the last edit."""
    _counted: Row = field(default_factory=lambda: Row(BETWEEN))
    """The queries of all rows together."""

    def roll_out(self, *, good: bool) -> Rollout:
        """One revision from apply to its end."""
        self.cycle += 1
        seed = 100 * self.turn.seed + self.cycle
        data = self.corpus.moved(seed=seed) if good else self.corpus.spoiled(0.5, seed=seed)
        folder = f"{'good' if good else 'bad'}-{self.cycle}"
        return roll_out(self.space, self.running, data, folder, self.cycle, "Stable" if good else "RolledBack")

    @contextmanager
    def counted(self, fault: str) -> Iterator[Row]:
        """What happens within is this fault's."""
        self.proxy.seen.clear()
        before, row, began = self.running.snapshot(), Row(fault, self.turn.number), time.monotonic()
        try:
            yield row
        finally:
            after = self.running.snapshot()
            row.queries, row.failed = after.queries - before.queries, after.failed - before.failed
            new = [one for one in after.failures if one["at"] > before.at]
            row.failures = [f"{one['kind']}: {one['detail']}"[:200] for one in new]
            row.unproven = self.unproven(before, after)
            row.seconds = round(time.monotonic() - began, 1)
            row.wrong += [f"the chart's rights do not suffice: {one}" for one in self.proxy.forbidden()]
            self._counted.queries += row.queries
            self._counted.failed += row.failed
            self.site.ledger.add(row)

    def not_counted(self, last: Snapshot) -> Row:
        """What is in no row: the queries between two faults. `last`: of the index' life."""
        queries, failed = last.queries - self._counted.queries, last.failed - self._counted.failed
        return Row(BETWEEN, queries=queries, failed=failed)

    def unproven(self, before: Snapshot, after: Snapshot) -> int:
        """Answers of revisions whose gate never passed."""
        gates = {name: one.get("status", {}).get("gate", {}) for name, one in self.space.index.revisions().items()}
        count = 0
        for name, told in after.revisions.items():
            known = before.revisions.get(name)
            new = told.answers - (known.answers if known is not None else 0)
            if new and name in gates and gates[name].get("verdict") != "Pass":
                count += new
        return count

    def cycle_under(
        self, fault: str, do: Callable[[Row], None] = lambda row: None, *, count: Callable[[], int] | None = None
    ) -> Row:
        """A bad revision and a good one, while the fault lasts. `do` runs beside each and counts what it did; else
        `count` does at the end."""
        with self.counted(fault) as row:
            for good in (False, True):
                self.known = set(self.space.index.revisions())
                with beside(lambda: do(row)):
                    self.rolled_out(row, good=good)
            row.times = row.times if count is None else count()
        return row

    def rolled_out(self, row: Row, *, good: bool) -> None:
        """One revision from apply to its end, which the row tells of."""
        made = self.roll_out(good=good)
        if not made.right:
            row.wrong.append(f"{made.revision}: {made.ended}, not {made.wanted}: {made.said}"[:600])
            return
        row.rollouts += good
        row.rollbacks += not good

    def wait_phase(self, *phases: str, seconds: float = 240.0) -> str:
        """Until the revision of the last edit is in one of these; its name."""

        def there() -> str | None:
            for name, one in self.space.index.revisions().items():
                if name not in self.known and one.get("status", {}).get("phase") in phases:
                    return name
            return None

        return str(self.space.index.wait(there, seconds, f"a revision to be {' or '.join(phases)}"))


@contextmanager
def beside(do: Callable[[], None]) -> Iterator[None]:
    """`do` in a thread of its own; what it raised is raised at the end."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            do()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(BESIDE_SECONDS)
    if raised:
        raise raised[0]
    if thread.is_alive():
        raise HarnessError(f"what happens beside a rollout has not ended {BESIDE_SECONDS} s after it")


# ---------------------------------------------------------------- making and removing


def clear_what_is_left(kube: Kube, store: s3.ObjectStore) -> None:
    """By a run that was killed: its namespaces, its buckets, and of our own cluster a node that takes no pods."""
    for raw in kube.list("Namespace"):
        if (left := raw["metadata"]["name"]).startswith(PREFIX):
            kube.delete("Namespace", left)
    for left in store.buckets(PREFIX):
        store.remove_bucket(left)
    for raw in kube.list("Node") if kube.cluster.name == "local" else ():
        if raw.get("spec", {}).get("unschedulable"):
            kube.kubectl("uncordon", raw["metadata"]["name"])


def owned_by_release(manifest: Json, name: str) -> Json:
    """As the chart would have it: Helm installs the operator over no kinds of others, and ours stay."""
    meta = manifest["metadata"]
    meta["labels"] = {**meta.get("labels", {}), "app.kubernetes.io/managed-by": "Helm"}
    release_of = {"meta.helm.sh/release-name": name, "meta.helm.sh/release-namespace": release.NAMESPACE}
    meta["annotations"] = {**meta.get("annotations", {}), **release_of}
    return manifest


@contextmanager
def site(spawner: Spawner, ledger: Ledger) -> Iterator[Site]:
    """The cluster with our kinds, and without an operator in it."""
    chosen = clusters.choose()
    chosen.up()
    built = images.build(chosen)
    kube = PatientKube(chosen)
    with ExitStack() as stack:
        store = s3.connect(chosen)
        if name := release.installed(chosen):
            there = Release(chosen, kube, name)
            there.upgrade("replicaCount=0")
            stack.callback(there.upgrade, "replicaCount=1")  # whatever it was: a run that was killed left 0
        for path in sorted((CHECKOUT / "crds").glob("*.yaml")):
            kube.apply(owned_by_release(yaml.safe_load(path.read_text()), name or release.DEFAULT_NAME))
        clear_what_is_left(kube, store)
        kube.ensure_namespace(HOME)
        stack.callback(kube.delete, "Namespace", HOME)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        metrics = stack.enter_context(metrics_api(kube, HOME))
        yield Site(kube, store, built, spawner, folder, ledger, metrics)


@contextmanager
def index(where: Site, rate: float, turn: Turn) -> Iterator[Index]:
    """An index that serves, under `rate` queries a second; at the end it is deleted, and what is left then noted."""
    space, proxy = other_index(where)
    with ExitStack() as stack:
        stack.enter_context(proxy.running())
        operator = operator_of(where, space.namespace, proxy, "operator-0")
        proxy.crash = operator.kill
        stack.enter_context(operator.running())
        corpus = Corpus.make()
        put(space, "first", corpus)
        space.apply("first", **QUICK)
        space.index.wait_condition("RolledOut", timeout=FIRST_SECONDS)
        queries = bodies(corpus.queries())
        load: dict[str, Any] = {"rate": rate, "retries": CLIENT_RETRIES, "max_seconds": 10_000.0}
        running = stack.enter_context(traffic.to_index(space.kube, space.images, space.index, queries, **load))
        running.wait(lambda seen: seen.queries >= rate, 60, "the first second of traffic")
        made = Index(where, space, proxy, operator, corpus, running, turn)
        yield made
        where.ledger.add(made.not_counted(running.stop()))
        where.ledger.leaves(removed(space))


def other_index(where: Site) -> tuple[Workspace, FaultProxy]:
    """A place for one, and a proxy that does not run yet."""
    space = Workspace.create(where.kube, where.store, where.images, f"{PREFIX}{secrets.token_hex(3)}")
    for one in account(space.namespace)[1]:
        where.kube.apply(one)
    server, authority = _api_server(where.kube)
    return space, FaultProxy(server, ssl.create_default_context(cadata=authority))


def removed(space: Workspace) -> list[str]:
    """Deletes the index; what of it is still there when that should be over."""
    space.retire()
    deadline = time.monotonic() + GONE_SECONDS
    while (left := space.index.children()) and time.monotonic() < deadline:
        time.sleep(1)
    space.remove()
    return [f"{one['kind']} {space.namespace}/{one['metadata']['name']}" for one in left]


def operator_of(where: Site, namespace: str, proxy: FaultProxy, identity: str) -> Operator:
    """One that works in this namespace, by way of the proxy."""
    path = f"{path_of('ServiceAccount', account(namespace)[0], namespace)}/token"
    request: Json = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
    status, body = where.kube.call("POST", path, body=request | {"spec": {"expirationSeconds": 6 * 3600}})
    assert status < 400, body
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "chaos",
        "clusters": [{"name": "chaos", "cluster": {"server": proxy.url}}],
        "users": [{"name": "chaos", "user": {"token": body["status"]["token"]}}],
        "contexts": [{"name": "chaos", "context": {"cluster": "chaos", "user": "chaos", "namespace": namespace}}],
    }
    file = where.folder / f"{namespace}-{identity}.json"
    file.write_text(json.dumps(config))
    flags = [f"--searcher-image={where.images.searcher.reference}", f"--watch-namespaces={namespace}"]
    flags.append(f"--internal-key-dir={signing_key(where.folder)}")
    log = where.folder / f"{namespace}-{identity}.log"
    return Operator(where.spawner, file, namespace, identity, flags, log)


def _api_server(kube: Kube) -> tuple[str, str]:
    """Its address, and who vouches for it."""
    config = yaml.safe_load(kube.cluster.kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    return cluster["server"], base64.b64decode(cluster["certificate-authority-data"]).decode()
