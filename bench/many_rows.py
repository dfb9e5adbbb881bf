"""What a filter costs over millions of rows, of bench/filters.py: its evaluation, the table of lists, and memory.

A file of metadata as a build writes it, with a number and a text, and lists of short codes; one thread, CPU time.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import FOLDER

from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.index.filters import FilterColumns, parse
from vectorindex_searcher.index.predicates import matching
from vectorindex_searcher.index.rows import METADATA_BATCH_ROWS, RowFile, RowWriter

ROWS = 5_000_000
_BLOCK_ROWS = 250_000
_SCHEMA = pa.schema([("number", pa.int32()), ("text", pa.string())])
_FILTERS = {"number": {"number": {"lt": 500}}, "text": {"text": "python"}}


def filter_costs(rows: int = ROWS) -> dict[str, float]:
    """Milliseconds of CPU: `number_ms` and `text_ms` to evaluate a new filter, `blocks_ms` to read half of all rows
    from its set, `table_ms` to make the table from row to list; and `blocks_mib`, what reading holds at most."""
    file, columns = RowFile(_written(rows)), FilterColumns(_SCHEMA)
    predicates = {name: parse(document, columns) for name, document in _FILTERS.items()}
    found = {f"{name}_ms": _median_ms(partial(matching, file, one)) for name, one in predicates.items()}
    half = matching(file, predicates["number"])

    def read() -> int:
        return sum(len(block) for block in half.blocks(100_000))

    found["blocks_ms"] = _median_ms(read)
    tracemalloc.start()
    read()
    found["blocks_mib"] = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    index = _lists(rows)
    found["table_ms"] = _median_ms(index.make_direct_map, 1)
    return found


def _median_ms(job: Callable[[], object], times: int = 5) -> float:
    spent = []
    for _ in range(times):
        began = time.process_time()
        job()
        spent.append(time.process_time() - began)
    return statistics.median(spent) * 1e3


def _lists(rows: int) -> Any:
    faiss.omp_set_num_threads(1)
    some = np.random.default_rng(0).standard_normal((_BLOCK_ROWS, 8)).astype(np.float32)
    index = faiss.index_factory(8, "IVF64,SQ8")
    index.train(some[:10_000])
    for start in range(0, rows, _BLOCK_ROWS):
        index.add(some[: min(_BLOCK_ROWS, rows - start)])
    return index


def _written(rows: int) -> Path:
    """Made once."""
    path = FOLDER / f"many-rows-{rows}.arrow"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        words = np.array(["python", "perl", "libs", "doc"])
        partial = path.with_suffix(".partial")
        with RowWriter(partial, _SCHEMA, METADATA_BATCH_ROWS) as writer:
            for start in range(0, rows, _BLOCK_ROWS):
                number = np.arange(start, min(start + _BLOCK_ROWS, rows))
                columns = {"number": pa.array(number % 1000, pa.int32()), "text": pa.array(words[number % 4])}
                writer.write(pa.table(columns, _SCHEMA))
        partial.rename(path)
    return path
