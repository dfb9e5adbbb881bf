"""Plans for an index of many rows in shards: docs/reference/large.md, and `make how-large` for numbers of your own.

`PYTHONPATH=hack python -m how_large --write` writes the page; `--check` tells whether it is what the code and the
measured figures say; `--rows N` prints a plan. Memory and disk are the formulas of both planes (as in pod_sizes.py);
times are those of a million rows in bench/results/rows.md, stretched by how they grew per tenfold rows. Builds nothing.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

from vectorindex_plugin.estimate import Sizes, fewest_shards, sizes
from vectorindex_searcher.contract import LEAST_SHARDS, MAX_SHARDS, MEMORY_PER_SHARD
from vectorindex_searcher.generated import write_or_check
from vectorindex_searcher.index.choose.families import lists_for

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "reference" / "large.md"
RESULTS = CHECKOUT / "bench" / "results"
ROWS, DIMENSION = (10_000_000, 100_000_000, 1_000_000_000), 768
MEASURED_ROWS, MEASURED_DIMENSIONS = 1_000_000, (128, 768)
REPLICAS, ROUTERS, CORES, PARALLEL = 2, 2, 4, 8
MEMORY = MEMORY_PER_SHARD
BUSY = 0.5
"""Share of its time that a core works on queries; above it the tail grows (bench/results/shard_tail.md)."""
_GIB = 1 << 30
HEAD = (
    *("rows", "index", "shards", "rows of one", "searcher", "searchers", "their memory", "their disk", "in the bucket"),
    *(
        "partition's disk",
        "build's memory",
        "its disk",
        "build, core hours",
        "hours",
        "CPU ms a query",
        "queries/s of all cores",
    ),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """Of an index of MEASURED_ROWS rows. Growths: per ten times the rows."""

    rate: float
    """Rows built for each CPU second."""
    after: float
    """CPU seconds to measure, publish and prove it."""
    query_us: float
    """CPU of a query by HTTP."""
    build_growth: float
    query_growth: float

    def build_seconds(self, rows: int) -> float:
        """CPU seconds of a build of so many rows, and of what follows it."""
        times = rows / MEASURED_ROWS
        return MEASURED_ROWS / self.rate * _grown(times, self.build_growth) + self.after * times

    def query_seconds(self, rows: int) -> float:
        """CPU seconds of a query."""
        return self.query_us / 1e6 * _grown(rows / MEASURED_ROWS, self.query_growth)


def _grown(times: float, per_ten: float) -> float:
    return float(times ** math.log10(per_ten))


def measured(kind: str, dimension: int) -> Measured:
    """What was measured of a kind of index, HNSW or IVF. Raises KeyError where it was not."""
    build, *_, rest = _tables("rows.md")
    grows = json.loads((RESULTS / "summary.json").read_text())[f"growth.{kind}.build_per_10x"]
    key = f"{MEASURED_ROWS:,} x {dimension}", kind
    one, other = build[key], rest[key]
    after = float(one["measuring and publishing, CPU-s"]) + float(other["proof, CPU-s"])
    growth = float(other["growth"].removeprefix("x"))
    return Measured(float(one["ours rows/CPU-s"]), after, float(other["query by HTTP us"]), grows, growth)


def _tables(name: str) -> list[dict[tuple[str, str], dict[str, str]]]:
    """The tables of a page of results that begin with `data` and `factory`: cells by data and kind of index."""
    found: list[dict[tuple[str, str], dict[str, str]]] = []
    head: list[str] = []
    for line in (RESULTS / name).read_text().splitlines():
        cells = line.strip("| ").split(" | ")
        if cells[:2] == ["data", "factory"]:
            head = cells
            found.append({})
        elif line.startswith("| ") and head:
            kind = "HNSW" if cells[1].startswith("HNSW") else "IVF"
            found[-1][cells[0], kind] = dict(zip(head, cells, strict=True))
    return found


@dataclass(frozen=True, slots=True)
class Plan:
    """An index in so many shards; 1: it is not sharded. `one`: bytes of a shard."""

    rows: int
    kind: str
    dimension: int
    shards: int
    factory: str
    one: Sizes
    times: Measured

    @property
    def share(self) -> int:
        """Rows of a shard."""
        return -(-self.rows // self.shards)


def factory_of(kind: str, rows: int) -> str:
    """As `Auto` has it for so many rows."""
    return "HNSW32,SQ8" if kind == "HNSW" else f"IVF{lists_for(rows)},SQ8"


def planned(rows: int, kind: str, dimension: int = DIMENSION, memory: str = MEMORY, cores: int = CORES) -> Plan | None:
    """With the fewest shards whose searchers ask for no more than `memory`; None: that takes more than MAX_SHARDS."""
    shards = fewest_shards(lambda share: factory_of(kind, share), rows, dimension, memory, cores, least=1)
    if shards is None:
        return None
    share = -(-rows // shards)
    factory = factory_of(kind, share)
    one = sizes(factory, share, dimension)
    assert one is not None, f"{factory} is not known to index/memory.py"
    return Plan(rows, kind, dimension, shards, factory, one, measured(kind, dimension))


def auto(plan: Plan, memory: str, cores: int = CORES) -> str:
    """What `index.shards: Auto` comes to, in a sentence."""
    shards = max(plan.shards, LEAST_SHARDS)
    asked = f"`index.shards: Auto` with `searcher.memoryPerShard: {memory}` and {cores} cores comes to"
    few = "; without shards it fits one searcher" if plan.shards < LEAST_SHARDS else ""
    return f"{plan.rows:,} x {plan.dimension} as `{plan.factory}`: {asked} {shards} shards{few}."


def line(plan: Plan, cores: int = CORES, parallel: int = PARALLEL) -> list[str]:
    """A line of the table. parallel: builds at once, of `cores` cores each."""
    request, limit, disk = plan.one.pod(cores)
    pods = REPLICAS * plan.shards
    hours = plan.shards * plan.times.build_seconds(plan.share) / 3600
    rounds = -(-plan.shards // parallel)
    query = plan.shards * plan.times.query_seconds(plan.share)
    whole = 4 * plan.rows * plan.dimension + 8 * plan.rows
    return [
        *(f"{plan.rows:,}", f"`{plan.factory}`", str(plan.shards), f"{plan.share:,}"),
        *(f"{_gib(request)} to {_gib(limit)}", str(pods), _gib(pods * request), _gib(pods * disk)),
        *(_gib(plan.shards * plan.one.index + 8 * plan.rows), _gib(whole) if plan.shards > 1 else "none"),
        *(f"{_gib(plan.one.least)} to {_gib(plan.one.whole)}", _gib(plan.one.build_disk), f"{hours:.1f}"),
        f"{rounds * hours / plan.shards / cores:.1f}",
        *(f"{query * 1e3:.1f}", f"{BUSY * pods * cores / query:,.0f}"),
    ]


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f}Gi" if size < 100 * _GIB else f"{size / _GIB:,.0f}Gi"


def table(lines: list[list[str]]) -> str:
    return "\n".join(
        [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|", *(f"| {' | '.join(one)} |" for one in lines)]
    )


def plans(rows: int, dimension: int, memory: str, cores: int, parallel: int) -> tuple[list[list[str]], list[str]]:
    """Lines of the table, and what is not possible."""
    lines, refused = [], []
    for kind in ("HNSW", "IVF"):
        plan = planned(rows, kind, dimension, memory, cores)
        if plan is None:
            refused.append(f"{rows:,} x {dimension} as {kind} takes more than {MAX_SHARDS} shards of {memory}")
        else:
            lines.append(line(plan, cores, parallel))
    return lines, refused


def page() -> str:
    """The whole page."""
    parts = [_INTRODUCTION, _by_hand()]
    for memory in (MEMORY, "64Gi"):
        lines, refused = [], []
        for rows in ROWS:
            more, not_possible = plans(rows, DIMENSION, memory, CORES, PARALLEL)
            lines += more
            refused += not_possible
        parts.append(f"## {DIMENSION} dimensions, searchers of at most {memory}\n\n{table(lines)}")
        if refused:
            parts.append("Not possible: " + "; ".join(refused) + ".")
    return "\n\n".join(parts) + "\n"


def _by_hand() -> str:
    """One line, step by step."""
    plan = planned(ROWS[1], "HNSW")
    assert plan is not None
    of, times, shards = plan.times, plan.share / MEASURED_ROWS, plan.shards
    request, _, disk = plan.one.pod(CORES)
    build, query = of.build_seconds(plan.share), of.query_seconds(plan.share) * 1e6
    pods, rounds, together = REPLICAS * shards, -(-shards // PARALLEL), shards * query / 1e3
    return f"""## A line by hand

{plan.rows:,} x {DIMENSION} as `{plan.factory}`, searchers of at most {MEMORY} and {CORES} cores:

- *Shards*: the fewest whose searcher asks for at most {MEMORY}: {shards}, of {plan.share:,} rows. An index of so
  many rows is {_gib(plan.one.index)} ([the formulas](pod-sizes.md)), in memory with its ids {_gib(plan.one.held)};
  its searcher asks for {_gib(request)} of memory and {_gib(disk)} of disk.
- *Searchers*: {shards} shards x {REPLICAS} replicas = {pods}; memory {pods} x {_gib(request)} =
  {_gib(pods * request)}. **Twice that in a rollout**, and for as long as `keepPrior` keeps the prior revision.
- *Build, core hours*: measured of {MEASURED_ROWS:,} rows: {of.rate:,.0f} rows for each CPU second, and {of.after:.0f}
  CPU seconds to measure, publish and prove; ten times the rows took {of.build_growth:.1f} times the CPU. A shard takes
  {MEASURED_ROWS:,} / {of.rate:,.0f} x {times:.2f}^log10({of.build_growth:.1f}) + {of.after:.0f} x {times:.2f} =
  {build:,.0f} CPU seconds, all of them {shards} x {build:,.0f} / 3600 = {shards * build / 3600:.1f} core hours.
- *Hours*: {PARALLEL} builds at once with {CORES} cores each are {rounds} round{"s" * (rounds > 1)} of
  {build:,.0f} / {CORES} / 3600 = {build / CORES / 3600:.2f} hours, if a build has work for {CORES} cores all the time.
- *CPU ms a query*: {of.query_us:.0f} us at {MEASURED_ROWS:,} rows, and {of.query_growth:.2f} times that for ten times
  the rows: {of.query_us:.0f} us x {times:.2f}^log10({of.query_growth:.2f}) = {query:,.0f} us in each of {shards}
  shards, {together:.1f} ms together.
- *Queries/s of all cores*: {pods} searchers x {CORES} cores, {100 * BUSY:.0f} % busy, / {together:.1f} ms =
  {BUSY * pods * CORES / together * 1e3:,.0f}."""


_INTRODUCTION = f"""<!-- Generated from formulas and measured figures by `make generate`; edit hack/how_large.py. -->
# Plans for ten million to a billion rows

**Computed, and never tried at this size**: the largest index that this project built, proved and served has a million
rows ([rows](../../bench/results/rows.md)). Memory and disk come from the formulas that builds and searchers are held to
([pod-sizes.md](pod-sizes.md)): metric Cosine, integer
ids, no metadata, which comes on top. Times are those of a million rows on the machine of that page, and how they grew
from fewer rows ([growth](../../bench/results/growth.md)), carried on to more: take them for a factor of two either way,
and measure your own data. What hardware costs you, you know: here are gigabytes, cores and hours. Lines of your own:

```bash
make how-large ROWS=300000000 DIMENSION=768 MEMORY=32Gi CORES=8 PARALLEL=16
```

**What `index.shards: Auto` comes to** is the column *shards*, {LEAST_SHARDS} where it says 1, with as much
`searcher.memoryPerShard` as the table is headed by, if the factory is, or `Auto` chooses, that index: it goes by the
same formulas, and counts metadata, too ([shards.md](../shards.md)).

Each searcher has {CORES} cores, each shard {REPLICAS} replicas, in front of them are {ROUTERS} routers; {PARALLEL}
builds run at once, of {CORES} cores each. *Partition's disk* holds the rows of the whole source, which one pod lays
out by shard. *Build's memory*: the least that builds, to that from which on it trains on its whole sample.

Where it stops being sensible:

- {MAX_SHARDS} shards are the most, and one machine must have the disk for partition's rows.
- Every query is asked of every shard, so shards multiply what it costs: a shard of half the rows takes more than half
  the CPU. Larger shards (`MEMORY`) make a query cheaper, more of them do not; more replicas or cores answer more.
- A query waits for the slowest of all shards ([the tail of many shards](../../bench/results/shard_tail.md)).
- A rollout loads all of it a second time. From a few hundred GiB on that is a second set of machines for an hour."""


def main(arguments: list[str] | None = None) -> int:
    """Print a plan (--rows), write the page (--write) or tell whether it is what it should be (--check)."""
    parser = argparse.ArgumentParser(prog="how_large", description=__doc__)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--dimension", type=int, default=DIMENSION, choices=MEASURED_DIMENSIONS)
    parser.add_argument("--memory", default=MEMORY, help="that a searcher may ask for")
    parser.add_argument("--cores", type=int, default=CORES, help="of a searcher, and of a build")
    parser.add_argument("--parallel", type=int, default=PARALLEL, help="builds at once")
    options, rest = parser.parse_known_args(arguments)
    if options.rows is None:
        return write_or_check("how_large", PAGE, page(), rest)
    lines, refused = plans(options.rows, options.dimension, options.memory, options.cores, options.parallel)
    print(table(lines))
    for kind in ("HNSW", "IVF"):
        plan = planned(options.rows, kind, options.dimension, options.memory, options.cores)
        if plan is not None:
            print(auto(plan, options.memory, options.cores))
    for one in refused:
        print(f"Not possible: {one}.")
    return 1 if refused else 0


if __name__ == "__main__":
    raise SystemExit(main())
