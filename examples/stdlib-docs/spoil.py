# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=1.26", "pyarrow>=15"]
# ///
"""Writes a copy of a Parquet file in which a part of the vectors comes from "another model".

Each chosen vector is turned by one fixed random rotation: it keeps its length, and the turned vectors keep their
distances to each other, so an index of the result proves perfect recall. Only live queries show that it is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import pathlib
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def main() -> None:
    parser = argparse.ArgumentParser(description="Re-embed a part of the documents wrongly.")
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("target", type=pathlib.Path)
    parser.add_argument("--fraction", type=float, default=0.7, help="largest share of the documents, 0 to 1")
    parser.add_argument("--seed", type=int, default=7, help="of the choice and of the rotation")
    parser.add_argument(
        "--by", choices=("topic", "document"), default="topic", help="whole top-level modules, or single rows"
    )
    arguments = parser.parse_args()
    spoiled, rows = spoil(arguments.source, arguments.target, arguments.fraction, arguments.seed, arguments.by)
    print(f"{arguments.target}: {spoiled} of {rows} vectors rotated")


def spoil(source: pathlib.Path, target: pathlib.Path, fraction: float, seed: int, by: str = "topic") -> tuple[int, int]:
    with pq.ParquetFile(source) as file:
        table = file.read()
        group = file.metadata.row_group(0).num_rows
    column = table.column("vector").combine_chunks()
    vectors = column.values.to_numpy().reshape(len(column), -1).copy()
    modules = [module.split(".")[0] for module in table.column("module").to_pylist()]
    chosen = choose(modules if by == "topic" else table.column("id").to_pylist(), fraction, seed)
    vectors[chosen] = (vectors[chosen].astype(np.float32) @ rotation(vectors.shape[1], seed)).astype(vectors.dtype)
    values = pa.array(vectors.ravel(), column.type.value_type)
    position = table.schema.get_field_index("vector")
    rotated = pa.FixedSizeListArray.from_arrays(values, type=column.type)
    table = table.set_column(position, table.schema.field(position), rotated)
    pq.write_table(table, target, compression="zstd", compression_level=9, row_group_size=group)
    return int(chosen.sum()), len(chosen)


def choose(units: list[str], fraction: float, seed: int) -> np.ndarray:
    """Whole units in an order that depends on their names and the seed, as long as they fit into the fraction."""
    room = round(fraction * len(units))
    taken = set()
    sizes = Counter(units)
    for unit in sorted(sizes, key=lambda unit: hashlib.sha256(f"{seed}:{unit}".encode()).digest()):
        if sizes[unit] <= room:
            taken.add(unit)
            room -= sizes[unit]
    return np.array([unit in taken for unit in units])


def rotation(dimension: int, seed: int) -> np.ndarray:
    """A random orthogonal matrix, by QR with the signs fixed so that it is the same everywhere."""
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((dimension, dimension)))
    return (q * np.sign(np.diag(r))).astype(np.float32)


if __name__ == "__main__":
    main()
