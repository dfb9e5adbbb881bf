"""What an answer costs beside its search in an index of more than a million rows: ids and metadata of its hits.

Files of 1.1 million rows as a build writes them, in several record batches; rows drawn at random, as hits lie.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasets import FOLDER

from vectorindex_searcher.index.rows import IDS_BATCH_ROWS, METADATA_BATCH_ROWS, Ids, RowFile, RowWriter

ROWS = 1_100_000
_BLOCK_ROWS = 100_000
_TIMES, _ROUNDS = 300, 9


def lookup_us(k: int = 100) -> dict[str, float]:
    """CPU microseconds of one thread for the `k` hits of one query: ids that are numbers, ids that are texts, and of
    metadata a text and a number. Medians of rounds, which take turns."""
    folder = FOLDER / "lookups"
    folder.mkdir(parents=True, exist_ok=True)
    numbers, texts = Ids(_written(folder / "numbers.arrow", _numbers)), Ids(_written(folder / "texts.arrow", _texts))
    metadata = RowFile(_written(folder / "metadata.arrow", _metadata, METADATA_BATCH_ROWS))
    rng = np.random.default_rng(3)
    rows = [rng.integers(0, ROWS, k) for _ in range(_TIMES)]
    jobs: dict[str, Callable[[npt.NDArray[np.int64]], object]] = {
        "ids": numbers,
        "string_ids": texts,
        "metadata": lambda some: [metadata.values(some, name) for name in metadata.columns],
    }
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(_ROUNDS):
        for name, job in jobs.items():
            began = time.thread_time()
            for some in rows:
                job(some)
            found[name].append((time.thread_time() - began) / _TIMES * 1e6)
    return {name: statistics.median(spent) for name, spent in found.items()}


def _numbers(start: int, stop: int) -> pa.Table:
    return pa.table({"id": np.arange(start, stop) * 7})


def _texts(start: int, stop: int) -> pa.Table:
    return pa.table({"id": [f"product-{row:010d}-variant" for row in range(start, stop)]})


def _metadata(start: int, stop: int) -> pa.Table:
    titles = [f"title of row {row}, as long as titles are" for row in range(start, stop)]
    return pa.table({"title": titles, "price": np.arange(start, stop) / 7})


def _written(path: Path, block: Callable[[int, int], pa.Table], batch_rows: int = IDS_BATCH_ROWS) -> Path:
    """Made once."""
    if not path.exists():
        partial = path.with_suffix(".partial")
        with RowWriter(partial, block(0, 1).schema, batch_rows) as writer:
            for table in _blocks(block):
                writer.write(table)
        partial.rename(path)
    return path


def _blocks(block: Callable[[int, int], pa.Table]) -> Iterator[pa.Table]:
    for start in range(0, ROWS, _BLOCK_ROWS):
        yield block(start, min(start + _BLOCK_ROWS, ROWS))
