"""Canary queries: a few hundred queries with every row that is a right answer, so a pod can prove itself.

`validate` writes them and measures the recall on exactly these; a pod computes the same before it is ready. Right
answers are row numbers of the immutable artifact: no vectors are needed, and approximate scores of quantised indexes do
not matter.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import BadData
from ..index.engine import Engine
from .exact import Truth
from .measure import answers

CANARY_QUERIES = 300


def make_canary(
    queries: npt.NDArray[np.float32], own_rows: npt.NDArray[np.int64], truth: Truth, hits: npt.NDArray[np.int64]
) -> pa.Table:
    """Choose canary queries and lay them out.

    queries: float32 [n, d]; own_rows: int64 [n] or -1; hits: int64 [n], right answers the engine gave.
    Queries whose ties may go beyond the candidates come last: their list of right answers could be incomplete.
    Columns: vector, row (own row or -1), right (rows that count), available (neighbours there are, at most k),
    kth_score (exact, see Truth), hits.
    """
    right = truth.scores >= truth.threshold[:, None]
    incomplete = right.all(axis=1) & (truth.rows[:, -1] >= 0) & (truth.rows.shape[1] > truth.available)
    chosen = np.sort(np.argsort(incomplete, kind="stable")[:CANARY_QUERIES])
    kth = np.take_along_axis(truth.scores, np.maximum(truth.available - 1, 0)[:, None], 1)[:, 0]
    lists = [truth.rows[number][right[number] & (truth.rows[number] >= 0)] for number in chosen]
    flat = pa.array(np.ascontiguousarray(queries[chosen], np.float32).ravel())
    columns = {
        "vector": pa.FixedSizeListArray.from_arrays(flat, queries.shape[1]),
        "row": pa.array(own_rows[chosen], pa.int64()),
        "right": pa.array(lists, pa.list_(pa.int64())),
        "available": pa.array(truth.available[chosen], pa.int32()),
        "kth_score": pa.array(kth[chosen], pa.float64()),
        "hits": pa.array(hits[chosen], pa.int32()),
    }
    return pa.table(columns)


def write_canary(table: pa.Table, path: Path) -> None:
    """Write the table as an Arrow IPC file."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def read_canary(path: Path) -> pa.Table:
    """Read canary.arrow into memory. Raises BadData/BadArtifact."""
    try:
        with pa.OSFile(str(path), "rb") as source:
            return pa.ipc.open_file(source).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise BadData("BadArtifact", f"{path.name}: {error}", object=path.name) from error


def canary_recall(engine: Engine, table: pa.Table, k: int) -> float:
    """Mean recall@k of the engine's default point on the canary queries, in [0, 1]; 1 for a table without queries."""
    if not table.num_rows:
        return 1.0
    return float(canary_recalls(engine, table, k).mean())


def canary_recalls(engine: Engine, table: pa.Table, k: int) -> npt.NDArray[np.float64]:
    """Recall@k of each canary query, float64 [n]."""
    flat = table.column("vector").combine_chunks().flatten().to_numpy()
    queries = flat.reshape(table.num_rows, -1).astype(np.float32, copy=False)
    own = table.column("row").to_numpy()
    available = table.column("available").to_numpy()
    rows = answers(engine, queries, k, own)
    right = table.column("right").to_pylist()
    found = np.array([np.isin(mine, theirs).sum() for mine, theirs in zip(rows, right, strict=True)])
    return np.where(available > 0, np.minimum(found, available) / np.maximum(available, 1), 1.0)
