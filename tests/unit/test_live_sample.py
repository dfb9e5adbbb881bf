"""The sample of live queries: drawn by hash, each once, spread over a day, nobody's own; and its form on the wire."""

from __future__ import annotations

import hashlib
import random
import tracemalloc
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from vectorindex_searcher.contract import LIVE_HOURS, LIVE_QUERY_BYTES, Metric, live_room
from vectorindex_searcher.proof.live.sample import LiveQuery, LiveSample
from vectorindex_searcher.proof.live.wire import HEAD_BYTES, MalformedError, decode, encode, record_bytes

HOUR = 480_000
ROOM = 2400  # 100 of an hour, 24 of a sender


def query(number: int, sender: int = 0, hour: int = HOUR, segment: str = "other") -> LiveQuery:
    name = hashlib.blake2b(f"{segment}/{number}".encode(), digest_size=16).digest()
    vector = np.array([number, 1, -1], "<f4").tobytes()
    return LiveQuery(name, sender.to_bytes(8, "little"), hour, 1 + number % 20, segment, vector)


def test_an_hour_keeps_its_smallest_names_each_once_whatever_the_order() -> None:
    asked = [query(number, sender=number) for number in range(3000)]
    samples = []
    for seed in range(3):
        sample, rng = LiveSample(ROOM), random.Random(seed)
        for one in rng.choices(asked, k=2000) + rng.sample(asked, len(asked)):
            sample.add(one)
        samples.append([one.name for one in sample])
    smallest = sorted(one.name for one in asked)[:100]
    assert samples == [smallest] * 3


def test_the_samples_of_two_pods_are_the_sample_of_one() -> None:
    rng = random.Random(3)
    asked = [query(number, sender=number % 400, hour=HOUR - rng.randrange(5)) for number in range(4000)]
    pods, whole, pooled = [LiveSample(ROOM), LiveSample(ROOM)], LiveSample(ROOM), LiveSample(ROOM)
    for one in asked:
        whole.add(one)
        rng.choice(pods).add(one)
    for pod in pods:
        for one in pod:
            pooled.add(one)
    assert list(pooled) == list(whole)


def test_whoever_floods_it_with_one_query_or_many_has_one_in_a_hundred_places() -> None:
    sample = LiveSample(ROOM)
    for number in range(5000):
        sample.add(query(number % 3, sender=1))
        sample.add(query(10_000 + number, sender=2))
    for number in range(60):
        sample.add(query(100_000 + number, sender=100 + number))
    assert sample.senders() == [ROOM // 100, 3, *[1] * 60]
    mine = [one.name for one in sample if one.sender == (2).to_bytes(8, "little")]
    assert mine == sorted(query(10_000 + number).name for number in range(5000))[: ROOM // 100]


def test_a_sender_is_spread_over_the_hours_in_which_it_asked() -> None:
    sample = LiveSample(ROOM)
    for hour in range(HOUR, HOUR + LIVE_HOURS):
        for number in range(300):
            sample.add(query(1000 * hour + number, sender=1, hour=hour))
    assert Counter(one.hour for one in sample) == dict.fromkeys(range(HOUR, HOUR + LIVE_HOURS), 1)


def test_a_day_later_nothing_is_left_of_it_and_its_sender_starts_anew() -> None:
    sample = LiveSample(ROOM)
    for number in range(500):
        sample.add(query(number, sender=1))
    sample.forget_before(HOUR)
    assert len(sample) == ROOM // 100
    sample.forget_before(HOUR + 1)
    assert (len(sample), sample.senders(), list(sample)) == (0, [], [])
    sample.add(query(7, sender=1, hour=HOUR + 1))
    assert [one.hour for one in sample] == [HOUR + 1]


def test_what_must_hold_holds_after_any_traffic() -> None:
    rng = random.Random(11)
    sample, room = LiveSample(480), 480
    for step in range(20_000):
        hour = HOUR + step // 800
        if step % 800 == 0:
            sample.forget_before(hour - LIVE_HOURS + 1)
        sender = rng.choice((1, 1, 1, 2, rng.randrange(100)))
        one = query(rng.randrange(3000), sender, hour)
        if not sample.full_for(one.sender, hour, one.name):
            sample.add(one)
    kept = list(sample)
    assert len({one.name for one in kept}) == len(kept) == len(sample) <= room
    assert max(Counter(one.sender for one in kept).values()) <= room // 100
    assert max(Counter(one.hour for one in kept).values()) <= room // LIVE_HOURS
    assert min(one.hour for one in kept) > HOUR
    assert sum(sample.senders()) == len(kept)
    assert all(one.name in sample for one in kept)


@pytest.mark.parametrize("dimension", [1, 64, 384, 3072, 65_536])
def test_a_sample_fits_into_its_memory_and_has_a_place_for_every_hour(dimension: int) -> None:
    room = live_room(dimension)
    assert room * (1024 + 4 * dimension) <= 32 << 20
    assert room >= LIVE_HOURS


# ---------------------------------------------------------------- on the wire


def test_what_was_written_is_read() -> None:
    queries = [query(number, number % 5, HOUR - number % 24, ("keyword", "other")[number % 2]) for number in range(50)]
    data = encode(queries, 3, ("keyword", "other"))
    assert decode(data, 3, Metric.COSINE, 50) == queries
    assert len(data) == len(b'{"dimension":3,"segments":["keyword","other"]}\n') + 50 * record_bytes(3)
    assert decode(encode([], 3, ("other",)), 3, Metric.COSINE, 0) == []


def forged(**changes: object) -> bytes:
    return encode([replace(query(1), **changes)], 3, ("other",))  # type: ignore[arg-type]


def numbers(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no head"),
        (b"x" * (HEAD_BYTES + 10), "no head"),
        (b"{}\n", "2 faults"),
        (b"[" * 30_000 + b"\n", "faults"),
        (b'{"dimension": 3, "segments": [], "asked": 1}\n', "1 faults"),
        (b'{"dimension": 3, "segments": ["other"]}\nabc', "whole number"),
        (encode([], 4, ("other",)), "4 dimensions, the index has 3"),
        (encode([query(n) for n in range(9)], 3, ("other",)), "9 queries, 8 at most"),
        (encode([query(1)], 3, ("other",)).replace(b'["other"]', b"[]"), "of no segment"),
        (forged(k=0), "no answer"),
        (forged(k=1001), "more than 1000"),
        (forged(vector=numbers(1, float("nan"), 0)), "not finite"),
        (forged(vector=numbers(1, float("inf"), 0)), "not finite"),
        (forged(vector=numbers(0, 0, 0)), "zero vector"),
        (encode([query(1)], 3, ("other",))[:-1], "whole number"),
    ],
)  # fmt: skip
def test_what_is_no_sample_is_refused_without_telling_what_it_holds(data: bytes, said: str) -> None:
    with pytest.raises(MalformedError, match=said) as caught:
        decode(data, 3, Metric.COSINE, 8)
    assert len(str(caught.value)) < 200


def test_a_zero_vector_is_a_query_where_there_is_no_angle() -> None:
    assert len(decode(forged(vector=numbers(0, 0, 0)), 3, Metric.L2, 8)) == 1


def test_a_full_sample_takes_no_more_memory_than_a_pod_has_for_it() -> None:
    """The most that can be: every query of another sender."""
    room, dimension = live_room(64), 64
    vectors = np.random.default_rng(0).standard_normal((room * 2, dimension)).astype("<f4")
    sample = LiveSample(room)
    tracemalloc.start()
    try:
        for number, vector in enumerate(vectors):
            one = query(number, sender=number, hour=HOUR + number % LIVE_HOURS)
            sample.add(replace(one, vector=vector.tobytes()))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(sample) > 0.95 * room
    assert held < room * (LIVE_QUERY_BYTES + 4 * dimension)
