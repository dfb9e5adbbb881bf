"""Which VectorIndexes left something that has to be looked after, whether or not they are still there.

The cache keeps children of VectorIndexes that are known (cache.py). A revision that is being deleted and that a
finalizer of ours keeps must get looks without one: it is kept here by its name alone.
"""

from __future__ import annotations

import threading
from collections.abc import Container
from dataclasses import dataclass, field

from vectorindex_operator.reconcile.held import REVISION_KIND, is_leaving
from vectorindex_operator.reconcile.ports import Raw

Key = tuple[str, str, str]
"""Kind, namespace, name."""


@dataclass(slots=True)
class Leaving:
    """Revisions on their way out, with the name of their VectorIndex. Safe to use from many threads."""

    _seen: dict[Key, tuple[str, int]] = field(default_factory=dict)
    """With the cache's turn in which it was told."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, key: Key, one: Raw, index: str, turn: int) -> None:
        """What an object, or its metadata, says now."""
        if key[0] == REVISION_KIND:
            with self._lock:
                self._seen.pop(key, None)
                if is_leaving(one):
                    self._seen[key] = index, turn

    def gone(self, key: Key) -> None:
        with self._lock:
            self._seen.pop(key, None)

    def only(self, kind: str, namespace: str, listed: Container[Key], since: int, index: str = "") -> None:
        """What a list that was begun at turn `since` did not show is gone. `index`: it was of one VectorIndex."""
        with self._lock:
            for key, (mine, turn) in list(self._seen.items()):
                of_list = key[0] == kind and namespace in ("", key[1]) and index in ("", mine)
                if of_list and key not in listed and turn <= since:
                    del self._seen[key]

    def has(self, namespace: str, index: str) -> bool:
        """Whether a VectorIndex of this name, there or gone, left some."""
        return (namespace, index) in self.indexes()

    def indexes(self) -> set[tuple[str, str]]:
        """Namespace and name of every VectorIndex that did."""
        with self._lock:
            return {(key[1], mine) for key, (mine, _) in self._seen.items()}
