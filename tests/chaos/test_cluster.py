"""Faults on a real cluster, under real queries that do not stop: none fails, nothing unproven answers, each rollout and
each rollback ends as it must, and nothing is left behind.

Takes an hour and the whole machine: only `make test-chaos` runs it (CHAOS=full; campaign.py names the rest). A whole
run writes bench/results/chaos.md after each turn; with CHAOS_RESUME=1 one that was cut off goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import pytest
from chaos import report
from chaos.alone import ALONE, nodes_as_they_were
from chaos.campaign import Turn, asked, turns
from chaos.ledger import Ledger
from chaos.operators import Spawner
from chaos.scenes import SCENES, Scene
from chaos.site import Index, Site, index, site
from chaos.work import Work

CAMPAIGN = asked(os.environ)
pytestmark = [
    pytest.mark.skipif(os.environ.get("CHAOS") != "full", reason="an hour: make test-chaos"),
    pytest.mark.timeout(60 * (CAMPAIGN.minutes + 60)),
]


@pytest.fixture(scope="module")
def place(spawner: Spawner, ledger: Ledger) -> Iterator[Site]:
    with site(spawner, ledger) as made:
        yield made


def on(scenes: Mapping[str, Scene]) -> dict[str, Callable[[Index, Turn], None]]:
    """The scenes, upon an index whose turn it is."""

    def of(scene: Scene) -> Callable[[Index, Turn], None]:
        def play(one: Index, turn: Turn) -> None:
            one.turn = turn
            scene(one)

        return play

    return {fault: of(scene) for fault, scene in scenes.items()}


def test_whatever_befalls_an_index_no_query_fails_and_each_rollout_ends_as_it_must(place: Site) -> None:
    ledger = place.ledger
    alone, cycles = turns(CAMPAIGN, ALONE, SCENES)
    ledger.planned = len(alone) + len(cycles)
    until = time.monotonic() + 60 * CAMPAIGN.minutes
    with nodes_as_they_were(place.kube):
        Work(ledger, alone, on(ALONE), partial(index, place, CAMPAIGN.rate), until).done_by(1)
    indexes = min(CAMPAIGN.indexes, max(1, len(cycles)))
    Work(ledger, cycles, on(SCENES), partial(index, place, CAMPAIGN.rate / indexes), until).done_by(indexes)
    print(report.page(ledger))
    left = [turn for turn in (*alone, *cycles) if not ledger.is_done(turn)]
    assert not ledger.broken, "\n".join(ledger.broken.values())
    assert [f"{row.fault}: {text}" for row in ledger.rows for text in row.wrong] == []
    assert [row for row in ledger.rows if row.unproven] == []
    assert [(row.fault, row.failures) for row in ledger.rows if row.failed] == []
    assert ledger.left == []
    assert not left, f"{len(left)} turns were not begun in {CAMPAIGN.minutes:g} minutes: make test-chaos RESUME=1"
