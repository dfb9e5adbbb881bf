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
        """None: nothing was published yet, or fresh rows are switched off."""
        self._highest = 0

    def take(self, rows: FreshRows) -> bool:
        """Search this from now on, unless a newer one is there; whether it is. A number never falls: who has read its
        own writes once would else lose them again."""
        if rows.number < self._highest or (self.now is not None and rows.number == self._highest):
            return False
        self.now, self._highest = rows, rows.number
        return True

    def switch_off(self) -> None:
        """Answer the artifact's rows alone."""
        self.now = None

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
        """Those of the engine's rows `live` (None: all) that no fresh row has replaced."""
        return live if self.now is None else self.now.only(live)
