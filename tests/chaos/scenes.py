"""What befalls an index on a real cluster: each a bad revision and a good one, and the fault while they roll out."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from chaos.autoscaler import FEWEST, MOST, autoscaled
from chaos.ledger import Row
from chaos.rules import BROKEN, CONFLICT, READS, TOO_MANY, WRITES, Crash, Cut, Gone, Lost, Rule, Slow, Stale
from chaos.site import Index, operator_of
from e2e.operator_release import main_processes
from rollouts import ROLLOUT_SECONDS

from harness.kube import Json
from harness.vix import ENDED

WATCHES, ALL = frozenset({"watch"}), WRITES | READS
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


def of_watches(rules: Iterable[Rule]) -> bool:
    """Whether the faults are of watches: one that is under way lasts longer than a rollout, and none would happen."""
    return any(rule.verbs == WATCHES for rule in rules)


def answered(fault: str) -> Scene:
    def run(one: Index) -> None:
        rules = [replace(rule, seed=one.turn.seed) for rule in ANSWERS[fault]()]
        one.proxy.rules.set(rules)
        try:
            with one.proxy.cutting_watches() if of_watches(rules) else contextlib.nullcontext():
                one.cycle_under(fault, count=lambda: sum(rule.met for rule in rules))
        finally:
            one.proxy.rules.set()

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
        fault = f"operator killed {'after' if after else 'before'} {point}"
        one.cycle_under(fault, arm, count=lambda: len(one.operator.ends) - ends)
        one.proxy.rules.set()

    return run


SCENES |= {
    f"operator killed {'after' if after else 'before'} {point}": killed_at(point, after=after)
    for point in POINTS
    for after in (False, True)
}


# ---------------------------------------------------------------- the operator

MOST_WRITES = 30
"""Of a rollout, at least: it has some four more."""


@scene("operator killed at a write that is drawn")
def _drawn(one: Index, row: Row) -> None:
    draw = random.Random(f"{one.turn.seed} {row.rollbacks}")
    number, ends = draw.randint(1, MOST_WRITES), len(one.operator.ends)
    one.proxy.rules.set([Rule(Crash(draw.random() < 0.5), WRITES, first=number, last=number)])
    one.wait_phase(*ENDED, seconds=ROLLOUT_SECONDS)
    row.times += len(one.operator.ends) - ends
    one.proxy.rules.set()


@scene("operator killed in each phase")
def _phases(one: Index, row: Row) -> None:
    seen: set[str] = set()
    for phase in ("Building", "Validating", "Surging", "Soaking"):
        one.wait_phase(phase, *LATER[phase])
        one.operator.kill()
        row.times += 1
        seen.add(phase)


LATER = {  # phases that a revision is in when it is beyond one
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
        one.wait_phase(phase, *LATER.get(phase, ("Stable",)))
        space = one.space
        space.kube.kubectl("-n", space.namespace, "scale", f"vix/{space.index.name}", f"--replicas={replicas}")
        row.times += 1


@scene("replicas changed by a HorizontalPodAutoscaler through surge, soak and rollback")
def _autoscaled(one: Index, row: Row) -> None:
    """The load rises and falls as fast as the controller follows, until it has done so once after the end."""
    name = one.wait_phase("Building", *LATER["Building"])
    with autoscaled(one.site.metrics, one.space) as set_load:
        for searchers in itertools.cycle((MOST, FEWEST)):
            set_load(searchers)
            phase = str(one.space.index.revision(name).get("phase"))
            row.times, row.phases[phase] = row.times + 1, row.phases.get(phase, 0) + 1
            if phase in ENDED:
                return


def _searcher(one: Index) -> Json:
    """A ready pod of what has the traffic, which has another one."""
    return next(pod for pod in one.space.index.pods(one.space.index.traffic()) if is_ready(pod))


def is_ready(pod: Json) -> bool:
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
