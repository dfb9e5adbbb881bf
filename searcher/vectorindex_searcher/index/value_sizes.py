"""How many bytes values of a column hold, by its offsets alone: answers are bounded before they are made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


def sizes(array: pa.Array, starts: Any, stops: Any) -> Any:
    """Bytes that the values [start, stop) hold, for each of these ranges (int64 [n]), without reading them."""
    types, kind = pa.types, array.type
    if isinstance(array, pa.ExtensionArray):
        return sizes(array.storage, starts, stops)
    if types.is_map(kind) or types.is_list(kind) or types.is_large_list(kind):
        offsets = array.offsets.to_numpy()
        parts = (array.keys, array.items) if types.is_map(kind) else (array.values,)
        return sum((sizes(part, offsets[starts], offsets[stops]) for part in parts), 8 * (stops - starts))
    if types.is_fixed_size_list(kind):
        size, first = kind.list_size, array.offset
        return sizes(array.values, (starts + first) * size, (stops + first) * size)
    if types.is_struct(kind):
        names = sum(len(name) + 4 for name in kind.names)
        return sum((sizes(part, starts, stops) for part in array.flatten()), names * (stops - starts))
    if types.is_string(kind) or types.is_binary(kind) or types.is_large_string(kind) or types.is_large_binary(kind):
        width = np.int64 if types.is_large_string(kind) or types.is_large_binary(kind) else np.int32
        offsets = np.frombuffer(array.buffers()[1], width, len(array) + 1, array.offset * np.dtype(width).itemsize)
        return offsets[stops].astype(np.int64) - offsets[starts] + 2 * (stops - starts)
    if types.is_dictionary(kind):
        return max(8, array.dictionary.nbytes) * (stops - starts)
    try:
        return max(8, kind.bit_width // 8) * (stops - starts)
    except ValueError:  # views, run-end encoding: what the whole array holds, for each
        return max(8, array.nbytes // max(1, len(array))) * (stops - starts)
