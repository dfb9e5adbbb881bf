"""What several processes count and hand on is the evidence of one that had answered all, whenever they say it."""

from __future__ import annotations

import math
import random
from dataclasses import fields

import orjson
import pytest
from clocks import Clock

from vectorindex_searcher.contract import BUCKET_SECONDS, RING_SECONDS
from vectorindex_searcher.serve.evidence.increments import SEGMENTS_AT_ONCE, Increment, IncrementRecorder
from vectorindex_searcher.serve.evidence.recorder import Outcome, Recorder
from vectorindex_searcher.serve.evidence.ring import EvidenceRing
from vectorindex_searcher.serve.workers.channel import MESSAGE_BYTES

SEGMENTS = ("keyword", "question")


def sent(increment: Increment) -> Increment:
    """As the other process reads it."""
    return Increment.of(orjson.loads(orjson.dumps(increment.wire())))


def answer(rng: random.Random, now: float) -> tuple[Outcome, int, float]:
    count = rng.choice((1, 1, 4))
    hits = [rng.choice((0, 3, 10, 2000)) for _ in range(count)]
    tracked = (int(now) // BUCKET_SECONDS, 10) if rng.random() < 0.3 else None
    tops = [rng.uniform(-1, 1) for _ in hits]
    outcome = Outcome(rng.choice((*SEGMENTS, "undeclared")), count, rng.choice((0.01, math.inf)), hits, tops, tracked)
    status = rng.choice((200, 200, 200, 400, 422, 500, 503, 504))
    outcome.compared, outcome.filtered = rng.random() < 0.5, status != 400 and rng.random() < 0.3
    outcome.lost = status == 400 and rng.random() < 0.3
    return outcome, status, rng.lognormvariate(-7, 1.5)


def told(ring: EvidenceRing) -> list[dict[str, object]]:
    """All that is told: a line for each bucket and for each segment's totals."""
    totals = [{field.name: getattr(total, field.name) for field in fields(total)} for total in ring.totals()]
    return [*ring.buckets(0), *(line | {"latency": dict(enumerate(line["latency"].tolist()))} for line in totals)]


def same(found: EvidenceRing, wanted: EvidenceRing) -> None:
    assert found.codes == wanted.codes
    for one, other in zip(told(found), told(wanted), strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert value == pytest.approx(other[name]), name


@pytest.mark.parametrize("seed", range(5))
def test_counts_of_several_processes_are_those_of_one(seed: int) -> None:
    clock, rng = Clock(), random.Random(seed)
    alone, together = EvidenceRing(SEGMENTS, clock), EvidenceRing(SEGMENTS, clock)
    workers = [IncrementRecorder(SEGMENTS, clock) for _ in range(3)]
    on_the_way: list[Increment] = []
    for _ in range(3000):
        clock.now += rng.expovariate(0.7)
        outcome, status, seconds = answer(rng, clock.now)
        for recorder in (alone, rng.choice(workers)):
            recorder.record(outcome, status, seconds)
        if rng.random() < 0.2:
            on_the_way += map(sent, rng.choice(workers).take())
        if rng.random() < 0.1:
            rng.shuffle(on_the_way)
            while on_the_way and rng.random() < 0.8:
                together.add(on_the_way.pop())
    for worker in workers:
        on_the_way += map(sent, worker.take())
    for increment in on_the_way:
        together.add(increment)
    same(together, alone)


def test_what_is_said_an_hour_late_is_no_evidence_and_still_counted() -> None:
    clock = Clock()
    ring, worker = EvidenceRing(SEGMENTS, clock), IncrementRecorder(SEGMENTS, clock)
    worker.record(Outcome("keyword", 2, hits=(3, 0)), 200, 0.001)
    clock.now += RING_SECONDS + BUCKET_SECONDS
    for increment in worker.take():
        ring.add(sent(increment))
    assert list(ring.buckets(0)) == []
    assert [total.queries for total in ring.totals()] == [2, 0, 0]


def test_nothing_is_said_twice_and_nothing_of_a_quiet_process() -> None:
    clock = Clock()
    worker = IncrementRecorder(SEGMENTS, clock)
    assert worker.take() == []
    worker.record(Outcome("keyword", hits=(1,)), 200, 0.001)
    assert [row.counts[0] for one in worker.take() for row in one.rows] == [1]
    clock.now += BUCKET_SECONDS
    assert worker.take() == []


def test_a_change_of_a_passed_bucket_is_told_to_who_read_it_before() -> None:
    clock = Clock()
    ring, worker = EvidenceRing(SEGMENTS, clock), IncrementRecorder(SEGMENTS, clock)
    worker.record(Outcome("keyword", hits=(1,)), 200, 0.001)
    clock.now += BUCKET_SECONDS
    before, _ = ring.changes(0, 0)
    for increment in worker.take():
        ring.add(sent(increment))
    after, changed = ring.changes(before, 0)
    assert after > before
    assert len(changed) == 1


def test_an_increment_fits_into_a_message_whatever_was_counted() -> None:
    clock = Clock()
    names = tuple(f"segment-{number}-{'x' * 240}" for number in range(32))
    worker = IncrementRecorder(names, clock)
    for name in names:
        for step in range(400):
            tracked = (10**9 + step, 1 + step)
            worker.record(Outcome(name, 10**9, hits=(1,), top_scores=(0.1,), tracked=tracked), 200, 1.05**step / 1e6)
            worker.record(Outcome(name), 400 + step % 100, 0.001)
    taken = worker.take()
    assert len(taken) > 32 // SEGMENTS_AT_ONCE
    assert max(len(orjson.dumps(one.wire())) for one in taken) < MESSAGE_BYTES - 1024


def test_both_kinds_count_by_the_same_rules() -> None:
    """So that no rule has to be kept the same in two places."""
    assert IncrementRecorder.record is EvidenceRing.record is Recorder.record
