"""Recall and CPU of a query whose filter leaves few rows: the searcher's choice against each way by itself.

    python bench/filters.py [--quick] [--rounds 3] [--queries 100] [--factory HNSW32,SQ8 ...]

In this process, one thread, no HTTP. For random row sets of 50 % to 0.01 % of the rows, taking turns within each round:
`searcher` (Engine.search), `selector` (FAISS's own search with a selector at the same parameters: what one gets without
this code), `widened` (the same, parameters widened for the selectivity), `exact` (the rows' codes copied and scanned),
and `plain` (no filter), to which all costs are shares. Medians over rounds of the thread's CPU time.
Then predicates over the data's own columns: what evaluating them costs, and recall where rows and queries correlate;
and what a filter costs over five million rows.
Writes bench/results/filters.md and summary.json, except with --quick or --factory.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import results
from artifacts import Artifact, built
from datasets import Dataset, real
from many_rows import ROWS, filter_costs

from vectorindex_searcher.contract import Metric
from vectorindex_searcher.index.engine import Engine, read_index
from vectorindex_searcher.index.filters import parse
from vectorindex_searcher.index.metric import normalise
from vectorindex_searcher.index.parameters import search_parameters
from vectorindex_searcher.index.predicates import matching
from vectorindex_searcher.index.rows import RowFile
from vectorindex_searcher.index.selection.restricted import Restricted
from vectorindex_searcher.index.selection.rowset import RowSet
from vectorindex_searcher.index.vectors import VectorFile
from vectorindex_searcher.proof.exact import exact_search
from vectorindex_searcher.proof.measure import measure

K = 10
FACTORIES = ("HNSW32,SQ8", "IVF512,PQ96x4fs,Refine(SQ8)", "IVF1024,SQ8")
SHARES = (0.5, 0.1, 0.01, 0.001, 0.0001)
WAYS = ("searcher", "selector", "widened", "exact")
Search = Callable[[npt.NDArray[np.float32], RowSet], npt.NDArray[np.int64]]
_TEXT_BYTES = 40
"""Columns of longer texts are no metadata to filter by."""


@dataclass
class Bench:
    """One artifact, opened once through the engine and once as FAISS has it."""

    artifact: Artifact
    engine: Engine
    vectors: VectorFile
    queries: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        self.params = dict(self.artifact.manifest.default_point.params)
        self.index = read_index(self.artifact.files / "index.faiss")
        self.restricted = Restricted(self.index, self.params)

    def ways(self) -> Mapping[str, Search]:
        """Each takes queries [1, d] as given and the rows, and answers rows [1, K]."""
        plain = search_parameters(self.index, self.params)

        def selector(query: npt.NDArray[np.float32], allowed_rows: RowSet) -> npt.NDArray[np.int64]:
            limited = search_parameters(self.index, self.params, allowed_rows.selector)
            return np.asarray(self.index.search(normalise(query), K, params=limited)[1])

        return {
            "plain": lambda query, allowed_rows: np.asarray(self.index.search(normalise(query), K, params=plain)[1]),
            "searcher": lambda query, allowed_rows: self.engine.search(query, K, allowed_rows=allowed_rows)[1],
            "selector": selector,
            "widened": lambda query, allowed_rows: self.restricted.approximate(
                normalise(query), K, self.params, allowed_rows
            )[1],
            "exact": lambda query, allowed_rows: self.restricted.exact(normalise(query), K, allowed_rows)[1],
        }

    def recalls(self, answers: Mapping[str, npt.NDArray[np.int64]], allowed_rows: RowSet | None) -> dict[str, float]:
        """Mean recall@K by way."""
        among = None if allowed_rows is None else allowed_rows.rows()
        truth = exact_search(self.vectors, self.queries, K, Metric.COSINE, among=among, threads=1)
        return {
            name: float(measure(truth, found, self.vectors, self.queries).recall.mean())
            for name, found in answers.items()
        }

    def run(self, way: Search, allowed_rows: RowSet) -> tuple[float, npt.NDArray[np.int64]]:
        """CPU microseconds a query, and the answers."""
        way(self.queries[:1], allowed_rows)
        began = time.thread_time()
        found = [way(self.queries[number : number + 1], allowed_rows) for number in range(len(self.queries))]
        return (time.thread_time() - began) / len(self.queries) * 1e6, np.concatenate(found)

    def compare(self, allowed_rows: RowSet, rounds: int) -> tuple[dict[str, float], dict[str, float], float]:
        """Recall by way, median share of the plain search's cost by way, and the plain search's microseconds."""
        ways, shares, plains = self.ways(), defaultdict[str, list[float]](list), []
        answers: dict[str, npt.NDArray[np.int64]] = {}
        for _ in range(rounds):
            plain, _ = self.run(ways["plain"], allowed_rows)
            plains.append(plain)
            for name in WAYS:
                cost, answers[name] = self.run(ways[name], allowed_rows)
                shares[name].append(cost / plain)
        return (
            self.recalls(answers, allowed_rows),
            {name: statistics.median(values) for name, values in shares.items()},
            min(plains),
        )


def columns_of(dataset: Dataset) -> tuple[str, ...]:
    """Columns that one may filter by: numbers and short texts."""
    if dataset.path.suffix == ".npy":
        return ()
    table = pq.read_table(dataset.path, columns=None)
    names = []
    for field in table.schema:
        column = table.column(field.name)
        short = pa.types.is_string(field.type) and (pc.mean(pc.binary_length(column)).as_py() or 0) < _TEXT_BYTES
        if field.name not in ("id", "vector") and (short or pa.types.is_integer(field.type)):
            names.append(field.name)
    return tuple(names)


def predicates_of(file: RowFile) -> list[dict[str, Any]]:
    """The most frequent and a rare value of each text, a half and a hundredth of each number, and a mixture."""
    found: list[dict[str, Any]] = []
    for field in file.schema:
        column = file.table().column(field.name)
        if pa.types.is_string(field.type):
            counts = sorted(pc.value_counts(column).to_pylist(), key=lambda entry: -entry["counts"])
            frequent = [entry["values"] for entry in counts if entry["values"] is not None]
            found += [{field.name: {"eq": frequent[place]}} for place in sorted({0, len(frequent) // 2})]
            found.append({field.name: {"in": frequent[1:4]}})
        else:
            found += [{field.name: {"lt": pc.quantile(column, share)[0].as_py() // 1}} for share in (0.5, 0.01)]
    if len(found) > 3:
        found.append({"and": [found[2], {"not": found[-1]}]})
    return found


def random_sets(bench: Bench, rounds: int) -> tuple[str, list[tuple[float, float]]]:
    """The table of one family; and, by selectivity, the searcher's (recall minus plain recall, share of plain cost)."""
    rng = np.random.default_rng(3)
    count = bench.engine.count
    everything = ~RowSet.of_mask(np.zeros(count, np.bool_))
    unfiltered = bench.recalls({"plain": bench.run(bench.ways()["plain"], everything)[1]}, None)["plain"]
    rows, headline = [], []
    for share in SHARES:
        allowed_rows = RowSet.of_rows(rng.choice(count, max(1, round(share * count)), replace=False), count)
        recalls, costs, plain = bench.compare(allowed_rows, rounds)
        how = bench.engine.search_with_strategy(bench.queries[:1], K, allowed_rows=allowed_rows)[2].value
        cells = [text for name in WAYS for text in (f"{recalls[name]:.3f}", f"{costs[name]:.2f}")]
        rows.append((f"{share:.2%}", allowed_rows.matching, how, *cells))
        headline.append((recalls["searcher"] - unfiltered, costs["searcher"]))
    head = ["share", "rows", "searcher took"]
    head += [text for name in WAYS for text in (f"{name}: recall", "cost")]
    manifest = bench.artifact.manifest
    intro = (
        f"### {manifest.factory}\n\nParameters {bench.params}; without a filter recall@{K} {unfiltered:.3f} at "
        f"{plain:.0f} us CPU a query, which is cost 1.\n\n"
    )
    return intro + results.table(head, rows), headline


def real_filters(bench: Bench, file: RowFile, rounds: int) -> str:
    """Evaluation and search of predicates over the data's own columns."""
    rows = []
    for document in predicates_of(file):
        began = time.perf_counter()
        predicate = parse(document, bench.engine.filter_columns)
        parsed = time.perf_counter() - began
        seconds = []
        for _ in range(5):
            began_cpu = time.process_time()
            allowed_rows = matching(file, predicate)
            seconds.append(time.process_time() - began_cpu)
        allowed_rows = bench.engine.matching(predicate)
        began_cpu = time.thread_time()
        for _ in range(200):
            bench.engine.matching(parse(document, bench.engine.filter_columns))
        again = (time.thread_time() - began_cpu) / 200
        if not allowed_rows.matching:
            continue
        recalls, costs, _ = bench.compare(allowed_rows, rounds)
        how = bench.engine.search_with_strategy(bench.queries[:1], K, allowed_rows=allowed_rows)[2].value
        rows.append(
            (
                f"`{document}`",
                f"{allowed_rows.share:.2%}",
                f"{parsed * 1e6:.0f}",
                f"{statistics.median(seconds) * 1e6:.0f}",
                f"{again * 1e6:.1f}",
                how,
                f"{recalls['searcher']:.3f}",
                f"{costs['searcher']:.2f}",
                f"{recalls['selector']:.3f}",
            )
        )
    head = ["filter", "share", "parse us", "evaluate us", "repeated us", "searcher took", "recall", "cost"]
    return results.table([*head, "selector: recall"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs; writes nothing")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--factory", nargs="*", default=None, help=f"default: {' '.join(FACTORIES)}")
    options = parser.parse_args()
    rounds, count = (1, 20) if options.quick else (options.rounds, options.queries)
    dataset = real()
    columns = columns_of(dataset)
    parts: list[str] = []
    figures: dict[str, float] = {}
    for factory in options.factory or (FACTORIES[:1] if options.quick else FACTORIES):
        artifact = built(dataset, factory, metadata=columns)
        engine = Engine.open(artifact.files, artifact.manifest)
        with VectorFile(artifact.files / "vectors.npy", Metric.COSINE) as vectors:
            bench = Bench(artifact, engine, vectors, dataset.queries(count))
            text, headline = random_sets(bench, rounds)
            parts.append(text)
            key = f"filters.{dataset.name}.{factory}"
            figures[f"{key}.least_recall_gain"] = min(gain for gain, _ in headline)
            figures[f"{key}.max_cost"] = max(cost for _, cost in headline)
            print(text, flush=True)
            if columns:
                file = RowFile(artifact.files / "metadata.arrow")
                parts.append(f"Filters over the data's own columns:\n\n{real_filters(bench, file, rounds)}")
                print(parts[-1], flush=True)
        if not options.quick and not options.factory:
            # After each family: a run that is stopped leaves what it measured.
            results.write_page("filters", _page(dataset, engine.count, parts))
            results.add_to_summary(figures)
    costs = filter_costs(ROWS // 50 if options.quick else ROWS)
    text = f"## {ROWS:,} rows\n\nCPU milliseconds of one thread (`bench/many_rows.py`):\n\n"
    text += results.table(("what", "figure"), list(costs.items()))
    print(text)
    if not options.quick and not options.factory:
        results.write_page("filters", _page(dataset, engine.count, [*parts, text]))
        results.add_to_summary({f"filters.5m_{name}": cost for name, cost in costs.items()})


def _page(dataset: Dataset, count: int, parts: Sequence[str]) -> str:
    intro = (
        f"# Filters by selectivity\n\n{dataset.name}, {count:,} rows. {results.stamp()}. {results.machine()}.\n\n"
        "Cost is CPU time of a query as a share of the same index's search without a filter in the same round, one\n"
        "thread. `selector` is FAISS's search with a selector and nothing else, `widened` the same with parameters\n"
        "widened for the selectivity, `exact` a scan of the matching rows' codes, `searcher` what the searcher chose.\n"
        "A filter asked for the first time is evaluated (evaluate us), later ones are looked up (repeated us,\n"
        "parsing included). The rows' codes of a repeated filter are kept, within 16 MiB or an eighth of the index.\n\n"
    )
    return intro + "\n\n".join(parts)


if __name__ == "__main__":
    main()
