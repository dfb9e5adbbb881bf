"""What bench/fan_out.py simulates, and what bench/shard_tail.py says of it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import shard_tail
from fan_out import SHARE, FanOut, Moment, Of, Pod, Rule, Trouble

NONE, OWN, CHOSEN = shard_tail.NONE, shard_tail.OWN, shard_tail.CHOSEN
EVEN = np.random.default_rng(0).uniform(0.8, 1.2, 500)
PLAIN = Trouble("none")


def test_without_a_queue_a_query_takes_as_long_as_its_slowest_shard() -> None:
    found = FanOut(4, NONE, PLAIN, np.array([1.0, 3.0]), 1e-6).run(1000)
    assert (len(found.latencies), found.again) == (900, 0.0)
    assert set(found.latencies.round(6).tolist()) == {1.0, 3.0}
    assert (found.latencies > 2).mean() == pytest.approx(1 - 0.5**4, abs=0.06)


def test_pods_are_as_busy_as_they_are_said_to_be() -> None:
    fan_out = FanOut(3, NONE, Trouble("skewed", skew=0.9), EVEN, 0.4)
    fan_out.run(4000)
    last = fan_out._pods[0][0].free_at
    work = 4000 * EVEN.mean() * np.exp(0.9**2 / 2) / 2
    assert work / last == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("rule", [OWN, CHOSEN])
def test_asking_again_shortens_the_tail_of_stalls_within_its_budget(rule: Rule) -> None:
    stalls = Trouble("stalls", stalled=0.01)
    plain, hedged = (FanOut(4, one, stalls, EVEN, 0.1).run(2000) for one in (NONE, rule))
    assert 0 < hedged.again <= SHARE
    assert hedged.quantile(0.98) < 0.6 * plain.quantile(0.98)


@pytest.mark.parametrize("common", [False, True])
def test_no_rule_spends_more_than_there_is(common: bool) -> None:
    found = FanOut(4, Rule("median", 0.5, common_budget=common), PLAIN, EVEN, 0.1).run(1500)
    assert 0.045 < found.again < SHARE + 0.01


def test_where_nothing_is_wrong_the_chosen_rule_asks_hardly_anybody_again() -> None:
    assert FanOut(16, OWN, PLAIN, EVEN, 0.3).run(1000).again > 0.03
    assert FanOut(16, CHOSEN, PLAIN, EVEN, 0.3).run(1000).again < 0.005


def test_a_slow_pod_is_asked_again_for_and_a_slow_shard_is_not() -> None:
    pod, shard = Trouble("pod", slow=((0, 0, 5.0),)), Trouble("shard", slow=((0, 0, 1.8), (0, 1, 1.8)))
    common, own = (FanOut(16, rule, pod, EVEN, 0.3).run(1500).worst for rule in (shard_tail.COMMON, CHOSEN))
    assert own <= SHARE + 0.01 < 0.1 < common
    assert FanOut(16, CHOSEN, shard, EVEN, 0.3).run(1500).worst < 0.03
    others = Rule("all", of=Of.ALL, common_budget=True)
    assert FanOut(16, others, shard, EVEN, 0.3).run(1500).worst > 0.3, "which is why nobody should take it"


def test_a_pod_that_is_known_to_be_slow_is_not_asked() -> None:
    pod = Trouble("pod", slow=((0, 0, 5.0),))
    fewest, soonest = (FanOut(8, one, pod, EVEN, 0.3).run(1500) for one in (NONE, shard_tail.SOONEST))
    assert soonest.quantile(0.99) < 0.6 * fewest.quantile(0.99)


def test_a_pause_puts_off_what_comes_in_it_and_what_it_cuts() -> None:
    pod = Pod(2.0, iter([(10.0, 15.0), (30.0, 31.0), (float("inf"),) * 2]))
    pod.paused = next(pod.pauses)
    assert pod.end_of(0.0, 1.0) == 2.0
    assert pod.end_of(9.0, 1.0) == 16.0, "cut by the first"
    assert pod.end_of(29.5, 2.0) == 34.5, "cut by the second"
    late = Pod(1.0, iter([(10.0, 15.0), (float("inf"),) * 2]))
    late.paused = next(late.pauses)
    assert late.end_of(12.0, 1.0) == 16.0, "came in it"


def test_a_moment_is_a_quantile_and_at_least_some_medians() -> None:
    known = [Moment(0.95, least) for least in (0.0, 3.0)]
    for moment in known:
        for latency in range(1, 65):
            assert moment.after is None
            moment.tell(float(latency))
    assert [moment.after for moment in known] == [60.0, 96.0]


def test_service_times_that_are_kept_make_the_page_again() -> None:
    times = shard_tail.in_medians({"microseconds": [100] * 999 + [200] * 999 + [90_000]})
    assert (float(np.median(times)), times.max() < 100) == (1.0, True)
    kept = {"microseconds": [100, 200], "data": "some data", "what": "CPU", "machine": "a machine", "taken": "then"}
    lines = [
        shard_tail.Line(trouble, shard_tail.BUSY[0], 2, rule, FanOut(2, rule, trouble, times, 0.3).run(100))
        for trouble in (shard_tail.SMOOTH, shard_tail.STALLS)
        for rule in shard_tail.RULES
    ]
    text = shard_tail.page(lines, kept)
    assert "some data" in text
    assert text.count("\n| 2 |") == 2
    assert "**Simulated**" in text
    assert set(shard_tail.headlines(lines)) == {
        *(f"shards.tail_p99_2{end}" for end in ("", "_hedged", "_stalls", "_stalls_hedged")),
        "shards.tail_hedged_share_2",
    }
