"""An index that was built elsewhere: fetched, checked, and made one of ours.

    fetch   by SHA-256, into the work folder; nothing is parsed before its checksum is right
    read    by FAISS, with the limits of every index file; what it refers to lies within it, or a search would crash
    match   its rows with those of the source by their ids: none more, none less
    order   ids, metadata and vectors as the index has them, so that its labels are row numbers
    give    where the source has no vectors: what the index itself has of them (reconstructed.py)

Nothing can be left out of such an index, so a gate needs queries of its own (gate.queries). That its vectors are those
of the source is told by the recall: another model's index finds nothing right. See
docs/adr/0079-an-index-built-elsewhere.md.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..artifact.layout import IDS_FILE, METADATA_FILE, VECTORS_FILE
from ..contract import ImportedIndex, IndexSpec, Metric
from ..dataset.source import Source
from ..errors import BadData, BadSpec
from ..index import rows as row_files
from ..index import vectors as vector_files
from ..index.binding import faiss
from ..index.engine import read_index
from ..index.memory import footprint
from ..index.metric import faiss_metric
from ..index.parameters import index_type, layers, takes_selector
from ..index.rows import Ids
from ..index.selection.restricted import check_hidable
from ..progress import step
from ..storage.store import Store
from . import budget
from .reconstructed import write_reconstructions

FIELD = "spec.index.import"
FACTORY = "Imported"
"""In the place of a factory string."""
FILE = "imported.faiss"
IDS = "imported.npy"
_HEADER_BYTES = 4096
_log = logging.getLogger(__name__)

Labels = npt.NDArray[np.int64]


def take(spec: IndexSpec, store: Store, source: Source, folder: Path, *, hides: bool = False, memory: int = 0) -> Any:
    """The index of `spec.imported`, with labels that are the row numbers of the staged files of `folder`, which are put
    in its order; None where an index is to be built. hides: there are deleted ids to leave out of answers.
    memory: bytes of the pod, 0 for unknown.

    store: of the source, where the files lie. Raises BadData/{ImportMissing, OtherFile, BadIndexFile,
    OtherMetric, OtherRows, BadIdType}, BadSpec/{UnsupportedIndex, IdsTwice, CannotReconstruct,
    NotEnoughMemory}; MemoryError.
    """
    wanted = spec.imported
    if wanted is None:
        return None
    step("importing")
    _fetch(store, wanted.index, wanted.sha256, folder / FILE, memory)
    index = _read(folder / FILE, wanted.index)
    index, labels = _unwrapped(index, wanted.index)
    _check(index, wanted.index, source)
    if hides:
        check_hidable(takes_selector(index), index_type(index))
    if wanted.ids is not None and wanted.ids_sha256 is not None:
        _fetch(store, wanted.ids, wanted.ids_sha256, folder / IDS)
        ids = _ids(folder / IDS, wanted.ids, index.ntotal)
        if not np.array_equal(labels, np.arange(index.ntotal)):
            raise BadSpec(
                "IdsTwice",
                f"{wanted.index} holds ids of its own, and {wanted.ids} names others",
                field=f"{FIELD}.ids",
                remedy="Leave index.import.ids out: the index's own ids are those of the source's id column.",
            )
    else:
        ids = pa.array(labels)
    _order(folder, _places(ids, folder, wanted))
    if source.columns.bare:
        step("reconstructing")
        write_reconstructions(index, folder / VECTORS_FILE, wanted.index, source.embedding.metric)
    _log.info("imported", extra={"rows": index.ntotal, "indexType": index_type(index)})
    return index


def _fetch(store: Store, key: str, sha256: str, path: Path, memory: int = 0) -> None:
    """Raises BadData/{ImportMissing, OtherFile}, BadSpec/NotEnoughMemory where a pod of `memory` bytes cannot hold it;
    OSError where the disk is full."""
    found = store.head(key)
    if found is None:
        raise BadData(
            "ImportMissing",
            f"{store.describe(key)} is not there",
            object=key,
            field=FIELD,
            remedy="Name the whole key, from the top of the source's bucket or volume.",
        )
    budget.require(memory, found.size, 0)
    hasher = hashlib.sha256()
    with path.open("wb") as file:
        for piece in store.stream(key, etag=found.etag):
            hasher.update(piece)
            file.write(piece)
    if hasher.hexdigest() != sha256:
        raise BadData(
            "OtherFile",
            f"{store.describe(key)} has SHA-256 {hasher.hexdigest()}, not {sha256}",
            object=key,
            field=FIELD,
            remedy=f"Say in {FIELD} what sha256sum says of the file that you mean.",
        )


def _read(path: Path, key: str) -> Any:
    try:
        return read_index(path, writable=True)  # in memory: its labels may have to change
    except BadData as error:
        raise _bad_file(key, str(error).partition(": ")[2] or str(error)) from error


def _bad_file(key: str, why: str) -> BadData:
    remedy = "Write the index again with faiss.write_index of a FAISS no newer than this one."
    return BadData("BadIndexFile", f"{key}: {why}", object=key, field=FIELD, remedy=remedy)


def _unwrapped(index: Any, key: str) -> tuple[Any, Labels]:
    """The index that searches, with labels that are positions, and the id that it had for each position."""
    outermost = faiss.downcast_index(index)
    if isinstance(outermost, faiss.IndexIDMap | faiss.IndexIDMap2):
        labels = faiss.vector_to_array(outermost.id_map).copy()
        inner = faiss.downcast_index(outermost.index)
        inner.referenced_objects = [index]  # as FAISS's own constructors do: it goes with its owner
        if len(labels) != inner.ntotal:
            raise _bad_file(key, f"{inner.ntotal} rows have {len(labels)} ids")
        *_, innermost = layers(inner)
        if isinstance(innermost, faiss.IndexIVF):
            below = _positions(inner, innermost, key)
            if not np.array_equal(below, np.arange(len(below))):
                raise _bad_file(key, "an id map over lists that have ids of their own")
        return inner, labels
    *_, innermost = layers(index)
    if isinstance(innermost, faiss.IndexIVF):
        return index, _positions(index, innermost, key)
    return index, np.arange(index.ntotal)


def _positions(index: Any, ivf: Any, key: str) -> Labels:
    """The ids in the lists of an IVF index, whose labels become positions if they were none."""
    lists = ivf.invlists
    views = []
    for number in range(ivf.nlist):
        size = lists.list_size(number)
        if size:
            views.append(faiss.rev_swig_ptr(lists.get_ids(number), size))
    labels = np.concatenate(views) if views else np.empty(0, np.int64)
    if len(labels) != index.ntotal:
        raise _bad_file(key, f"its lists hold {len(labels)} rows, it says {index.ntotal}")
    if np.array_equal(np.sort(labels), np.arange(len(labels))):
        return np.arange(len(labels))
    if isinstance(faiss.downcast_index(index), faiss.IndexRefine):
        raise _bad_file(key, "ids of its own under a layer that refines by position")
    first = 0
    for view in views:
        view[:] = np.arange(first, first + len(view))
        first += len(view)
    return labels


def _check(index: Any, key: str, source: Source) -> None:
    """Refuse what cannot be served, or is not of these vectors. Raises BadData/BadIndexFile, BadSpec/UnsupportedIndex,
    BadData/OtherRows."""
    kinds = tuple(layers(index))
    if footprint(index, max(1, index.ntotal)) is None or not all(map(_known, kinds)):
        raise BadSpec(
            "UnsupportedIndex",
            f"{key} is an {index_type(index)}",
            field=FIELD,
            remedy="Import Flat, SQ, PQ, IVF or HNSW over one of these, with or without a transform or a refinement.",
        )
    if not index.is_trained:
        raise _bad_file(key, "it is not trained")
    if index.d != source.dimension:
        raise _bad_file(key, f"it has {index.d} dimensions, the source {source.dimension}")
    metric = source.embedding.metric
    if index.metric_type != faiss_metric(metric):
        hint = (
            " Cosine is served as the L2 distance of unit vectors: for an index of inner products of unit vectors say "
            "embedding.metric InnerProduct."
            if metric is Metric.COSINE
            else ""
        )
        raise BadData(
            "OtherMetric",
            f"{key} measures by {_metric_name(index.metric_type)}, embedding.metric is {metric}",
            object=key,
            field=FIELD,
            remedy=f"Say the metric that the index was built for.{hint}",
        )
    for layer in kinds:
        if layer.ntotal != index.ntotal:
            raise _bad_file(key, f"its layers hold {layer.ntotal} and {index.ntotal} rows")
        if isinstance(layer, faiss.IndexHNSW):
            _check_graph(layer, key)
        if isinstance(layer, faiss.IndexRefine):
            _check_refinement(layer, key)
    if index.ntotal != source.rows:
        raise _other_rows(f"{key} holds {index.ntotal} rows, the source {source.rows}", key)


def _check_refinement(layer: Any, key: str) -> None:
    """FAISS reads queries by the refinement's own dimension: past their end, if that is larger than the index's."""
    refiner = faiss.downcast_index(layer.refine_index)
    facts = ("d", "ntotal", "metric_type")
    alike = all(getattr(refiner, fact) == getattr(layer, fact) for fact in facts)
    if not alike or layer.base_index.d != layer.d or not _known(refiner):
        raise _bad_file(
            key, f"it refines by {refiner.ntotal} rows of {refiner.d} dimensions in an {index_type(refiner)}"
        )


def _known(layer: Any) -> bool:
    return isinstance(
        layer,
        faiss.IndexFlat
        | faiss.IndexScalarQuantizer
        | faiss.IndexPQ
        | faiss.IndexPQFastScan
        | faiss.IndexIVFFlat
        | faiss.IndexIVFScalarQuantizer
        | faiss.IndexIVFPQ
        | faiss.IndexIVFPQFastScan
        | faiss.IndexHNSWFlat
        | faiss.IndexHNSWSQ
        | faiss.IndexHNSWPQ
        | faiss.IndexRefine
        | faiss.IndexPreTransform,
    )


def _check_graph(layer: Any, key: str) -> None:
    """What FAISS does not look at itself when it reads a graph: links, levels and offsets it checks."""
    graph = layer.hnsw
    levels = faiss.vector_to_array(graph.levels)
    if layer.storage.ntotal != layer.ntotal or (len(levels) and graph.max_level >= levels[graph.entry_point]):
        raise _bad_file(key, "its graph begins at a level that its first row does not have, or has other rows")


def _metric_name(number: int) -> str:
    known = {faiss.METRIC_L2: "the L2 distance", faiss.METRIC_INNER_PRODUCT: "the inner product"}
    return known.get(number, f"metric {number}")


def _ids(path: Path, key: str, count: int) -> pa.Array:
    """The ids of a .npy file: int64 or text, one a row. Nothing is unpickled. Raises BadData/BadIdType."""
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=_HEADER_BYTES)
        if shape != (count,) or dtype.kind not in "iuU":
            raise ValueError(f"{dtype} {list(shape)}, not int64 or text [{count}]")
        found = np.load(path, mmap_mode="r", allow_pickle=False, max_header_size=_HEADER_BYTES)
        return pa.array(found.astype(np.int64) if dtype.kind in "iu" else found.tolist())
    except (ValueError, OverflowError) as error:
        raise BadData(
            "BadIdType",
            f"{key}: {error}",
            object=key,
            field=f"{FIELD}.ids",
            remedy="Write it with numpy.save: one integer or one text of each row of the index, in its order.",
        ) from error


def _places(ids: pa.Array, folder: Path, wanted: ImportedIndex) -> Labels:
    """For each row of the index the row of the staged files with its id. Raises BadData/OtherRows."""
    of_source = pa.chunked_array(Ids(folder / IDS_FILE).chunks())
    if pa.types.is_string(of_source.type) != pa.types.is_string(ids.type):
        raise BadData(
            "BadIdType",
            f"{wanted.ids or wanted.index} has ids of type {ids.type}, the source {of_source.type}",
            object=wanted.ids or wanted.index,
            field=FIELD,
            remedy="Ids must be those of the source: give them in index.import.ids.",
        )
    found = pc.index_in(ids, value_set=of_source)
    if found.null_count:
        row = int(pc.index(found.is_null(), True).as_py())
        message = f"row {row} of {wanted.index} has id {ids[row].as_py()!r}, which no row of the source has"
        raise _other_rows(message, wanted.index)
    places: Labels = found.to_numpy(zero_copy_only=False).astype(np.int64)
    counts = np.bincount(places, minlength=len(of_source))
    if (twice := np.flatnonzero(counts > 1)).size:
        value = of_source[int(twice[0])].as_py()
        raise _other_rows(f"{wanted.index} has id {value!r} {counts[twice[0]]} times", wanted.index)
    return places


def _other_rows(message: str, key: str) -> BadData:
    remedy = "The source must hold exactly the rows that the index was built from: its vectors prove what it answers."
    return BadData("OtherRows", message, object=key, field=FIELD, remedy=remedy)


def _order(folder: Path, places: Labels) -> None:
    """Put the staged files in the order of the index."""
    if np.array_equal(places, np.arange(len(places))):
        return
    for name, order_rows in (
        (IDS_FILE, row_files.order_rows),
        (METADATA_FILE, row_files.order_rows),
        (VECTORS_FILE, vector_files.order_rows),
    ):
        if (folder / name).exists():
            order_rows(folder / name, places)
