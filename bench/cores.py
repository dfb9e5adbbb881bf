"""Queries per second with one and with two search processes: whether a pod's speed grows with its cores.

    python bench/cores.py [--quick] [--rounds 7] [--seconds 2] [--connections 64]

The load generator needs CPU, too, and on a machine with two cores there is none left for it. So speed is computed
from CPU time, not read off a clock: what n cores answer in a second is n x (share of the time in which they were busy)
/ (CPU seconds a query). CPU seconds are those of all processes of the searcher, kernel included, while all n run at
once, with all that they take from each other (caches, memory, the loopback). The one process has a core of its own, the
load runs on the other; the two have both, and share them with the load, which pushes them out of the caches: the ratio
is rather too low than too high. The cores are busy when server and load together use all of their time: a server whose
processes wait for each other would leave some, and the share of it is in the result.

For more cores than there are, two tables are computed. One from what one process takes with a few connections and
with many (the fewer there are, the less can be answered by one call): each of n processes has its share of the
connections, and does as one process with so many does. The other from what the front process takes for each connection
that it hands out, and for what each process tells it of its counts: that is all that one process does for all, so it
says where more cores stop to help. What processes take from each other beyond two cores, memory above all, is in
neither.

One and two take turns within each round. Binary bodies, k = 10, real vectors (BENCH_DATA, else the demo's) and a
costlier search, 200,000 x 768 clustered. Writes bench/results/cores.md and `cores.two_core_ratio` (the lower of the two
data sets), except with --quick or --connections.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import results
from artifacts import Artifact, Serving, built, cpu_of, serving
from datasets import FOLDER, Dataset, clustered, real
from processes import Child, connect

HANDING = 19e-6
"""CPU seconds of the front process for each connection: accept, and a message to the process that gets it."""
LOOKING = 0.55e-6
"""And for each process that it may give it to."""
HERE = Path(__file__).resolve().parent
CONNECTIONS = 64
QUERIES = 4000
PROCESSES = (1, 2)
FEW_TO_MANY = (1, 2, 4, 8, 16, 32, 64)
"""Connections of one process."""
CORES = (1, 4, 16, 32)
TOGETHER = (64, 256, 2048)
"""Connections of a pod with more cores than this machine."""
ASKED = (1, 10, 100)
"""Queries of a connection."""


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU seconds in a pod of several processes. `query`: of the process that answers it; `telling`: a second, of the
    processes that answer nobody, for each that does; the rest as HANDING and LOOKING. What a connection costs the
    process that gets it is left out: with it the others would meet the front process later."""

    query: float
    telling: float
    handing: float = HANDING
    looking: float = LOOKING


def most(costs: Costs, cores: int, queries: float) -> tuple[float, float]:
    """Queries per second of a pod with so many cores and processes, when each connection asks so many `queries`, and
    the share of a core that its front process takes then: at 1 it is what all others wait for."""
    handing = costs.handing + cores * costs.looking
    telling = cores * costs.telling
    by_cores = (cores - telling) / (costs.query + handing / queries)
    speed = min(by_cores, (1 - telling) / handing * queries)
    return speed, telling + speed / queries * handing


@dataclass
class Measured:
    """One entry a round, by number of processes."""

    dataset: str
    artifact: Artifact
    cpu: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """CPU microseconds a query, all processes of the searcher."""
    front: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Of these, in processes that do not search."""
    busy: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Share of the time of its cores that was used, by the load too where it shares them."""
    wall: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Queries per second of wall time, the load on the same two cores."""
    alone: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """CPU microseconds a query of one process, by its connections."""
    memory: dict[int, float] = field(default_factory=dict)
    """MiB of all processes, what they share once."""

    def speed(self, processes: int, round_: int) -> float:
        """Queries per second of so many cores."""
        return processes * self.busy[processes][round_] / self.cpu[processes][round_] * 1e6

    def ratios(self) -> list[float]:
        """Speed of two cores over that of one, round by round."""
        return [self.speed(2, number) / self.speed(1, number) for number in range(len(self.cpu[1]))]

    def expected(self, cores: int, connections: int) -> float:
        """Queries per second of so many processes, each on a core of its own, by what one takes with its share."""
        each = np.clip(connections / cores, FEW_TO_MANY[0], FEW_TO_MANY[-1])
        spent = [statistics.median(self.alone[number]) for number in FEW_TO_MANY]
        return cores * 1e6 / float(np.interp(np.log2(each), np.log2(FEW_TO_MANY), spent))

    def costs(self) -> Costs:
        """As measured with two processes."""
        query, front, wall = (statistics.median(each[2]) for each in (self.cpu, self.front, self.wall))
        return Costs(query=(query - front) / 1e6, telling=front * wall / 2 / 1e6)

    def dearer(self) -> float:
        """CPU a query with two processes over that with one."""
        return statistics.median(two / one for one, two in zip(self.cpu[1], self.cpu[2], strict=True))


def measure(dataset: Dataset, factory: str, rounds: int, seconds: float, connections: int) -> Measured:
    """All of one data set."""
    artifact = built(dataset, factory)
    raw = FOLDER / f"{dataset.name}-queries.npy"
    np.save(raw, dataset.queries(QUERIES))
    cores = sorted(os.sched_getaffinity(0))[:2]
    found = Measured(dataset.name, artifact)
    with ExitStack() as stack:
        servers = {1: stack.enter_context(serving(artifact, core=cores[0]))}
        servers[2] = stack.enter_context(serving(artifact, processes=2, threads=2))
        loads = {1: Child(str(HERE / "load_client.py"), str(raw), core=cores[-1])}
        loads[2] = Child(str(HERE / "load_client.py"), str(raw), core=None)
        for load in loads.values():
            stack.callback(load.close)
        for number in range(rounds):
            for processes in PROCESSES if number % 2 else PROCESSES[::-1]:
                connect(loads[processes], servers[processes].port, connections, "binary")
                _one(found, servers[processes], loads[processes], processes, seconds)
                connect(loads[processes], servers[processes].port, 0, "binary")
            for each in FEW_TO_MANY:
                connect(loads[1], servers[1].port, each, "binary")
                before = servers[1].cpu()
                answer = loads[1].ask(json.dumps({"do": "closed", "seconds": seconds / 2}))
                found.alone[each].append((servers[1].cpu() - before) / answer["count"] * 1e6)
            connect(loads[1], servers[1].port, 0, "binary")
        for processes, server in servers.items():
            found.memory[processes] = memory_of((server.pid, *server.children()))
    return found


def _one(found: Measured, server: Serving, load: Child, processes: int, seconds: float) -> None:
    others = (server.pid, *server.children()[:1]) if processes > 1 else ()
    before, aside, began = server.cpu(), sum(map(cpu_of, others)), time.perf_counter()
    answer = load.ask(json.dumps({"do": "closed", "seconds": seconds}))
    wall = time.perf_counter() - began
    spent, aside = server.cpu() - before, sum(map(cpu_of, others)) - aside
    used = spent if processes == 1 else spent + answer["cpu"]
    found.cpu[processes].append(spent / answer["count"] * 1e6)
    found.front[processes].append(aside / answer["count"] * 1e6)
    found.busy[processes].append(used / wall / processes)
    found.wall[processes].append(answer["count"] / wall)


def memory_of(pids: Sequence[int]) -> float:
    """MiB of these processes: memory of their own by what each shares of it with the others, files and mappings once,
    as the process has them that has most. (By its share of files a pod has less the more other pods have mapped them.)
    """
    anonymous, mapped = 0, [0]
    for pid in pids:
        found = {}
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, _, value = line.partition(":")
            found[name] = int(value.split()[0])
        anonymous += found["Pss_Anon"]
        mapped.append(found["Rss"] - found["Anonymous"])
    return (anonymous + max(mapped)) / 2**10


def page(found: list[Measured]) -> str:
    """The Markdown page."""
    assert __doc__ is not None
    parts = [
        "# Cores: queries per second with one and with two search processes\n",
        f"`python bench/cores.py`, {results.stamp()}. {results.machine()}.\n",
        "The machine has two cores, and the load generator runs on them, too. So speed is computed from CPU time: "
        "cores x busy share / CPU seconds a query. CPU is that of all processes of the searcher, kernel included, "
        "while all of them run at once. `busy`: with one process the share of its own core that it used; with "
        "two, what server and load used of both cores. `wall`: queries answered a second by the clock, which with "
        "two processes is what the load left them.\n",
    ]
    if warning := results.busy():
        parts.append(warning + "\n")
    for one in found:
        manifest = one.artifact.manifest
        parts.append(f"\n## {one.dataset}: {manifest.count:,} x {manifest.dimension}, {manifest.factory}\n")
        rows = []
        for processes in PROCESSES:
            speeds = [one.speed(processes, number) for number in range(len(one.cpu[processes]))]
            medians = [statistics.median(each[processes]) for each in (one.cpu, one.front, one.busy, one.wall)]
            rows.append((processes, statistics.median(speeds), *medians, one.memory[processes]))
        head = ("processes", "queries/s of its cores", "CPU us a query", "of it not searching", "busy", "wall", "MiB")
        parts.append(results.table(head, rows))
        ratios = one.ratios()
        parts.append(
            f"\nTwo cores are **{statistics.median(ratios):.2f} times** as fast as one ({min(ratios):.2f} to "
            f"{max(ratios):.2f}); a query costs {one.dearer():.3f} times the CPU.\n"
        )
        parts.append("\nMore cores, computed (in brackets: times one core with 64 connections):\n")
        base = one.expected(1, 64)
        rows = []
        for cores in CORES:
            speeds = [one.expected(cores, connections) for connections in TOGETHER]
            rows.append((cores, *(f"{speed:,.0f} ({speed / base:.1f})" for speed in speeds)))
        head = ("cores", *(f"{connections:,} connections" for connections in TOGETHER))
        parts.append(results.table(head, rows))
        parts.append("\nWhere the front process is the limit, computed (in brackets: the share of a core it takes):\n")
        parts.append(front_table(one.costs()))
    return "\n".join(parts)


def front_table(costs: Costs) -> str:
    """Queries per second by cores and by queries of a connection."""
    rows = []
    for cores in CORES[1:]:
        found = [most(costs, cores, queries) for queries in ASKED]
        rows.append((cores, *(f"{speed:,.0f} ({100 * share:.0f} %)" for speed, share in found)))
    head = ("cores", *(f"{queries} {'query' if queries == 1 else 'queries'} a connection" for queries in ASKED))
    return results.table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two short rounds on the small data; writes no results")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 2, 0.5
    found = [measure(real(), "HNSW32,SQ8", options.rounds, options.seconds, options.connections)]
    if not options.quick:
        found.append(measure(clustered(200_000, 768), "HNSW32", options.rounds, options.seconds, options.connections))
    text = page(found)
    print(text)
    if not options.quick and options.connections == CONNECTIONS:
        results.write_page("cores", text)
        results.add_to_summary({"cores.two_core_ratio": min(statistics.median(one.ratios()) for one in found)})


if __name__ == "__main__":
    main()
