"""Canary queries: a few hundred queries with every row that is a right answer, so a pod can prove itself.

`validate` writes them and measures the recall on exactly these; a pod computes the same before it is ready. Right
answers are row numbers of the immutable artifact: no vectors are needed, and approximate scores of quantised indexes do
not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..artifact.manifest import ManifestFile, describe_file
from ..errors import BadData
from ..index.arrow_files import read_table
from ..index.choose.recall import recall_of
from ..index.engine import Engine
from ..storage.store import Store
from .exact import Truth
from .measure import NO_PARAMS, Params, served_answers

CANARY_QUERIES = 300
CANARY_LIMIT_BYTES = 128 << 20
"""As many queries of the most dimensions, and their right answers, are less. What is longer is cut, and no canary."""
_MANIFEST = b"manifest"


def canary_numbers(count: int, most: int = CANARY_QUERIES) -> npt.NDArray[np.int64]:
    """Which of `count` queries may be canary queries: at most `most`, the same every time, rising."""
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def make_canary(
    queries: npt.NDArray[np.float32],
    own_rows: npt.NDArray[np.int64],
    truth: Truth,
    hits: npt.NDArray[np.int64],
    classes: Sequence[str] | None = None,
) -> pa.Table:
    """Draw canary queries and lay them out. The same queries give the same canary.

    queries: float32 [n, d]; own_rows: int64 [n] or -1; hits: int64 [n], right answers the engine gave; classes: segment
    of each query. Queries whose ties may go beyond the candidates come last: their list of right answers could be
    incomplete. Columns: vector, row (own row or -1), right (rows that count), available (neighbours there are, at most
    k), kth_score (exact, see Truth), hits, segment.
    """
    right = truth.scores >= truth.threshold[:, None]
    incomplete = right.all(axis=1) & (truth.rows[:, -1] >= 0) & (truth.rows.shape[1] > truth.available)
    drawn = np.random.default_rng(0).permutation(len(queries))  # not the first: a file may be sorted by class
    chosen = np.sort(drawn[np.argsort(incomplete[drawn], kind="stable")[:CANARY_QUERIES]])
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
        "segment": pa.array([classes[number] if classes else "" for number in chosen], pa.string()),
    }
    return pa.table(columns)


def of_manifest(table: pa.Table, sha256: str) -> pa.Table:
    """The table, marked with the manifest whose rows it names."""
    return table.replace_schema_metadata({_MANIFEST: sha256.encode()})


def manifest_of(path: Path) -> str:
    """SHA-256 of the manifest that the file is of; empty when it does not say, or cannot be read."""
    try:
        metadata = read_canary(path).schema.metadata or {}
    except BadData:
        return ""
    return bytes(metadata.get(_MANIFEST, b"")).decode(errors="replace")


def write_canary(table: pa.Table, path: Path) -> None:
    """Write the table as an Arrow IPC file."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def read_canary(path: Path) -> pa.Table:
    """Read canary.arrow into memory. Raises BadData/BadArtifact."""
    try:
        return read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadData("BadArtifact", f"{path.name}: {error}", object=path.name) from error


def publish_canary(store: Store, key: str, table: pa.Table, sha256: str, path: Path) -> tuple[ManifestFile, pa.Table]:
    """Store a canary of the manifest with this SHA-256; its description and what it holds. One of that manifest that is
    there already (an earlier try died before its report) is kept. `path`: where it is written meanwhile."""
    write_canary(of_manifest(table, sha256), path)
    if not store.put(key, data := path.read_bytes(), exclusive=True):
        path.write_bytes(store.read(key, length=CANARY_LIMIT_BYTES))
        if manifest_of(path) != sha256:
            store.put(key, data)
            path.write_bytes(data)
        table = read_canary(path)
    return describe_file(path), table


def canary_recall(engine: Engine, table: pa.Table, k: int, params: Params = NO_PARAMS) -> float:
    """Mean recall@k of the engine on the canary queries, in [0, 1]; 1 for a table without queries.

    params: parameters of segments served with their own; the rest gets the default point.
    """
    if not table.num_rows:
        return 1.0
    return float(canary_recalls(engine, table, k, params).mean())


def canary_recalls(engine: Engine, table: pa.Table, k: int, params: Params = NO_PARAMS) -> npt.NDArray[np.float64]:
    """Recall@k of each canary query, float64 [n]; see `canary_recall`."""
    queries, own = canary_queries(table)
    # A canary published before segments had points has no such column.
    classes = table.column("segment").to_pylist() if "segment" in table.column_names else None
    return recalls_of(table, served_answers(engine, queries, k, own, classes, params))


def canary_queries(table: pa.Table) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The queries [n, d], and the row that each of them is, or -1 [n]."""
    flat = table.column("vector").combine_chunks().flatten().to_numpy()
    queries = flat.reshape(table.num_rows, -1).astype(np.float32, copy=False)
    return queries, table.column("row").to_numpy()


def recalls_of(table: pa.Table, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Recall [n] of answers [n, k] to the canary queries."""
    return recall_of(is_right(table, "right", rows), table.column("available").to_numpy())


def is_right(table: pa.Table, column: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which answers [n, k] are in the lists of a column."""
    lists = table.column(column).to_pylist()
    return np.array([np.isin(mine, theirs) for mine, theirs in zip(rows, lists, strict=True)]).reshape(rows.shape)
