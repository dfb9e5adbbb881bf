"""What the looks before made of the same parts: what is over is merged and added up once, not at every look of a soak.

Nothing but a saving of time: each thing is kept with the parts that it is of, and made anew unless they are the same.
So no verdict depends on what is kept here, and an operator that restarts comes to the same ones. reconcile/looks.py
keeps it from one look to the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar


class Kept(Protocol):
    """What may be kept."""

    def rest(self, *, cells: bool) -> int:
        """A look is over: what the next one will not need goes; without `cells`, also what is soon added up again.
        Returns how many sums are left."""


Made = TypeVar("Made", bound=Kept)

MOST = 70_000
"""Sums that are kept of all revisions together, about 800 bytes each; those of one look may come on top."""
UNUSED_SECONDS = 400.0
"""What was not looked at for so long neither soaks nor is watched any more."""


@dataclass(slots=True)
class Sums:
    """Those of one revision. What a look does not ask for again is forgotten with the next one."""

    urgent: bool = True
    """It soaks: looks come every few seconds."""
    _now: dict[Hashable, Any] = field(default_factory=dict)
    _before: dict[Hashable, Any] = field(default_factory=dict)
    _size: int = 0

    def __len__(self) -> int:
        """How many the last look has left."""
        return self._size

    def begin(self) -> None:
        """A look begins."""
        self._before, self._now = self._now, {}

    def end(self) -> None:
        """A look is over."""
        self._before = {}
        self._size = sum(kept.rest(cells=self.urgent) for kept in self._now.values())

    def of(self, key: Hashable, make: Callable[[Made | None], Made]) -> Made:
        """What `make` makes of what this look, or the one before, has kept under this key."""
        kept = self._now.get(key)
        made = self._now[key] = make(self._before.get(key) if kept is None else kept)
        return made


@dataclass(slots=True)
class KeptSums:
    """Those of the revisions that soak or are watched, up to `most`: when there are more, those that soak keep theirs,
    and of the others those that came first."""

    most: int = MOST
    _revisions: dict[str, tuple[Sums, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, revision: str, now: float, *, urgent: bool = True) -> Sums:
        """The sums for a look at `revision` that begins at `now`, Unix seconds. `urgent`: it soaks."""
        with self._lock:
            for name, (_, used_at) in list(self._revisions.items()):
                if not 0 <= now - used_at <= UNUSED_SECONDS:
                    del self._revisions[name]
            mine = self._revisions[revision][0] if revision in self._revisions else Sums()
            mine.urgent = urgent
            mine.begin()
            self._revisions[revision] = mine, now  # where it was among the others
            held = 0
            for name, (sums, _) in sorted(self._revisions.items(), key=lambda one: not one[1][0].urgent):
                held += len(sums)
                if held > self.most:
                    del self._revisions[name]
            return mine
