"""What a shadow costs the pods with the traffic: CPU a query with and without mirroring a tenth of the queries.

    python bench/shadow_cost.py [--quick] [--rounds 7] [--seconds 3] [--factory HNSW32 --factory HNSW32,SQ8]

One searcher answers a closed loop, and is told by leases, as the operator tells it, to send a tenth of its queries to
another pod, or none: off, on, on, off in each round. CPU is that of all its threads, user and system, and of each turn
it includes the seconds after the last query in which what was gathered is still sent. The pod that is judged is a
stand-in in another process, which reads and answers: what it would take is not stable's. How much was really mirrored
is what the searcher itself counted; the rise is scaled to a tenth of the queries, since the speed of a loop changes by
the minute. Ratios of CPU time of turns that alternate hold beside other programs; latencies then say little.

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
import statistics
import sys
import time
from collections.abc import Iterator
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
TURNS = ("off", "on", "on", "off")
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
            off, on, share = (statistics.mean(values[at : at + 2]) for values in (self.off, self.on, self.mirrored))
            found.append((on / off - 1) * SHARE / share)
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
        one = stack.enter_context(stable(artifact, int(judged.hear()["port"])))
        load = Child(str(HERE / "load_client.py"), str(raw), core=None)
        stack.callback(load.close)
        for connections in CONNECTIONS:
            case = Measured(factory, connections)
            connect(load, one.server.port, connections, "binary")
            speed = _turn(case, one, load, 0.0, seconds)
            case.off.clear()  # it only tells how fast it is
            for _ in range(rounds):
                for turn in TURNS:
                    speed = _turn(case, one, load, SHARE * speed if turn == "on" else 0.0, seconds)
            found.append(case)
            print(f"{factory}, {connections} connections: {case.rises()}", file=sys.stderr, flush=True)
    return found


def _turn(case: Measured, one: Stable, load: Child, per_second: float, seconds: float) -> float:
    """Queries a second."""
    one.lease(per_second)
    before = one.server.cpu()
    answer = load.ask(json.dumps({"do": "closed", "seconds": seconds}))
    time.sleep(DRAIN_SECONDS)
    spent = (one.server.cpu() - before) / answer["count"] * 1e6
    (case.on if per_second else case.off).append(spent)
    case.p99["on" if per_second else "off"].append(answer["p99"])
    if per_second:
        case.mirrored.append(one.mirrored() / answer["count"])
    return float(answer["count"]) / seconds


def page(dataset: Dataset, found: list[Measured]) -> str:
    """The Markdown page."""
    rows = []
    for one in found:
        rises = one.rises()
        off, share = statistics.median(one.off), statistics.median(one.mirrored)
        latencies = [statistics.median(one.p99[turn]) for turn in ("off", "on")]
        rise = f"**{100 * statistics.median(rises):+.1f} %** ({100 * min(rises):+.1f} to {100 * max(rises):+.1f})"
        extra = off * statistics.median(rises) / SHARE
        rows.append((one.factory, one.connections, off, f"{100 * share:.0f} %", rise, extra, *latencies))
    head = ("index", "connections", "CPU us a query", "mirrored", "more CPU at 10 %", "us a mirrored query",
            "p99 ms without", "p99 ms with")  # fmt: skip
    parts = [
        "# What a shadow costs the pods with the traffic\n",
        f"`python bench/shadow_cost.py`, {results.stamp()}. {results.machine()}.\n",
        f"{dataset.name}. A searcher of one process, with and without sending a tenth of its queries to the pod of "
        "another revision; off, on, on, off in each round. Median of the rounds, in brackets the least and the most. "
        "CPU is that of all its threads, divided by the queries that users asked; turns alternate, so ratios hold "
        "beside other programs.\n",
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
