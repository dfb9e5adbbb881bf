"""One build in a process of its own, measured from inside: `build_once.py plain|ours SOURCE FACTORY OUT`.

plain: the script that one would write with FAISS: read everything, train on a sample, add, write. ours: `build`.
Prints JSON: CPU seconds of the whole process until index.faiss was written and until the end (imports not counted),
peak resident bytes, for `ours` the index's and the sample's bytes. A process of build.py and growth.py.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

import vectorindex_searcher.build.task as building
from vectorindex_searcher.build import budget
from vectorindex_searcher.contract import BuildTask, Embedding, Identity, IndexSpec, Location, Metric
from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.index.factory import make_index, training_rows


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
    """`build` with the clock stopped where the plain script ends: behind write_index."""
    began = time.process_time()
    stopped: list[float] = []
    write = building.write_index

    def timed(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        stopped.append(time.process_time() - began)

    building.write_index = timed  # type: ignore[assignment]
    task = BuildTask(
        identity=Identity(name="bench"),
        digest="d",
        source=Location(folder=str(source)),
        artifacts=Location(folder=str(out)),
        index=IndexSpec(factory=factory),
        embedding=Embedding(metric=Metric.COSINE),
    )
    built = building.build(task)
    empty = make_index(factory, built.count, built.dimension, Metric.COSINE)
    sample = budget.sample_bytes(training_rows(empty, built.count), built.dimension)
    return {
        "cpu_index": stopped[0],
        "rows": built.count,
        "index": built.index_bytes,
        "sample": sample,
        "formula": budget.INTERPRETER_BYTES + budget.peak_bytes(built.index_bytes, sample),
        "source": source.stat().st_size,
        "recall": built.default_point.recall,
    }


if __name__ == "__main__":
    main()
