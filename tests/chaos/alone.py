"""What befalls every index, or the whole cluster: on one index, without others beside it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from chaos.ledger import Row
from chaos.scenes import LATER, Scene, is_ready
from chaos.site import Index, beside, operator_of, other_index, put
from e2e.operator_release import main_processes
from rollout_faults import kill_api_server

from harness.commands import run
from harness.errors import HarnessError
from harness.kube import Kube
from harness.local import PROGRAM

STORE_NAMESPACE = "object-store"
ALONE: dict[str, Scene] = {}


# ---------------------------------------------------------------- the store


@contextmanager
def store_stopped(one: Index) -> Iterator[None]:
    """It answers nothing for as long as the block."""
    (pod, *_) = one.space.kube.list("Pod", STORE_NAMESPACE, "app=s3")
    processes = main_processes(pod["metadata"]["uid"])
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def store_down(one: Index) -> None:
    """While a revision is built, while one surges, and while what was retired is to be loaded again.

    No bad revision: it is the store's part of a rollout that counts.
    """
    with one.counted("object store down during a build, a surge and a cold rollback") as row:
        retired = one.space.index.traffic()
        for phase, seconds in (("Building", 10.0), ("Surging", 10.0)):
            one.known = set(one.space.index.revisions())

            def stop(phase: str = phase, seconds: float = seconds) -> None:
                one.wait_phase(phase, *LATER[phase])
                with store_stopped(one):
                    time.sleep(seconds)

            with beside(stop):
                one.rolled_out(row, good=True)
            row.times += 1
        index = one.space.index
        index.wait(lambda: index.revision(retired).get("phase") == "Retired", 120, f"{retired} to be retired")
        with store_stopped(one):
            index.verb("rollback", f"{retired}@chaos-{one.cycle}")
            time.sleep(15.0)
            row.wrong += [] if index.traffic() != retired else ["the traffic went to what is not loaded"]
        row.times, row.rollbacks = row.times + 1, row.rollbacks + 1
        index.wait(lambda: index.traffic() == retired, 240, f"the traffic to go back to {retired}")
        one.running.wait(lambda seen: seen.newest == retired, 60, f"answers of {retired}")


ALONE["object store down"] = store_down


# ---------------------------------------------------------------- the control plane

COMPACTED = "etcd compacted and the API server begun anew: 410 of its own"
TOLD_SECONDS = 120.0


def compacted(one: Index) -> None:
    """While a revision is built: what the operator's watches would go on from is nowhere any more."""
    with one.counted(COMPACTED) as row:

        def forget() -> None:
            one.wait_phase("Building", *LATER["Building"])
            before = one.proxy.gone
            run([sys.executable, PROGRAM, "compact"], timeout=60)
            kill_api_server()
            one.space.index.wait(lambda: one.proxy.gone > before, TOLD_SECONDS, "a watch to be told 410")
            row.times += 1

        for good in (False, True):
            one.known = set(one.space.index.revisions())
            with beside(forget):
                one.rolled_out(row, good=good)


ALONE[COMPACTED] = compacted


# ---------------------------------------------------------------- nodes

FIRST = "local"
LOST_SECONDS = 75.0
"""Kubernetes notices after some 50."""


def node(what: str) -> None:
    """`cluster node WHAT`: the second node."""
    run([sys.executable, PROGRAM, "node", what], timeout=300)


def node_lost(phase: str) -> Scene:
    """The second node ends as in a power cut while a revision is in this phase (none: at rest), and comes back."""

    def lose(one: Index, row: Row) -> None:
        if phase:
            one.wait_phase(phase, *LATER[phase])
        node("lose")
        row.times += 1
        time.sleep(LOST_SECONDS)
        node("add")

    def scene_(one: Index) -> None:
        node("add")
        with one.counted(f"node lost in {phase or 'steady state'}") as row:
            _spread(one)
            one.known = set(one.space.index.revisions())
            if not phase:
                lose(one, row)
                return
            with beside(lambda: lose(one, row)):
                one.rolled_out(row, good=True)

    return scene_


def drained(one: Index) -> None:
    """`kubectl drain` in steady state: the PodDisruptionBudget lets no two searchers go at a time."""
    node("add")
    with one.counted("node drained") as row:
        _spread(one)
        kube, name = one.space.kube, _second(one)
        kube.kubectl("drain", name, "--ignore-daemonsets", "--delete-emptydir-data", "--force", timeout=180)
        row.times += 1
        kube.kubectl("uncordon", name)


def _second(one: Index) -> str:
    return next(name for name in _nodes(one.space.kube) if name != FIRST)


def _nodes(kube: Kube) -> list[str]:
    return [raw["metadata"]["name"] for raw in kube.list("Node")]


@contextmanager
def nodes_as_they_were(kube: Kube) -> Iterator[None]:
    """A second node that was not there before the block is gone after it."""
    before = _nodes(kube)
    yield
    if _nodes(kube) != before:
        node("remove")


def _spread(one: Index) -> None:
    """One of the two searchers runs on the second node: else one that does not is made anew there."""
    space, name = one.space, _second(one)
    index = space.index

    def both() -> bool:
        pods = [pod for pod in index.pods(index.traffic()) if is_ready(pod)]
        places = {pod["spec"].get("nodeName") for pod in pods}
        return len(pods) == _REPLICAS and {FIRST, name} <= places

    def ready() -> bool:
        pods = [pod for pod in index.pods(index.traffic()) if "deletionTimestamp" not in pod["metadata"]]
        return len(pods) == _REPLICAS and all(map(is_ready, pods))

    index.wait(ready, 180, "both searchers")
    if both():
        return
    space.kube.kubectl("cordon", FIRST)
    try:
        pod = next(pod for pod in index.pods(index.traffic()) if pod["spec"].get("nodeName") == FIRST)
        space.kube.delete("Pod", pod["metadata"]["name"], space.namespace)
        index.wait(lambda: ready() and both(), 180, f"a searcher on {name}")
    finally:
        space.kube.kubectl("uncordon", FIRST)


_REPLICAS = 2
ALONE |= {f"node lost in {phase or 'steady state'}": node_lost(phase) for phase in ("Surging", "Soaking", "")}
ALONE["node drained"] = drained


# ---------------------------------------------------------------- namespaces


def namespace_deleted(one: Index) -> None:
    """While its index is built, and no operator runs: nothing may hold it up, since nobody is there to let go."""
    space, proxy = other_index(one.site)
    with one.counted("namespace deleted during a build, the operator down") as row, proxy.running():
        with operator_of(one.site, space.namespace, proxy, "operator-0").running():
            put(space, "first", one.corpus)
            space.apply("first")
            first = space.index.wait_new_revision(set())
            space.index.wait_revision(first, "Building", "Validating")
        space.kube.delete("Namespace", space.namespace)
        row.times += 1
        try:
            space.kube.wait_gone("Namespace", space.namespace, timeout=120)
        except HarnessError as error:
            one.site.ledger.leaves([f"Namespace {space.namespace}: {error}"[:300]])
        space.store.remove_bucket(space.bucket)


ALONE["namespace deleted during a build, the operator down"] = namespace_deleted
