"""What pods told so far, so that each look asks for what changed only.

A cache and nothing more: whatever is missing here is asked for again, and comes. Bounded by rows, each index by a share
of them: one that has very many makes its own way out longer, nobody else's. Thread-safe.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
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


class EvidenceCache:
    """Rows by pod, and the cursor up to which they are known."""

    def __init__(self, rows: int = ROWS, index_rows: int = INDEX_ROWS) -> None:
        self._pods: OrderedDict[PodKey, _Known] = OrderedDict()
        self._lock = threading.Lock()
        self._rows, self._index_rows = rows, index_rows

    def cursor(self, key: PodKey, since: float) -> str:
        """What to ask with; empty: for everything, also when what is known begins later than `since`."""
        with self._lock:
            known = self._pods.get(key)
            return known.cursor if known is not None and known.since < since + BUCKET_SECONDS else ""

    def take(self, key: PodKey, page: EvidenceColumns, since: float) -> None:
        """Add a page that answers a question from unix time `since` on. ValueError when it contradicts itself."""
        counted = counted_of(page)
        oldest = (page.now - RING_SECONDS) // BUCKET_SECONDS
        with self._lock:
            known = self._pods.pop(key, None)
            if known is None or page.whole or known.incarnation != page.incarnation:
                known = _Known(since=since)
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

    def trim(self, index: str) -> None:
        """To be called when a look is over. The index's own pods go first when they have too many rows, then those of
        all that were asked longest ago: they are asked for everything the next time."""
        with self._lock:
            for most, keys in (
                (self._index_rows, [key for key in self._pods if key.index == index]),
                (self._rows, list(self._pods)),
            ):
                left = sum(len(self._pods[key].rows) for key in keys if key in self._pods)
                for key in keys:
                    if left > most and key in self._pods:
                        left -= len(self._pods.pop(key).rows)

    def forget(self, key: PodKey) -> None:
        """Ask it for everything the next time."""
        with self._lock:
            self._pods.pop(key, None)

    @property
    def rows(self) -> int:
        with self._lock:
            return sum(len(known.rows) for known in self._pods.values())
