"""What pods told so far, so that each look asks for what changed only.

A cache and nothing more: whatever is missing here is asked for again, and comes. Bounded by rows, and what has to go is
what the index with the most rows was told: one that has very many makes its own answers longer, nobody else's.
Thread-safe.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from vectorindex_operator.core.judging.columns import counted_of
from vectorindex_operator.core.judging.evidence import Counted, PodCounts
from vectorindex_searcher.contract import BUCKET_SECONDS, EVIDENCE_ROWS, RING_SECONDS, EvidenceColumns

ROWS = 150_000
"""Of all pods; a row takes about 700 bytes."""
INDEX_ROWS = 3 * EVIDENCE_ROWS
"""Of the pods of one index: three pods' hour with every segment that there can be."""


@dataclass(frozen=True, slots=True)
class PodKey:
    """A pod of a revision of an index (its uid)."""

    index: str
    revision: str
    pod: str


@dataclass(slots=True)
class _Known:
    incarnation: str = ""
    cursor: str = ""
    since: float = 0.0
    """What it was asked for when it told everything."""
    rows: dict[tuple[int, str], Counted] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """In rows; the pod itself is one."""
        return len(self.rows) + 1


class EvidenceCache:
    """Rows by pod, and the cursor up to which they are known."""

    def __init__(self, rows: int = ROWS, index_rows: int = INDEX_ROWS) -> None:
        self._pods: OrderedDict[PodKey, _Known] = OrderedDict()
        self._looked_at: Counter[str] = Counter()
        """Looks under way by index: what these hold is paid for by whoever looks."""
        self._lock = threading.Lock()
        self._rows, self._index_rows = rows, index_rows

    def cursor(self, key: PodKey, since: float) -> str:
        """What to ask with; empty: for everything, also when what is known begins later than `since`."""
        with self._lock:
            known = self._pods.get(key)
            return known.cursor if known is not None and known.since < since + BUCKET_SECONDS else ""

    def take(self, key: PodKey, page: EvidenceColumns, since: float) -> None:
        """Add a page that answers a question from unix time `since` on. ValueError when it contradicts itself, or goes
        on from what is not kept here: it would be taken for all that there is."""
        counted = counted_of(page)
        oldest = (page.now - RING_SECONDS) // BUCKET_SECONDS
        with self._lock:
            known = self._pods.pop(key, None)
            if page.whole:
                known = _Known(since=since)
            elif known is None or known.incarnation != page.incarnation:
                raise ValueError("it goes on from what is not kept here; asked for everything the next time")
            known.incarnation, known.cursor = page.incarnation, page.cursor
            known.rows.update(((one.bucket, one.segment), one) for one in counted)
            for place in [place for place in known.rows if place[0] <= oldest]:
                del known.rows[place]
            if len(known.rows) > EVIDENCE_ROWS:
                raise ValueError(f"it has told of {len(known.rows)} rows; an hour has {EVIDENCE_ROWS} at most")
            self._pods[key] = known

    def counts(self, key: PodKey, page: EvidenceColumns, since: float) -> PodCounts:
        """Everything known of a pod from unix time `since` on, by its clock; `page` is the last one that was taken."""
        first = since // BUCKET_SECONDS - 1
        with self._lock:
            known = self._pods.get(key)
            rows = [] if known is None else [one for one in known.rows.values() if one.bucket >= first]
        return PodCounts(page.revision, page.now, page.live_before, rows)

    def begin(self, index: str) -> None:
        """A look at an index: until its end nothing that it was told goes."""
        with self._lock:
            self._looked_at[index] += 1

    def end(self, index: str) -> None:
        """A look is over: what is too much goes, of each index what was asked longest ago. It is asked for anew."""
        with self._lock:
            self._looked_at[index] -= 1
            if not self._looked_at[index]:
                del self._looked_at[index]
            sizes: Counter[str] = Counter()
            for key, known in self._pods.items():
                if key.index not in self._looked_at:
                    sizes[key.index] += known.size
            while sizes:
                most, size = sizes.most_common(1)[0]
                if size <= self._index_rows and sizes.total() <= self._rows:
                    break
                oldest = next(key for key in self._pods if key.index == most)
                sizes[most] -= self._pods.pop(oldest).size

    def forget(self, key: PodKey) -> None:
        """Ask it for everything the next time."""
        with self._lock:
            self._pods.pop(key, None)

    @property
    def rows(self) -> int:
        with self._lock:
            return sum(len(known.rows) for known in self._pods.values())
