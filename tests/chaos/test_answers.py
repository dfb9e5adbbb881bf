"""Answers of an API server that has troubles, all through a rollout and a rollback. Minutes: only `make test-chaos`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext

import pytest
from chaos import report
from chaos.ground import Cluster, Lane, lane
from chaos.operators import Spawner
from chaos.rollout import WAYS, Way, begun, gone
from chaos.rules import BROKEN, CONFLICT, READS, TOO_MANY, WRITES, Cut, Gone, Lost, Rule, Slow, Stale

from harness.errors import HarnessError

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("CHAOS") != "full" or bool(os.environ.get("CHAOS_SCENES")), reason="minutes: make test-chaos"
    ),
    pytest.mark.timeout(3600),
]
WATCHES = frozenset({"watch"})
LANES = 9
PATIENT = "--lease-seconds=120"
"""No fault here is of the Lease: a machine that is full must not end an operator."""
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


def watches_begun_anew(one: Lane, rules: list[Rule]) -> AbstractContextManager[None]:
    """One that is under way lasts longer than a rollout, and no fault of watches would happen."""
    return one.proxy.cutting_watches() if any(rule.verbs == WATCHES for rule in rules) else nullcontext()


def under(cluster: Cluster, spawner: Spawner, name: str, way: Way) -> str:
    """What went wrong."""
    rules = FAULTS[name]()
    try:
        with lane(cluster, spawner, PATIENT) as one:
            begun(one)
            with watches_begun_anew(one, rules):
                gone(one, way, rules)
            assert all(rule.met for rule in rules), "each fault happened"
            assert not one.operator.ends, "no fault of an answer ends the operator"
    except Exception as error:
        said = str(error) if isinstance(error, AssertionError | HarnessError) else repr(error)
        print(f"{time.strftime('%H:%M:%S')}  {way.name}, {name}: {said}", flush=True)
        return f"{way.name}, {name}: {said}"
    print(f"{time.strftime('%H:%M:%S')}  {way.name}, {name}: as it must", flush=True)
    return ""


@pytest.mark.skipif(report.is_known("answers"), reason="known from before the run was cut off")
def test_whatever_the_api_server_answers_each_ends_as_it_must(cluster: Cluster, spawner: Spawner) -> None:
    with ThreadPoolExecutor(LANES) as pool:
        runs = [pool.submit(under, cluster, spawner, name, way) for name in FAULTS for way in WAYS]
        wrong = [text for run in runs if (text := run.result())]
    report.remember("answers", {"faults": len(FAULTS), "wrong": wrong})
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_watches_that_are_cut_again_and_again(cluster: Cluster, spawner: Spawner, way: Way) -> None:
    with lane(cluster, spawner, PATIENT) as one:
        begun(one)
        with one.proxy.cutting_watches():
            gone(one, way, [])
