"""Shadows in which something goes wrong: nobody who asks notices, and nothing gets the traffic that did not answer."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from e2e.operator_release import crash_until, main_processes
from e2e.test_shadow import ZERO_RESULTS, shadow
from e2e.vectors import Corpus, bodies
from e2e.workspace import SLOW, Workspace, merged, no_failures

from harness.kube import Json

STOPPED, GOES_ON = 3.2, 0.8
"""Seconds, in turn. A batch, and a probe of the kubelet, have two: nearly a third of them end in vain, but never two
probes in a row."""
IN_VAIN = 300


def briefly(seconds: int) -> Json:
    """A shadow that is over after so many seconds; a revision whose pods are gone is given up after a minute."""
    limits = {"rollout": {"shadow": {"maxDuration": f"{seconds}s"}, "progressDeadline": "60s"}}
    return merged(shadow(ZERO_RESULTS), limits)


@pytest.mark.long
@pytest.mark.together("long shadows")
def test_one_that_answers_too_late_never_gets_the_traffic(served: Workspace, corpus: Corpus) -> None:
    if served.kube.cluster.name != "local":
        pytest.skip("its processes are stopped from the host")
    index, first = served.index, served.index.traffic()
    served.put("slow", corpus.moved())
    before = served.lives(first)
    with served.traffic(corpus, rate=SLOW, more=bodies(corpus.queries(8000, seed=9))) as traffic:
        served.apply("slow", **briefly(45))
        slow = index.wait_new_revision({first})
        index.wait_revision(slow, "Shadowing")
        with _too_slow(served, slow):
            served.wait_phase(slow, "Rejected", timeout=IN_VAIN)
        seen = traffic.snapshot()
    no_failures(seen, at_least=1000)
    assert set(seen.revisions) == {first}
    rejected = index.revision(slow)["rejected"]
    assert (rejected["stage"], rejected["reason"]) == ("Shadow", "Unanswered")
    assert index.traffic() == first
    assert served.lives(first) == before


@pytest.mark.long
@pytest.mark.together("long shadows")
def test_one_that_dies_again_and_again_never_gets_the_traffic(served: Workspace, corpus: Corpus) -> None:
    index, first = served.index, served.index.traffic()
    served.put("dying", corpus.moved())
    before = served.lives(first)
    with served.traffic(corpus, rate=SLOW, more=bodies(corpus.queries(8000, seed=9))) as traffic:
        served.apply("dying", **briefly(45))
        dying = index.wait_new_revision({first})
        index.wait_revision(dying, "Shadowing")
        ends = ("Rejected", "SurgeFailed")
        crash_until(served, dying, lambda: index.revision(dying).get("phase") in ends, IN_VAIN)
        index.wait_condition("Stalled")
        seen = traffic.snapshot()
    no_failures(seen, at_least=1000)
    assert set(seen.revisions) == {first}
    print(f"it is given up: {index.revision(dying)['rejected']}")
    assert index.traffic() == first
    assert served.lives(first) == before


@pytest.mark.long
@pytest.mark.together("long shadows")
def test_a_refresh_disturbs_no_shadow_and_gets_one_of_its_own(served: Workspace, corpus: Corpus) -> None:
    index, first = served.index, served.index.traffic()
    served.put("better", corpus.moved())
    with served.traffic(corpus, rate=SLOW, more=bodies(corpus.queries(8000, seed=9))) as traffic:
        served.apply("better", **shadow(ZERO_RESULTS))
        second = index.wait_new_revision({first})
        index.wait_revision(second, "Shadowing")
        began = index.revision(second)["rollout"]["shadow"]["id"]
        said = served.say("refresh", "in-shadow")
        assert (said["result"], f"{first} is not what the spec asks for" in said["message"]) == ("Refused", True), said
        index.wait_revision(second, "Stable")
        shadowed = index.revision(second)["rollout"]["shadow"]
        assert (shadowed["id"], shadowed["outcome"]) == (began, "Passed"), "it went on"

        assert served.say("refresh", "stable")["result"] == "Done"
        third = index.wait_new_revision({first, second})
        index.wait_revision(third, "Stable")
        shadowed = index.revision(third)["rollout"]["shadow"]
        assert (shadowed["reference"], shadowed["outcome"]) == (second, "Passed")
        seen = traffic.wait_answers(third)
    no_failures(seen, at_least=1000)
    assert set(seen.revisions) == {first, second, third}
    assert set(served.built().values()) == {1}


@contextmanager
def _too_slow(space: Workspace, revision: str) -> Iterator[None]:
    """The processes of its searchers stand still most of the time, for longer than a query of a shadow may take."""
    over, uids = threading.Event(), [pod["metadata"]["uid"] for pod in space.index.pods(revision)]

    def stop_and_go() -> None:
        while not over.is_set():
            for wish, seconds in ((signal.SIGSTOP, STOPPED), (signal.SIGCONT, GOES_ON)):
                for process in (one for uid in uids for one in main_processes(uid)):
                    with suppress(ProcessLookupError):
                        os.kill(process, wish)
                over.wait(seconds)

    thread = threading.Thread(target=stop_and_go, name="too slow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
