"""Looks at pods, off the workers: what one tenant's pods cost another tenant's pass, over real sockets."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest
from observations import NOW, SETTINGS, a_revision, index, source, spec
from pods_on_sockets import Handler, answering, dripping_process, server
from raw_objects import (
    NAME,
    NAMESPACE,
    Stored,
    deployment_raw,
    front_raw,
    index_raw,
    revision_raw,
    searcher_pod,
    slice_raw,
)

from vectorindex_operator.adapters.admin_port import DEADLINE_SECONDS
from vectorindex_operator.adapters.evidence import HttpSearchers
from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Condition, VectorIndexStatus
from vectorindex_operator.core.internal_keys import Addressee
from vectorindex_operator.core.judging.evidence import PodEvidence
from vectorindex_operator.core.judging.questions import Purpose, Question
from vectorindex_operator.core.observation import Observation
from vectorindex_operator.core.plan import Plan
from vectorindex_operator.reconcile import loop
from vectorindex_operator.reconcile.cache import LiveCluster, ReadCache
from vectorindex_operator.reconcile.errors import UnreachableError
from vectorindex_operator.reconcile.loop import Reconciler
from vectorindex_operator.reconcile.queue import KeyedQueue, Outcome
from vectorindex_searcher.contract import TrafficLease

WANTED = spec(index={"factory": "Flat"})
STABLE, SOAKING = a_revision(spec(), "Stable"), a_revision(WANTED, "Soaking")
SAID = (Condition(type="Ready", status="True", reason="Serving", last_transition_time="2026-11-20T12:00:00Z"),)
HONEST, HOSTILE = "honest", [f"hostile-{number}" for number in range(20)]
DRIPPING_PODS = 16
SOON = 60.0
"""Bound of what must happen; it fails only when it does not."""


def soaking(uid: str, address: str, pods_of_it: int = 4) -> Stored:
    """A VectorIndex in mid-soak, whose pods have this address."""
    view = index(WANTED, VectorIndexStatus(source=source(WANTED), conditions=SAID))
    pods = [searcher_pod(SOAKING, number) for number in range(pods_of_it)] + [searcher_pod(STABLE)]
    for pod in pods:
        pod["status"]["podIP"] = address
    revisions = [revision_raw(STABLE), revision_raw(SOAKING)]
    rollout = revisions[1]["status"]["rollout"]
    rollout["prior"] = STABLE.name
    rollout["guardrails"]["rules"].append({"name": "scores", "metric": "TopScore", "maxDropVsStable": "5%"})
    deployments = [deployment_raw(SOAKING, pods_of_it), deployment_raw(STABLE, 1)]
    objects = [index_raw(view), front_raw(SOAKING), *revisions, *deployments, *pods, slice_raw(SOAKING)]
    return Stored(*json.loads(json.dumps(objects).replace(f'"{view.uid}"', f'"{uid}"')))


class Tenants:
    """The loop and its queue over one VectorIndex in each namespace; who was decided about, and when."""

    def __init__(self, port: int, addresses: dict[str, str]) -> None:
        self.decided: defaultdict[str, list[float]] = defaultdict(list)
        self.changed = threading.Condition()
        searchers, sink = HttpSearchers(admin_port=port), Sink()
        self.loops = {
            tenant: Reconciler(
                soaking(f"uid-{tenant}", address, 4 if tenant == HONEST else DRIPPING_PODS), searchers, sink, SETTINGS,
                on_status=self._on_status(tenant), clock=lambda: NOW, on_answer=self._mark,
            )
            for tenant, address in addresses.items()
        }  # fmt: skip
        self.queue = KeyedQueue(lambda tenant, name: self.loops[tenant].run(tenant, name))

    def _mark(self, tenant: str, name: str) -> None:
        self.queue.mark(tenant, name)

    def _on_status(self, tenant: str) -> Any:
        def decided(*_: Any) -> None:
            with self.changed:
                self.decided[tenant].append(time.monotonic())
                self.changed.notify_all()

        return decided

    def delay(self, tenant: str) -> float:
        """Seconds from an event until the pass that it asks for has decided."""
        with self.changed:
            seen, began = len(self.decided[tenant]), time.monotonic()
            self.queue.mark(tenant, NAME)
            assert self.changed.wait_for(lambda: len(self.decided[tenant]) > seen, SOON), (
                f"{tenant} was never looked at"
            )
            return self.decided[tenant][seen] - began

    @contextmanager
    def poked(self, tenants: list[str]) -> Iterator[None]:
        """Something happens to each of these all the time."""
        stop = threading.Event()

        def poke() -> None:
            while not stop.wait(1.0):
                for tenant in tenants:
                    self.queue.mark(tenant, NAME)

        thread = threading.Thread(target=poke)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


class Sink:
    def send(self, regarding: Any, event: Any) -> None: ...


def quick() -> Handler:
    row = {"bucket": int(time.time() // 5) - 3, "segment": "other", "requests": 7, "queries": 7}
    document = {"pod": "p", "revision": SOAKING.name, "now": time.time(), "buckets": [row]}
    return answering(json.dumps(document).encode())


def test_twenty_tenants_whose_pods_drip_delay_no_other_tenants_pass() -> None:
    """Sixteen of each. Their looks take two seconds, and there are four workers: before, the others waited for ten."""
    with server(quick(), "127.0.0.2") as port, dripping_process("127.0.0.3", port) as hang:
        addresses = dict.fromkeys(HOSTILE, "127.0.0.3") | {HONEST: "127.0.0.2"}
        world = Tenants(port, addresses)
        world.queue.start()
        for _ in range(3):
            world.delay(HONEST)
        alone = sorted(world.delay(HONEST) for _ in range(9))[4]
        with world.poked(HOSTILE):
            hang(len(HOSTILE) * DRIPPING_PODS)
            beside = [world.delay(HONEST)]
            while not all(world.decided[tenant] for tenant in HOSTILE):
                beside.append(world.delay(HONEST))
        world.queue.stop()
    beside.sort()
    middle, most = beside[len(beside) // 2], beside[-1]
    print(f"{len(beside)} looks: alone {alone * 1e3:.1f} ms, beside {middle * 1e3:.1f} ms, at most {most * 1e3:.1f} ms")
    assert middle < max(10 * alone, DEADLINE_SECONDS / 20)
    assert most < max(DEADLINE_SECONDS, 100 * alone)


# ---------------------------------------------------------------- the rules of looking


class Slow:
    """Searchers that answer when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[Question, Future[tuple[PodEvidence, ...]]]] = []

    def evidence(
        self, to: Addressee, pods: Iterable[tuple[str, str]], question: Question
    ) -> Future[tuple[PodEvidence, ...]]:
        self.asked.append((question, Future()))
        return self.asked[-1][1]

    def tell(self, to: Addressee, addresses: Iterable[str], lease: TrafficLease) -> None: ...

    def answer(self) -> None:
        for question, answers in self.asked:
            if not answers.done():
                answers.set_result((PodEvidence(f"pod of {question.revision}", None, NOW),))

    @property
    def open(self) -> int:
        return sum(not answers.done() for _, answers in self.asked)


class Watched(Stored):
    """Counts reads."""

    reads = 0

    def get(self, kind: str, namespace: str, name: str) -> Any:
        self.reads += 1
        return super().get(kind, namespace, name)


class Looking:
    """One index in mid-soak whose pods are slow."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, cached: bool = False) -> None:
        self.slow, self.marked, self.now = Slow(), list[tuple[str, str]](), NOW
        self.cluster = Watched(*soaking("uid-1", "10.0.0.1").objects)
        self.seen: list[Observation] = []
        cache = ReadCache()
        for one in sorted(self.cluster.objects, key=lambda found: found["kind"] != "VectorIndex"):
            cache.put(one)
        cluster: Any = self.cluster
        self.loop = Reconciler(
            LiveCluster(cluster, cache) if cached else cluster, self.slow, Sink(), SETTINGS,
            cache if cached else None, on_answer=lambda *key: self.marked.append(key), clock=lambda: self.now,
        )  # fmt: skip
        monkeypatch.setattr(loop, "decide", self._decide)

    def _decide(self, obs: Observation, *_: Any) -> Plan:
        self.seen.append(obs)
        status = obs.index.status.model_copy(update={"reason": str(len(self.seen))})
        return Plan((), (), status, 300.0)

    def run(self) -> Outcome:
        return self.loop.run(NAMESPACE, NAME)


def test_a_pass_that_has_to_ask_ends_and_its_answers_ask_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Looking(monkeypatch)
    assert one.run() == loop.ASKED
    assert not one.run().finished, "nothing was decided"
    assert (one.seen, one.slow.open) == ([], 2), "the soaking revision, and stable's baseline"
    one.slow.asked[0][1].set_result(())
    assert not one.marked, "not all have answered"
    one.slow.answer()
    assert one.marked == [(NAMESPACE, NAME)]
    one.run()
    assert set(one.seen[0].evidence) == {STABLE.name, SOAKING.name}
    assert one.slow.open == 0


def test_one_look_of_an_index_is_under_way_and_events_meanwhile_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Looking(monkeypatch)
    one.run()
    reads = one.cluster.reads
    assert [one.run() for _ in range(20)] == [loop.ASKED] * 20
    assert (one.cluster.reads, len(one.slow.asked)) == (reads, 2)


def test_the_answers_serve_the_live_pass_too_and_then_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Looking(monkeypatch, cached=True)
    one.run()
    one.slow.answer()
    one.run()
    assert len(one.seen) == 2, "on what the cache says, then live, since there was something to write"
    assert one.seen[0].evidence == one.seen[1].evidence
    assert one.seen[0].sums[SOAKING.name] is one.seen[1].sums[SOAKING.name], "what was added up is kept"
    assert len(one.slow.asked) == 2
    one.run()
    assert (one.slow.open, len(one.seen)) == (2, 2), "asked anew"


def test_a_pass_that_goes_on_with_the_answers_reads_the_cache_again_only_if_it_was_told_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, read = Looking(monkeypatch, cached=True), list[float]()
    observe = loop.observe
    monkeypatch.setattr(loop, "observe", lambda *given: read.append(given[-1]) or observe(*given))
    monkeypatch.setattr(one, "now", NOW)
    cache = one.loop.cache
    assert cache is not None

    one.run()
    one.now += 1.0
    one.slow.answer()
    one.run()
    assert read == [NOW, NOW + 1.0], "when it asked; then live, since there was something to write"
    assert [obs.seen_at for obs in one.seen] == [NOW, NOW + 1.0], "it is as old as it is"

    read.clear()
    one.run()
    pod = next(raw for raw in one.cluster.objects if raw["kind"] == "Pod")
    cache.put({**pod, "metadata": {**pod["metadata"], "resourceVersion": "999999"}})
    one.slow.answer()
    one.run()
    assert len(read) == 3, "a pod changed meanwhile"
    read.clear()
    one.run()
    cache.remove({**pod, "metadata": {**pod["metadata"], "resourceVersion": "9999999"}})
    one.slow.answer()
    one.run()
    assert len(read) == 3, "a pod went meanwhile"


@pytest.mark.parametrize("others", [0, 1])
def test_no_more_than_so_many_passes_keep_what_they_saw_while_they_wait(
    monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """A thousand that asked at once held a quarter of a gigabyte, which was never given back."""
    one, reads = Looking(monkeypatch, cached=True), list[str]()
    observe = loop.observe
    monkeypatch.setattr(loop, "observe", lambda *given: reads.append(given[1]) or observe(*given))
    monkeypatch.setattr(loop, "MOST_WAITING", 1)
    for number in range(others):
        one.loop._waiting["team", f"other-{number}"] = (1, Observation(index(WANTED)))
    one.run()
    one.slow.answer()
    one.run()
    assert len(one.seen) == 2, "decided on the cache and live"
    assert len(reads) == 2 + others, "from where it was, or read once more"
    assert len(one.loop._waiting) == others


def test_a_pass_that_fails_asks_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Looking(monkeypatch)
    one.run()
    one.slow.answer()
    one.cluster.refuse["status", "VectorIndex"] = UnreachableError("PATCH: 500")
    with pytest.raises(UnreachableError):
        one.run()
    one.run()
    assert one.slow.open == 2


def test_an_operator_that_is_refused_waits_longer_and_longer_although_it_asks_its_pods_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Asking them costs no request to the API server, so that it proves nothing of it."""
    one, waits = Looking(monkeypatch), list[float | None]()
    one.cluster.refuse["status", "VectorIndex"] = UnreachableError("PATCH: 429")
    queue = KeyedQueue(one.loop.run, jitter=lambda least, most: most)
    for _ in range(8):
        assert queue._run((NAMESPACE, NAME)) == ("ok", loop.ASKED.again_after)
        one.slow.answer()
        waits.append(queue._run((NAMESPACE, NAME))[1])
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]


def test_answers_to_what_is_no_longer_asked_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The traffic moved while pods were asked."""
    one = Looking(monkeypatch)
    one.run()
    one.slow.answer()
    revision = one.cluster.get("VectorIndexRevision", NAMESPACE, SOAKING.name)
    revision["status"] |= {"phase": "Stable", "promotedAt": to_text(NOW - 5)}
    one.run()
    assert (one.seen, one.slow.open) == ([], 1)
    assert one.slow.asked[-1][0].purpose is Purpose.WATCH
    one.slow.answer()
    one.run()
    assert set(one.seen[0].evidence) == {SOAKING.name}


def test_a_look_without_end_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Looking(monkeypatch)
    one.run()
    assert one.loop.looks.stuck(3600.0) == ""
    assert f"{NAMESPACE}/{NAME} has been under way" in one.loop.looks.stuck(0.0)
    one.slow.answer()
    assert one.loop.looks.stuck(0.0) == ""
