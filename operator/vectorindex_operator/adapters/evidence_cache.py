"""What pods told so far, so that each look asks for what changed only.

A cache and nothing more: whatever is missing here is asked for again, and comes. Bounded by memory. Where there is not
room for all, those that came first stay, and the others are asked for everything at each look: if the one that was told
longest ago went, a little too much would be as bad as having no cache, since everybody would be asked for everything.
An index that has very many rows makes its own answers longer, nobody else's; and who is watched gives way to who soaks.
Rows of blocks that are over are packed (core/judging/packed.py). Thread-safe.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from vectorindex_operator.core.judging.blocks import BLOCK, Rows
from vectorindex_operator.core.judging.columns import counted_of
from vectorindex_operator.core.judging.evidence import Counted, PodCounts
from vectorindex_operator.core.judging.packed import Packed
from vectorindex_searcher.contract import (
    BUCKET_SECONDS,
    EVIDENCE_ROWS,
    EVIDENCE_SEGMENTS,
    RING_SECONDS,
    SIGNATURE_SECONDS,
    EvidenceColumns,
)

ROW_BYTES = 700
"""What a row takes that is not packed."""
MOST_BYTES = 96 << 20
"""Of all pods."""
INDEX_BYTES = 48 << 20
"""Of the pods of one index: three pods' hour with every segment that there can be, packed, several times."""
POD_BYTES = 2 * ROW_BYTES
"""Of a pod without any row."""
SETTLED_SECONDS = 60.0
"""A block in which nothing has changed for so long is packed."""
UNUSED_SECONDS = 900.0
"""What an index that was not asked for so long told goes: three looks at one that is watched, at their rarest."""
_MOST_ROWS = EVIDENCE_ROWS + BLOCK * EVIDENCE_SEGMENTS
"""Of one pod: an hour of every segment, and what else is in the block in which it begins."""


@dataclass(frozen=True, slots=True)
class PodKey:
    """A pod of a revision of an index (its uid)."""

    index: str
    revision: str
    pod: str


@dataclass(slots=True)
class _Known:
    """What a pod told."""

    incarnation: str = ""
    cursor: str = ""
    since: float = 0.0
    """What it was asked for, by its own clock, when it told everything."""
    ahead: float = 0.0
    """Seconds by which its clock is ahead of ours, at most."""
    blocks: dict[int, Sequence[Counted]] = field(default_factory=dict)
    """By bucket // BLOCK. One is never changed, another takes its place: judging compares references."""
    changed_at: dict[int, float] = field(default_factory=dict)
    """Of the blocks that are not packed."""
    held: int = POD_BYTES
    """Bytes."""

    def add(self, counted: Iterable[Counted], newest: int, now: float) -> None:
        """Rows take the place of those that were told before. `newest`: the pod's block of now."""
        fresh: defaultdict[int, dict[tuple[int, str], Counted]] = defaultdict(dict)
        for one in counted:
            fresh[one.bucket // BLOCK][one.bucket, one.segment] = one
        for number, rows in fresh.items():
            had = self.blocks.get(number)
            if had is None and number < newest - 1:
                self.put(number, Packed(rows.values()))
            else:
                before = {(one.bucket, one.segment): one for one in had or ()}
                self.put(number, tuple((before | rows).values()))
                self.changed_at[number] = now

    def settle(self, oldest: int, newest: int, now: float) -> None:
        """Blocks before `oldest` go, and those that are over and have not changed for long are packed."""
        for number in [number for number in self.blocks if number < oldest]:
            self.put(number, None)
        for number in [n for n, at in self.changed_at.items() if n != newest and now - at >= SETTLED_SECONDS]:
            self.put(number, Packed(self.blocks[number]))

    def put(self, number: int, rows: Sequence[Counted] | None) -> None:
        """A block, in the place of what there was."""
        self.held -= _held(self.blocks.pop(number, None))
        self.changed_at.pop(number, None)
        if rows is not None:
            self.blocks[number] = rows
            self.held += _held(rows)

    @property
    def size(self) -> int:
        """In rows."""
        return sum(map(len, self.blocks.values()))


def _held(rows: Sequence[Counted] | None) -> int:
    if rows is None:
        return 0
    return rows.held if isinstance(rows, Packed) else len(rows) * ROW_BYTES


@dataclass(slots=True)
class _Index:
    """The pods of an index, the one first that was asked longest ago."""

    came: int
    """Its turn: who came later has a higher one."""
    pods: dict[PodKey, _Known] = field(default_factory=dict)
    used_at: float = 0.0
    urgent: bool = False
    """It soaks, or did when it was last looked at."""
    held: int = 0
    """When it was last looked at."""


class EvidenceCache:
    """Rows by pod, and the cursor up to which they are known."""

    def __init__(
        self,
        most: int = MOST_BYTES,
        of_index: int = INDEX_BYTES,
        on_displaced: Callable[[int], object] = lambda pods: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Bytes of all, and of one index. `on_displaced`: so many pods' rows had to go for want of room."""
        self._indexes: dict[str, _Index] = {}
        self._looked_at: defaultdict[str, int] = defaultdict(int)
        """Looks under way by index: what these hold is paid for by whoever looks."""
        self._lock = threading.Lock()
        self._most, self._of_index, self._on_displaced, self._clock = most, of_index, on_displaced, clock
        self._turns = itertools.count()
        self._held = 0
        self._sweep_at = 0.0

    def begins(self, key: PodKey, since: float) -> float:
        """`since` by the clock of a pod, which reads it so. Of one that is not known, as early as that may be."""
        with self._lock:
            known = self._known(key)
            return since + (known.ahead if known is not None else -SIGNATURE_SECONDS)

    def cursor(self, key: PodKey, since: float) -> str:
        """What to ask with; empty: for everything, also when what is known begins later than `since`, by its clock."""
        with self._lock:
            known = self._known(key)
            return known.cursor if known is not None and known.since < since + BUCKET_SECONDS else ""

    def take(self, key: PodKey, page: EvidenceColumns, since: float) -> None:
        """Add a page that answers a question from `since` on, by its clock. ValueError when it contradicts itself, or
        goes on from what is not kept here: it would be taken for all that there is."""
        counted = counted_of(page)
        oldest = int((page.now - RING_SECONDS) // BUCKET_SECONDS) + 1
        newest = int(page.now // BUCKET_SECONDS)
        with self._lock:
            index, now = self._index(key.index), self._clock()
            known = index.pods.pop(key, None)
            if page.whole:
                known = _Known(since=since)
            elif known is None or known.incarnation != page.incarnation:
                raise ValueError("it goes on from what is not kept here; asked for everything the next time")
            known.incarnation, known.cursor, known.ahead = page.incarnation, page.cursor, page.now - time.time()
            known.add((one for one in counted if one.bucket >= oldest), newest // BLOCK, now)
            known.settle(oldest // BLOCK, newest // BLOCK, now)
            if known.size > _MOST_ROWS:
                raise ValueError(f"it has told of {known.size} rows; an hour has {EVIDENCE_ROWS} at most")
            index.pods[key] = known

    def counts(self, key: PodKey, page: EvidenceColumns, since: float) -> PodCounts:
        """Everything known of a pod from `since` on, by its clock, in whole blocks; `page` is the last one
        that was taken."""
        first = (since // BUCKET_SECONDS - 1) // BLOCK
        with self._lock:
            known = self._known(key)
            blocks = {} if known is None else {n: rows for n, rows in known.blocks.items() if n >= first}
        tells = frozenset(page.tells)
        return PodCounts(page.revision, page.now, page.live_before, Rows(blocks), tells, page.point, page.points)

    def begin(self, index: str, *, urgent: bool = False) -> None:
        """A look at an index: until its end nothing that it was told goes. `urgent`: it soaks."""
        with self._lock:
            mine = self._index(index)
            mine.urgent = urgent or (mine.urgent and index in self._looked_at)
            self._looked_at[index] += 1

    def end(self, index: str) -> None:
        """A look is over: what is too much goes, and is asked for anew."""
        with self._lock:
            self._looked_at[index] -= 1
            if self._looked_at[index]:
                return
            del self._looked_at[index]
            mine = self._indexes[index]
            mine.used_at = self._clock()
            self._count(mine)
            displaced = 0
            while mine.held > self._of_index:
                displaced += 1
                del mine.pods[next(iter(mine.pods))]
                self._count(mine)
            if self._held > self._most or mine.used_at >= self._sweep_at:
                self._sweep(mine.used_at)
            while self._held > self._most and (last := self._last_to_come()):
                displaced += len(self._indexes[last].pods)
                self._drop(last)
        if displaced:
            self._on_displaced(displaced)

    def forget(self, key: PodKey) -> None:
        """Ask it for everything the next time."""
        with self._lock:
            self._index(key.index).pods.pop(key, None)

    @property
    def rows(self) -> int:
        with self._lock:
            return sum(known.size for index in self._indexes.values() for known in index.pods.values())

    @property
    def held(self) -> int:
        """Bytes, those of looks under way left out."""
        return self._held

    # ------------------------------------------------------------ under the lock

    def _index(self, name: str) -> _Index:
        if name not in self._indexes:
            self._indexes[name] = _Index(next(self._turns))
        return self._indexes[name]

    def _known(self, key: PodKey) -> _Known | None:
        index = self._indexes.get(key.index)
        return None if index is None else index.pods.get(key)

    def _count(self, index: _Index) -> None:
        held = sum(known.held for known in index.pods.values())
        self._held += held - index.held
        index.held = held

    def _drop(self, name: str) -> None:
        self._held -= self._indexes.pop(name).held

    def _sweep(self, now: float) -> None:
        """What nobody asks for any more goes."""
        self._sweep_at = now + UNUSED_SECONDS / 10
        for name, index in list(self._indexes.items()):
            if name not in self._looked_at and now - index.used_at > UNUSED_SECONDS:
                self._drop(name)

    def _last_to_come(self) -> str:
        """Of the large ones, and of these rather one that is watched, the one that came last. Empty: there is none."""
        idle = {name: index for name, index in self._indexes.items() if name not in self._looked_at}
        large = max((index.held for index in idle.values()), default=0) / 2
        those = [name for name, index in idle.items() if index.held > large]
        return max(those, key=lambda name: (not idle[name].urgent, idle[name].came), default="")
