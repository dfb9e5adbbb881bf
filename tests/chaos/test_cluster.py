"""Faults on a real cluster, under real queries that do not stop: none fails, nothing unproven answers, each rollout and
each rollback ends as it must, and nothing is left behind.

Takes an hour and the whole machine: only `make test-chaos` runs it (CHAOS=full; campaign.py names the rest). A whole
run writes bench/results/chaos.md after each turn; with CHAOS_RESUME=1 one that was cut off goes on.
"""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
from chaos import report
from chaos.alone import ALONE, nodes_as_they_were
from chaos.campaign import Turn, asked, turns
from chaos.ledger import Ledger
from chaos.operators import Spawner
from chaos.scenes import SCENES, Scene
from chaos.site import Index, Site, index, site

CAMPAIGN = asked(os.environ)
pytestmark = [
    pytest.mark.skipif(os.environ.get("CHAOS") != "full", reason="an hour: make test-chaos"),
    pytest.mark.timeout(60 * (CAMPAIGN.minutes + 60)),
]


@pytest.fixture(scope="module")
def place(spawner: Spawner, ledger: Ledger) -> Iterator[Site]:
    with site(spawner, ledger) as made:
        yield made


class Work:
    """Turns that are taken one after the other, each on an index that is free."""

    def __init__(self, place: Site, todo: list[Turn], scenes: Mapping[str, Scene], until: float) -> None:
        self.place, self.scenes, self.until = place, scenes, until
        self._todo: queue.SimpleQueue[Turn] = queue.SimpleQueue()
        for turn in todo:
            if not place.ledger.is_done(turn):
                self._todo.put(turn)

    def done_by(self, indexes: int) -> None:
        """Returns when there is no turn left, or no time."""
        rate = CAMPAIGN.rate / indexes
        with ThreadPoolExecutor(indexes) as pool:
            for done in [pool.submit(self._work, rate) for _ in range(indexes)]:
                done.result()

    def _next(self) -> Turn | None:
        try:
            return self._todo.get_nowait() if time.monotonic() < self.until else None
        except queue.Empty:
            return None

    def _work(self, rate: float) -> None:
        """On one index, and on a new one whenever something went wrong with it."""
        while (turn := self._next()) is not None:
            first, begun = turn, False
            try:
                with index(self.place, rate, first) as one:
                    begun = True
                    while turn is not None and self._went_right(one, turn):
                        turn = self._next()
            except Exception as error:
                if begun:
                    self.place.ledger.leaves([f"an index that was not removed: {error!r}"[:800]])
                else:
                    self.place.ledger.ended(first, f"no index for it: {error!r}"[:800])

    def _went_right(self, one: Index, turn: Turn) -> bool:
        ledger, one.turn, said = self.place.ledger, turn, ""
        try:
            self.scenes[turn.fault](one)
        except Exception as error:
            said = repr(error)[:800]
        ledger.ended(turn, said)
        return ledger.went_right(turn)


def test_whatever_befalls_an_index_no_query_fails_and_each_rollout_ends_as_it_must(place: Site) -> None:
    ledger = place.ledger
    alone, cycles = turns(CAMPAIGN, ALONE, SCENES)
    ledger.planned = len(alone) + len(cycles)
    until = time.monotonic() + 60 * CAMPAIGN.minutes
    with nodes_as_they_were(place.kube):
        Work(place, alone, ALONE, until).done_by(1)
    Work(place, cycles, SCENES, until).done_by(min(CAMPAIGN.indexes, max(1, len(cycles))))
    print(report.page(ledger))
    left = [turn for turn in (*alone, *cycles) if not ledger.is_done(turn)]
    assert not ledger.broken, "\n".join(ledger.broken.values())
    assert [f"{row.fault}: {text}" for row in ledger.rows for text in row.wrong] == []
    assert [row for row in ledger.rows if row.unproven] == []
    assert [(row.fault, row.failures) for row in ledger.rows if row.failed] == []
    assert ledger.left == []
    assert not left, f"{len(left)} turns were not begun in {CAMPAIGN.minutes:g} minutes: make test-chaos RESUME=1"
