"""FAISS by itself, in a process of its own: what a server can at best reach.

    python bench/inprocess.py INDEX.faiss QUERIES.npy '{"efSearch": 48}' [BATCH]

The index is opened as the searcher opens it, one thread, queries already normalised, the caller's parameters. For each
line on standard input (a number of seconds) it searches that long and prints {"count": queries, "cpu": seconds}.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.index.engine import read_index
from vectorindex_searcher.index.parameters import search_parameters

K = 10


def main(index_file: str, query_file: str, params: str, batch: str = "1") -> None:
    faiss.omp_set_num_threads(1)
    index = read_index(Path(index_file))
    queries = np.load(query_file)
    prepared = search_parameters(index, json.loads(params))
    size = int(batch)
    blocks = [queries[start : start + size] for start in range(0, len(queries) - size + 1, size)]
    number = 0
    for line in sys.stdin:
        end = time.perf_counter() + float(line)
        count, cpu = 0, time.process_time()
        while time.perf_counter() < end:
            index.search(blocks[number % len(blocks)], K, params=prepared)
            number += 1
            count += size
        print(json.dumps({"count": count, "cpu": time.process_time() - cpu}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
