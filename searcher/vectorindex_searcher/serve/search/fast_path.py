"""One vector from a request's body, by the shortest way, when nothing about it is unusual.

Never refuses: whatever is not plainly right is None here, and query.py says what is wrong with it. What is a vector
here is the same vector there.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from .fields import MAX_NAME_CHARACTERS
from .query import DEFAULT_K, MAX_K, Vectors

_PLAIN = frozenset(("vector", "k", "segment"))
_FLOAT = np.dtype("<f4")


class FastPath:
    """Vectors of one dimension."""

    def __init__(self, dimension: int) -> None:
        self._width = 4 * dimension
        self._pack = struct.Struct(f"{dimension}f").pack
        self.any_vector = self._pack(*[1.0] * dimension)
        """The bytes of a vector that no check refuses."""

    def of_bytes(self, body: bytes) -> Vectors | None:
        """One vector [dimension] in little-endian float32."""
        return self._checked(body) if len(body) == self._width else None

    def of_fields(self, fields: Mapping[str, Any]) -> Vectors | None:
        """The vector [dimension] of a JSON body that names beside it no more than k and segment."""
        if not fields.keys() <= _PLAIN:
            return None
        numbers, k = fields.get("vector"), fields.get("k", DEFAULT_K)
        segment = fields.get("segment", "")
        if type(numbers) is not list or type(k) is not int or type(segment) is not str:
            return None
        if not 1 <= k <= MAX_K or len(segment) > MAX_NAME_CHARACTERS:
            return None
        try:
            # 5 us for 768 numbers, where numpy.array takes 15 and would accept strings and nulls.
            return self._checked(self._pack(*numbers))
        except (struct.error, OverflowError):
            return None

    @staticmethod
    def _checked(data: bytes) -> Vectors | None:
        vector: Vectors = np.frombuffer(data, _FLOAT)
        # NaN, infinity and what is too large to square all end up here, as do zero vectors.
        # vdot, because dot looks for overflow and would warn; to silence it costs more than the product.
        return vector if 0.0 < np.vdot(vector, vector) < math.inf else None
