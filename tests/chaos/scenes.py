"""What befalls an index on a real cluster: each a bad revision and a good one, and the fault while they roll out."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos.rules import BROKEN, CONFLICT, READS, TOO_MANY, WRITES, Crash, Cut, Gone, Lost, Rule, Slow, Stale
from chaos.site import Index, Row, beside, operator_of, other_index, put
from e2e.operator_release import main_processes

from harness.commands import run
from harness.errors import HarnessError
from harness.kube import Json
from harness.local import PROGRAM

WATCHES, ALL = frozenset({"watch"}), WRITES | READS
STORE_NAMESPACE = "object-store"
Scene = Callable[[Index], None]
SCENES: dict[str, Scene] = {}


def scene(fault: str) -> Callable[[Callable[[Index, Row], None]], Callable[[Index, Row], None]]:
    """Registers what happens beside each of the two rollouts."""

    def add(do: Callable[[Index, Row], None]) -> Callable[[Index, Row], None]:
        SCENES[fault] = lambda one: _ignore(one.cycle_under(fault, lambda row: do(one, row)))
        return do

    return add


def _ignore(row: Row) -> None:
    """The row is kept by the site."""


# ---------------------------------------------------------------- answers of the API server

ANSWERS: dict[str, Callable[[], list[Rule]]] = {
    "a third of the writes answered 409": lambda: [Rule(CONFLICT, WRITES, share=0.33)],
    "a tenth of the requests answered 429": lambda: [Rule(TOO_MANY, ALL, share=0.1)],
    "a tenth of the requests answered 500": lambda: [Rule(BROKEN, ALL, share=0.1)],
    "half of the writes done, their answers lost": lambda: [Rule(Lost(), WRITES, share=0.5)],
    "watches end in the middle of an event": lambda: [Rule(Cut(2), WATCHES)],
    "two of three watches answered 410": lambda: [Rule(Gone(), WATCHES, share=0.67)],
    "a third of the answers 2 s late": lambda: [Rule(Slow(2.0), ALL, share=0.33)],
    "the first 40 reads answered as the first time": lambda: [Rule(Stale(), READS, last=40)],
}


def answered(fault: str) -> Scene:
    def run(one: Index) -> None:
        rules = ANSWERS[fault]()
        one.proxy.rules.set(rules)
        try:
            row = one.cycle_under(fault)
        finally:
            one.proxy.rules.set()
        row.times = sum(rule.met for rule in rules)

    return run


SCENES |= {fault: answered(fault) for fault in ANSWERS}
POINTS = {
    "the first write of a Job": ("jobs", 1),
    "the switch": ("services", 1),
}


def killed_at(point: str, *, after: bool) -> Scene:
    resource, first = POINTS[point]

    def run(one: Index) -> None:
        def arm(row: Row) -> None:
            one.proxy.rules.set([Rule(Crash(after), WRITES, frozenset({resource}), first=first, last=first)])

        ends = len(one.operator.ends)
        row = one.cycle_under(f"operator killed {'after' if after else 'before'} {point}", arm)
        one.proxy.rules.set()
        row.times = len(one.operator.ends) - ends

    return run


SCENES |= {
    f"operator killed {'after' if after else 'before'} {point}": killed_at(point, after=after)
    for point in POINTS
    for after in (False, True)
}


# ---------------------------------------------------------------- the operator


@scene("operator killed in each phase")
def _phases(one: Index, row: Row) -> None:
    seen: set[str] = set()
    for phase in ("Building", "Validating", "Surging", "Soaking"):
        one.wait_phase(phase, *_LATER[phase])
        one.operator.kill()
        row.times += 1
        seen.add(phase)


_LATER = {
    "Building": ("Validating", "Validated", "Surging", "Soaking", "Stable", "RolledBack"),
    "Validating": ("Validated", "Surging", "Soaking", "Stable", "RolledBack"),
    "Surging": ("Soaking", "Stable", "RolledBack"),
    "Soaking": ("Stable", "RolledBack"),
}
FROZEN_SECONDS = 25.0
"""Longer than a Lease lasts: the other one takes over."""


@scene("two operators, the one that leads frozen while its revision soaks")
def _two(one: Index, row: Row) -> None:
    other = operator_of(one.site, one.space.namespace, one.proxy, "operator-1")
    one.wait_phase("Surging", "Soaking")
    with other.running(), one.operator.frozen():
        row.times += 1
        time.sleep(FROZEN_SECONDS)
        other.wait_leads()
    # The other one is ended here; the first takes over again, or begins anew.


# ---------------------------------------------------------------- searchers


@scene("searcher killed")
def _killed(one: Index, row: Row) -> None:
    one.wait_phase("Soaking", "Stable", "RolledBack")
    for process in main_processes(_searcher(one)["metadata"]["uid"]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        row.times += 1


@scene("searcher out of memory")
def _memory(one: Index, row: Row) -> None:
    """Its limit falls to what it uses, again and again: the kernel ends it when it wants another page."""
    one.wait_phase("Soaking", "Stable", "RolledBack")
    pod, until = _searcher(one), time.monotonic() + OUT_OF_MEMORY_SECONDS
    (process,) = main_processes(pod["metadata"]["uid"])
    folder = _memory_of(process)
    while Path(f"/proc/{process}").exists() and time.monotonic() < until:
        with contextlib.suppress(OSError):  # EBUSY: it cannot be pressed below
            (folder / "memory.limit_in_bytes").write_text((folder / "memory.usage_in_bytes").read_text())
        time.sleep(0.1)
    row.times += not Path(f"/proc/{process}").exists()


OUT_OF_MEMORY_SECONDS = 30.0


@scene("replicas changed by /scale in surge, soak and rollback")
def _scaled(one: Index, row: Row) -> None:
    for phase, replicas in (("Surging", 3), ("Soaking", 2), ("RolledBack", 3)):
        one.wait_phase(phase, *_LATER.get(phase, ("Stable",)))
        space = one.space
        space.kube.kubectl("-n", space.namespace, "scale", f"vix/{space.index.name}", f"--replicas={replicas}")
        row.times += 1


def _searcher(one: Index) -> Json:
    """A ready pod of what has the traffic, which has another one."""
    pods = [pod for pod in one.space.index.pods(one.space.index.traffic()) if _ready(pod)]
    return pods[0]


def _ready(pod: Json) -> bool:
    conditions = pod["status"].get("conditions", ())
    return "deletionTimestamp" not in pod["metadata"] and any(
        row["type"] == "Ready" and row["status"] == "True" for row in conditions
    )


def _memory_of(process: int) -> Path:
    """The folder of its memory cgroup (v1)."""
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory") / path.lstrip("/")
    raise FileNotFoundError(f"no memory cgroup of {process}")


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


ALONE: dict[str, Scene] = {}
"""Those that befall every index: on one, without others beside it."""


def store_down(one: Index) -> None:
    """While a revision is built, while one surges, and while what was retired is to be loaded again.

    No bad revision: it is the store's part of a rollout that counts.
    """
    with one.counted("object store down during a build, a surge and a cold rollback") as row:
        retired = one.space.index.traffic()
        for phase, seconds in (("Building", 10.0), ("Surging", 10.0)):
            one.known = set(one.space.index.revisions())

            def stop(phase: str = phase, seconds: float = seconds) -> None:
                one.wait_phase(phase, *_LATER[phase])
                with store_stopped(one):
                    time.sleep(seconds)

            with beside(stop):
                made = one.roll_out(good=True)
            row.times, row.rollouts = row.times + 1, row.rollouts + 1
            row.wrong += [] if made.right else [f"{made.revision}: {made.ended}, not Stable: {made.said}"[:600]]
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


# ---------------------------------------------------------------- nodes

LOST_SECONDS = 75.0
"""Kubernetes notices after some 50."""


def node(what: str) -> None:
    """`cluster node WHAT`: the second node."""
    run([sys.executable, PROGRAM, "node", what], timeout=300)


def node_lost(phase: str) -> Scene:
    """The second node ends as in a power cut while a revision is in this phase (none: at rest), and comes back."""

    def lose(one: Index, row: Row) -> None:
        if phase:
            one.wait_phase(phase, *_LATER[phase])
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
                made = one.roll_out(good=True)
            row.rollouts += 1
            row.wrong += [] if made.right else [f"{made.revision}: {made.ended}, not Stable: {made.said}"[:600]]

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
    return next(name for raw in one.space.kube.list("Node") if (name := raw["metadata"]["name"]) != "local")


def _spread(one: Index) -> None:
    """One of the two searchers runs on the second node: else one that does not is made anew there."""
    space, name = one.space, _second(one)
    index = space.index

    def both() -> bool:
        pods = [pod for pod in index.pods(index.traffic()) if _ready(pod)]
        places = {pod["spec"].get("nodeName") for pod in pods}
        return len(pods) == _REPLICAS and {"local", name} <= places

    def ready() -> bool:
        pods = [pod for pod in index.pods(index.traffic()) if "deletionTimestamp" not in pod["metadata"]]
        return len(pods) == _REPLICAS and all(map(_ready, pods))

    index.wait(ready, 180, "both searchers")
    if both():
        return
    space.kube.kubectl("cordon", "local")
    try:
        pod = next(pod for pod in index.pods(index.traffic()) if pod["spec"].get("nodeName") == "local")
        space.kube.delete("Pod", pod["metadata"]["name"], space.namespace)
        index.wait(lambda: ready() and both(), 180, f"a searcher on {name}")
    finally:
        space.kube.kubectl("uncordon", "local")


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
            one.site.left.append(f"Namespace {space.namespace}: {error}"[:300])
        space.store.remove_bucket(space.bucket)


ALONE["namespace deleted during a build, the operator down"] = namespace_deleted
