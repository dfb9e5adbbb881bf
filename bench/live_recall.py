"""What live recall costs a searcher: its share of a core, and what it does to the latency of searches beside it.

    python bench/live_recall.py            # 1,000,000 x 128, HNSW32
    python bench/live_recall.py --quick    # 100,000 x 64, seconds

One process: a search loop on one thread (as a searcher with one CPU searches, at a fixed pace from intended start
times) with and without a scan of a full sample (1,000 queries) beside it, in turns; and the scan alone, without sleep,
for its price in CPU seconds. Figures of one run are comparable; the machine is named.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from vectorindex_searcher.contract import Metric
from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.index.vectors import VectorFile, VectorWriter
from vectorindex_searcher.proof.exact import exact_search
from vectorindex_searcher.serve.evidence import live_recall

SAMPLE = 1000
K = 10


def clustered(rows: int, dimension: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((1000, dimension)).astype(np.float32)
    found = np.empty((rows, dimension), np.float32)
    for start in range(0, rows, 100_000):
        stop = min(start + 100_000, rows)
        noise = rng.standard_normal((stop - start, dimension), dtype=np.float32)
        found[start:stop] = centres[rng.integers(0, 1000, stop - start)] + noise
    return found


def scan(path: Path, queries: np.ndarray, share: float, stop: threading.Event) -> float:
    """One scan for `queries` at `share` of a core, until done or `stop`; CPU seconds of it."""
    if share < 1:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), live_recall.NICENESS)
    budget = live_recall.CpuBudget(share, stop.wait)
    with live_recall.PacedVectors(path, Metric.L2, budget, 1e9) as vectors:
        blocks = vectors.blocks

        def until_stopped():
            for block in blocks():
                if stop.is_set():
                    return
                yield block

        vectors.blocks = until_stopped  # type: ignore[method-assign]
        exact_search(vectors, queries, K, Metric.L2, threads=1)
        budget.pay()
    return budget.spent


def serve(index: object, queries: np.ndarray, params: object, seconds: float, gap: float) -> np.ndarray:
    """Latencies (s) of searches that should begin every `gap` seconds; late ones count from when they should have."""
    faiss.omp_set_num_threads(1)
    latencies, due, number = [], time.perf_counter(), 0
    end = due + seconds
    while due < end:
        time.sleep(max(0.0, due - time.perf_counter()))
        index.search(queries[number % len(queries)][None], K, params=params)
        latencies.append(time.perf_counter() - due)
        due += gap
        number += 1
    return np.array(latencies)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the size, short turns")
    parser.add_argument("--turns", type=int, default=4)
    arguments = parser.parse_args()
    rows, dimension, seconds = (100_000, 64, 4.0) if arguments.quick else (1_000_000, 128, 20.0)
    print(f"{rows:,} x {dimension}, {platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores")
    vectors = clustered(rows, dimension)
    queries = clustered(SAMPLE, dimension)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        with VectorWriter(path, rows, dimension, half=False) as writer:
            writer.write(vectors)
        index = faiss.index_factory(dimension, "IVF1024,Flat")
        index.train(vectors[:: max(1, rows // 40_000)])
        index.add(vectors)
        del vectors
        measure(path, index, queries, seconds, arguments.turns)


def measure(path: Path, index: object, queries: np.ndarray, seconds: float, turns: int) -> None:
    price = scan(path, queries, 1.0, threading.Event())
    few = scan(path, queries[:64], 1.0, threading.Event())
    with VectorFile(path, Metric.L2) as file:
        size = file.count * file.dimension * 4
    print(f"scan of {size >> 20} MiB: {price:.2f} CPU s for 1,000 queries, {few:.2f} for 64")
    print(f"at 5 % of a core: {price / 0.05:.0f} s")
    params = faiss.SearchParametersIVF(nprobe=8)
    began, number = time.perf_counter(), 0
    while time.perf_counter() < began + 2.0:
        index.search(queries[number % len(queries)][None], K, params=params)  # type: ignore[attr-defined]
        number += 1
    gap = 2 * 2.0 / number  # half of capacity
    quiet, busy, shares = [], [], []
    for _ in range(turns):
        quiet.append(serve(index, queries, params, seconds, gap))
        stop, spent = threading.Event(), []

        def beside(stop: threading.Event = stop, spent: list[float] = spent) -> None:
            while not stop.is_set():
                spent.append(scan(path, queries, live_recall.CPU_SHARE, stop))

        thread = threading.Thread(target=beside)
        began = time.perf_counter()
        thread.start()
        busy.append(serve(index, queries, params, seconds, gap))
        stop.set()
        thread.join()
        shares.append(sum(spent) / (time.perf_counter() - began))
    print(f"CPU share while scanning: {100 * np.mean(shares):.1f} % of a core")
    for name, found in (("without", np.concatenate(quiet)), ("with", np.concatenate(busy))):
        p50, p99 = 1e6 * np.quantile(found, [0.5, 0.99])
        print(f"{name} the scan: p50 {p50:.0f} us, p99 {p99:.0f} us ({len(found)} searches at half of capacity)")


if __name__ == "__main__":
    main()
