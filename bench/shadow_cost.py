"""What a shadow costs the pods with the traffic: CPU a query with and without mirroring a tenth of the queries.

    python bench/shadow_cost.py [--quick] [--rounds 7] [--seconds 3] [--factory HNSW32 --factory HNSW32,SQ8]

Two searchers of the same index answer a closed loop each, at the same time. One of them is told by a lease, as the
operator tells it, to send a tenth of its queries to another pod; then the other one is. What else goes on in the
machine happens to both, and what tells them apart goes out with the exchange: the rise is the geometric mean of the two
ratios. (One after the other they differed by 15 % from turn to turn, with nothing changed: the speed of a shared
machine changes by the second.) CPU is that of all threads of a searcher, user and system, and of each turn it includes
the seconds after the last query in which what was gathered is still sent. The pod that is judged is a stand-in in
another process, which reads and answers: what it would take is not stable's. How much was really mirrored is what the
searcher itself counted; the rise is scaled to a tenth of the queries. Latencies say little.

An index that tells exact scores (HNSW32) and those that hold codes, for which the sender reads vectors.npy again (SQ8,
PQ); with eight connections, and with 64, where a query costs the least and so mirroring the most. Real vectors
(BENCH_DATA, else the demo's). Writes bench/results/shadow_cost.md and `shadow.stable_cpu_rise`, the largest of all,
except with --quick.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson
import results
from artifacts import PROGRAM, Artifact, Serving, built, serving
from datasets import FOLDER, Dataset, real
from processes import Child, connect

from vectorindex_searcher import contract
from vectorindex_searcher.contract import InternalRequest, Target

HERE = Path(__file__).resolve().parent
FACTORIES = ("HNSW32", "HNSW32,SQ8", "IVF64,PQ48x8")
CONNECTIONS = (8, 64)
QUERIES = 4000
SHARE = 0.1
"""Of the queries, that is mirrored."""
TURNS = ((0, 1), (1, 0))
"""Of a round: which of the two mirrors, and which does not."""
DRAIN_SECONDS = 3.0
"""After each turn: what was gathered is sent, and its answers come."""
KEY = "0123456789abcdef" * 4
JUDGED = "judged"


@dataclass
class Measured:
    """One case: an entry for each turn, in their order."""

    factory: str
    connections: int
    off: list[float] = field(default_factory=list)
    """CPU microseconds a query."""
    on: list[float] = field(default_factory=list)
    mirrored: list[float] = field(default_factory=list)
    """Share of the queries of each turn with mirroring."""
    p99: dict[str, list[float]] = field(default_factory=lambda: {"off": [], "on": []})
    """Milliseconds."""

    def rises(self) -> list[float]:
        """By how much of itself the CPU of a query rises when a tenth of all is mirrored: one for each round."""
        found = []
        for at in range(0, len(self.off), 2):
            ratio = math.sqrt(math.prod(self.on[at : at + 2]) / math.prod(self.off[at : at + 2]))
            found.append((ratio - 1) * SHARE / statistics.mean(self.mirrored[at : at + 2]))
        return found


class Stable:
    """The searcher, and what it is told on its admin port."""

    def __init__(self, server: Serving, revision: str, receiver: int) -> None:
        self.server, self._revision, self._receiver = server, revision, receiver
        self._number = 0

    @property
    def shadow(self) -> str:
        return f"{JUDGED}@{self._number}"

    def lease(self, per_second: float) -> None:
        """Mirror so many queries a second, 0: none; of a shadow of its own where there are any."""
        self._number += per_second > 0
        sealed = contract.seal_shadow_key(contract.shadow_key(KEY[::-1]), KEY, bytes(contract.SHADOW_NONCE_BYTES))
        lease = contract.MirrorLease(
            revision=JUDGED,
            addresses=("127.0.0.1",),
            port=self._receiver,
            sealed_key=sealed,
            max_per_second=per_second,
            shadow=self.shadow,
            ttl_seconds=300,
        )
        self._ask("POST", contract.MIRROR_PATH, lease.model_dump_json(by_alias=True).encode())

    def mirrored(self) -> int:
        """Queries that were sent in the newest shadow. Ends the benchmark where some were not answered."""
        rows = self._ask("GET", f"{contract.PAIRS_PATH}?shadow={self.shadow}")["rows"]
        sent = [row for row in rows if row["segment"]]
        if any(row.get("unanswered") for row in sent):
            raise SystemExit("the stand-in did not answer in time: the machine is too busy")
        return sum(row.get("mirrored", 0) for row in sent)

    def _ask(self, method: str, path: str, body: bytes = b"") -> dict[str, list[dict[str, int]]]:
        headers = contract.sign(KEY, InternalRequest(method, path, body), Target("", self._revision), time.time())
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.server.admin, timeout=60)) as connection:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            text = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {text[:200]!r}")
        document: dict[str, list[dict[str, int]]] = orjson.loads(text)
        return document


@contextlib.contextmanager
def stable(artifact: Artifact, receiver: int) -> Iterator[Stable]:
    """A searcher of one process, with vectors.npy at hand."""
    more = {contract.INTERNAL_KEY_ENV: KEY, "BENCH_VECTORS": str(artifact.files / "vectors.npy")}
    program = (PROGRAM[0], str(HERE / "shadow_stable.py"))
    with serving(artifact, program=program, environment=more) as server:
        yield Stable(server, artifact.manifest.digest, receiver)


def measure(dataset: Dataset, factory: str, rounds: int, seconds: float) -> list[Measured]:
    """All cases of an index."""
    artifact = built(dataset, factory, recall=0.9)
    raw = FOLDER / f"{dataset.name}-queries.npy"
    np.save(raw, dataset.queries(QUERIES))
    found = []
    with contextlib.ExitStack() as stack:
        judged = Child(str(HERE / "shadow_judged.py"), core=None)
        stack.callback(judged.close)
        receiver, loops = int(judged.hear()["port"]), []
        for _ in range(2):
            load = Child(str(HERE / "load_client.py"), str(raw), core=None)
            stack.callback(load.close)
            loops.append(Loop(stack.enter_context(stable(artifact, receiver)), load))
        for connections in CONNECTIONS:
            case = Measured(factory, connections)
            for loop in loops:
                connect(loop.load, loop.searcher.server.port, connections, "binary")
            _turn(loops[0], loops[1], seconds)  # it only tells how fast they are
            for _ in range(rounds):
                for on, off in TURNS:
                    loops[on].told = SHARE * loops[on].speed
                    loops[off].told = 0.0
                    _turn(loops[on], loops[off], seconds)
                    for loop, spent in ((loops[on], case.on), (loops[off], case.off)):
                        spent.append(loop.spent)
                    case.mirrored.append(loops[on].searcher.mirrored() / loops[on].count)
                    case.p99["on"].append(loops[on].p99)
                    case.p99["off"].append(loops[off].p99)
            found.append(case)
            print(f"{factory}, {connections} connections: {case.rises()}", file=sys.stderr, flush=True)
    return found


@dataclass
class Loop:
    """A searcher with its clients, and what its last turn was like."""

    searcher: Stable
    load: Child
    told: float = 0.0
    """Queries a second that it is to mirror."""
    speed: float = 0.0
    """Queries a second that it answered."""
    count: int = 0
    spent: float = 0.0
    """CPU microseconds a query."""
    p99: float = 0.0

    def ask(self, seconds: float) -> None:
        answer = self.load.ask(json.dumps({"do": "closed", "seconds": seconds}))
        self.count, self.p99, self.speed = answer["count"], answer["p99"], answer["count"] / seconds


def _turn(one: Loop, other: Loop, seconds: float) -> None:
    """Both at the same time."""
    for loop in (one, other):
        loop.searcher.lease(loop.told)
    before = [loop.searcher.server.cpu() for loop in (one, other)]
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(loop.ask, seconds) for loop in (one, other)]:
            done.result()
    time.sleep(DRAIN_SECONDS)
    for loop, begun in zip((one, other), before, strict=True):
        loop.spent = (loop.searcher.server.cpu() - begun) / loop.count * 1e6


def page(dataset: Dataset, found: list[Measured]) -> str:
    """The Markdown page."""
    rows = []
    for one in found:
        rises = one.rises()
        off, share = statistics.median(one.off), statistics.median(one.mirrored)
        latencies = [statistics.median(one.p99[turn]) for turn in ("off", "on")]
        # Of a median of normal draws: https://en.wikipedia.org/wiki/Median#Efficiency.
        error = 1.25 * statistics.stdev(rises) / math.sqrt(len(rises)) if len(rises) > 1 else math.nan
        rise = f"**{100 * statistics.median(rises):+.1f} ± {100 * error:.1f} %** "
        rise += f"({100 * min(rises):+.1f} to {100 * max(rises):+.1f})"
        extra = off * statistics.median(rises) / SHARE
        rows.append((one.factory, one.connections, off, f"{100 * share:.0f} %", rise, extra, *latencies))
    head = ("index", "connections", "CPU us a query", "mirrored", "more CPU at 10 %", "us a mirrored query",
            "p99 ms without", "p99 ms with")  # fmt: skip
    parts = [
        "# What a shadow costs the pods with the traffic\n",
        f"`python bench/shadow_cost.py`, {results.stamp()}. {results.machine()}.\n",
        f"{dataset.name}. A searcher of one process, with and without sending a tenth of its queries to the pod of "
        "another revision; two of them at the same time, and then the other way round. Median of the rounds with "
        "its standard error, in brackets the least and the most. CPU is that of all threads, divided by the queries "
        "that users asked; both have the same machine, so ratios hold beside other programs.\n",
    ]
    if results.busy():
        parts.append(
            "**Other programs ran beside it**: latencies say nothing here, and CPU a query is higher than on an idle "
            "machine.\n"
        )
    return "\n".join([*parts, results.table(head, rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round of one index; writes no results")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one turn")
    parser.add_argument("--factory", action="append", help=f"of an index, again for more (default: {FACTORIES})")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
    dataset = real()
    factories = options.factory or (FACTORIES[1:2] if options.quick else FACTORIES)
    found = [case for factory in factories for case in measure(dataset, factory, options.rounds, options.seconds)]
    text = page(dataset, found)
    print(text)
    if not options.quick:
        results.write_page("shadow_cost", text)
        results.add_to_summary({"shadow.stable_cpu_rise": max(statistics.median(one.rises()) for one in found)})


if __name__ == "__main__":
    main()
