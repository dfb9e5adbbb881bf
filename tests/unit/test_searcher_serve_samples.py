"""Live recall over several processes: their samples are one, and one judge judges it."""

from __future__ import annotations

import random

import numpy as np

from vectorindex_searcher.index.selection.rowset import RowSet
from vectorindex_searcher.serve.evidence.live_sample import LiveSample, Sampled
from vectorindex_searcher.serve.workers.samples import LiveStates, Rounds, packed, unpacked

SEGMENTS = ("keyword", "question")


def drawn(rng: random.Random, number: int, live: RowSet | None = None) -> Sampled:
    vector = np.array([number, rng.random()], np.float32)
    rows = np.arange(rng.randint(0, 5), dtype=np.int64)
    return Sampled(7, rng.choice((*SEGMENTS, "other")), vector, rows, rng.random(), overall=True, live=live)


def names(sample: list[Sampled]) -> set[tuple[float, bool]]:
    return {(float(one.vector[0]), one.overall) for one in sample}


def test_samples_of_several_processes_make_the_one_that_one_would_have() -> None:
    rng = random.Random(3)
    alone, together = LiveSample(SEGMENTS, 60), LiveSample(SEGMENTS, 60)
    workers = [LiveSample(SEGMENTS, 60) for _ in range(4)]
    for number in range(3000):
        item = drawn(rng, number)
        # As uneven as it may be: most goes to the first.
        for sample in (alone, workers[min(3, int(rng.expovariate(1.0)))]):
            sample.put(item)
    for worker in workers:
        for item in worker.take()[0]:
            together.put(item)
    wanted = alone.take()[0]
    assert len(wanted) > 60 // 2
    assert names(together.take()[0]) == names(wanted)


def test_a_sample_is_the_same_in_the_other_process() -> None:
    rng, live = random.Random(4), RowSet.of_rows(np.array([1, 5]), 9)
    mine, others = LiveStates(live), LiveStates(live)
    sample = [drawn(rng, number, live) for number in range(20)]
    found = unpacked(packed(sample, mine), 2, others)
    for one, other in zip(found, sample, strict=True):
        assert (one.bucket, one.segment, one.draw, one.overall) == (
            other.bucket,
            other.segment,
            other.draw,
            other.overall,
        )
        assert one.live is live
        np.testing.assert_array_equal(one.vector, other.vector)
        np.testing.assert_array_equal(one.rows, other.rows)


def test_answers_of_a_state_that_is_forgotten_are_not_judged() -> None:
    rng, old, new = random.Random(5), RowSet.of_rows(np.array([1]), 9), RowSet.of_rows(np.array([2]), 9)
    worker, judge = LiveStates(old), LiveStates(old)
    sample = [drawn(rng, 1, old), drawn(rng, 2, new)]
    worker.learn(1, new)
    data = packed(sample, worker)
    for number in range(1, 4):
        judge.learn(number, new if number == 1 else None)
    assert [float(one.vector[0]) for one in unpacked(data, 2, judge)] == [2.0]
    worker.learn(2, None)
    worker.learn(3, None)
    assert [float(one.vector[0]) for one in unpacked(packed(sample, worker), 2, judge)] == [2.0]


def test_a_process_that_says_nothing_keeps_its_buckets_open() -> None:
    rounds = Rounds(2, began=10)
    rounds.add(0, 16, [])
    assert not rounds.whole
    assert rounds.take() == ([], 10)
    rounds.add(0, 22, [])
    rounds.add(1, 22, [])
    assert rounds.whole
    assert rounds.take() == ([], 22)
