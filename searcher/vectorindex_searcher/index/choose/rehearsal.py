"""A kind of index tried in miniature before a build reads a row: built, written, read and searched as a searcher will.

FAISS has some hundred kinds, and not every one does all of that: some take no search parameters, some cannot be read
back, and an error inside its threads ends the process. So the trial has a process of its own, and whatever ends it is
a refusal in FAISS's words. Kinds that the tests of this package build for every metric (PROVEN) need none.

`python -m vectorindex_searcher.index.choose.rehearsal FACTORY COUNT DIMENSION METRIC` is that process.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from ...contract import Metric
from ...errors import BadData, BadSpec
from ..binding import faiss
from ..engine import read_index
from ..factory import FIELD, faiss_words, list_count, make_index, parts
from ..parameters import parameter_limits, search_parameters
from ..selection.restricted import Restricted
from ..selection.rowset import RowSet
from ..training import train

PROVEN = re.compile(
    r"(PCA[1-9]\d*,)?(Flat|SQ(8|6|4|fp16)|HNSW([4-9]|[1-9]\d+)(,(Flat|SQ(8|6|4|fp16)))?"
    r"|IVF[1-9]\d*(_HNSW([4-9]|[1-9]\d+))?,(Flat|SQ(8|6|4|fp16)|PQ[1-9]\d*x4fsr?|RaBitQ[1-9]?))"
    r"(,RFlat|,Refine\((Flat|SQ(8|6|4|fp16))\))?"
)
ROWS = 1500
"""Rows of the miniature: more than a code book of 10 bits has entries."""
LISTS = 16
SECONDS = 150
"""CPU time of the trial; a few are usual, and some bad kinds never end."""
QUERIES = 20
MOST = 64
"""Of a search parameter."""
_K = 5


def rehearse(factory: str, count: int, dimension: int, metric: Metric) -> bool:
    """Whether answers of such an index can be limited to some rows (filters, deleted ids).

    count: rows of the source. Takes some seconds and 150 MB for a kind that is not PROVEN, else nothing. Raises
    BadSpec: what `make_index` raises; UnsupportedIndex for what FAISS cannot build, read and search.
    """
    if PROVEN.fullmatch(factory):
        make_index(factory, count, dimension, metric)
        return True
    command = [sys.executable, "-m", __name__, factory, str(count), str(dimension), metric.value]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    if done.returncode == -signal.SIGKILL:
        raise MemoryError  # the system's way to say so
    if done.returncode:
        said = [line for line in done.stderr.decode(errors="replace").splitlines() if "WARNING" not in line]
        words = " ".join(" ".join(said).split())[-250:]
        raise _unsupported(factory, f"its process ends with {done.returncode}: {words}")
    answer = orjson.loads(done.stdout.splitlines()[-1])  # FAISS itself prints, too
    if answer["refused"] is not None:
        raise BadSpec(**answer["refused"])
    return bool(answer["restricts"])


def _unsupported(factory: str, words: str) -> BadSpec:
    return BadSpec(
        "UnsupportedIndex",
        f"FAISS cannot build and search {factory!r} as a searcher does: {words[:400]}",
        field=FIELD,
        remedy="Use Auto, or a kind that does: IVF4096,PQ64x4fs,RFlat, HNSW32,SQ8, IVF4096,SQ8 or Flat.",
    )


def try_out(factory: str, count: int, dimension: int, metric: Metric) -> bool:
    """What `rehearse` answers and raises, in this process, which may end here."""
    make_index(factory, count, dimension, metric)
    try:
        return _tried(factory, count, dimension, metric)
    except (BadData, RuntimeError, AssertionError, TypeError, ValueError) as error:
        raise _unsupported(factory, faiss_words(error)) from error


def _tried(factory: str, count: int, dimension: int, metric: Metric) -> bool:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((min(count, ROWS), dimension)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    most = min(LISTS, len(rows))
    fewer = re.sub(r"IVF(\d+)([kM]?)", lambda lists: f"IVF{min(list_count(lists[1], lists[2]), most)}", factory)
    index = make_index(fewer, count, dimension, metric)
    _hurry(index)
    try:
        train(index, rows)
    except RuntimeError:
        if len(rows) < count:
            return True  # a large code book needs more rows than these: training will tell
        raise
    index.add(rows)
    return _searched(factory, _as_read(index), rows[:QUERIES])


def _hurry(index: Any) -> None:
    """Rough code books do: few rounds of everything whose rounds can be set."""
    for part in parts(index):
        if isinstance(part, faiss.IndexIVF):
            part.cp.niter = 2
        if hasattr(part, "pq"):
            part.pq.cp.niter = 2
        if hasattr(part, "lsq"):
            part.lsq.train_iters = 2
        if isinstance(part, faiss.IndexPreTransform):
            for number in range(part.chain.size()):
                transform = faiss.downcast_VectorTransform(part.chain.at(number))
                if isinstance(transform, faiss.OPQMatrix):
                    transform.niter = transform.niter_pq = transform.niter_pq_0 = 1


def _as_read(index: Any) -> Any:
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
        file = Path(folder, "index.faiss")
        faiss.write_index(index, str(file))
        return read_index(file)


def _corners(index: Any) -> Iterator[dict[str, int]]:
    limits = parameter_limits(index)
    yield {}
    yield {name: least for name, (least, _) in limits.items()}
    yield {name: min(most, MOST) for name, (_, most) in limits.items()}


def _searched(factory: str, index: Any, queries: npt.NDArray[np.float32]) -> bool:
    """Search in every way; whether rows can be left out."""
    restricted = Restricted(index, {})
    count = index.ntotal
    sets = [RowSet.of_rows(np.arange(0, count, step), count) for step in (2, -(-count // 8))] if count > 1 else []
    for params in _corners(index):
        raw, found = index.search(queries, _K, params=search_parameters(index, params))
        if not restricted.possible:
            continue
        for allowed_rows in sets:
            for _, found in (
                restricted.approximate(queries, _K, params, allowed_rows),
                restricted.search(queries, _K, params, allowed_rows)[0],
            ):
                if not allowed_rows.holds(found[found >= 0]).all():
                    raise _unsupported(factory, "rows come that may not")
    if (found[:, 0] < 0).any() or not np.isfinite(raw[:, 0]).all():
        raise _unsupported(factory, "it finds nothing")
    return restricted.possible


def main(factory: str, count: str, dimension: str, metric: str) -> int:
    """The trial's process: prints what came out as JSON, or ends with FAISS's words on stderr."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 10))
    refused, restricts = None, False
    try:
        restricts = try_out(factory, int(count), int(dimension), Metric(metric))
    except BadSpec as error:
        refused = error.failure.model_dump(include={"reason", "message", "field", "remedy"})
    sys.stdout.buffer.write(b"\n" + orjson.dumps({"refused": refused, "restricts": restricts}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
