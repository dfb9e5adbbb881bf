"""How much faster does a GPU lay the graph of HNSW32,SQ8 than the CPUs beside it, and does that graph find as much?

    GPU_PYTHON=/path/to/python make bench-gpu      (its FAISS: faiss-gpu-cuvs; without CAGRA in it nothing is measured)

CAGRA, of NVIDIA's cuVS, makes the links of the base level out of all vectors at once; FAISS adds the levels above on
the CPU, and the graph is laid over the codes of an index as we build and serve it: of 8 bits, a quarter of the memory.
A million clustered vectors x 768; the vectors are in memory before either begins. Both are asked the same 1,000
queries, one at a time on one thread, with the smallest efSearch at which they find RECALL of the ten nearest. Writes
bench/results/gpu_graph.md. No product code: what docs/adr/0085-no-graphs-from-a-gpu.md waits for.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from datasets import clustered
from results import busy, machine, stamp, table, write_page

Floats = npt.NDArray[np.float32]

LINKS = 32
"""M of HNSW32: a node of the base level has twice as many links, which is the degree of CAGRA's graph."""
CODES = f"HNSW{LINKS},SQ8"
QUERIES, K, RECALL = 1000, 10, 0.95
EF_SEARCH = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


@dataclass(frozen=True, slots=True)
class Graph:
    """One way to make it. `ef`: the smallest efSearch that reaches RECALL; 0: none does."""

    made_by: str
    seconds: float
    rows: int
    ef: int
    recall: float
    query_us: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="see that it runs; writes no results")
    options = parser.parse_args()
    if not hasattr(faiss, "GpuIndexCagra"):
        print("graphs are not measured: this FAISS has no CAGRA. The wheel faiss-gpu-cuvs has, in a GPU_PYTHON")
        return
    data = clustered(20_000, 64) if options.quick else clustered(1_000_000, 768)
    rows, queries = np.load(data.path), data.queries(QUERIES)
    _, truth = faiss.knn_gpu(faiss.StandardGpuResources(), queries, rows, K, metric=faiss.METRIC_INNER_PRODUCT)
    makers: dict[str, Callable[[Floats], Any]] = {"CPUs": by_cpus, "a GPU": by_gpu}
    graphs = [measured(name, maker, rows, queries, truth) for name, maker in makers.items()]
    text = page(graphs, data.name)
    print(text)
    if not options.quick:
        write_page("gpu_graph", text)


def by_cpus(rows: Floats) -> Any:
    """As a build does it, on all cores."""
    index = faiss.index_factory(rows.shape[1], CODES, faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    index.add(rows)
    return index


def by_gpu(rows: Floats) -> Any:
    """The graph by the first GPU, over float32 [n, d]; levels above the base, and codes, by the CPU."""
    how = faiss.GpuIndexCagraConfig()
    how.graph_degree, how.intermediate_graph_degree = 2 * LINKS, 4 * LINKS
    made = faiss.GpuIndexCagra(faiss.StandardGpuResources(), rows.shape[1], faiss.METRIC_INNER_PRODUCT, how)
    made.train(rows)
    graph = faiss.IndexHNSWCagra(rows.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.base_level_only = False
    made.copyTo(graph)
    return laid_over_codes(graph, rows)


def laid_over_codes(graph: Any, rows: Floats) -> Any:
    """HNSW32,SQ8 of these rows with the links of `graph` (any IndexHNSW of the same rows, in this order)."""
    index = faiss.index_factory(rows.shape[1], CODES, graph.metric_type)
    index.train(rows)
    index.storage.add(rows)
    index.hnsw = graph.hnsw  # a copy
    index.ntotal = len(rows)
    return index


def measured(
    name: str, make: Callable[[Floats], Any], rows: Floats, queries: Floats, truth: npt.NDArray[np.int64]
) -> Graph:
    """Makes it, and asks it."""
    began = time.monotonic()
    index = make(rows)
    seconds = time.monotonic() - began
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        ef, recall, query_us = 0, 0.0, 0.0
        for index.hnsw.efSearch in EF_SEARCH:
            began = time.monotonic()
            found = np.concatenate([index.search(one[None], K)[1] for one in queries])
            query_us = (time.monotonic() - began) / len(queries) * 1e6
            recall = recall_of(found, truth)
            if recall >= RECALL:
                ef = index.hnsw.efSearch
                break
    finally:
        faiss.omp_set_num_threads(threads)
    return Graph(name, seconds, len(rows), ef, recall, query_us)


def recall_of(found: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]) -> float:
    """Share of the true neighbours [n, k] that were found [n, k]."""
    hits = [len(np.intersect1d(one, other)) for one, other in zip(found, truth, strict=True)]
    return float(np.mean(hits)) / truth.shape[1]


def page(graphs: list[Graph], data: str) -> str:
    """bench/results/gpu_graph.md."""
    head = ["graph by", "rows/s", "efSearch", f"recall@{K}", "query us"]
    found = [
        [one.made_by, one.rows / one.seconds, one.ef or f"beyond {EF_SEARCH[-1]}", one.recall, one.query_us]
        for one in graphs
    ]
    return f"""# A graph by a GPU

`python bench/gpu_graph.py`, {stamp()}. {machine()}.

{data}, {CODES}. Each at the smallest efSearch that finds {RECALL:.0%} of the {K} nearest, one query at a time, on one
thread.

{table(head, found)}

{busy()}
"""


if __name__ == "__main__":
    main()
