"""What the texts of a column take once each has its own copy, known before they do."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .column_types import is_extension, is_list

Sizes = npt.NDArray[np.int64]


def holds_dictionary(kind: pa.DataType) -> bool:
    """Whether some of it stands in a dictionary: other columns take what they take."""
    if is_extension(kind):
        return holds_dictionary(kind.storage_type)
    inner = (kind.field(number).type for number in range(kind.num_fields))
    return bool(pa.types.is_dictionary(kind) or any(map(holds_dictionary, inner)))


def rows_within(column: pa.Array, limit: int) -> int:
    """How many of the first rows take no more than `limit` bytes of text out of dictionaries."""
    return int(np.searchsorted(np.cumsum(_sizes(column)), limit, side="right"))


def _sizes(column: pa.Array) -> Sizes:
    """Of each row."""
    kind = column.type
    if is_extension(kind):
        return _sizes(column.storage)
    if pa.types.is_dictionary(kind):
        return _of_dictionary(column)
    if pa.types.is_map(kind):
        offsets = column.offsets.to_numpy()
        keys, items = (_sizes(part[offsets[0] : offsets[-1]]) for part in (column.keys, column.items))
        return _of_lists(np.diff(offsets), keys + items)
    if is_list(kind):
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        return _of_lists(lengths, _sizes(column.flatten()))
    if pa.types.is_struct(kind):
        parts = [_sizes(part) for part in column.flatten()]
        return np.sum(parts, axis=0, dtype=np.int64) if parts else np.zeros(len(column), np.int64)
    return np.zeros(len(column), np.int64)


def _of_lists(lengths: npt.NDArray[np.integer[Any]], values: Sizes) -> Sizes:
    """Of lists of these lengths, whose values follow each other."""
    sums = np.concatenate([[0], np.cumsum(values)])
    sizes: Sizes = np.diff(sums[np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])])
    return sizes


def _of_dictionary(column: pa.DictionaryArray) -> Sizes:
    if not len(column.dictionary):
        return np.zeros(len(column), np.int64)
    texts = column.dictionary
    lengths = pc.fill_null(pc.binary_length(texts), 0) if _is_text(texts.type) else pa.nulls(0)
    if len(lengths) != len(texts):
        return np.zeros(len(column), np.int64)
    at = pc.fill_null(column.indices, 0).to_numpy(zero_copy_only=False)
    return np.where(column.is_valid().to_numpy(zero_copy_only=False), lengths.to_numpy().astype(np.int64)[at], 0)


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    plain = types.is_string(kind) or types.is_large_string(kind)
    return bool(plain or types.is_binary(kind) or types.is_large_binary(kind))
