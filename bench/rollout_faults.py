"""Faults that happen while indexes roll out: drawn from a seed, one after the other, each written down with its time.

None takes the last ready searcher of a revision: what then fails is no finding. Faults of the control plane and the
store last some seconds. Those that need the node itself (a stopped API server or store) happen on the local cluster
only.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from e2e.operator_release import Operator, kill_container, main_processes
from e2e.workspace import Workspace

from harness import release
from harness.errors import HarnessError
from harness.kube import Json, Kube, path_of
from harness.vix import REVISION_LABEL
from harness.waiting import wait_for

STORE_NAMESPACE = "object-store"
API_SERVER = b"kube-apiserver"
NOT_DONE = ": not done"
"""Ends the kind of a fault for which nothing was there."""
STOPPED_SECONDS = (3.0, 10.0)
PATIENCE_SECONDS = 90.0
SEARCHER, SHARD = "searcher", "shard"
"""Components: what users reach, which of an index in shards are routers; and searchers of a shard."""
SHARD_LABEL = "vectorindex.dev/shard"
Group = tuple[str, str]
EVICTED = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done to whom. `at`, `until`: Unix seconds; `where`: a namespace, empty when it concerns all indexes."""

    kind: str
    where: str
    target: str
    at: float
    until: float


class PatientKube(Kube):
    """Asks an API server that does not answer again, for a while: the faults stop it on purpose."""

    def call(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> tuple[int, Json]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                status, answer = super().call(method, path, query, body, content_type)
                if status < 500 or time.monotonic() >= deadline:
                    return status, answer
            except HarnessError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(0.5)


class Faults:
    """Draws and carries out faults in a thread of its own, from `start` to `stop`."""

    def __init__(
        self, operator: Operator, spaces: Sequence[Workspace], seed: int, every: float, *, shards: bool = False
    ) -> None:
        """`every`: seconds between two, about; `shards`: whether the indexes are in shards, behind routers."""
        self.operator, self.spaces, self.every = operator, spaces, every
        self.done: list[Fault] = []
        self._killed: set[Group] = set()
        self._random = random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faults", daemon=True)
        self._kinds: dict[str, tuple[int, Callable[[], tuple[str, str]]]] = {
            "operator killed": (3, self._kill_operator)
        }
        for name, component in (
            (("router", SEARCHER), ("pod of a shard", SHARD)) if shards else (("searcher", SEARCHER),)
        ):
            self._kinds |= {
                f"{name} killed": (5, partial(self._kill, component)),
                f"{name} evicted (API)": (2, partial(self._evict, component)),
                f"{name} evicted (node pressure)": (2, partial(self._pressure, component)),
            }
        if shards:
            self._kinds["a pod of each shard lost"] = (5, self._lose_one_of_each)
        if operator.cluster.name == "local":
            self._kinds |= {
                "object store stopped": (2, self._stop_store),
                "API server stopped": (2, self._stop_api_server),
                "API server killed": (1, self._kill_api_server),
            }

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when no fault is under way any more."""
        self._over.set()
        self._thread.join(PATIENCE_SECONDS + STOPPED_SECONDS[1])

    def _run(self) -> None:
        names = list(self._kinds)
        weights = [self._kinds[name][0] for name in names]
        while not self._over.wait(self.every * self._random.uniform(0.5, 1.5)):
            (kind,) = self._random.choices(names, weights)
            at = time.time()
            try:
                where, target = self._kinds[kind][1]()
            except HarnessError as error:
                kind, where, target = f"{kind}{NOT_DONE}", "", str(error).partition("\n")[0][:200]
            self.done.append(Fault(kind, where, target, at, time.time()))

    # ------------------------------------------------------------ searchers

    def _kill(self, component: str) -> tuple[str, str]:
        """One of each revision: several restarts of a candidate are a reason to roll it back."""
        space, pod = self._one_of_two(component, but=self._killed)
        self._killed.add((space.namespace, _revision(pod)))
        kill_container(space.kube.cluster, space.kube, pod)
        return space.namespace, _name(pod)

    def _evict(self, component: str) -> tuple[str, str]:
        """As `kubectl drain` does it: the PodDisruptionBudget has a say."""
        space, pod = self._one_of_two(component)
        meta = {"name": _name(pod), "namespace": space.namespace}
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
        status, body = space.kube.call("POST", f"{path_of('Pod', _name(pod), space.namespace)}/eviction", body=eviction)
        if status >= 400:
            raise HarnessError(f"{status}: {body.get('message')}")
        return space.namespace, _name(pod)

    def _pressure(self, component: str) -> tuple[str, str]:
        """As a kubelet that is short of memory: the pod has failed, whatever its PodDisruptionBudget says."""
        space, pod = self._one_of_two(component)
        space.kube.patch("Pod", _name(pod), space.namespace, {"status": EVICTED}, subresource="status")
        return space.namespace, _name(pod)

    def _lose_one_of_each(self) -> tuple[str, str]:
        """A pod of every shard of a revision at the same moment, without a word to it, as when a node is lost."""
        for space in self._random.sample(list(self.spaces), len(self.spaces)):
            whole: dict[str, list[list[Json]]] = {}
            for (revision, _), pods in _ready_of(space, SHARD).items():
                whole.setdefault(revision, []).append(pods)
            shards = max(
                (int(_mark(pod, SHARD_LABEL)) + 1 for pod in space.index.pods() if _mark(pod, SHARD_LABEL)), default=0
            )
            names = sorted(
                name for name, groups in whole.items() if len(groups) == shards and min(map(len, groups)) > 1
            )
            if names:
                revision = self._random.choice(names)
                lost = [_name(self._random.choice(pods)) for pods in whole[revision]]
                for name in lost:
                    space.kube.delete("Pod", name, space.namespace, grace=0)
                return space.namespace, ", ".join(lost)
        raise HarnessError("no revision has two ready pods of each shard")

    def _one_of_two(self, component: str = SEARCHER, but: Set[Group] = frozenset()) -> tuple[Workspace, Json]:
        """A ready pod that has another one like it, of an index that is drawn. `but`: not of these revisions."""
        for space in self._random.sample(list(self.spaces), len(self.spaces)):
            ready = _ready_of(space, component)
            several = sorted(
                one for one, pods in ready.items() if len(pods) > 1 and (space.namespace, one[0]) not in but
            )
            if several:
                return space, self._random.choice(ready[self._random.choice(several)])
        raise HarnessError("no revision has two ready searchers")

    # ------------------------------------------------------------ the control plane and the store

    def _kill_operator(self) -> tuple[str, str]:
        """Its pod, at once: another one takes over when the Lease has run out."""
        leader = wait_for(lambda: self.operator.leader() or None, 60, "an operator that leads")
        self.operator.kube.delete("Pod", leader, release.NAMESPACE, grace=0)
        return "", leader

    def _stop_store(self) -> tuple[str, str]:
        (pod, *_) = self.operator.kube.list("Pod", STORE_NAMESPACE, "app=s3")
        return "", self._stopped(_name(pod), main_processes(pod["metadata"]["uid"]))

    def _stop_api_server(self) -> tuple[str, str]:
        return "", self._stopped("kube-apiserver", [_api_server()])

    def _stopped(self, what: str, processes: list[int]) -> str:
        """For some seconds they answer nothing."""
        seconds = self._random.uniform(*STOPPED_SECONDS)
        with _sent(signal.SIGCONT, processes):
            for process in processes:
                os.kill(process, signal.SIGSTOP)
            self._over.wait(seconds)
        return f"{what} for {seconds:.1f} s"

    def _kill_api_server(self) -> tuple[str, str]:
        """Every watch is cut; the node starts it again."""
        kill_api_server()
        return "", "kube-apiserver"


@contextlib.contextmanager
def _sent(number: signal.Signals, processes: list[int]) -> Iterator[None]:
    """The signal, at the end of the block, whatever happens in it."""
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)


def kill_api_server() -> None:
    """The local cluster's; returns when its node has started another one, which need not answer yet."""
    before = _api_server()
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: _api_servers() not in ([], [before]), 60, "another kube-apiserver")


def _api_server() -> int:
    found = _api_servers()
    if not found:
        raise HarnessError("no kube-apiserver of the local cluster runs on this machine")
    return found[0]


def _api_servers() -> list[int]:
    """The local cluster's, not one of a test: it listens at an address of its own."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if API_SERVER in words[1:2] and any(word.startswith(b"--advertise-address=") for word in words):
            found.append(int(folder.name))
    return found


def _ready_of(space: Workspace, component: str) -> dict[Group, list[Json]]:
    """By revision and shard (empty: none) the pods that are ready."""
    ready: dict[Group, list[Json]] = {}
    for pod in sorted(space.index.pods(), key=_name):
        if _mark(pod, "app.kubernetes.io/component") == component and _ready(pod):
            ready.setdefault((_revision(pod), _mark(pod, SHARD_LABEL)), []).append(pod)
    return ready


def _name(pod: Json) -> str:
    return str(pod["metadata"]["name"])


def _revision(pod: Json) -> str:
    return _mark(pod, REVISION_LABEL)


def _mark(pod: Json, label: str) -> str:
    return str(pod["metadata"]["labels"].get(label, ""))


def _ready(pod: Json) -> bool:
    conditions = pod["status"].get("conditions", [])
    alive = "deletionTimestamp" not in pod["metadata"]
    return alive and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
