"""What does a router cost a query, beside the searchers that it asks? A part of shards.py.

For each number of shards real processes: a searcher for every shard, a router, and the load client, which asks the
router and the one searcher of the unsharded index in turn. CPU is of whole processes, kernel included; with one shard
the router stands before that very searcher.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from artifacts import Serving, running
from processes import Child, connect
from results import table

HERE = Path(__file__).resolve().parent
CONNECTIONS = (1, 8)


@dataclass
class Cost:
    """CPU microseconds a query and milliseconds, one entry a round, by connections."""

    shards: int
    router: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    searchers: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """All shards together."""
    direct: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """The one searcher of the unsharded index."""
    routed_ms: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Median latency."""
    direct_ms: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    def row(self, connections: int) -> list[object]:
        """A line of the table."""
        kept = (self.router, self.searchers, self.direct, self.routed_ms, self.direct_ms)
        return [self.shards, connections, *(statistics.median(each[connections]) for each in kept)]


def costs(folders: Mapping[int, Path], queries: Path, rounds: int, seconds: float) -> list[Cost]:
    """By number of shards. `folders`: their artifacts, 1: the unsharded one; `queries`: .npy."""
    with ExitStack() as stack:
        direct = stack.enter_context(running("serve", *_artifact(folders[1])))
        load = Child(str(HERE / "load_client.py"), str(queries), core=None)
        stack.callback(load.close)
        return [_cost(count, folder, direct, load, rounds, seconds) for count, folder in folders.items()]


def _artifact(folder: Path) -> list[str]:
    return ["--artifact", str(folder), "--name", "bench", "--cache-dir", str(folder / "cache")]


def _cost(count: int, folder: Path, direct: Serving, load: Child, rounds: int, seconds: float) -> Cost:
    found = Cost(count)
    with ExitStack() as stack:
        searchers = [direct]
        if count > 1:
            some = ([*_artifact(folder), "--shard", str(number)] for number in range(count))
            searchers = [stack.enter_context(running("serve", *flags)) for flags in some]
        shards = [flag for one in searchers for flag in ("--shard", f"http://127.0.0.1:{one.port}")]
        router = stack.enter_context(running("route", *shards))
        for number in range(rounds):
            for connections in CONNECTIONS:
                for routed in (True, False) if number % 2 else (False, True):
                    if routed:
                        spent, theirs, middle = _asked(load, router, searchers, connections, seconds)
                        found.router[connections].append(spent)
                        found.searchers[connections].append(theirs)
                        found.routed_ms[connections].append(middle)
                    else:
                        spent, _, middle = _asked(load, direct, (), connections, seconds)
                        found.direct[connections].append(spent)
                        found.direct_ms[connections].append(middle)
    return found


def _asked(
    load: Child, server: Serving, behind: Sequence[Serving], connections: int, seconds: float
) -> tuple[float, float, float]:
    """CPU microseconds a query of the server and of those behind it, and the median latency in milliseconds."""
    connect(load, server.port, connections, "binary")
    before, theirs = server.cpu(), sum(one.cpu() for one in behind)
    answer = load.ask(json.dumps({"do": "closed", "seconds": seconds}))
    spent, theirs = server.cpu() - before, sum(one.cpu() for one in behind) - theirs
    return spent / answer["count"] * 1e6, theirs / answer["count"] * 1e6, answer["p50"]


def summary(found: Sequence[Cost]) -> dict[str, float]:
    """CPU microseconds of the router a query, with eight connections, by number of shards."""
    return {f"shards.router_us_{one.shards}": statistics.median(one.router[CONNECTIONS[-1]]) for one in found}


def text(found: Sequence[Cost]) -> str:
    """The section of the page."""
    head = ["shards", "connections", "router, CPU us", "all its searchers, CPU us", "one searcher of all rows, CPU us"]
    head += ["p50 ms by the router", "p50 ms directly"]
    rows = [one.row(connections) for one in found for connections in CONNECTIONS]
    what = (
        "A query by binary body and binary answer, k=10: CPU of the router's process, kernel included, beside that of "
        "the searchers that it asks, and of one searcher that has all rows, asked in turn. Medians of rounds. "
        "Latencies are of one machine that runs the load, the router and all searchers at once; with fewer cores than "
        "processes they say how long a query stood in line."
    )
    return f"## What a router costs\n\n{what}\n\n{table(head, rows)}\n"
