"""The single pass over a source: rows are checked and written as an artifact's files, or as those of its shards."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
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
_HASHES, _NUMBERS = "hashes", "numbers"
"""Files beside the rows while they come: of their ids; their numbers in the source."""


class _RowFiles:
    """ids.arrow, metadata.arrow (with metadata columns) and vectors.npy (unless rows have none) of a folder, as rows
    come. Use with `with`."""

    def __init__(self, folder: Path, source: Source, rows: int | None, share: int = 1) -> None:
        """rows: how many will come; None: nobody knows yet. share: how many such share the memory of batches."""
        text = pa.types.is_string(source.id_type)
        batch = max(TEXT_IDS_BATCH_ROWS if text else IDS_BATCH_ROWS, share) // share
        self._files = contextlib.ExitStack()
        self._ids = self._files.enter_context(RowWriter(folder / IDS_FILE, pa.schema([("id", source.id_type)]), batch))
        self._metadata = None
        if source.metadata:
            metadata = RowWriter(folder / METADATA_FILE, source.metadata, max(METADATA_BATCH_ROWS, share) // share)
            self._metadata = self._files.enter_context(metadata)
        self._vectors = None
        if not source.columns.bare:
            writer = VectorWriter(folder / VECTORS_FILE, rows, source.dimension, half=source.half)
            self._vectors = self._files.enter_context(writer)
        self._hashes = self._files.enter_context((folder / _HASHES).open("wb"))
        self.count = 0

    def write(
        self,
        vectors: npt.NDArray[np.float32],
        ids: pa.Array,
        metadata: pa.Table,
        hashes: npt.NDArray[np.uint64] | None,
    ) -> None:
        """Append rows. hashes: of the ids; None where they are row numbers, of which no two are the same."""
        if self._vectors is not None:
            self._vectors.write(vectors)
        self._ids.write(pa.table({"id": ids}))
        if self._metadata is not None:
            self._metadata.write(metadata)
        if hashes is not None:
            self._hashes.write(hashes.data)
        self.count += len(vectors)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._files.__exit__(kind, error, at)


def stage(source: Source, folder: Path) -> None:
    """Write ids.arrow, metadata.arrow (with metadata columns) and vectors.npy (unless rows have none) into `folder`.

    Raises BadData naming object and row (also for an id that occurs twice), SourceChanged, StoreUnavailable.
    """
    of = source.rows, 4 * source.dimension
    with (
        Progress("reading rows", *of) if source.columns.text is None else Progress("encoding rows", *of) as progress,
        _RowFiles(folder, source, source.rows) as files,
    ):
        for block in source.blocks():
            hashes = None if block.ids is None else hash_ids(block.ids)
            files.write(block.vectors, _ids(block, files.count), block.metadata, hashes)
            progress.add(len(block.vectors))
            del block  # a large one goes before the next is made
    assert files.count == source.rows, f"{files.count} rows came, the headers announced {source.rows}"
    _refuse_duplicates(source, folder)


def stage_shards(source: Source, folders: Sequence[Path]) -> tuple[int, ...]:
    """As `stage`, each row into the folder of its shard (contract.shard_of); the rows of each.

    One pass, whatever the number of shards; two equal ids come into one shard, where they are found.
    """
    shards, row = len(folders), 0
    with contextlib.ExitStack() as files:
        progress = files.enter_context(Progress("sharing out rows", source.rows, 4 * source.dimension))
        parts = [files.enter_context(_RowFiles(folder, source, None, shards)) for folder in folders]
        numbers = [files.enter_context((folder / _NUMBERS).open("wb")) for folder in folders]
        for block in source.blocks():
            ids = _ids(block, row)
            hashes = hash_ids(ids)
            order = np.argsort(of := hashes % np.uint64(shards), kind="stable")
            ends = np.searchsorted(of[order], np.arange(shards + 1))
            for shard, (start, end) in enumerate(itertools.pairwise(ends.tolist())):
                if start < end:
                    rows = order[start:end]
                    taken = pa.array(rows)
                    metadata = block.metadata.take(taken) if block.metadata.num_columns else block.metadata
                    parts[shard].write(block.vectors[rows], ids.take(taken), metadata, hashes[rows])
                    numbers[shard].write((rows + row).astype(np.int64).data)
            row += len(block.vectors)
            progress.add(len(block.vectors))
            del block
    assert row == source.rows, f"{row} rows came, the headers announced {source.rows}"
    for folder in folders:
        _refuse_duplicates(source, folder)
    return tuple(part.count for part in parts)


def _ids(block: Block, row: int) -> pa.Array:
    return pa.array(np.arange(row, row + len(block.vectors))) if block.ids is None else block.ids


def _refuse_duplicates(source: Source, folder: Path) -> None:
    """Raise BadData for an id that two rows of the folder have; the files of hashes and numbers are gone then."""
    hashes, numbers = folder / _HASHES, folder / _NUMBERS
    count = hashes.stat().st_size // 8
    pair = find_duplicate(hashes, count, ids := Ids(folder / IDS_FILE)) if count else None
    if pair is not None:
        (first_key, first_row), (key, row) = (source.locate(_number(numbers, row)) for row in pair)
        value = ids(np.array([pair[1]]))[0]
        raise BadData(
            "DuplicateId",
            f"{key} row {row} has id {value!r}, which {first_key} row {first_row} has too",
            object=key,
            row=row,
            remedy="Ids must be unique in the whole source: remove one of the rows.",
        )
    hashes.unlink()
    numbers.unlink(missing_ok=True)


def _number(numbers: Path, row: int) -> int:
    """The number in the source of a staged row: the same, but in a shard."""
    return int(np.fromfile(numbers, np.int64, 1, offset=8 * row)[0]) if numbers.exists() else row
