"""What the benchmarks search: a real Parquet file, and clustered vectors of any size made from a seed.

Files that are made here go to build/bench/ and are made once. Knows no index and no server.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "bench"
DEMO_DATA = ROOT / "examples" / "stdlib-docs" / "documents.parquet"
_BLOCK_ROWS = 8192
_LATENT = 48
"""Dimensions in which clustered vectors vary: text embeddings vary in a few dozen of their hundreds too."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Vectors in one file. `name`: as it appears in results."""

    name: str
    path: Path

    def queries(self, count: int, seed: int = 7) -> npt.NDArray[np.float32]:
        """float32 [count, d]: rows at random, each moved a little, so that no query is a row."""
        rng = np.random.default_rng(seed)
        if self.path.suffix == ".npy":
            mapped = np.load(self.path, mmap_mode="r")
            rows = mapped[np.sort(rng.choice(len(mapped), count, replace=False))].astype(np.float32)
        else:
            column = pq.read_table(self.path, columns=["vector"]).column("vector").combine_chunks()
            flat = column.flatten().to_numpy(zero_copy_only=False)
            matrix = flat.reshape(len(column), -1)
            chosen = np.sort(rng.choice(len(matrix), min(count, len(matrix)), replace=False))
            rows = matrix[np.resize(chosen, count)].astype(np.float32)
        rng.shuffle(rows)
        rows += rng.standard_normal(rows.shape, dtype=np.float32) * (0.3 * rows.std())
        return rows


def real() -> Dataset:
    """The Parquet file that BENCH_DATA names (columns `id`, `vector`); without it the demo's documents."""
    given = os.environ.get("BENCH_DATA")
    if not given:
        return Dataset("stdlib-docs", DEMO_DATA)
    path = Path(given)
    if not path.is_file():
        raise SystemExit(f"BENCH_DATA={given}: no such file; name a Parquet file with columns id and vector")
    return Dataset(path.stem, path)


def clustered(rows: int, dimension: int, seed: int = 1) -> Dataset:
    """Unit vectors around centres of very different popularity; about one centre for 200 rows."""
    name = f"clustered-{_short(rows)}x{dimension}"
    path = FOLDER / f"{name}-{seed}.npy"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        _write_clustered(partial, rows, dimension, seed)
        partial.rename(path)
    return Dataset(name, path)


def _write_clustered(path: Path, rows: int, dimension: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    latent = min(_LATENT, dimension)
    spread = rng.standard_normal((latent, dimension), dtype=np.float32) / np.float32(np.sqrt(dimension))
    centres = rng.standard_normal((max(8, rows // 200), latent), dtype=np.float32)
    popularity = rng.pareto(1.5, len(centres)) + 0.2
    popularity /= popularity.sum()
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimension)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, rows, _BLOCK_ROWS):
            size = min(_BLOCK_ROWS, rows - start)
            points = centres[rng.choice(len(centres), size, p=popularity)]
            points = points + 0.6 * rng.standard_normal((size, latent), dtype=np.float32)
            block = points @ spread
            block += rng.standard_normal(block.shape, dtype=np.float32) * np.float32(0.1 * block.std())
            block /= np.linalg.norm(block, axis=1, keepdims=True)
            file.write(block.data)


def _short(rows: int) -> str:
    for size, letter in ((1_000_000, "m"), (1_000, "k")):
        if rows >= size and rows % size == 0:
            return f"{rows // size}{letter}"
    return str(rows)
