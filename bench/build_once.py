"""One build in a process of its own, measured from inside: `build_once.py plain|ours SOURCE FACTORY OUT`.

plain: the script that one would write with FAISS: read everything, train on a sample, add, write. ours: `build`, which
also measures what it builds before it writes it: it leaves rows out, looks for their exact neighbours, tunes.
Prints JSON: CPU seconds of the whole process (imports not counted), and of these what reading, training, adding and
writing took, which the script does too; peak resident bytes, for `ours` the index's and the sample's bytes. A process
of build.py, growth.py and rows.py.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

import vectorindex_searcher.build.task as building
from vectorindex_searcher import progress
from vectorindex_searcher.build import budget
from vectorindex_searcher.contract import BuildTask, Embedding, Identity, IndexSpec, Location, Metric
from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.index.factory import make_index, training_rows

LIKE_THE_SCRIPT = ("", "reading rows", "choosing", "training", "adding rows", "writing")
"""Steps of a build; the first before any is named."""


class ByStep(progress.Now):
    """Adds up the CPU seconds of each step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.process_time()
        super().__init__()

    def __setattr__(self, name: str, value: object) -> None:
        if name == "step" and hasattr(self, "step"):
            now = time.process_time()
            self.seconds[self.step] = self.seconds.get(self.step, 0.0) + now - self._since
            self._since = now
        super().__setattr__(name, value)


def main() -> None:
    kind, source, factory, out = sys.argv[1], Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    began = time.process_time()
    figures = plain(source, factory, out) if kind == "plain" else ours(source, factory, out)
    figures["cpu_all"] = time.process_time() - began
    figures["peak"] = building.peak_memory()
    print(json.dumps(figures))


def plain(source: Path, factory: str, out: Path) -> dict[str, float]:
    """The short script. Cosine, as everywhere in the benchmarks."""
    began = time.process_time()
    faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
    vectors = read(source)
    faiss.normalize_L2(vectors)
    index = faiss.index_factory(vectors.shape[1], factory)
    size = training_rows(index, len(vectors))
    if size:
        index.train(vectors[np.random.default_rng(0).choice(len(vectors), size, replace=False)])
    index.add(vectors)
    faiss.write_index(index, str(out / "index.faiss"))
    return {"cpu_index": time.process_time() - began, "rows": len(vectors)}


def read(source: Path) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """All vectors as float32."""
    if source.suffix == ".npy":
        return np.load(source).astype(np.float32, copy=False)
    import pyarrow.parquet as pq

    column = pq.read_table(source, columns=["vector"]).column("vector").combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1).astype(np.float32)


def ours(source: Path, factory: str, out: Path) -> dict[str, float]:
    """`build`, its CPU by its steps."""
    progress.NOW = steps = ByStep()
    write = building.write_index

    def timed(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        progress.step("describing")  # hashes, what was measured

    building.write_index = timed  # type: ignore[assignment]
    task = BuildTask(
        identity=Identity(name="index"),
        digest="d",
        source=Location(folder=str(source)),
        artifacts=Location(folder=str(out)),
        index=IndexSpec(factory=factory),
        embedding=Embedding(metric=Metric.COSINE),
    )
    built = building.build(task)
    progress.step("")
    empty = make_index(factory, built.count, built.dimension, Metric.COSINE)
    sample = budget.sample_bytes(training_rows(empty, built.count), built.dimension)
    return {
        "cpu_index": sum(steps.seconds.get(name, 0.0) for name in LIKE_THE_SCRIPT),
        "rows": built.count,
        "index": built.index_bytes,
        "sample": sample,
        "formula": budget.INTERPRETER_BYTES + budget.peak_bytes(built.index_bytes, sample),
        "source": source.stat().st_size,
        "recall": built.default_point.recall,
    }


if __name__ == "__main__":
    main()
