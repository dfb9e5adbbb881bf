"""The same write again and again: somebody changes back what we write, a webhook in it or a controller after it.

Nobody gives in by himself, and each write wakes whoever undoes it. So the same write of an object is made a few times
at once, as a person's hands may need, and then after pauses that double. Any other write to that object is made at
once: a rollback, which points elsewhere, never waits. Kept in memory alone: an operator that starts anew writes a few
times more (docs/adr/0037-a-write-that-is-undone.md).
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile.errors import UndoneError
from vectorindex_operator.reconcile.ports import Cluster, Raw

AT_ONCE = 5
"""The same write is made so many times without a pause."""
FIRST_PAUSE_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 600.0
FORGOTTEN_SECONDS = 3600.0
"""After so long without it a write is a new one."""
MOST_KEPT = 4096
"""Writes that are remembered: some 200 bytes each. Whoever is undone again and again is among the latest."""

T = TypeVar("T")
Key = tuple[str, str, str, str]
"""Verb, kind, namespace, name."""


@dataclass(frozen=True, slots=True)
class Write:
    """What was last written to an object, how many times in a row, and when for the last time."""

    what: bytes
    times: int
    at: float


@dataclass(slots=True)
class Repeats:
    """The last write to each object. Safe to use from many threads."""

    _last: OrderedDict[Key, Write] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def over(self, cluster: Cluster, clock: Callable[[], float]) -> Paced:
        """`cluster`, whose repeated writes wait for their turn."""
        return Paced(cluster, self, clock)

    def pause(self, key: Key, what: bytes, now: float) -> float:
        """Seconds that this write has to wait."""
        times, age = self._before(key, what, now)
        if times < AT_ONCE:
            return 0.0
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(times - AT_ONCE, 10))
        return max(0.0, pause - age)

    def made(self, key: Key, what: bytes, now: float) -> None:
        """This write was taken."""
        times, _ = self._before(key, what, now)
        with self._lock:
            self._last[key] = Write(what, times + 1, now)
            self._last.move_to_end(key)
            while len(self._last) > MOST_KEPT:
                self._last.popitem(last=False)

    def forget(self, key: Key) -> None:
        """What we removed ourselves may be written again at once."""
        with self._lock:
            self._last.pop(key, None)

    def _before(self, key: Key, what: bytes, now: float) -> tuple[int, float]:
        """How many times in a row this was written before, and how long ago; a clock that was set back counts anew."""
        with self._lock:
            last = self._last.get(key)
        if last is None or last.what != what or not 0 <= now - last.at < FORGOTTEN_SECONDS:
            return 0, 0.0
        return last.times, now - last.at


@dataclass(slots=True)
class Paced:
    """Implements reconcile.ports.Cluster: what is undone each time is an UndoneError until its pause is over."""

    inner: Cluster
    repeats: Repeats
    clock: Callable[[], float]

    def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        return self.inner.get(kind, namespace, name)

    def children(self, kind: str, namespace: str, selector: str) -> list[Raw]:
        return self.inner.children(kind, namespace, selector)

    def take_over(self, live: Raw) -> str:
        return self.inner.take_over(live)

    def apply(self, manifest: Raw, *, force: bool = True) -> Raw:
        return self._paced("apply", manifest, lambda: self.inner.apply(manifest, force=force))

    def merge(self, manifest: Raw) -> Raw:
        return self._paced("merge", manifest, lambda: self.inner.merge(manifest))

    def create(self, manifest: Raw) -> Raw | None:
        return self._paced("create", manifest, lambda: self.inner.create(manifest))

    def judge(self, manifest: Raw) -> None:
        self.inner.judge(manifest)

    def apply_status(self, manifest: Raw) -> Raw:
        return self._paced("status", manifest, lambda: self.inner.apply_status(manifest))

    def delete(self, kind: str, namespace: str, name: str, uid: str, version: str = "") -> None:
        self.inner.delete(kind, namespace, name, uid, version)
        for verb in ("apply", "create"):
            self.repeats.forget((verb, kind, namespace, name))

    def _paced(self, verb: str, manifest: Raw, write: Callable[[], T]) -> T:
        meta = manifest["metadata"]
        key, what = (verb, manifest["kind"], meta["namespace"], meta["name"]), _hash(manifest)
        if self.repeats.pause(key, what, self.clock()) > 0:
            raise UndoneError(
                "undone each time: a webhook or another controller changes it back, so it is written again only after "
                f"pauses of up to {LONGEST_PAUSE_SECONDS / 60:.0f} minutes; exempt the object there"
            )
        answer = write()
        if answer is not None:  # None: there was one, so nothing was written
            self.repeats.made(key, what, self.clock())
        return answer


def _hash(manifest: Raw) -> bytes:
    """Of what is written, without what is another each time: the version that it is based on, when it was decided."""
    meta = {name: value for name, value in manifest["metadata"].items() if name != "resourceVersion"}
    marks = {name: value for name, value in meta.get("annotations", {}).items() if name != labels.DECISION}
    text = json.dumps({**manifest, "metadata": {**meta, "annotations": marks}}, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
