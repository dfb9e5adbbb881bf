"""What do shards cost in recall, and what does a router cost a query?

    python bench/shards.py [--quick]

Recall: clustered vectors x 64 as one index and as 3 and 8 shards of the same kind, each tuned as `build` does; the gap
is that of the recall of one index to the recall of merged answers, worst of the two. How long a query waits for the
slowest of many shards: shard_tail.py.
Router: CPU of real processes, before these indexes as 1, 3 and 8 shards (router_cost.py).
summary.json: shards.merged_recall_gap, shards.router_us_1, shards.router_us_3, shards.router_us_8.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import clustered
from results import add_to_summary, busy, machine, stamp, table, write_page
from router_cost import costs, summary
from router_cost import text as router_page

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
    Shard,
    ValidateTask,
)
from vectorindex_searcher.proof.merged import prove_merged
from vectorindex_searcher.proof.task import prove

FACTORY, DIMENSION = "HNSW32,SQ8", 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="see that it runs; writes no results")
    options = parser.parse_args()
    rows = 2_000 if options.quick else 12_000
    with tempfile.TemporaryDirectory(prefix="bench-shards-") as folder:
        source = clustered(rows, DIMENSION)
        found = recalls(source.path, Path(folder), (3, 8))
        asked = Path(folder) / "queries.npy"
        np.save(asked, source.queries(200))
        folders = {1: Path(folder) / "one", **{count: Path(folder) / str(count) for count in (3, 8)}}
        spent = costs(folders, asked, *((1, 0.5) if options.quick else (5, 2.0)))
    text = page(rows, found) + "\n" + router_page(spent)
    print(text)
    if not options.quick:
        write_page("shards", text)
        add_to_summary({"shards.merged_recall_gap": gap(found), **summary(spent)})


@dataclass(frozen=True, slots=True)
class Proven:
    """One artifact."""

    shards: int
    recall: float
    recall_low: float
    queries: int
    shard_recall: float
    """Lowest of the shards' own."""
    cost_us: float
    """CPU of a query on all shards, as the builds measured it."""


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
    return Proven(1, row.recall, row.recall_low, row.queries, row.recall, report.cost_us or 0.0)


def _sharded(source: Path, folder: Path, count: int) -> Proven:
    common = _common(folder)
    task = _built(source, common)
    partition(PartitionTask.model_validate({**task, "shards": count}))
    for number in range(count):
        build(BuildTask.model_validate({**task, "shard": Shard(number=number, of=count)}))
    publish_whole(PublishTask.model_validate(common))
    report, _ = prove_merged(ValidateTask.model_validate({**common, "manifest_sha256": "", "gate_hash": "g"}))
    row, low = report.overall, min(one.recall for one in report.shards)
    cost = sum(one.latency_us for one in report.shards)
    return Proven(count, row.recall, row.recall_low, row.queries, low, cost)


def gap(found: Sequence[Proven]) -> float:
    """What merged answers lose against one index, worst case; below 0 they lose nothing."""
    return max(found[0].recall - one.recall for one in found[1:])


def page(rows: int, found: Sequence[Proven]) -> str:
    """bench/results/shards.md."""
    head = ["shards", "recall@10", "at least", "queries", "lowest of a shard's own", "CPU us a query, all shards"]
    kept = [[o.shards, o.recall, o.recall_low, o.queries, o.shard_recall, o.cost_us] for o in found]
    data = f"{rows:,} clustered vectors x {DIMENSION}, {FACTORY}, each index tuned by `build`"
    return f"""# Shards

{stamp()}. {machine()}. {busy()}

## Recall of merged answers

{data}; held-out rows, as `validate` asks them.

{table(head, kept)}

Gap to one index, worst case: {gap(found):.4f}.
"""


if __name__ == "__main__":
    main()
