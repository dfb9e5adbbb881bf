"""Find what the watches missed: at the start everything is read once; then only what differs.

A relist asks for the metadata of every object, in pages, and compares uid and version with the cache. What differs is
read again, what is missing is gone, and the VectorIndexes that it belongs to get a look.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile.cache import INDEX_KIND, LiveCluster, ReadCache
from vectorindex_operator.reconcile.errors import ClusterError
from vectorindex_operator.reconcile.ports import Cluster, Lists
from vectorindex_operator.reconcile.watches import WATCHED

log = logging.getLogger(__name__)

MANAGED = f"{labels.MANAGED_BY}={labels.OPERATOR}"
RETRY_SECONDS = 5.0
LOOK_SECONDS = 1.0
SETTLE_SECONDS = 5.0
"""A watch that begins anew tells of every object: one relist for all of them, and for all watches that broke."""
JITTER = 0.2
"""Share of the interval by which two relists differ, so that those of several operators do not coincide for ever."""


class Listed(Cluster, Lists, Protocol):
    """The cluster, which can also list everything."""


@dataclass(slots=True)
class Relist:
    """Keeps the cache true. `mark(namespace, name)` asks for a look at a VectorIndex."""

    cache: ReadCache
    cluster: Listed
    mark: Callable[[str, str], None]
    namespaces: tuple[str, ...] = ()
    on_missed: Callable[[int], object] = lambda differences: None
    on_done: Callable[[], object] = lambda: None
    """Everything was listed; what that took in memory is free."""
    _hinted: threading.Event = field(default_factory=threading.Event)

    def fill(self) -> None:
        """Read everything, the VectorIndexes first, and ask for a look at each. Raises errors.ClusterError."""
        for kind in WATCHED:
            for namespace in self.namespaces or ("",):
                for page in self.cluster.pages(kind.kind, namespace, _selector(kind.kind), metadata_only=False):
                    for raw in page:
                        self.cache.put(raw)
        self.on_done()
        for namespace, name in {*self.cache.names(), *self.cache.leaving.indexes()}:
            self.mark(namespace, name)

    def run_once(self) -> int:
        """Compare everything. Returns how many differences there were. Raises errors.ClusterError."""
        found = 0
        for kind in WATCHED:
            for namespace in self.namespaces or ("",):
                found += self._compare(kind.kind, namespace)
        for namespace, name in self.cache.leaving.indexes():
            self.mark(namespace, name)
        self.on_missed(found)
        self.on_done()
        return found

    def _compare(self, kind: str, namespace: str) -> int:
        since = self.cache.turn()
        pages = self.cluster.pages(kind, namespace, _selector(kind), metadata_only=True)
        different, lost = self.cache.compare(kind, namespace, (raw for page in pages for raw in page), since)
        for space, name in different:
            self._read(kind, space, name)
        for space, name in different | lost:
            self.mark(space, name)
        return len(different | lost)

    def _read(self, kind: str, namespace: str, index: str) -> None:
        """Read one VectorIndex again, or its objects of one kind: with the rights that a look needs, and no others."""
        live = LiveCluster(self.cluster, self.cache)
        if kind == INDEX_KIND:
            live.get(kind, namespace, index)
        else:
            live.children(kind, namespace, labels.of_index(index))

    def until(self, stop: threading.Event, seconds: float, filled: Callable[[], None]) -> None:
        """Fill the cache, call `filled`, and compare every `seconds`, more or less, until `stop` is set."""
        while not self._tried(self.fill):
            if stop.wait(RETRY_SECONDS * random.uniform(0.5, 1.5)):  # noqa: S311 - spreads retries, guards nothing
                return
        filled()
        while self._rested(stop, seconds * random.uniform(1 - JITTER, 1 + JITTER)):  # noqa: S311
            self._tried(self.run_once)

    def soon(self) -> None:
        """A watch began, or began anew: what vanished before it did, it tells nobody."""
        self._hinted.set()

    def _rested(self, stop: threading.Event, seconds: float) -> bool:
        """Wait so long, or only until a watch has begun anew. False: it is time to stop."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if stop.wait(min(left, LOOK_SECONDS)):
                return False
            if self._hinted.is_set():
                if stop.wait(SETTLE_SECONDS):
                    return False
                self._hinted.clear()
                break
        return True

    @staticmethod
    def _tried(list_all: Callable[[], object]) -> bool:
        try:
            list_all()
        except ClusterError as error:
            log.warning("could not list what there is: %s", error)
            return False
        except Exception:
            log.exception("a bug: listing what there is failed")
            return False
        return True


def _selector(kind: str) -> str:
    return "" if kind == INDEX_KIND else MANAGED
