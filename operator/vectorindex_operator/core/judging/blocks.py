"""Evidence in blocks of a minute: one that is over is merged and added up once, not at every look of a long soak.

A pod's rows come in blocks that never change: where one of its rows does, another block takes its place. So whether
anything changed in a minute is seen by comparing a few references, and only what did is read and added up again. Pure:
what is made of a block depends on its rows alone, whoever made it, and whenever.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vectorindex_operator.core.judging.histogram import Bins

if TYPE_CHECKING:
    from vectorindex_operator.core.judging.evidence import Counted, Counts

BLOCK = 12
"""Buckets of a block."""
OVERALL = ""
"""Key of all segments together."""

Add = Callable[[Sequence["Counts"]], "Counts"]
Part = tuple[Sequence["Counted"], int]
"""A block of a pod, and the buckets by which its clock is shifted."""


class Rows(Sequence["Counted"]):
    """Rows of a pod, in blocks by bucket // BLOCK."""

    __slots__ = ("_size", "blocks")

    def __init__(self, blocks: Mapping[int, Sequence[Counted]]) -> None:
        self.blocks = blocks
        self._size = sum(map(len, blocks.values()))

    @classmethod
    def of(cls, counted: Iterable[Counted]) -> Rows:
        blocks: defaultdict[int, list[Counted]] = defaultdict(list)
        for one in counted:
            blocks[one.bucket // BLOCK].append(one)
        return cls({number: tuple(rows) for number, rows in blocks.items()})

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Counted]:
        for rows in self.blocks.values():
            yield from rows

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]


class Block:
    """What all pods counted in one block, on the operator's clock."""

    __slots__ = ("_add", "_cells", "_cut", "_made", "_sums", "number", "parts")

    def __init__(self, number: int, parts: Sequence[Part], add: Add, before: Block | None = None) -> None:
        """`before`: the one whose place it takes; what both have is not added up again."""
        self.number, self.parts, self._add = number, parts, add
        self._cut = False
        """Whether this look has looked at some of its cells: so will the next one, which is cut at the same places."""
        self._made: dict[tuple[str, int], tuple[list[Counts], Counts]] | None = None
        """Of each cell, what it is the sum of."""
        if before is not None:
            self._made = before._made
        self._cells: dict[str, dict[int, Counts]] | None = None
        self._sums: dict[str, Counts] | None = None

    @classmethod
    def of_cells(cls, number: int, cells: dict[str, dict[int, Counts]], add: Add) -> Block:
        """Of what is added up already."""
        block = cls(number, (), add)
        block._cells = cells
        return block

    @property
    def first(self) -> int:
        return self.number * BLOCK

    def cells(self) -> Mapping[str, Mapping[int, Counts]]:
        """Segment -> bucket -> counts."""
        cells = self._cells
        if cells is None:
            cells = self._cells = self._merged()
        return cells

    def between(self, segment: str, start: int, stop: int) -> list[tuple[int, Counts]]:
        """Buckets [start, stop) and their cells, in order of time."""
        self._cut = True
        cells = self.cells().get(segment, {})
        buckets = range(max(start, self.first), min(stop, self.first + BLOCK))
        return [(bucket, cells[bucket]) for bucket in buckets if bucket in cells]

    def sums(self) -> Mapping[str, Counts]:
        """Segment -> sum of the block."""
        sums = self._sums
        if sums is None:
            once: dict[tuple[int, ...], Counts] = {}
            sums = {name: self._once(list(cells.values()), once, pack=True) for name, cells in self.cells().items()}
            self._sums = sums
        return sums

    def rest(self, *, cells: bool) -> int:
        """The look is over: cells that the next one will not look at go; without `cells`, all of them. Returns how many
        sums are left."""
        if not (cells and self._cut):
            self._cells = self._made = None
        self._cut = False
        return sum(len(cells) for cells in (self._cells or {}).values()) + len(self._sums or ())

    def _merged(self) -> dict[str, dict[int, Counts]]:
        parts: defaultdict[tuple[str, int], list[Counts]] = defaultdict(list)
        first, stop = self.first, self.first + BLOCK
        for rows, shift in self.parts:
            for item in rows:
                bucket = item.bucket + shift
                if first <= bucket < stop:
                    parts[item.segment, bucket].append(item.cell)
                    parts[OVERALL, bucket].append(item.overall)
        before, made = self._made or {}, {}
        once: dict[tuple[int, ...], Counts] = {}
        cells: defaultdict[str, dict[int, Counts]] = defaultdict(dict)
        for key, mine in parts.items():
            had = before.get(key)
            made[key] = had if had is not None and had[0] == mine else (mine, self._once(mine, once))
            cells[key[0]][key[1]] = made[key][1]
        self._made = made
        return dict(cells)

    def _once(self, parts: list[Counts], once: dict[tuple[int, ...], Counts], *, pack: bool = False) -> Counts:
        """The sum. Of the same parts it is the same: where there is one segment, it is all of them together as well."""
        same = tuple(map(id, parts))
        if same not in once:
            once[same] = slim(self._add(parts)) if pack else self._add(parts)
        return once[same]


class BySegment(Mapping[str, Mapping[int, "Counts"]]):
    """Segment -> bucket -> counts, for those who want to see all of it."""

    __slots__ = ("blocks",)

    def __init__(self, blocks: Mapping[int, Block]) -> None:
        self.blocks = blocks

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for block in self.blocks.values() for name in block.cells()))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __getitem__(self, segment: str) -> Mapping[int, Counts]:
        found = [block.cells()[segment] for block in self.blocks.values() if segment in block.cells()]
        if not found:
            raise KeyError(segment)
        return {bucket: cell for cells in found for bucket, cell in cells.items()}


def blocks_of(segments: Mapping[str, Mapping[int, Counts]], add: Add) -> Mapping[int, Block]:
    """What is added up already, in blocks."""
    if isinstance(segments, BySegment):
        return segments.blocks
    blocks: defaultdict[int, dict[str, dict[int, Counts]]] = defaultdict(dict)
    for name, cells in segments.items():
        for bucket, cell in cells.items():
            blocks[bucket // BLOCK].setdefault(name, {})[bucket] = cell
    return {number: Block.of_cells(number, cells, add) for number, cells in blocks.items()}


def slim(total: Counts) -> Counts:
    """A sum that is kept for long."""
    if isinstance(total.latency, Bins):
        return total
    try:
        return replace(total, latency=Bins.of(total.latency))
    except OverflowError:  # bins or counts that no searcher has
        return total
