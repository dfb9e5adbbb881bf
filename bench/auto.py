"""Does `Auto` choose well? Its choice against an exhaustive sweep of families and parameters on the same rows.

    python bench/auto.py [--quick] [--rows N] [--only DATA]

For each data set: every factory string of a grid is trained, filled with all rows and searched with rising parameters
until it reaches what `build` will want of it (recall@10 of 0.95 and two half-widths of its own); the best is the mark.
No query is in any index. `Auto` sees the rows as `build` shows them. Regret is how much slower (or larger) its choice
is on all rows than the best of the sweep; cost share is its CPU time over the sweep's.

Data: the Parquet file of BENCH_DATA (else the demo's documents), the demo's documents, and clustered vectors.
Times are CPU times, one thread a query; the best few and the choice are timed again in turns at the end. What was
found of each data set is kept (build/bench), so that one can be measured anew; the page says which was measured when.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin while they wait would count as work

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import results
from datasets import DEMO_DATA, FOLDER, Dataset, clustered, real

from vectorindex_searcher.contract import Effort, Metric, Minimise
from vectorindex_searcher.errors import BadSpec
from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.index.choose.auto import MARGIN, select
from vectorindex_searcher.index.choose.choice import Choice, Goal
from vectorindex_searcher.index.choose.families import is_graph, lists_for, parts_for
from vectorindex_searcher.index.choose.sample import Sample, draw_sample
from vectorindex_searcher.index.choose.trial import Bench, Measured
from vectorindex_searcher.index.factory import EF_CONSTRUCTION
from vectorindex_searcher.index.parameters import effort_parameter, parameter_limits
from vectorindex_searcher.index.threads import available_cores
from vectorindex_searcher.index.vectors import VectorFile

RECALL = 0.95
QUERIES = 2000
"""Of 400 the recall is uncertain by half of what one more list adds, so chance would decide which is the best."""
QUICK_ROWS = 15_000
STEP = 1.3
KEPT = 40
CLOSE = 1.6
"""Who is slower than the fastest by less is timed again, in turns."""
FACTORS = (1, 2, 4, 8, 16, 32)
HEAD = ("data", "objective", "Auto's choice", "best of the sweep", "regret", "Auto, CPU s", "sweep, CPU s", "share")


Kind = tuple[str, int | None]
"""Factory string and efConstruction, None for FAISS's own."""


def text_of(kind: Kind) -> str:
    return kind[0] + (f" (efConstruction {kind[1]})" if kind[1] else "")


@dataclass(slots=True)
class Swept:
    """One factory string on all rows. best: the cheapest point that reaches the recall; None if none does."""

    factory: str
    ef_construction: int | None
    size: int
    best: Measured | None
    index: Any

    @property
    def kind(self) -> Kind:
        return self.factory, self.ef_construction

    @property
    def name(self) -> str:
        return text_of(self.kind)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One data set and one objective."""

    name: str
    minimise: Minimise
    choice: Choice
    best: str
    value: float
    chosen_value: float
    auto_cpu: float
    sweep_cpu: float

    @property
    def regret(self) -> float:
        return self.chosen_value / self.value - 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"only {QUICK_ROWS} rows of each data set")
    parser.add_argument("--rows", type=int, default=0, help="at most so many rows of each data set")
    parser.add_argument("--only", default="", help="only the data set of this name")
    parser.add_argument("--publish", action="store_true", help="keep and report what was found of fewer rows too")
    options = parser.parse_args()
    rows = options.rows or (QUICK_ROWS if options.quick else 0)
    for dataset in _datasets(options.quick):
        if options.only in ("", dataset.name):
            outcomes, page = run(dataset, rows)
            found = _found(outcomes, page)
            print(results.table(HEAD, found["lines"]), flush=True)
            if not rows or options.publish:
                _kept(dataset).write_text(json.dumps(found, indent=1) + "\n")
    if not rows or options.publish:
        _report(_datasets(options.quick))
    return 0


def _kept(dataset: Dataset) -> Path:
    return FOLDER / f"auto-{dataset.name}.json"


def _found(outcomes: list[Outcome], page: str) -> dict[str, Any]:
    """Of one data set, as it is kept and reported."""
    latency = next(one for one in outcomes if one.minimise is Minimise.LATENCY)
    return {
        "stamp": results.stamp(),
        "lines": [_line(one) for one in outcomes],
        "page": page,
        "regret": max(one.regret for one in outcomes),
        "cost": max(one.auto_cpu / one.sweep_cpu for one in outcomes),
        "auto_cpu": latency.auto_cpu,
        "sweep_cpu": latency.sweep_cpu,
    }


def _datasets(quick: bool) -> list[Dataset]:
    found = [clustered(QUICK_ROWS if quick else 100_000, 128), Dataset("stdlib-docs", DEMO_DATA), real()]
    return list({dataset.name: dataset for dataset in found}.values())


def run(dataset: Dataset, limit: int) -> tuple[list[Outcome], str]:
    """Sweep a data set once, and let `Auto` choose for both objectives."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "vectors.npy"
        data = _load(dataset, limit)
        np.save(path, data)
        del data
        with VectorFile(path, Metric.COSINE) as vectors:
            choices = {
                aim: _timed(lambda aim=aim: select(vectors, Goal(RECALL, aim), available_cores())) for aim in Minimise
            }
            everything = draw_sample(vectors, vectors.count, QUERIES, seed=5)
    wanted = {(choice.factory, choice.ef_construction) for choice, _ in choices.values()}
    began = cpu()
    swept, bench = sweep(everything, wanted)
    sweep_cpu = cpu() - began
    _again([one for one in swept if one.index is not None and one.best], wanted, bench)
    shape = f"{len(everything.rows):,} x {everything.rows.shape[1]}"
    outcomes = [_outcome(f"{dataset.name} {shape}", aim, *choices[aim], swept, sweep_cpu) for aim in Minimise]
    return outcomes, _page(dataset.name, shape, swept, choices)


def _load(dataset: Dataset, limit: int) -> npt.NDArray[np.float32]:
    if dataset.path.suffix == ".npy":
        found = np.load(dataset.path, mmap_mode="r")
    else:
        column = pq.read_table(dataset.path, columns=["vector"]).column("vector").combine_chunks()
        found = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    if limit and limit < len(found):
        found = found[np.sort(np.random.default_rng(0).choice(len(found), limit, replace=False))]
    return np.asarray(found, np.float32)


def grid(count: int, dimension: int) -> tuple[Kind, ...]:
    """Every factory string of the sweep, graphs as well built as `Auto` may build them."""
    base = lists_for(count)
    lists = sorted({max(1, base // 4), max(1, base // 2), base, 2 * base if 2 * base * 39 <= count else base})
    parts = sorted({parts for share in (2, 4, 8) if (parts := parts_for(dimension, share))})
    found = ["Flat", "SQ8"]
    found += [f"HNSW{links}{code}" for links in (16, 24, 32, 48) for code in ("", ",SQ8")]
    found += [f"IVF{number},{code}" for number in lists for code in ("Flat", "SQ8")]
    found += [f"IVF{base},{code}" for code in ("SQ6", "SQ4", "RaBitQ4", "RaBitQ,Refine(SQ8)", "RaBitQfs,Refine(SQ8)")]
    for part in parts:
        found += [f"IVF{number},PQ{part}x4fs,Refine(SQ8)" for number in lists]
    for part in parts[-2:]:
        found += [f"IVF{base},PQ{part}x4fs,{refine}" for refine in ("RFlat", "Refine(SQfp16)", "Refine(SQ6)")]
    efforts = EF_CONSTRUCTION[Effort.NORMAL]
    return tuple((one, effort) for one in dict.fromkeys(found) for effort in (efforts if is_graph(one) else (None,)))


def sweep(sample: Sample, wanted: set[Kind]) -> tuple[list[Swept], Bench]:
    """Build and measure the whole grid, and `wanted` where the grid lacks them. The best few stay in memory."""
    bench = Bench(sample, available_cores(), frugal=False)
    swept: list[Swept] = []
    kinds = grid(len(sample.rows), sample.rows.shape[1])
    for kind in (*kinds, *sorted(wanted - set(kinds), key=text_of)):
        try:
            index = bench.build(*kind)
        except (BadSpec, RuntimeError) as error:
            print(f"  {text_of(kind)}: {error}", file=sys.stderr)
            continue
        points = [bench.measure(index, params) for params in _cheapest_of_each_ladder(bench, index)]
        best = min(points, key=lambda point: point.latency_us, default=None)
        swept.append(Swept(*kind, faiss.serialize_index(index).nbytes, best, index))
        ranked = sorted((one for one in swept if one.best), key=lambda one: one.best.latency_us if one.best else 0.0)
        for one in swept:
            if one not in ranked[:KEPT] and one.kind not in wanted:
                one.index = None
        text = f"{best.latency_us:.0f} us {best.params}" if best else "recall not reached"
        print(f"  {text_of(kind)}: {text}, {swept[-1].size / 1e6:.1f} MB", file=sys.stderr)
    return swept, bench


def _cheapest_of_each_ladder(bench: Bench, index: Any) -> Iterator[dict[str, int]]:
    """For each refine factor the least effort that reaches the recall: up a ladder of 1.3, then in its last step."""
    limits = parameter_limits(index)
    main = effort_parameter(limits)
    for factor in FACTORS if "k_factor" in limits else (0,):
        extra = {"k_factor": factor} if factor else {}
        if main is None:
            efforts: list[int] = [0]
        else:
            most = min(limits[main][1], 2048)
            efforts = sorted({min(most, round(STEP**step)) for step in range(32)} - {0})
            efforts = [effort for effort in efforts if main == "nprobe" or effort >= 10]

        def reaches(effort: int, extra: dict[str, int] = extra) -> bool:
            params = {**({main: effort} if main else {}), **extra}
            point = bench.measure(index, params, timed=False)
            return point.recall >= min(1.0, RECALL + MARGIN * point.spread)

        low = efforts[0] - 1
        for effort in efforts:
            if reaches(effort):
                while effort - low > max(1, 0.03 * effort):
                    middle = (low + effort) // 2
                    low, effort = (low, middle) if reaches(middle) else (middle, effort)
                yield {**({main: effort} if main else {}), **extra}
                break
            low = effort


def _again(kept: list[Swept], wanted: set[Kind], bench: Bench) -> None:
    """Time the close ones and those of `wanted` in turns; the least time of each counts."""
    fastest = min(one.best.latency_us for one in kept if one.best)
    close = [one for one in kept if one.kind in wanted or (one.best and one.best.latency_us < CLOSE * fastest)]
    for _ in range(12):
        for one in close:
            assert one.best is not None
            latency = min(one.best.latency_us, bench.latency(one.index, one.best.params))
            one.best = Measured(one.best.params, one.best.recall, one.best.spread, latency)


def _outcome(
    name: str, aim: Minimise, choice: Choice, auto_cpu: float, swept: list[Swept], sweep_cpu: float
) -> Outcome:
    reached = [one for one in swept if one.best]
    exact = next(one.best.latency_us for one in swept if one.factory == "Flat" and one.best)

    def value(one: Swept) -> float:
        assert one.best is not None
        return one.best.latency_us if aim is Minimise.LATENCY else float(one.size)

    allowed = [one for one in reached if aim is Minimise.LATENCY or (one.best and one.best.latency_us <= exact)]
    best = min(allowed, key=value)
    chosen = next((one for one in reached if one.kind == (choice.factory, choice.ef_construction)), None)
    worst = value(chosen) if chosen else float("inf")
    return Outcome(name, aim, choice, best.name, value(best), worst, auto_cpu, sweep_cpu)


def _timed(work: Any) -> tuple[Choice, float]:
    began = cpu()
    found = work()
    return found, cpu() - began


def cpu() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _page(name: str, shape: str, swept: list[Swept], choices: dict[Minimise, tuple[Choice, float]]) -> str:
    def key(one: Swept) -> float:
        return one.best.latency_us if one.best else float("inf")

    kinds = {aim: (choice.factory, choice.ef_construction) for aim, (choice, _) in choices.items()}
    marks = {kind: f"chosen for {aim.value}" for aim, kind in kinds.items()}
    if len(set(kinds.values())) < len(choices):
        marks = dict.fromkeys(marks, "chosen for both")
    rows = [
        (one.name, key(one) if one.best else "-", one.size / 1e6, _params(one), marks.get(one.kind, ""))
        for one in sorted(swept, key=key)
    ]
    return f"## {name}, {shape}\n\n" + results.table(["factory", "us a query", "MB", "params", ""], rows)


def _params(one: Swept) -> str:
    return " ".join(f"{name}={value}" for name, value in one.best.params.items()) if one.best else "recall not reached"


def _line(one: Outcome) -> tuple[object, ...]:
    return (
        one.name,
        one.minimise.value,
        text_of((one.choice.factory, one.choice.ef_construction)),
        one.best,
        f"{one.regret:.1%}",
        one.auto_cpu,
        one.sweep_cpu,
        f"{one.auto_cpu / one.sweep_cpu:.1%}",
    )


def _report(datasets: list[Dataset]) -> None:
    """The page of all data sets, once each has been measured."""
    files = {dataset.name: _kept(dataset) for dataset in datasets}
    missing = [name for name, file in files.items() if not file.exists()]
    if missing or len(files) < 3:
        print(f"no page: {', '.join(missing) or 'BENCH_DATA'} is missing")
        return
    found = {name: json.loads(file.read_text()) for name, file in files.items()}
    text = f"# Auto against an exhaustive sweep\n\n{results.machine()}.\n"
    text += f"Recall@10 of {RECALL} and two half-widths of tuning at least. Measured: "
    text += "; ".join(f"{name} {one['stamp']}" for name, one in found.items()) + ".\n\n"
    text += results.table(HEAD, [line for one in found.values() for line in one["lines"]])
    text += "".join(f"\n\n{one['page']}" for one in found.values())
    print(f"wrote {results.write_page('auto', text)}")
    results.add_to_summary(
        {
            "auto.max_regret": max(one["regret"] for one in found.values()),
            "auto.max_cost_share": max(one["cost"] for one in found.values()),
            "auto.cost_share": sum(one["auto_cpu"] for one in found.values())
            / sum(one["sweep_cpu"] for one in found.values()),
        }
    )


if __name__ == "__main__":
    logging.disable(logging.INFO)
    sys.exit(main())
