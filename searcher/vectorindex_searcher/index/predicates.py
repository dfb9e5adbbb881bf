"""Which rows a predicate holds for: evaluated over mapped Arrow columns, batch by batch, to a RowSet; and a cache.

Nulls follow SQL: a comparison with a null is neither true nor false, `not` keeps it so, and only true rows match; so a
row without a value matches neither {"a": 1} nor {"not": {"a": 1}}. Memory: one bit a row, and a few batches.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .filters import All, Not, Predicate, Some, Term, Value, memory_of
from .selection.rowset import RowSet
from .selection.subset import SETS_BYTES

_BATCHES = 8
"""Evaluated together: so their rows fill whole bytes, however many rows a batch has."""

_COMPARE = {
    "eq": pc.equal,
    "ne": pc.not_equal,
    "gt": pc.greater,
    "gte": pc.greater_equal,
    "lt": pc.less,
    "lte": pc.less_equal,
}


class Batched(Protocol):
    """Rows in record batches, such as a RowFile."""

    @property
    def schema(self) -> pa.Schema: ...

    @property
    def count(self) -> int: ...

    @property
    def batches(self) -> Sequence[pa.RecordBatch]: ...


def matching(file: Batched, predicate: Predicate) -> RowSet:
    """The rows of `file` that the predicate holds for. Its columns must be those of the file."""
    evaluation = Evaluation(file, predicate)
    evaluation.go_on()
    return evaluation.found()


class Evaluation:
    """A predicate on its way over a file, batch by batch: what is done stays done. For one thread at a time."""

    __slots__ = ("_bits", "_done", "_file", "_held", "_packed_bytes", "_predicate", "_prepared")

    def __init__(self, file: Batched, predicate: Predicate) -> None:
        self._file = file
        self._predicate = predicate
        self._prepared = _Prepared(file.schema)
        self._bits = np.empty((file.count + 7) // 8, np.uint8)
        self._packed_bytes = 0
        self._held: list[Any] = []
        """Of the last batches, whose rows are not in `_bits` yet."""
        self._done = 0

    @property
    def nbytes(self) -> int:
        """Memory of the bits."""
        return self._bits.nbytes

    def go_on(self, until: Callable[[], float] = lambda: math.inf) -> bool:
        """Evaluate batch after batch, one at least, up to the monotonic time `until`, which may move. Whether all are
        done."""
        batches = self._file.batches
        for batch in islice(batches, self._done, None):
            self._held.append(pc.fill_null(self._prepared.holds(self._predicate, batch), False))
            self._done += 1
            if len(self._held) == _BATCHES or self._done == len(batches):
                self._pack()
            if time.monotonic() >= until():
                break
        return self._done == len(batches)

    def found(self) -> RowSet:
        """The rows, once all batches are done."""
        return RowSet(self._bits, self._file.count)

    def _pack(self) -> None:
        packed = _packed(pa.concat_arrays(self._held))
        self._bits[self._packed_bytes : self._packed_bytes + len(packed)] = packed
        self._packed_bytes += len(packed)
        self._held.clear()


def _packed(bits: Any) -> npt.NDArray[np.uint8]:
    """The bits of a BooleanArray without nulls, row 0 in the lowest bit; Arrow stores them so."""
    if bits.offset:
        return np.packbits(bits.to_numpy(zero_copy_only=False), bitorder="little")
    return np.frombuffer(bits.buffers()[1], np.uint8)[: (len(bits) + 7) // 8]


@dataclass(slots=True, eq=False)
class _Coming:
    """A set that one thread evaluates, and others wait for. `until`: the latest deadline of all of them."""

    until: float
    found: Future[RowSet] = field(default_factory=Future)


class MatchCache:
    """Row sets of recent predicates: real traffic repeats its filters. Bounded in bytes; thread-safe."""

    def __init__(self, file: Batched, limit_bytes: int = SETS_BYTES) -> None:
        self._file = file
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._sets: OrderedDict[Predicate, tuple[RowSet | Evaluation, int]] = OrderedDict()
        """With what each costs, its predicate too. An Evaluation: nobody waited for the rest of it."""
        self._coming: dict[Predicate, _Coming] = {}
        """Being evaluated, by whoever asked first: the others wait for him."""
        self.nbytes = 0
        self.hits = 0
        self.misses = 0

    def __contains__(self, predicate: Predicate) -> bool:
        kept = self._sets.get(predicate)
        return kept is not None and isinstance(kept[0], RowSet)

    def __call__(self, predicate: Predicate, deadline: float = math.inf) -> RowSet:
        """The rows that the predicate holds for. Raises TimeoutError when they are not there at the monotonic time
        `deadline`; who asks again goes on where this was given up.
        """
        with self._lock:
            kept, cost = self._sets.get(predicate, (None, 0))
            if isinstance(kept, RowSet):
                self._sets.move_to_end(predicate)
                self.hits += 1
                return kept
            coming = self._coming.get(predicate)
            if coming is not None:
                coming.until = max(coming.until, deadline)
            else:
                mine = self._coming[predicate] = _Coming(deadline)
                if kept is not None:
                    del self._sets[predicate]
                    self.nbytes -= cost
        if coming is not None:
            left = deadline - time.monotonic()
            return coming.found.result(max(0.0, left) if left < math.inf else None)
        try:
            found = self._evaluated(predicate, mine, kept or Evaluation(self._file, predicate))
        except BaseException as error:
            mine.found.set_exception(error)
            raise
        else:
            mine.found.set_result(found)
            if time.monotonic() >= deadline:
                raise TimeoutError("others waited longer for the rows of this filter")
            return found
        finally:
            with self._lock:
                if self._coming.get(predicate) is mine:
                    del self._coming[predicate]

    def _evaluated(self, predicate: Predicate, mine: _Coming, evaluation: Evaluation) -> RowSet:
        """The rest of an evaluation, as long as somebody waits for it."""
        while not evaluation.go_on(lambda: mine.until):
            with self._lock:
                if time.monotonic() >= mine.until:  # nobody has come meanwhile who waits longer; who comes now begins
                    del self._coming[predicate]
                    self._keep(predicate, evaluation)
                    raise TimeoutError("nobody waits for the rows of this filter any more")
        found = evaluation.found()
        with self._lock:
            self.misses += 1
            self._keep(predicate, found)
        return found

    def _keep(self, predicate: Predicate, found: RowSet | Evaluation) -> None:
        # A set costs its bits, twice when deletes were taken out of it, and its key.
        cost = 2 * found.nbytes + 512 + memory_of(predicate)
        if cost <= self.limit_bytes:
            self._sets[predicate] = found, cost
            self.nbytes += cost
        while self.nbytes > self.limit_bytes:
            self.nbytes -= self._sets.popitem(last=False)[1][1]


class _Prepared:
    """Evaluates predicates on batches of one schema; Arrow scalars and value sets are made once a term."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._operands: dict[Term, Any] = {}

    def holds(self, predicate: Predicate, batch: pa.RecordBatch) -> Any:
        """BooleanArray of the batch's length; null where a comparison met a null."""
        match predicate:
            case All(parts):
                found = self.holds(parts[0], batch)
                for part in parts[1:]:
                    found = pc.and_kleene(found, self.holds(part, batch))
                return found
            case Some(parts):
                found = self.holds(parts[0], batch)
                for part in parts[1:]:
                    found = pc.or_kleene(found, self.holds(part, batch))
                return found
            case Not(part):
                return pc.invert(self.holds(part, batch))
            case Term():
                return self._term(predicate, batch)

    def _term(self, term: Term, batch: pa.RecordBatch) -> Any:
        column = batch.column(self._schema.get_field_index(term.column))
        if term.operator == "exists":
            return pc.is_valid(_comparable(column))
        if term not in self._operands:
            self._operands[term] = _operand(term, column.type)
        operand = self._operands[term]
        if term.operator == "contains":
            return _contains(column, operand)
        column = _comparable(column)
        if term.operator == "in":
            return pc.if_else(pc.is_valid(column), pc.is_in(column, value_set=operand), pa.scalar(None, pa.bool_()))
        return _COMPARE[term.operator](column, operand)


def _contains(column: Any, operand: Any) -> Any:
    """Whether each list holds the value; null where there is no list."""
    values = _comparable(pc.list_flatten(column))
    parents = pc.list_parent_indices(column)
    hits = parents.filter(pc.fill_null(pc.equal(values, operand), False)).to_numpy(zero_copy_only=False)
    found = np.zeros(len(column), np.bool_)
    found[hits] = True
    return pa.array(found, mask=column.is_null().to_numpy(zero_copy_only=False))


def _comparable(column: Any) -> Any:
    """As Arrow compares it: no 16-bit floats, and no times that microseconds cannot hold ("for ever" in seconds). No
    value of a filter lies beyond the year 9999, so a time there is cut to it.

    NaN and infinity are answered as null, so they are null here too. (A build takes them for null; older indexes have
    them.)
    """
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit in _FAR:
        last = pa.scalar(_FAR[kind.unit], pa.int64()).cast(kind)
        first = pa.scalar(-_FAR[kind.unit], pa.int64()).cast(kind)
        return pc.max_element_wise(pc.min_element_wise(column, last, skip_nulls=False), first, skip_nulls=False)
    if not pa.types.is_floating(kind):
        return column
    column = column.cast(pa.float32()) if pa.types.is_float16(kind) else column
    finite = pc.is_finite(column)
    return column if pc.all(finite).as_py() is not False else pc.if_else(finite, column, pa.scalar(None, column.type))


_FAR = {"s": 10**12, "ms": 10**15}
"""More than the year 9999 and less than microseconds hold."""


def _operand(term: Term, kind: pa.DataType) -> Any:
    """The term's values as an Arrow scalar, or as an array for `in`, comparable with a column of type `kind`."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    values = [_stored(value, kind) for value in term.values]
    if pa.types.is_float16(kind):
        kind = pa.float32()
    elif pa.types.is_timestamp(kind) and kind.unit != "ns":
        kind = pa.timestamp("us", kind.tz)  # a fraction is compared, not cut off to the column's unit
    return pa.array(values, kind) if term.operator == "in" else pa.scalar(values[0], kind)


def _stored(value: Value, kind: pa.DataType) -> Value:
    """The value as the column would hold it: 0.1 equals the 32-bit 0.1; without a time zone, times are UTC."""
    if isinstance(value, datetime):
        return value if kind.tz else value.astimezone(UTC).replace(tzinfo=None)
    if isinstance(value, float) and kind.bit_width < 64:
        with np.errstate(over="ignore"):
            return float(np.array(value).astype(np.float16 if kind.bit_width == 16 else np.float32))
    return value
