"""Windows, cut from evidence block by block: what was cut from a block that has not changed is not cut again. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vectorindex_operator.core.judging.blocks import BLOCK, Block, slim

if TYPE_CHECKING:
    from vectorindex_operator.core.judging.evidence import Counts


@dataclass(frozen=True, slots=True)
class Window:
    """Closed buckets [first, stop) with their sum."""

    first: int
    stop: int
    cell: Counts


@dataclass(frozen=True, slots=True)
class Cutting:
    """How windows are cut: of at least `span` buckets and a `size` of at least `enough`. `add`: makes their sum."""

    segment: str
    span: int
    enough: int
    size: Callable[[Counts], int]
    add: Callable[[Sequence[Counts]], Counts]


@dataclass(frozen=True, slots=True)
class _Rest:
    """The window that is open: where it began, the sum of what is in it, and its size."""

    begin: int
    cells: tuple[Counts, ...] = ()
    count: int = 0


@dataclass(slots=True)
class Cut:
    """The windows of one epoch, as far as they were cut, with the block that each was cut from."""

    done: list[tuple[Block | None, tuple[Window, ...], _Rest]] = field(default_factory=list)

    def windows(self, how: Cutting, blocks: Mapping[int, Block], start: int, stop: int) -> Iterator[Window]:
        """Those of buckets [start, stop). The same `how` and `start` each time."""
        rest = _Rest(start)
        for at, number in enumerate(range(start // BLOCK, (stop - 1) // BLOCK + 1)):
            block = blocks.get(number)
            if at < len(self.done) and self.done[at][0] is block and number * BLOCK + BLOCK <= stop:
                _, closed, rest = self.done[at]
            else:
                del self.done[at:]
                closed, rest = _cut(how, block, max(start, number * BLOCK), min(stop, number * BLOCK + BLOCK), rest)
                if number * BLOCK + BLOCK <= stop:
                    self.done.append((block, closed, rest))
            yield from closed

    def rest(self, *, cells: bool) -> int:  # noqa: ARG002 - sums.Kept
        """How many sums are kept."""
        return sum(len(closed) for _, closed, _ in self.done) + len(self.done)


def _cut(how: Cutting, block: Block | None, first: int, stop: int, rest: _Rest) -> tuple[tuple[Window, ...], _Rest]:
    """The windows that close in buckets [first, stop), and what is open then."""
    begin, taken, count = rest.begin, list(rest.cells), rest.count
    cells = block.cells().get(how.segment, {}) if block is not None else {}
    closed = []
    for bucket in range(first, stop):
        cell = cells.get(bucket)
        if cell is not None:
            taken.append(cell)
            count += how.size(cell)
        if bucket + 1 - begin >= how.span and count >= how.enough:
            closed.append(Window(begin, bucket + 1, slim(how.add(taken))))
            begin, taken, count = bucket + 1, [], 0
    if len(taken) > 1:
        taken = [how.add(taken)]
    return tuple(closed), _Rest(begin, tuple(taken), count)
