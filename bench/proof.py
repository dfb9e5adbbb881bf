"""Is what the gate claims true? Its recall and its lower bound against the recall of queries that nobody has seen.

    python bench/proof.py [--splits 20] [--workers N] [--quick] [--families HNSW IVF-SQ8 ...]
        [--data low-rank near ...]

One split: some rows of a data set are hidden, an index is built and validated on all others with the product's own
commands, then the hidden rows are asked of the published index and compared with a scan in NumPy that shares no code
with the product. Three data sets (real text embeddings; few latent dimensions; many near-duplicates, whose hidden
queries are documents without a copy in the index) times three families of index.

Two things must hold for each data set and family, or the gate promises too much. The stated bound lies above the recall
of the hidden queries in at most 5 % of the splits, but for what chance allows (binomial, Holm over the cells). And the
mean of (stated recall - recall of the hidden queries) is not outside of +-0.001 by more than two standard errors: a
bound that is merely wide would hide a bias. What the splits can show of a family's bias is said beside it.

Data: the Parquet file of BENCH_DATA (else the demo's documents), and two made from seeds. Each split has a process of
its own on one thread; times play no part, so a busy machine spoils nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import results
from artifacts import pin
from datasets import FOLDER, real
from scipy import stats

from vectorindex_searcher.index.choose.families import lists_for, parts_for

SPLITS = 20
FRESH = 10_000
ALPHA = 0.05
BIAS = 0.001
OBJECTIVE = 0.95
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
WORKER = Path(__file__).with_name("proof_split.py")
FAMILIES: dict[str, Callable[[int, int], str]] = {
    "HNSW": lambda rows, dimension: "HNSW16,SQ8",
    "IVF-SQ8": lambda rows, dimension: f"IVF{lists_for(rows)},SQ8",
    "IVF-PQ": lambda rows, dimension: f"IVF{lists_for(rows)},PQ{parts_for(dimension, 4)}x4fs,Refine(SQ8)",
}
Rows = npt.NDArray[np.float32]
PICTURE = "![of each split what was stated, and its bound, minus what was true](proof.svg)"
"""Drawn by pictures.py."""


@dataclass(frozen=True, slots=True)
class Data:
    """draw(seed, fresh): rows to build from and hidden queries, both float32 [n, d]."""

    name: str
    metric: str
    draw: Callable[[int, int], tuple[Rows, Rows]]


@dataclass(frozen=True, slots=True)
class Split:
    """What the gate said of one index, and what was true of it."""

    data: str
    family: str
    seed: int
    factory: str
    stated: float
    bound: float
    queries: int
    fresh: float
    fresh_error: float
    """Standard error of `fresh`: its sample is finite too."""

    @property
    def above(self) -> bool:
        return self.bound > self.fresh


def real_rows(quick: bool) -> Data:
    dataset = real()
    column = pq.read_table(dataset.path, columns=["vector"]).column("vector").combine_chunks()
    matrix = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1).astype(np.float32)
    if quick:
        matrix = matrix[:8000]

    def draw(seed: int, fresh: int) -> tuple[Rows, Rows]:
        order = np.random.default_rng(seed).permutation(len(matrix))
        fresh = min(fresh, len(matrix) // 3)
        return matrix[order[fresh:]], matrix[order[:fresh]]

    return Data(dataset.name, "Cosine", draw)


def low_rank(rows: int, dimension: int = 64, latent: int = 16) -> Data:
    """Points near a subspace of few dimensions: the plainest data on which a graph's own rows are easy to find."""

    def draw(seed: int, fresh: int) -> tuple[Rows, Rows]:
        rng = np.random.default_rng([1, seed])
        basis = rng.standard_normal((latent, dimension), dtype=np.float32)
        points = rng.standard_normal((rows + fresh, latent), dtype=np.float32) @ basis
        points += 0.05 * rng.standard_normal(points.shape, dtype=np.float32)
        return points[:rows], points[rows:]

    return Data(f"low-rank-{rows // 1000}kx{dimension}", "L2", draw)


def near_duplicates(rows: int, dimension: int = 96, latent: int = 24) -> Data:
    """Documents with up to 40 almost equal copies; the hidden queries are documents without a copy in the index."""

    def draw(seed: int, fresh: int) -> tuple[Rows, Rows]:
        rng = np.random.default_rng([2, seed])
        basis = rng.standard_normal((latent, dimension), dtype=np.float32)
        centres = rng.standard_normal((rows // 200, latent), dtype=np.float32)
        copies = np.minimum(rng.pareto(1.0, rows) + 1, 40).astype(np.int64)
        copies = copies[: int(np.searchsorted(np.cumsum(copies), rows)) + 1]
        documents = len(copies) + fresh
        points = centres[rng.integers(len(centres), size=documents)]
        points = points + 0.7 * rng.standard_normal((documents, latent), dtype=np.float32)
        points = points @ basis
        indexed = np.repeat(points[: len(copies)], copies, axis=0)[:rows]
        indexed = indexed + 0.015 * points.std() * rng.standard_normal(indexed.shape, dtype=np.float32)
        return indexed[rng.permutation(len(indexed))], points[len(copies) :]

    return Data(f"near-duplicates-{rows // 1000}kx{dimension}", "Cosine", draw)


def run(data: Data, family: str, seed: int, fresh: int, cores: SimpleQueue[int]) -> Split:
    """One split, in a process of its own on one of the `cores`."""
    rows, queries = data.draw(seed, fresh)
    factory = FAMILIES[family](len(rows), rows.shape[1])
    with tempfile.TemporaryDirectory(dir=FOLDER) as name:
        folder = Path(name)
        (folder / "source").mkdir()
        np.save(folder / "source" / "rows.npy", rows)
        np.save(folder / "fresh.npy", queries)
        del rows, queries
        command = [sys.executable, str(WORKER), name, factory, data.metric, f"{OBJECTIVE:g}"]
        core = cores.get()
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD, preexec_fn=pin(core))
        finally:
            cores.put(core)
    if done.returncode:
        raise SystemExit(f"{data.name}, {factory}, split {seed}:\n{done.stderr[-3000:]}")
    return Split(data.name, family, seed, factory, **json.loads(done.stdout))


def lines(splits: Sequence[Split]) -> Iterator[list[object]]:
    """One row of the table for each data set and family."""
    for key in dict.fromkeys((one.data, one.family) for one in splits):
        mine = [one for one in splits if (one.data, one.family) == key]
        gap = gaps(mine)
        yield [
            key[0],
            mine[0].factory,
            len(mine),
            f"{np.mean([one.stated for one in mine]):.4f}",
            f"{np.mean([one.bound for one in mine]):.4f}",
            f"{np.mean([one.fresh for one in mine]):.4f}",
            f"{gap.mean():+.4f} ± {standard_error(gap):.4f}",
            sum(one.above for one in mine),
        ]


def standard_error(values: npt.NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def verdicts(splits: Sequence[Split]) -> tuple[list[str], dict[str, float], bool]:
    """Sentences, figures, and whether both claims hold, in every cell of data set and family: what is wrong in one
    must not vanish in a mean over all."""
    above, count = sum(one.above for one in splits), len(splits)
    said = [f"The bound lies above in {above} of {count} splits ({above / count:.1%})."]
    cells = [
        [one for one in splits if (one.data, one.family) == key]
        for key in dict.fromkeys((one.data, one.family) for one in splits)
    ]
    chances = sorted(chance(cell) for cell in cells)
    # Holm: the smallest of n chances is compared with 5 % / n, the next with 5 % / (n - 1) ...
    good = all(found > ALPHA / (len(cells) - number) for number, found in enumerate(chances))
    said.append(f"Least chance of a cell's number at a rate of 5 %: {chances[0]:.2g} (of {len(cells)} cells).")
    for cell in cells:
        gap = gaps(cell)
        if abs(gap.mean()) - 2 * standard_error(gap) > BIAS:
            said.append(f"Biased: {cell[0].data}, {cell[0].factory}: {gap.mean():+.4f} ± {standard_error(gap):.4f}.")
            good = False
    worst = 0.0
    for family in dict.fromkeys(one.family for one in splits):
        gap = gaps([one for one in splits if one.family == family])
        error = standard_error(gap)
        worst = max(worst, float(gap.mean()), key=abs)
        said.append(
            f"{family}: stated minus fresh recall {gap.mean():+.4f} ± {error:.4f} over {len(gap)} splits, "
            f"so its bias is shown to be within ±{abs(gap.mean()) + 2 * error:.4f}."
        )
    return said, {"proof.splits": count, "proof.above": above / count, "proof.mean_gap": worst}, good


def chance(cell: Sequence[Split]) -> float:
    """Of as many bounds above, or more, if each lay above in 5 % of all splits."""
    above = sum(one.above for one in cell)
    return float(stats.binom.sf(above - 1, len(cell), ALPHA)) if above else 1.0


def gaps(splits: Sequence[Split]) -> npt.NDArray[np.float64]:
    return np.array([one.stated - one.fresh for one in splits])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few small splits; writes no results")
    parser.add_argument("--splits", type=int, default=SPLITS, help="of each data set and family (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes at a time")
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--data", nargs="+", default=[""], help="those whose name begins so (default: all three)")
    parser.add_argument("--page", default="proof", help="name of the page in results/ (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write every split there as soon as it is done")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows, fresh, splits = (6_000, 2_000, 3) if options.quick else (21_000, FRESH, options.splits)
    data = [real_rows(options.quick), low_rank(rows), near_duplicates(rows)]
    data = [one for one in data if one.name.startswith(tuple(options.data))]
    jobs = [(one, family, seed, fresh) for seed in range(splits) for one in data for family in options.families]
    found: list[Split] = []
    cores: SimpleQueue[int] = SimpleQueue()
    for number in range(options.workers):
        cores.put(sorted(os.sched_getaffinity(0))[number % len(os.sched_getaffinity(0))])
    with ThreadPoolExecutor(options.workers) as pool:
        for split in pool.map(lambda job: run(*job, cores), jobs):
            found.append(split)
            said = f"{split.data} {split.factory} {split.seed}: stated {split.stated:.4f} (at least {split.bound:.4f})"
            print(f"[{len(found)}/{len(jobs)}] {said}, fresh {split.fresh:.4f}", file=sys.stderr)
            if options.json:
                options.json.write_text(json.dumps([asdict(one) for one in found]))
    head = ["data", "factory", "splits", "stated recall", "bound", "fresh recall", "stated - fresh", "bound above"]
    sentences, figures, good = verdicts(found)
    table = results.table(head, list(lines(found)))
    print("\n".join([table, "", *sentences]))
    if not options.quick:
        words = f"# Is what the gate claims true?\n\n{results.stamp()}. {results.machine()}\n\n"
        results.write_page(options.page, words + "\n\n".join([table, PICTURE, *sentences]))
        (results.FOLDER / f"{options.page}.json").write_text(json.dumps([asdict(one) for one in found], indent=0))
        if options.page == "proof":
            results.add_to_summary(figures)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
