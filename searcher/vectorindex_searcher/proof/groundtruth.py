"""Exact neighbours kept beside the artifacts: a second gate, or another factory on the same data, scans nothing again.

Named by everything the answer depends on: the content of vectors.npy (rows in their order, so row numbers agree) and
how many of its rows count, the queries, their own rows, k, metric, and how the scan counts ties. Verified by SHA-256
before it is parsed; one that is not what it says is computed anew. A store that refuses only costs the scan. Who keeps
one removes the old ones.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, ValidationError

from ..artifact.layout import Layout
from ..artifact.manifest import encode
from ..contract import Model
from ..errors import TaskError
from ..index.arrow_files import open_buffer
from ..index.choose.recall import PRODUCT_TIE, RELATIVE_TIE
from ..index.device import DeviceFallback
from ..index.vectors import VectorFile
from ..storage.store import ObjectInfo, Store
from .exact import SLACK, Truth, exact_search

LIMIT_BYTES = 256 << 20
"""A larger truth (50,000 queries at k = 1,000) is neither kept nor read."""
KEPT = 12
"""Truths kept beside an index's artifacts: of tuning, gate and canary for the latest four versions of the data."""
KEPT_SECONDS = 86_400.0
"""One less than this older than the newest stays, however many there are: a Job that runs may be about to read it."""
_NOTE_LIMIT_BYTES = 4096
_NAME = re.compile(r"([0-9a-f]{64})\.(arrow|json)")
_log = logging.getLogger(__name__)

Source = Literal["computed", "reused"]


class TruthNote(Model):
    """groundtruth/<key>.json: what <key>.arrow must be. Written after it."""

    format_version: Literal[1] = 1
    size: Annotated[int, Field(ge=0, le=LIMIT_BYTES)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    k: int
    queries: int
    rows: int
    vectors_sha256: str
    """Of the vectors.npy that was scanned."""


def ground_truth(
    store: Store,
    layout: Layout,
    vectors: VectorFile,
    vectors_sha256: str,
    queries: npt.NDArray[np.float32],
    k: int,
    own_rows: npt.NDArray[np.int64],
    *,
    fallback: DeviceFallback | None = None,
) -> tuple[Truth, Source]:
    """What `exact_search` answers, from the store when it is there, else computed and put there.

    vectors_sha256: of vectors.npy, as the manifest says (the file was verified, or made just now). The other arguments
    and the shapes are those of `exact_search`.
    """
    key = truth_key(vectors, vectors_sha256, queries, k, own_rows)
    kept = _load(store, layout, key, (len(queries), k, vectors.count))
    if kept is not None:
        return kept, "reused"
    truth = exact_search(vectors, queries, k, vectors.metric, own_rows, fallback=fallback)
    _keep(store, layout, key, truth, vectors.count, vectors_sha256)
    _collect(store, layout)
    return truth, "computed"


def truth_key(
    vectors: VectorFile, vectors_sha256: str, queries: npt.NDArray[np.float32], k: int, own_rows: npt.NDArray[np.int64]
) -> str:
    """Hex name of the truth of these queries on these vectors."""
    content = hashlib.sha256(np.ascontiguousarray(queries, "<f4").data)
    content.update(np.ascontiguousarray(own_rows, "<i8").data)
    facts = {
        "vectors": vectors_sha256,
        "rows": vectors.count,
        "metric": vectors.metric.value,
        "queries": content.hexdigest(),
        "shape": list(queries.shape),
        "k": k,
        "scan": [2, SLACK, RELATIVE_TIE, PRODUCT_TIE],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _load(store: Store, layout: Layout, key: str, expected: tuple[int, int, int]) -> Truth | None:
    """The kept truth of (queries, k, rows), or None when there is none that can be trusted."""
    try:
        note = TruthNote.model_validate_json(store.read(layout.ground_truth(key, "json"), length=_NOTE_LIMIT_BYTES))
        data = store.read(layout.ground_truth(key, "arrow"), length=note.size + 1)
    except FileNotFoundError:
        return None
    except (ValidationError, TaskError) as error:
        _unusable(key, str(error).splitlines()[0])
        return None
    if len(data) != note.size or hashlib.sha256(data).hexdigest() != note.sha256:
        _unusable(key, "its SHA-256 is not the one noted beside it")
        return None
    if (note.queries, note.k, note.rows) != expected:
        _unusable(key, f"it is of {note.queries} queries, k {note.k}, {note.rows} rows")
        return None
    return _decode(data, note.k)


def _unusable(key: str, why: str) -> None:
    _log.warning("kept ground truth is not usable, scanning again", extra={"key": key, "why": why})


def _keep(store: Store, layout: Layout, key: str, truth: Truth, rows: int, vectors_sha256: str) -> None:
    if truth.rows.nbytes + truth.scores.nbytes > LIMIT_BYTES // 2:
        return
    data = _encode(truth)
    note = TruthNote(
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        k=truth.k,
        queries=len(truth.rows),
        rows=rows,
        vectors_sha256=vectors_sha256,
    )
    try:
        # Overwrites what was not usable. Two that write at once agree, or the pair is refused and written once more.
        store.put(layout.ground_truth(key, "arrow"), data)
        store.put(layout.ground_truth(key, "json"), encode(note))
    except TaskError as error:
        _log.warning("ground truth could not be kept", extra={"key": key, "why": str(error)})


def _collect(store: Store, layout: Layout) -> None:
    """Remove what is neither among the newest KEPT nor of the last KEPT_SECONDS. Who reads one meanwhile scans."""
    try:
        found: dict[str, list[ObjectInfo]] = {}
        for item in store.list(layout.ground_truths):
            if match := _NAME.fullmatch(item.key.rpartition("/")[2]):
                found.setdefault(match[1], []).append(item)
        ages = {key: max(item.modified for item in items) for key, items in found.items()}
        newest_first = sorted(ages, key=lambda key: ages[key], reverse=True)
        for key in newest_first[KEPT:]:
            # By the store's clock on both sides.
            if ages[newest_first[0]] - ages[key] < KEPT_SECONDS:
                continue
            for item in sorted(found[key], key=lambda item: item.key, reverse=True):  # the note first
                store.delete(item.key)
            _log.info("old ground truth removed", extra={"key": key})
    except (TaskError, OSError) as error:
        _log.warning("old ground truth could not be removed", extra={"why": str(error)[:300]})


def _encode(truth: Truth) -> bytes:
    width = truth.rows.shape[1]
    columns = {
        "rows": pa.FixedSizeListArray.from_arrays(pa.array(truth.rows.ravel()), width),
        "scores": pa.FixedSizeListArray.from_arrays(pa.array(truth.scores.ravel()), width),
        "available": pa.array(truth.available),
        "threshold": pa.array(truth.threshold),
        "nearest": pa.array(truth.nearest),
    }
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _decode(data: bytes, k: int) -> Truth:
    table = open_buffer(pa.py_buffer(data)).read_all().combine_chunks()

    def matrix(name: str) -> npt.NDArray[np.generic]:
        flat: npt.NDArray[np.generic] = table.column(name).combine_chunks().flatten().to_numpy()
        return flat.reshape(table.num_rows, -1)

    return Truth(
        k=k,
        rows=matrix("rows").astype(np.int64, copy=False),
        scores=matrix("scores").astype(np.float64, copy=False),
        available=table.column("available").to_numpy(),
        threshold=table.column("threshold").to_numpy(),
        nearest=table.column("nearest").to_numpy(),
    )
