"""Faults on a real cluster, under real queries that do not stop: none fails, nothing unproven answers, each rollout and
each rollback ends as it must, and nothing is left behind.

Takes half an hour and the whole machine: only `make test-chaos` runs it (CHAOS=full). CHAOS_SCENES=regex chooses,
CHAOS_WRITE=1 replaces bench/results/chaos.md.
"""

from __future__ import annotations

import os
import queue
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from chaos import report, scenes
from chaos.operators import Spawner
from chaos.site import Index, Site, index, site

pytestmark = [
    pytest.mark.skipif(os.environ.get("CHAOS") != "full", reason="half an hour: make test-chaos"),
    pytest.mark.timeout(5400),
]
INDEXES, RATE = int(os.environ.get("CHAOS_INDEXES", "4")), 160.0
MINUTES = float(os.environ.get("CHAOS_MINUTES", "60"))
"""After so many no scene of several indexes begins."""
CHOSEN = re.compile(os.environ.get("CHAOS_SCENES", ""))


@pytest.fixture(scope="module")
def place(spawner: Spawner) -> Iterator[Site]:
    with site(spawner) as made:
        yield made


def worked_off(place: Site, wanted: dict[str, Callable[[Index], None]], indexes: int) -> list[str]:
    """Each scene on the next index that is free; what broke."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in wanted:
        if CHOSEN.search(name):
            waiting.put(name)
    broke: list[str] = []

    until = time.monotonic() + 60 * MINUTES

    def work(number: int) -> None:
        if waiting.empty():
            return
        with index(place, RATE / indexes) as one:
            while True:
                try:
                    name = waiting.get_nowait()
                except queue.Empty:
                    return
                if time.monotonic() > until:
                    return
                try:
                    wanted[name](one)
                except Exception as error:
                    broke.append(f"{name}: {error!r}"[:800])

    with ThreadPoolExecutor(indexes) as pool:
        for done in [pool.submit(work, number) for number in range(indexes)]:
            if (error := done.exception()) is not None:
                broke.append(repr(error)[:800])
    return broke


def test_whatever_befalls_an_index_no_query_fails_and_each_rollout_ends_as_it_must(place: Site) -> None:
    broke = worked_off(place, scenes.SCENES, INDEXES)
    broke += worked_off(place, scenes.ALONE, 1)
    report.tell(place, broke)
    assert not broke, "\n".join(broke)
    assert [f"{row.fault}: {text}" for row in place.rows for text in row.wrong] == []
    assert [row for row in place.rows if row.unproven] == []
    assert [(row.fault, row.failures) for row in place.rows if row.failed] == []
    assert place.left == []
