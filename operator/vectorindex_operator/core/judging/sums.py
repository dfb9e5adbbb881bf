"""Sums that the look before made, of the same parts: what is over is added up once, not at every look of a long soak.

Nothing but a saving of time: each sum is kept with the parts that it is of, and made anew unless they are the same. So
no verdict depends on what is kept here, and an operator that restarts comes to the same ones. reconcile/looks.py keeps
them from one look to the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

Part = TypeVar("Part")

MOST = 50_000
"""Sums that are kept of all revisions together, about 800 bytes each; those of one look may come on top."""
UNUSED_SECONDS = 60.0
"""What was not looked at for so long soaks no more."""


@dataclass(slots=True)
class Sums:
    """Those of one revision. What a look does not ask for again is forgotten with the next one."""

    _now: dict[Hashable, tuple[list[Any], Any]] = field(default_factory=dict)
    _before: dict[Hashable, tuple[list[Any], Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return max(len(self._now), len(self._before))

    def begin(self) -> None:
        """A look begins."""
        self._before, self._now = self._now, {}

    def of(self, key: Hashable, parts: list[Part], add: Callable[[list[Part]], Part]) -> Part:
        """`add(parts)`. Parts are compared by identity first, so what did not change costs no comparison of values."""
        kept = self._now.get(key) or self._before.get(key)
        total: Part = kept[1] if kept is not None and kept[0] == parts else add(parts)
        self._now[key] = parts, total
        return total


@dataclass(slots=True)
class KeptSums:
    """Those of the revisions that soak, up to `most`: when there are more, who came first keeps its own."""

    most: int = MOST
    _revisions: dict[str, tuple[Sums, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, revision: str, now: float) -> Sums:
        """The sums for a look at `revision` that begins at `now`, Unix seconds."""
        with self._lock:
            for name, (_, used_at) in list(self._revisions.items()):
                if not 0 <= now - used_at <= UNUSED_SECONDS:
                    del self._revisions[name]
            mine = self._revisions[revision][0] if revision in self._revisions else Sums()
            mine.begin()
            self._revisions[revision] = mine, now  # where it was among the others
            held = 0
            for name, (sums, _) in list(self._revisions.items()):
                held += len(sums)
                if held > self.most:
                    del self._revisions[name]
            return mine
