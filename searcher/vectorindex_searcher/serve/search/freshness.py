"""Which snapshot of fresh rows searches see, and what a client may ask of it."""

from __future__ import annotations

from collections.abc import Iterable

from ...index.fresh import FreshRows
from ...index.selection.rowset import RowSet
from ..http.messages import Problem


class Freshness:
    """The snapshot beside one engine. `now` may be read from any thread; one thread writes."""

    def __init__(self) -> None:
        self.now: FreshRows | None = None
        """What searches see. None: nothing was published yet, or fresh rows are switched off."""
        self._newest: FreshRows | None = None
        self._off = False
        self._left: tuple[RowSet | None, FreshRows, RowSet | None] | None = None
        """The last result of `live`, after what it was made of."""

    def take(self, rows: FreshRows) -> bool:
        """Search this from now on, unless a newer one is there; whether it is. A number never falls: who has read its
        own writes once would else lose them again."""
        if self._newest is not None and rows.number <= self._newest.number:
            return False
        self._newest = rows
        self._show()
        return True

    def switch(self, *, off: bool) -> None:
        """Answer the artifact's rows alone, or the newest snapshot again. What is taken meanwhile is kept."""
        self._off = off
        self._show()

    def _show(self) -> None:
        self.now = None if self._off else self._newest

    def wanted(self, least: Iterable[int]) -> FreshRows | None:
        """The snapshot for searches that ask for these numbers at least (0: none). Raises Problem 409: what is not
        there yet is no fault of the index, and counts as none."""
        rows, most = self.now, max(least, default=0)
        number = rows.number if rows is not None else 0
        if most > number:
            raise Problem(
                409,
                "NotFreshYet",
                f"this pod answers with fresh rows of snapshot {number}, the request asks for {most}",
                field="minFresh",
                value=most,
                remedy="ask again after the seconds named in Retry-After, or leave minFresh out",
                headers=((b"Retry-After", b"1"),),
                members={"fresh": number},
            )
        return rows

    def live(self, live: RowSet | None) -> RowSet | None:
        """Those of the engine's rows `live` (None: all) that no fresh row has replaced. The same object for the same
        two: many samples hold it, and processes know it by its number."""
        rows, left = self.now, self._left
        if rows is None:
            return live
        if left is None or left[0] is not live or left[1] is not rows:
            self._left = left = (live, rows, rows.only(live))
        return left[2]
