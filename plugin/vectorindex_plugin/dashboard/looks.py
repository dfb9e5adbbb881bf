"""Looks at the cluster for as many pages as are open: each answer is made once, and kept for a moment.

One list of VectorIndexes tells of all of them. Revisions, which are large, are listed again when an index changed or
after a while. What is read of one index alone is read while somebody has it open: so requests never grow with the
number of indexes. Nobody looks: nothing is asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.reconcile import raw
from vectorindex_operator.reconcile.errors import ClusterError, RefusedError
from vectorindex_operator.reconcile.ports import Raw
from vectorindex_plugin.cluster import Eyes
from vectorindex_plugin.documents import document
from vectorindex_plugin.exits import EndedError, Exit
from vectorindex_plugin.facts.board import BoardRow, Dots, IndexBoard, board, dots
from vectorindex_plugin.facts.command_lines import LineFacts
from vectorindex_plugin.facts.index import IndexFacts
from vectorindex_plugin.seen import look

FRESH_SECONDS = 2.0
"""So long an answer is given again."""
REVISIONS_SECONDS = (10.0, 30.0)
"""Revisions are listed again after so long: where an index changed, and where none did."""
MOST_OPEN = 64
"""Indexes of which an answer is kept."""


@dataclass(slots=True)
class _Answer:
    """What was said last. `lock`: one thread asks the cluster, the others wait for what it hears."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    at: float = float("-inf")
    said: Any = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class BoardFacts:
    """All indexes. `hidden`: why their revisions are not shown; empty: they are."""

    now: str
    namespace: str
    rows: tuple[BoardRow, ...]
    hidden: str


@dataclass(slots=True)
class _Listed:
    """Revisions as they were listed last, when, and what the indexes were then."""

    dots: Dots = field(default_factory=dict)
    at: float = float("-inf")
    of: frozenset[tuple[str, str]] = frozenset()
    hidden: str = ""


@dataclass(slots=True)
class Looks:
    """`namespace`: "" for all. `lines`: what one types about an index. `clock`: unix seconds. Thread-safe."""

    eyes: Eyes
    namespace: str
    lines: Callable[[IndexFacts], tuple[LineFacts, ...]]
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    _all: _Answer = field(default_factory=_Answer)
    _open: dict[tuple[str, str], _Answer] = field(default_factory=dict)
    _revisions: _Listed = field(default_factory=_Listed)

    def board(self) -> Any:
        """All indexes, as JSON. Where the cluster gives no answer now: what it said last, and `error` says why. Raises
        EndedError where it never gave one."""
        return self._fresh(self._all, self._look_at_all)

    def index(self, namespace: str, name: str) -> Any:
        """One index, as JSON; as `board`. Raises EndedError where there is no such index."""
        if self.namespace not in ("", namespace):
            raise EndedError(Exit.NOT_FOUND, f"only namespace {self.namespace!r} is shown (--all-namespaces)")
        if len(self._open) >= MOST_OPEN:
            self._open.clear()
        answer = self._open.setdefault((namespace, name), _Answer())
        return self._fresh(answer, lambda: self._look_at(namespace, name))

    def _fresh(self, answer: _Answer, ask: Callable[[], Any]) -> Any:
        with answer.lock:
            if self.monotonic() - answer.at >= FRESH_SECONDS:
                try:
                    answer.said, answer.error = document(ask()), ""
                except ClusterError as error:
                    answer.error = str(error)
                answer.at = self.monotonic()
            if answer.said is None:
                raise EndedError(Exit.UNREACHABLE, answer.error)
            return {**answer.said, "error": answer.error}

    def _look_at_all(self) -> BoardFacts:
        indexes = self.eyes.every("VectorIndex", self.namespace)
        self._list_revisions(indexes)
        rows = board(indexes, self._revisions.dots)
        return BoardFacts(to_text(self.clock()), self.namespace, rows, self._revisions.hidden)

    def _list_revisions(self, indexes: list[Raw]) -> None:
        had, now = self._revisions, self.monotonic()
        metas = [raw.part(one, "metadata") for one in indexes]
        versions = frozenset((str(meta.get("uid")), str(meta.get("resourceVersion"))) for meta in metas)
        changed, unchanged = REVISIONS_SECONDS
        if now - had.at < (unchanged if versions == had.of else changed):
            return
        try:
            found = dots(self.eyes.every("VectorIndexRevision", self.namespace))
        except RefusedError as error:
            self._revisions = _Listed({}, now, versions, str(error))
        else:
            self._revisions = _Listed(found, now, versions)

    def _look_at(self, namespace: str, name: str) -> IndexBoard:
        seen = look(self.eyes, namespace, name, self.clock())
        try:
            events = self.eyes.events(namespace, name)
        except RefusedError as error:
            events = []
            seen.hidden["Event"] = str(error)

        def words(pod: str) -> str:
            try:
                return self.eyes.words(namespace, pod)
            except ClusterError:  # how far a Job is, is said only where its log may be read
                return ""

        return IndexBoard.of(seen, events, words, self.lines)
