"""Where live queries are while a revision is measured: written once for a digest, gone when its report is there.

Below the artifacts, since only there the Job may write: so a Job that is tried again asks the same, and draws nothing
new. What an earlier Job left behind, because it never ended well, is removed by others: artifact/live_queries.py.
"""

from __future__ import annotations

import logging

from ...artifact.layout import Layout
from ...contract import OTHER_SEGMENT, Metric, live_room
from ...storage.store import Store
from .sample import LiveQuery
from .wire import HEAD_BYTES, MalformedError, decode, encode, record_bytes

_log = logging.getLogger(__name__)


class KeptQueries:
    """The live queries of one digest in the store."""

    def __init__(self, store: Store, layout: Layout, digest: str, dimension: int, metric: Metric) -> None:
        self._store, self._layout, self._digest = store, layout, digest
        self._dimension, self._metric = dimension, metric

    def read(self) -> list[LiveQuery] | None:
        """What an earlier try has written; None when there is nothing that can be used."""
        room = live_room(self._dimension)
        most = HEAD_BYTES + room * record_bytes(self._dimension)
        try:
            data = self._store.read(self._key, length=most + 1)
        except FileNotFoundError:
            return None
        try:
            return decode(data, self._dimension, self._metric, room)
        except MalformedError as error:
            _log.warning("kept live queries are not usable, asking again", extra={"why": str(error)})
            self._store.delete(self._key)
            return None

    def write(self, queries: list[LiveQuery]) -> list[LiveQuery]:
        """Write them; those that are there now: another try may have been faster."""
        segments = sorted({query.segment for query in queries} | {OTHER_SEGMENT})
        if self._store.put(self._key, encode(queries, self._dimension, segments), exclusive=True):
            return queries
        return self.read() or queries

    @property
    def _key(self) -> str:
        return self._layout.live_queries(self._digest)
