"""Live recall over several processes: their samples are one, and one judge judges it."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace

import numpy as np

from vectorindex_searcher.index.selection.rowset import RowSet
from vectorindex_searcher.serve.evidence.live_sample import CAPACITY, LiveSample, Sampled
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
    alone, together = LiveSample(SEGMENTS), Rounds(4, 10, SEGMENTS)
    workers = [LiveSample(SEGMENTS) for _ in range(4)]
    for number in range(6 * CAPACITY):
        item = drawn(rng, number)
        # As uneven as it may be: most goes to the first.
        for sample in (alone, workers[min(3, int(rng.expovariate(1.0)))]):
            sample.put(item)
    for number, worker in enumerate(workers):
        together.add(number, 16, worker.take()[0])
    wanted = alone.take()[0]
    assert len(wanted) > CAPACITY // 2
    assert names(together.take()[0]) == names(wanted)
    assert together.take() == ([], 16)


def test_the_judge_holds_no_more_however_many_processes_there_are() -> None:
    """Each has a whole sample, since nobody knows which of them is asked most."""
    rng, states, dimension = random.Random(6), LiveStates(None), 2000
    sample = [replace(drawn(rng, number), vector=np.zeros(dimension, np.float32)) for number in range(CAPACITY)]
    data = b"".join(packed(sample, states))
    rounds = Rounds(8, 10, ())
    tracemalloc.start()
    try:
        for worker in range(8):
            found = unpacked(bytes(bytearray(data)), dimension, states)  # a message of its own
            rounds.add(worker, 16, [replace(one, segment="other", draw=rng.random()) for one in found])
            del found
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1.2 * len(data)
    assert most < 3.4 * len(data)
    assert len(rounds.take()[0]) == CAPACITY


def test_a_sample_is_the_same_in_the_other_process() -> None:
    rng, live = random.Random(4), RowSet.of_rows(np.array([1, 5]), 9)
    mine, others = LiveStates(live), LiveStates(live)
    sample = [drawn(rng, number, live) for number in range(20)]
    found = unpacked(b"".join(packed(sample, mine)), 2, others)
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
    data = b"".join(packed(sample, worker))
    for number in range(1, 4):
        judge.learn(number, new if number == 1 else None)
    assert [float(one.vector[0]) for one in unpacked(data, 2, judge)] == [2.0]
    worker.learn(2, None)
    worker.learn(3, None)
    assert [float(one.vector[0]) for one in unpacked(b"".join(packed(sample, worker)), 2, judge)] == [2.0]


def test_a_process_that_says_nothing_keeps_its_buckets_open() -> None:
    rounds = Rounds(2, 10, SEGMENTS)
    rounds.add(0, 16, [])
    assert not rounds.whole
    assert rounds.take() == ([], 10)
    rounds.add(0, 22, [])
    rounds.add(1, 22, [])
    assert rounds.whole
    assert rounds.take() == ([], 22)
