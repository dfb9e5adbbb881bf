"""The one parser of query vectors: JSON numbers or little-endian float32, as float32 arrays that can be searched.

What is right costs little; what is not is looked at again, slowly, to say which number is wrong and why.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...contract import Metric
from ...index.faults import Fault, fault
from ..http.limits import MAX_VECTORS
from ..http.messages import Problem
from .kinds import invalid

Vectors = npt.NDArray[np.float32]
ABSENT = object()
"""A field that a request does not have; null is a value."""
_FLOAT = np.dtype("<f4")
_REMEDIES = {
    Fault.NON_FINITE: "look for NaN or overflow in the embedding",
    Fault.ZERO: "send the embedding of a text that is not empty",
    Fault.TOO_LONG: "scale the vector",
}


class VectorReader:
    """Vectors of one index. `model`: what made its vectors, for the remedy; may be empty."""

    def __init__(self, dimension: int, metric: Metric, model: str = "") -> None:
        self.dimension, self._metric, self._model = dimension, metric, model
        self._width = 4 * dimension
        self._pack = struct.Struct(f"{dimension}f").pack

    def of_json(self, one: Any, several: Any, body: bytes) -> Vectors:
        """`one`, `several`: vector and vectors as decoded from `body`, or ABSENT; `several` one by one, if they are
        many. float32 [d] of the one, [n, d] of the others.

        Raises Problem: 400 for what is no vector, 422 for another dimension.
        """
        # Python packs True as 1.0, and looking at every number's type costs more than packing them. No JSON without
        # a u and without an l has true or false in it.
        sure = b"u" not in body and b"l" not in body
        if several is ABSENT and one is not ABSENT:
            return self._one(one, sure)
        if (one is ABSENT) is (several is ABSENT):
            raise _one_of_two("neither" if one is ABSENT else "both")
        if isinstance(several, Iterator):
            return self._several(several, sure)
        if type(several) is not list or not several:
            raise invalid("vectors", several, "a non-empty list of vectors")
        _check_count(len(several))
        return self._several(several, sure)

    def of_bytes(self, body: bytes, dimension: int | None) -> Vectors:
        """Little-endian float32 in `body`: [d] of one vector, [n, d] of several. `dimension`: what the client said.

        Raises as `of_json`.
        """
        width = self._width
        if len(body) == width and (dimension is None or dimension == self.dimension):
            vector: Vectors = np.frombuffer(body, _FLOAT)
            return vector if 0.0 < np.vdot(vector, vector) < math.inf else self._checked(vector, "vector")
        if not body:
            raise invalid("body", "", "at least one vector of little-endian float32")
        if len(body) % 4:
            raise invalid("body", f"{len(body)} bytes", "little-endian float32 numbers of 4 bytes each")
        numbers = len(body) // 4
        if dimension is not None and dimension != self.dimension:
            raise self._wrong_dimension("dimension", dimension)
        if dimension is None and len(body) % width == 0:
            raise self._ambiguous(numbers)
        if dimension is None:
            raise self._wrong_dimension("body", numbers)
        if len(body) % width:
            raise invalid("body", f"{numbers} numbers", f"a multiple of dimension={dimension} numbers")
        _check_count(numbers // dimension)
        return self._checked(np.frombuffer(body, _FLOAT).reshape(-1, dimension), "vectors")

    # ------------------------------------------------------------ JSON

    def _one(self, numbers: Any, sure: bool) -> Vectors:
        if type(numbers) is list and len(numbers) == self.dimension and (sure or _are_numbers(numbers)):
            try:
                # 5 us for 768 numbers, where numpy.array takes 15 and would accept strings and nulls.
                return self._checked(np.frombuffer(self._pack(*numbers), _FLOAT), "vector")
            except struct.error:
                pass
        raise self._explained(numbers, "vector")

    def _several(self, rows: Iterable[Any], sure: bool) -> Vectors:
        packed: list[bytes] = []
        for number, row in enumerate(rows):
            _check_count(number + 1)
            if type(row) is not list or len(row) != self.dimension or not (sure or _are_numbers(row)):
                raise self._explained(row, f"vectors[{number}]")
            try:
                packed.append(self._pack(*row))
            except struct.error:
                raise self._explained(row, f"vectors[{number}]") from None
        return self._checked(np.frombuffer(b"".join(packed), _FLOAT).reshape(len(packed), -1), "vectors")

    def _explained(self, row: Any, place: str) -> Problem:
        """Why `row` is no vector of this index."""
        if type(row) is not list or not row:
            return invalid(place, row, "a non-empty list of numbers")
        if _are_numbers(row):
            return self._wrong_dimension(place, len(row))
        for position, value in enumerate(row):
            if type(value) is list and place == "vector":
                wanted = "a number; several queries go in vectors"
                return invalid(f"{place}[{position}]", value, wanted)
            if type(value) not in (int, float):
                return invalid(f"{place}[{position}]", value, "a number")
        raise AssertionError("a row of numbers")

    # ------------------------------------------------------------ both

    def _checked(self, vectors: Vectors, name: str) -> Vectors:
        """Refuse what can neither be indexed nor searched for: one rule for rows and queries."""
        if vectors.ndim == 1:
            # vdot, because dot looks for overflow and would warn; to silence it costs more than the product.
            if 0.0 < np.vdot(vectors, vectors) < math.inf:
                return vectors
            rows = vectors.reshape(1, -1)
        else:
            rows = vectors
        found = fault(rows, self._metric)
        if found is None:
            return vectors
        kind, wrong = found
        number = int(np.argmax(wrong))
        raise _faulty(kind, rows[number], name if name == "vector" else f"{name}[{number}]")

    def _wrong_dimension(self, place: str, found: int) -> Problem:
        model = f": {self._model}" if self._model else ""
        return Problem(
            422,
            "WrongDimension",
            f"the index has dimension {self.dimension}, the query vector has {found}",
            field=place,
            value=found,
            remedy=f"embed the query with the model of the index{model}",
            members={"expected": self.dimension},
        )

    def _ambiguous(self, numbers: int) -> Problem:
        return Problem(
            400,
            "InvalidField",
            f"the body holds {numbers} numbers: {numbers // self.dimension} vectors of the index's dimension "
            f"{self.dimension}, or one vector of dimension {numbers}",
            field="dimension",
            value=numbers,
            remedy=f"say dimension={self.dimension} in the query string when these are several vectors",
            members={"expected": self.dimension},
        )


def _are_numbers(row: Sequence[Any]) -> bool:
    return set(map(type, row)) <= {int, float}


def _one_of_two(found: str) -> Problem:
    return Problem(
        400,
        "InvalidField",
        f"exactly one of vector and vectors is needed, found {found}",
        field="vector",
        remedy='send {"vector": [..]} for one query, {"vectors": [[..], ..]} for many',
    )


def _check_count(count: int) -> None:
    if count > MAX_VECTORS:
        detail = f"{count} vectors exceed the limit of {MAX_VECTORS} in one request"
        remedy = "send them in several requests"
        raise Problem(400, "TooManyVectors", detail, field="vectors", value=count, remedy=remedy)


def _faulty(kind: Fault, row: Vectors, place: str) -> Problem:
    remedy = _REMEDIES[kind]
    if kind is Fault.ZERO:
        return Problem(400, "ZeroVector", "the cosine of a zero vector is not defined", field=place, remedy=remedy)
    if kind is Fault.NON_FINITE:
        position = int(np.argmin(np.isfinite(row)))
        detail, field = "a vector must hold finite float32 numbers", f"{place}[{position}]"
        return Problem(400, "NonFiniteVector", detail, field=field, value=str(row[position]), remedy=remedy)
    position = int(np.argmax(np.abs(row)))
    detail, field = "the vector's squared length is no float32 number", f"{place}[{position}]"
    return Problem(400, "VectorTooLarge", detail, field=field, value=float(row[position]), remedy=remedy)
