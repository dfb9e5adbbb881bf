"""What do shards cost in recall, and how does the tail of a merged answer grow with their number?

    python bench/shards.py [--quick]

Recall: clustered vectors x 64 as one index and as 3 and 8 shards of the same kind, each tuned as `build` does; the gap
is that of the recall of one index to the recall of merged answers, worst of the two.
Tail: a simulation, up to 64 shards of two searchers each, with service times measured here (CPU time of single queries
on one shard). A query is asked of one searcher of every shard, the less busy of the two, and waits for the slowest; a
second request goes to the other searcher when the first is not back after a quantile of the shard's latency, for 5 % of
the requests at most. Latencies are in median service times, so that the machine matters little. There is no router yet:
what it would cost is in none of these. summary.json: shards.merged_recall_gap.
"""

from __future__ import annotations

import argparse
import heapq
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from datasets import clustered
from results import add_to_summary, busy, machine, stamp, table, write_page

from vectorindex_searcher.artifact.whole import publish_whole
from vectorindex_searcher.build.partition import partition
from vectorindex_searcher.build.task import build
from vectorindex_searcher.contract import (
    BuildTask,
    Identity,
    IndexSpec,
    Location,
    PartitionTask,
    PublishTask,
    ServeTask,
    Shard,
    ValidateTask,
)
from vectorindex_searcher.proof.merged import prove_merged
from vectorindex_searcher.proof.task import prove
from vectorindex_searcher.serve.load import load

FACTORY, DIMENSION = "HNSW32,SQ8", 64
BUSY = (0.2, 0.5)
"""Shares of its time that a simulated searcher works, without second requests."""
BUDGET = 0.05
STALLED, STALL = 0.01, 10.0
"""With stalls, one search in a hundred takes ten times as long: a page from disk, a core that somebody else has."""
HEDGE_AT = (0.95, 0.99)
"""Quantiles of one shard's latency after which the other searcher is asked."""

Floats = npt.NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="see that it runs; writes no results")
    options = parser.parse_args()
    rows, queries = (2_000, 100) if options.quick else (12_000, 1_500)
    with tempfile.TemporaryDirectory(prefix="bench-shards-") as folder:
        found = recalls(clustered(rows, DIMENSION).path, Path(folder), (3, 8))
    times = found[-1].times
    counts = (1, 3, 8) if options.quick else (1, 3, 8, 16, 32, 64)
    tails = [tail_row(count, busy_share, times, queries) for busy_share in BUSY for count in counts]
    text = page(rows, found, tails, times)
    print(text)
    if not options.quick:
        write_page("shards", text)
        add_to_summary({"shards.merged_recall_gap": gap(found)})


# ------------------------------------------------------------------ recall


@dataclass(frozen=True, slots=True)
class Proven:
    """One artifact. times: CPU seconds of single queries on one shard of it, [n]."""

    shards: int
    recall: float
    recall_low: float
    queries: int
    shard_recall: float
    """Lowest of the shards' own."""
    cost_us: float
    """CPU of a query on all shards, as the builds measured it."""
    times: Floats


def recalls(source: Path, folder: Path, shards: Sequence[int]) -> list[Proven]:
    """One index, then each number of shards."""
    found = [_one(source, folder / "one")]
    return [*found, *(_sharded(source, folder / str(count), count) for count in shards)]


def _common(folder: Path) -> dict[str, object]:
    folder.mkdir()
    return {"identity": Identity(name="bench"), "digest": "d", "artifacts": Location(folder=str(folder))}


def _built(source: Path, common: dict[str, object]) -> dict[str, object]:
    return {**common, "source": Location(folder=str(source)), "index": IndexSpec(factory=FACTORY)}


def _one(source: Path, folder: Path) -> Proven:
    common = _common(folder)
    build(BuildTask.model_validate(_built(source, common)))
    report, _ = prove(ValidateTask.model_validate({**common, "manifest_sha256": "", "gate_hash": "g"}))
    row = report.overall
    return Proven(1, row.recall, row.recall_low, row.queries, row.recall, report.cost_us or 0.0, np.empty(0))


def _sharded(source: Path, folder: Path, count: int) -> Proven:
    common = _common(folder)
    task = _built(source, common)
    partition(PartitionTask.model_validate({**task, "shards": count}))
    for number in range(count):
        build(BuildTask.model_validate({**task, "shard": Shard(number=number, of=count)}))
    publish_whole(PublishTask.model_validate(common))
    report, _ = prove_merged(ValidateTask.model_validate({**common, "manifest_sha256": "", "gate_hash": "g"}))
    serving = {**common, "revision": "r", "manifest_sha256": "", "cache_dir": str(folder / "cache"), "shard": 0}
    row, low = report.overall, min(one.recall for one in report.shards)
    cost = sum(one.latency_us for one in report.shards)
    times = _times(ServeTask.model_validate(serving), source)
    return Proven(count, row.recall, row.recall_low, row.queries, low, cost, times)


def _times(task: ServeTask, source: Path, count: int = 1000) -> Floats:
    """CPU seconds of single queries on the task's shard."""
    loaded = load(task, lambda text: None)
    vectors = np.load(source, mmap_mode="r")
    chosen = np.random.default_rng(5).choice(len(vectors), count)
    asked = (vectors[chosen] + 0.02 * np.random.default_rng(6).standard_normal((count, DIMENSION))).astype(np.float32)
    for query in asked[:200]:
        loaded.engine.search(query[None], 10)
    times = []
    for query in asked:
        began = time.process_time()
        loaded.engine.search(query[None], 10)
        times.append(time.process_time() - began)
    loaded.release()
    return np.array(times)


def gap(found: Sequence[Proven]) -> float:
    """What merged answers lose against one index, worst case; below 0 they lose nothing."""
    return max(found[0].recall - one.recall for one in found[1:])


# ------------------------------------------------------------------ tail


@dataclass(slots=True)
class Searcher:
    """One pod: first come, first served."""

    free_at: float = 0.0
    waiting: int = 0


@dataclass(slots=True)
class Cluster:
    """Shards of two searchers each, and the queries that are on their way."""

    shards: int
    draw: Callable[[], float]
    """The next service time."""
    hedge_after: float
    """Infinite: no second requests."""
    events: list[tuple[float, int, Callable[[float], None]]] = field(default_factory=list)
    sent: int = 0
    hedged: int = 0
    latencies: list[float] = field(default_factory=list)
    pods: list[tuple[Searcher, Searcher]] = field(init=False)
    _number: int = 0

    def __post_init__(self) -> None:
        self.pods = [(Searcher(), Searcher()) for _ in range(self.shards)]

    def at(self, when: float, what: Callable[[float], None]) -> None:
        self._number += 1
        heapq.heappush(self.events, (when, self._number, what))

    def run(self) -> None:
        while self.events:
            when, _, what = heapq.heappop(self.events)
            what(when)

    def query(self, now: float) -> None:
        """Ask every shard; the answer is there with the last."""
        missing = set(range(self.shards))

        def answered(shard: int, then: float) -> None:
            if shard in missing:
                missing.discard(shard)
                if not missing:
                    self.latencies.append(then - now)

        def again(shard: int, other: Searcher, then: float) -> None:
            if shard in missing and self.hedged < BUDGET * self.sent:
                self.hedged += 1
                self._send(other, then, lambda end: answered(shard, end))

        for shard, (one, two) in enumerate(self.pods):
            first, other = (one, two) if one.waiting <= two.waiting else (two, one)
            self.sent += 1
            self._send(first, now, lambda end, shard=shard: answered(shard, end))
            if np.isfinite(self.hedge_after):
                self.at(now + self.hedge_after, lambda end, shard=shard, other=other: again(shard, other, end))

    def _send(self, pod: Searcher, now: float, done: Callable[[float], None]) -> None:
        pod.waiting += 1
        pod.free_at = max(pod.free_at, now) + self.draw()

        def end(then: float) -> None:
            pod.waiting -= 1
            done(then)

        self.at(pod.free_at, end)


def simulate(
    shards: int, share: float, times: Floats, queries: int, hedge_after: float = np.inf, seed: int = 1
) -> tuple[Floats, float]:
    """Latencies of queries that come at random, [n], and how many second requests there were for each first one.

    share: of its time that a searcher works on first requests. times: service times to draw from, seconds.
    """
    rng = np.random.default_rng(seed)
    drawn = iter(rng.choice(times, int(queries * shards * (1 + 2 * BUDGET)) + 100).tolist())
    cluster = Cluster(shards, lambda: next(drawn), hedge_after)
    for when in np.cumsum(rng.exponential(times.mean() / (2 * share), queries)).tolist():
        cluster.at(when, cluster.query)
    cluster.run()
    return np.array(cluster.latencies), cluster.hedged / cluster.sent


def stalling(times: Floats, seed: int = 2) -> Floats:
    """Ten copies of the times, of which some take long."""
    rng, many = np.random.default_rng(seed), np.tile(times, 10)
    return np.where(rng.random(len(many)) < STALLED, STALL * many, many)


def tail_row(shards: int, share: float, times: Floats, queries: int) -> list[object]:
    """A line of the table, in median service times: p50 and p99 as measured; with stalls p50, p99, and p99 with second
    requests after each of HEDGE_AT, with their number."""
    smooth, rough = times / np.median(times), stalling(times) / np.median(times)
    row: list[object] = [f"{100 * share:.0f} %", shards]
    for some in (smooth, rough):
        row += np.quantile(simulate(shards, share, some, queries)[0], (0.5, 0.99)).tolist()
    alone = simulate(1, share, rough, 10 * queries)[0]  # what a router sees of one shard
    for after in np.quantile(alone, HEDGE_AT).tolist():
        latencies, second = simulate(shards, share, rough, queries, after)
        row += [float(np.quantile(latencies, 0.99)), f"{100 * second:.1f} %"]
    return row


def page(rows: int, found: Sequence[Proven], tails: Sequence[Sequence[object]], times: Floats) -> str:
    """bench/results/shards.md."""
    head = ["shards", "recall@10", "at least", "queries", "lowest of a shard's own", "CPU us a query, all shards"]
    kept = [[o.shards, o.recall, o.recall_low, o.queries, o.shard_recall, o.cost_us] for o in found]
    columns = ["busy", "shards", "p50", "p99", "p50, stalls", "p99, stalls"]
    for at in HEDGE_AT:
        columns += [f"p99, stalls, asked again after p{100 * at:.0f}", "asked again"]
    median, high = np.quantile(times, (0.5, 0.99)) * 1e6
    service = (
        f"Service times: CPU time of {len(times):,} single queries on one shard of {found[-1].shards} (median "
        f"{median:.0f} us, p99 {high:.0f} us), two searchers a shard, queries at random moments. Latencies in median "
        f"service times. With stalls, one search in {1 / STALLED:.0f} takes {STALL:.0f} times as long. A shard's other "
        f"searcher is asked again for {100 * BUDGET:.0f} % of the requests at most. Network and router are not in it."
    )
    data = f"{rows:,} clustered vectors x {DIMENSION}, {FACTORY}, each index tuned by `build`"
    return f"""# Shards

{stamp()}. {machine()}. {busy()}

## Recall of merged answers

{data}; held-out rows, as `validate` asks them.

{table(head, kept)}

Gap to one index, worst case: {gap(found):.4f}.

## Tail, simulated

{service}

{table(columns, tails)}
"""


if __name__ == "__main__":
    main()
