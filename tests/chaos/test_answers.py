"""Answers of an API server that has troubles, all through a rollout and a rollback. Minutes: only `make test-chaos`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from chaos.ground import Cluster, Lane, lane
from chaos.operators import Spawner
from chaos.rollout import WAYS, Way, begun, gone
from chaos.rules import BROKEN, CONFLICT, READS, TOO_MANY, WRITES, Cut, Gone, Lost, Rule, Slow, Stale

from harness.errors import HarnessError

pytestmark = [
    pytest.mark.skipif(os.environ.get("CHAOS") != "full", reason="minutes: make test-chaos"),
    pytest.mark.timeout(1800),
]
WATCHES = frozenset({"watch"})
LANES = 9
ALL = WRITES | READS

FAULTS: dict[str, Callable[[], list[Rule]]] = {
    "a third of the writes are conflicts": lambda: [Rule(CONFLICT, WRITES, share=0.33)],
    "a tenth of the requests are too many": lambda: [Rule(TOO_MANY, ALL, share=0.1)],
    "a tenth of the requests are errors of the server": lambda: [Rule(BROKEN, ALL, share=0.1)],
    "half of the writes are done and their answers lost": lambda: [Rule(Lost(), WRITES, share=0.5)],
    "watches end within their second event": lambda: [Rule(Cut(1), WATCHES)],
    "two of three watches are told that theirs is compacted": lambda: [Rule(Gone(), WATCHES, share=0.67)],
    "a third of the answers come 2 s late": lambda: [Rule(Slow(2.0), ALL, share=0.33)],
    "lists are old": lambda: [Rule(Stale(), frozenset({"list"}), last=40)],
    "reads are old": lambda: [Rule(Stale(), READS, last=40)],
}


@contextmanager
def cut_again_and_again(one: Lane, every: float = 3.0) -> Iterator[None]:
    """All watches at once, as when an API server is restarted."""
    over = threading.Event()

    def cut() -> None:
        while not over.wait(every):
            one.proxy.cut_watches()

    thread = threading.Thread(target=cut, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def under(cluster: Cluster, spawner: Spawner, name: str, way: Way) -> str:
    """What went wrong."""
    rules = FAULTS[name]()
    try:
        with lane(cluster, spawner) as one:
            begun(one)
            gone(one, way, rules)
            assert all(rule.met for rule in rules), "each fault happened"
            assert not one.operator.ends, "no fault of an answer ends the operator"
    except (AssertionError, HarnessError) as error:
        print(f"{way.name}, {name}: {error}", flush=True)
        return f"{way.name}, {name}: {error}"
    print(f"{way.name}, {name}: as it must", flush=True)
    return ""


def test_whatever_the_api_server_answers_each_ends_as_it_must(cluster: Cluster, spawner: Spawner) -> None:
    with ThreadPoolExecutor(LANES) as pool:
        runs = [pool.submit(under, cluster, spawner, name, way) for name in FAULTS for way in WAYS]
        wrong = [text for run in runs if (text := run.result())]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_watches_that_are_cut_again_and_again(cluster: Cluster, spawner: Spawner, way: Way) -> None:
    with lane(cluster, spawner) as one, cut_again_and_again(begun(one)):
        gone(one, way, [])
