"""The single pass over a source: rows are checked and written as the artifact's files."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..artifact.layout import IDS_FILE, METADATA_FILE, VECTORS_FILE
from ..errors import BadData
from ..index.rows import IDS_BATCH_ROWS, METADATA_BATCH_ROWS, Ids, RowWriter
from ..index.vectors import VectorWriter
from ..progress import Progress
from .blocks import Block
from .duplicates import find_duplicate, hash_ids
from .source import Source

TEXT_IDS_BATCH_ROWS = 1 << 18
"""String ids gathered for one batch of ids.arrow: they take memory until it is full."""


def stage(source: Source, folder: Path) -> None:
    """Write ids.arrow, metadata.arrow (with metadata columns) and vectors.npy into `folder`.

    Raises BadData naming object and row (also for an id that occurs twice), SourceChanged, StoreUnavailable.
    """
    row, with_ids = 0, False
    with contextlib.ExitStack() as files:
        progress = files.enter_context(Progress("reading rows", source.rows, 4 * source.dimension))
        batch = TEXT_IDS_BATCH_ROWS if pa.types.is_string(source.id_type) else IDS_BATCH_ROWS
        ids = files.enter_context(RowWriter(folder / IDS_FILE, pa.schema([("id", source.id_type)]), batch))
        metadata = RowWriter(folder / METADATA_FILE, source.metadata, METADATA_BATCH_ROWS) if source.metadata else None
        if metadata is not None:
            files.enter_context(metadata)
        shape = (source.rows, source.dimension)
        vectors = files.enter_context(VectorWriter(folder / VECTORS_FILE, *shape, half=source.half))
        hashes = files.enter_context((folder / "hashes").open("wb"))
        for block in source.blocks():
            count = len(block.vectors)
            vectors.write(block.vectors)
            ids.write(pa.table({"id": _ids(block, row)}))
            if metadata is not None:
                metadata.write(block.metadata)
            if block.ids is not None:
                with_ids = True
                hashes.write(hash_ids(block.ids).data)
            row += count
            progress.add(count)
            del block  # a large one goes before the next is made
    assert row == source.rows, f"{row} rows came, the headers announced {source.rows}"
    if with_ids:
        _refuse_duplicates(source, folder)
    (folder / "hashes").unlink()


def _ids(block: Block, row: int) -> pa.Array:
    return pa.array(np.arange(row, row + len(block.vectors))) if block.ids is None else block.ids


def _refuse_duplicates(source: Source, folder: Path) -> None:
    ids = Ids(folder / IDS_FILE)
    pair = find_duplicate(folder / "hashes", source.rows, ids)
    if pair is None:
        return
    (first_key, first_row), (key, row) = source.locate(pair[0]), source.locate(pair[1])
    value = ids(np.array([pair[1]]))[0]
    raise BadData(
        "DuplicateId",
        f"{key} row {row} has id {value!r}, which {first_key} row {first_row} has too",
        object=key,
        row=row,
        remedy="Ids must be unique in the whole source: remove one of the rows.",
    )
