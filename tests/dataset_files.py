"""The same vectors as a file of each format that a source can have."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

Rows = npt.NDArray[Any]


def numbers(dtype: str, count: int = 100, dimension: int = 8, seed: int = 0) -> Rows:
    """Values that every dtype here holds exactly, no row of them zero."""
    return np.random.default_rng(seed).integers(1, 100, (count, dimension)).astype(dtype)


def write_vecs(path: Path, vectors: Rows) -> None:
    prefixes = np.full((len(vectors), 1), vectors.shape[1], "<i4").view(np.uint8)
    path.write_bytes(np.hstack([prefixes, np.ascontiguousarray(vectors).view(np.uint8)]).tobytes())


def write_bin(path: Path, vectors: Rows) -> None:
    path.write_bytes(struct.pack("<II", *vectors.shape) + vectors.tobytes())


def write_hdf5(path: Path, vectors: Rows) -> None:
    """As ann-benchmarks does it."""
    with h5py.File(path, "w") as file:
        file.attrs["distance"] = "angular"
        file.create_dataset("train", data=vectors)
        file.create_dataset("test", data=vectors[:5] + vectors[1:6])
        file.create_dataset("neighbors", data=np.zeros((5, 10), np.int32))
        file.create_dataset("distances", data=np.zeros((5, 10), np.float32))


def lines(vectors: Rows, ids: Sequence[object] | None = None, **columns: Sequence[object]) -> bytes:
    ids = range(len(vectors)) if ids is None else ids
    rows = [
        {"id": one, "vector": vector, **{name: column[row] for name, column in columns.items()}}
        for row, (one, vector) in enumerate(zip(ids, vectors.tolist(), strict=True))
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def write_jsonl(path: Path, vectors: Rows) -> None:
    data = lines(vectors)
    if path.suffix == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".zst":
        data = pa.compress(data, "zstd", asbytes=True)
    path.write_bytes(data)


def write_parquet(path: Path, vectors: Rows, ids: object = None, **options: Any) -> None:
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    ids = np.arange(len(vectors)) if ids is None else ids
    pq.write_table(pa.table({"id": ids, "vector": column}), path, row_group_size=40, **options)
