"""Which rows an index is measured with: they are not in it, nor in anything trained, while it is measured.

A query that is a row of a graph is found by its own links, so recall measured with it is too high. Near-duplicates of
a row do the same in its place: a drawn row is left out together with all rows nearer than a tenth of the median
distance of a hundredth neighbour, and no such group is in part for tuning and in part for the gate. A crowd (more
near-duplicates than may be left out) stays in but for the drawn rows: a new row of its kind would find it there too.

Large groups are no more often left out than small ones, though they are hit more often when rows are drawn: an index
without its largest groups is an easier one (of data with up to 40 copies of a document recall was .002 too high).

At most 5 % of the rows are left out at once, since an index without more is another one. Where that leaves too few
queries, several indexes are measured, each without another 5 % (folds). See docs/adr/0026-rows-left-out.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..contract import Metric
from ..index.choose.sample import NEAR, NEIGHBOUR
from ..index.device import DeviceFallback
from ..index.vectors import VectorFile
from ..proof.exact import Truth, exact_search

SHARE = 0.05
"""Of the rows, left out of one index at most."""
MAX_FOLDS = 20
MAX_FOLD_ROWS = 400_000
"""Rows that all indexes of the folds hold together, at most: what measuring may cost beside the build."""
MAX_GROUP = 1000
"""Rows of a group; a larger one is a crowd."""
MORE_DRAWN = 5
"""Times as many rows are drawn of few rows, so that groups of each size are enough; of SCANNED_ROWS and more, once."""
SCANNED_ROWS = 100_000
_RANGE_FLOATS = 1 << 20

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Fold:
    """Row numbers, each rising. `out`: left out of one index, `tuning` and `gate` among them."""

    out: Rows
    tuning: Rows
    gate: Rows


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The folds, whose rows are apart. One fold of many rows: `last` says that its rows go to the end of every file."""

    folds: tuple[Fold, ...] = ()
    last: bool = False
    moved: Rows = field(default_factory=lambda: np.empty(0, np.int64))
    """The numbers that the rows of the fold had before they were moved; none when they were not."""
    duplicates: float = 0.0
    """Share of the drawn rows that equal another row."""

    def fewer(self, folds: int) -> LeftOut:
        """The same with so many folds at most."""
        return replace(self, folds=self.folds[:folds])


@dataclass(frozen=True, slots=True)
class _Group:
    """Drawn rows that are near-duplicates of one another, and all rows that go with them; in the end one is asked."""

    drawn: list[int]
    rows: set[int]
    fair: bool = True
    """Whether it would be here as likely if it had another size."""


def draw_left_out(vectors: VectorFile, queries: int, fingerprint: str, fallback: DeviceFallback) -> LeftOut:
    """Draw rows for `queries` of the gate and as many for tuning, half of that being enough.

    The same source (fingerprint) gives the same rows, so a build that is tried again cannot draw luckier ones.
    """
    if vectors.count < 2:
        return LeftOut()
    seed = int.from_bytes(hashlib.sha256(f"left out/{fingerprint}".encode()).digest()[:8], "big")
    rng = np.random.default_rng(seed)
    rows = 2 * queries * min(MORE_DRAWN, max(1, SCANNED_ROWS // vectors.count))
    drawn = rng.choice(vectors.count, min(rows, vectors.count), replace=False)
    most = max(1, int(SHARE * vectors.count))
    groups, duplicates = _groups(vectors, drawn, min(most, MAX_GROUP), rng, fallback)
    folds = _pack(groups, most, queries, 1)
    last = len(folds[0].gate) >= queries // 2
    if not last:
        folds = _pack(groups, most, queries // 2, max(1, min(MAX_FOLDS, MAX_FOLD_ROWS // vectors.count)))
    return LeftOut(tuple(folds), last or len(folds) == 1, duplicates=duplicates)


def _pack(groups: Sequence[_Group], most: int, queries: int, folds: int) -> list[Fold]:
    """At most so many folds of `most` rows, filled in the order of the groups until both kinds have their queries."""
    packed: list[Fold] = []
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])  # out, tuning, gate
    done = [0, 0, 0]
    for group in groups:
        if min(done[1:]) >= queries:
            break
        if parts[0] and len(parts[0]) + len(group.rows) > most:
            packed.append(_fold(parts))
            parts = ([], [], [])
            if len(packed) == folds:
                return packed
        parts[0].extend(group.rows)
        kind = 2 if done[2] <= done[1] else 1
        parts[kind].extend(group.drawn)
        done[kind] += len(group.drawn)
    return [*packed, _fold(parts)] if parts[0] else packed


def _fold(parts: tuple[list[int], list[int], list[int]]) -> Fold:
    return Fold(*(np.unique(np.array(part, np.int64)) for part in parts))


def _groups(
    vectors: VectorFile, drawn: Rows, most: int, rng: np.random.Generator, fallback: DeviceFallback
) -> tuple[list[_Group], float]:
    """The drawn rows with their near-duplicates, joined where they share a row, in the order of the draw, fair ones
    first; and the share of drawn rows that equal another one."""
    queries = vectors.gather(drawn, prepared=False)
    # Near is a matter of distance, whatever the metric ranks by.
    metric = Metric.L2 if vectors.metric is Metric.INNER_PRODUCT else vectors.metric
    truth = exact_search(vectors, queries, NEIGHBOUR, metric, drawn, fallback=fallback)
    last = np.maximum(truth.available - 1, 0)[:, None]
    radius = NEAR**2 * float(np.median(-np.take_along_axis(truth.scores, last, 1)))  # of squared distances
    near = [rows[scores >= -radius] for rows, scores in zip(truth.rows, truth.scores, strict=True)]
    _complete(vectors, queries, truth, radius, near, most)
    owner: dict[int, int] = {}
    groups: dict[int, _Group] = {}
    for number, (row, others) in enumerate(zip(drawn.tolist(), near, strict=True)):
        group = _Group([row], {row} if len(others) >= most else {row, *others.tolist()})
        for other in {owner[one] for one in group.rows if one in owner}:
            joined = groups.pop(other)
            group = _Group(joined.drawn + group.drawn, joined.rows | group.rows)
        groups[number] = group
        owner.update(dict.fromkeys(group.rows, number))
    place = {row: at for at, row in enumerate(drawn.tolist())}
    whole = [_Group([row], {row}) for group in groups.values() if len(group.rows) > most for row in group.drawn]
    whole += [_one_asked(group, place, rng) for group in groups.values() if len(group.rows) <= most]
    whole.sort(key=lambda group: (not group.fair, place[group.drawn[0]]))
    return whole, float((truth.scores[:, 0] >= 0).mean())


def _one_asked(group: _Group, place: dict[int, int], rng: np.random.Generator) -> _Group:
    """The group with one query, since its near-duplicates would only say the same again: a row that is drawn of all of
    them, so that a large group is no likelier to be fair; of others the first that was drawn."""
    row = int(rng.choice(sorted(group.rows)))
    if row in place:
        return _Group([row], group.rows)
    return _Group([min(group.drawn, key=place.__getitem__)], group.rows, fair=False)


def _complete(
    vectors: VectorFile, queries: npt.NDArray[np.float32], truth: Truth, radius: float, near: list[Rows], most: int
) -> None:
    """Find the near rows, `most` at most, of those queries whose candidates are all near: there may be more."""
    there = truth.rows >= 0
    all_near = ((truth.scores >= -radius) | ~there).all(axis=1)
    unsure = np.flatnonzero(all_near & (there.sum(axis=1) < min(vectors.count - 1, most)))
    if not len(unsure):
        return
    prepared = vectors.prepared(queries[unsure]).astype(np.float64)
    found: list[Rows] = [np.empty(0, np.int64) for _ in unsure]
    for first, block in vectors.blocks():
        for at, hits in _within(prepared, block.astype(np.float64), radius):
            found[at] = np.concatenate([found[at], hits + first])[: most + 1]
    for at, number in enumerate(unsure):
        near[number] = found[at]


def _within(
    queries: npt.NDArray[np.float64], block: npt.NDArray[np.float64], radius: float
) -> Iterator[tuple[int, Rows]]:
    """For each query the rows of the block within the squared radius, or within rounding of it."""
    lengths = np.einsum("ij,ij->i", block, block)
    step = max(1, _RANGE_FLOATS // len(block))
    for start in range(0, len(queries), step):
        some = queries[start : start + step]
        own = np.einsum("ij,ij->i", some, some)
        both = own[:, None] + lengths[None]
        close = both - 2 * (some @ block.T) <= radius + 1e-12 * both
        for at, line in enumerate(close):
            if line.any():
                yield start + at, np.flatnonzero(line)
