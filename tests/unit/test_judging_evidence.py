"""Adding up pods, clock skew, windows, histogram and baseline."""

from __future__ import annotations

import json
import math
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectorindex_operator.core.judging import baseline as base
from vectorindex_operator.core.judging import evidence as ev
from vectorindex_operator.core.judging import histogram
from vectorindex_searcher.contract import Evidence, EvidenceBucket

B0 = 340_000_000
T0 = float(B0 * 5)


def bucket(number: int, segment: str = "a", queries: int = 10, **counts: object) -> EvidenceBucket:
    return EvidenceBucket(bucket=number, segment=segment, queries=queries, **counts)  # type: ignore[arg-type]


def pod(
    name: str, buckets: list[EvidenceBucket], *, now: float, skew: float = 0.0, revision: str = "r1"
) -> ev.PodEvidence:
    """`skew`: the pod's clock minus the operator's; bucket numbers are the pod's."""
    return ev.PodEvidence(name, Evidence(pod=name, revision=revision, now=now + skew, buckets=tuple(buckets)), now)


counts = st.integers(0, 50)
buckets = st.builds(
    EvidenceBucket,
    bucket=st.integers(B0, B0 + 8),
    segment=st.sampled_from(["a", "b", "other"]),
    requests=counts,
    failed_requests=counts,
    queries=counts,
    errors=counts,
    zero_results=counts,
    top_count=counts,
    top_sum=st.floats(-50, 50),
    top_sum_squares=st.floats(0, 50),
    live_queries=counts,
    live_recall_sum=st.floats(0, 50),
    live_overall_queries=counts,
    live_overall_recall_sum=st.floats(0, 50),
    tracked=counts,
    click_depth_top=counts,
    latency=st.dictionaries(st.integers(0, 300), counts, max_size=3),
)


@given(st.lists(st.tuples(st.lists(buckets, max_size=6), st.floats(-9, 9)), max_size=4), st.randoms())
def test_order_of_pods_and_buckets_does_not_matter(
    pods: list[tuple[list[EvidenceBucket], float]], rng: random.Random
) -> None:
    now = T0 + 47
    given_pods = [pod(f"p{i}", items, now=now, skew=skew) for i, (items, skew) in enumerate(pods)]
    shuffled = [pod(f"p{i}", rng.sample(items, len(items)), now=now, skew=skew) for i, (items, skew) in enumerate(pods)]
    rng.shuffle(shuffled)
    assert ev.merge(given_pods, now) == ev.merge(shuffled, now)


@given(st.lists(buckets, max_size=12), st.integers(0, 12))
def test_splitting_a_pod_in_two_changes_nothing(items: list[EvidenceBucket], cut: int) -> None:
    now = T0 + 47
    whole = ev.merge([pod("p", items, now=now)], now)
    parts = ev.merge([pod("p", items[:cut], now=now), pod("q", items[cut:], now=now)], now)
    assert whole.segments == parts.segments
    assert whole.complete_before == parts.complete_before


def test_overall_is_the_sum_of_the_segments() -> None:
    merged = ev.merge(
        [pod("p", [bucket(B0, "a", 7, errors=1), bucket(B0, "other", 5, latency={3: 5})], now=T0 + 9)], T0 + 9
    )
    assert merged.segments[""][B0] == ev.Counts(queries=12, errors=1, latency={3: 5})
    assert merged.mix(B0, B0 + 1) == {"a": 7, "other": 5}


@pytest.mark.parametrize(
    ("skew", "lands"), [(0.0, 4), (2.4, 4), (-2.4, 4), (2.6, 3), (-2.6, 5), (3600.0, 4 - 720), (-7.0, 5)]
)
def test_clock_skew_above_half_a_bucket_is_taken_out(skew: float, lands: int) -> None:
    now = T0 + 31
    merged = ev.merge([pod("p", [bucket(B0 + 4)], now=now, skew=skew)], now)
    assert list(merged.segments["a"]) == [B0 + lands]


@given(st.floats(-4000, 4000), st.floats(0, 5, exclude_max=True))
def test_two_pods_that_saw_the_same_moment_are_at_most_one_bucket_apart(skew: float, phase: float) -> None:
    """The same query, counted on two clocks; and no bucket that a pod still fills counts as complete."""
    now = T0 + 100
    moment = now - 20 + phase
    own = math.floor((moment + skew) / 5)
    merged = ev.merge([pod("right", [], now=now), pod("skewed", [bucket(own)], now=now, skew=skew)], now)
    (landed,) = merged.segments["a"]
    assert abs(landed - math.floor(moment / 5)) <= 1
    assert landed < merged.complete_before
    filling = math.floor((now + skew) / 5)
    merged = ev.merge([pod("right", [], now=now), pod("skewed", [bucket(filling)], now=now, skew=skew)], now)
    (landed,) = merged.segments["a"]
    assert landed >= merged.complete_before


def test_silent_foreign_and_impossible_pods_count_as_silent() -> None:
    now = T0 + 9
    pods = [
        ev.PodEvidence("gone", None, now),
        pod("other", [bucket(B0)], now=now, revision="r2"),
        pod("broken", [bucket(B0, errors=-1)], now=now),
        pod("clockless", [bucket(B0)], now=math.nan),
        pod("fine", [bucket(B0)], now=now),
    ]
    merged = ev.merge(pods, now, revision="r1")
    assert merged.silent == ("broken", "clockless", "gone", "other")
    assert merged.pods == 5
    assert merged.segments[""][B0].queries == 10


def test_nothing_at_all() -> None:
    merged = ev.merge([], T0 + 9)
    assert (merged.pods, merged.silent, merged.complete_before) == (0, (), B0 + 1)
    assert merged.total("", B0) == ev.Counts()
    assert ev.samples_since(merged, T0) == 0
    assert not list(ev.closed_windows(merged, "", first=B0, span=2, enough=1, size=lambda c: c.queries))


def test_scores_that_are_no_numbers_spoil_only_scores() -> None:
    pods = [
        pod("p", [bucket(B0, top_sum=math.inf, top_count=1), bucket(B0, top_sum=-math.inf, top_count=1)], now=T0 + 9)
    ]
    cell = ev.merge(pods, T0 + 9).segments[""][B0]
    assert math.isnan(cell.top_sum)
    assert cell.queries == 20


def test_samples_since_counts_complete_buckets_of_the_last_hour() -> None:
    merged = ev.merge([pod("p", [bucket(B0 + i, queries=1) for i in range(-900, 11)], now=T0 + 52)], T0 + 52)
    assert ev.samples_since(merged, T0) == 10  # the eleventh is still being filled
    assert ev.samples_since(merged, T0 + 0.1) == 9  # a bucket that began earlier is not wholly since then
    assert ev.samples_since(merged, 0) == ev.VISIBLE


# ---------------------------------------------------------------- windows


def _steady(seconds: int, queries: int, started: int = B0) -> ev.RevisionEvidence:
    cells = {started + i: ev.Counts(queries=queries) for i in range(seconds // 5)}
    return ev.RevisionEvidence({"": cells, "a": cells}, started + seconds // 5, 1, (), (started * 5.0) + seconds)


def _cut(merged: ev.RevisionEvidence, *, span: int, enough: int, first: int = B0) -> list[tuple[int, int, int]]:
    windows = ev.closed_windows(merged, "", first=first, span=span, enough=enough, size=lambda c: c.queries)
    return [(w.first - first, w.stop - first, w.cell.queries) for w in windows]


def test_a_window_closes_when_both_time_and_samples_are_reached() -> None:
    assert _cut(_steady(55, 10), span=4, enough=1) == [(0, 4, 40), (4, 8, 40)]
    assert _cut(_steady(55, 10), span=2, enough=45) == [(0, 5, 50), (5, 10, 50)]
    assert _cut(_steady(55, 0), span=2, enough=1) == []


@pytest.mark.parametrize("span", [1, 7, 12, 100, 179, 300])
def test_with_enough_traffic_windows_leave_no_gap(span: int) -> None:
    """Neither within an epoch nor between two, so that `consecutive` windows are neighbours."""
    windows = _cut(_steady(3500, 10), span=span, enough=1)
    assert all(end - first == span for first, end, _ in windows)
    assert all(one[1] == other[0] for one, other in pairwise(windows))
    assert windows[-1][1] > 700 - 2 * span


@given(st.data())
@settings(max_examples=200)
def test_windows_are_disjoint_bounded_and_never_change(data: st.DataObject) -> None:
    """Over hours, with gaps: each window once, no two overlap, at most one per span, and later looks agree."""
    span = data.draw(st.integers(1, 120))
    enough = data.draw(st.integers(1, 3000))
    length = data.draw(st.integers(1, 2500))
    rng = random.Random(data.draw(st.integers(0, 1000)))
    busy = rng.choice([1, 5, 40])
    cells = {B0 + i: ev.Counts(queries=rng.randrange(busy * 2)) for i in range(length) if rng.random() < 0.8}
    seen: dict[int, tuple[int, int]] = {}
    for stop in range(0, length, 50):
        ring = {b: c for b, c in cells.items() if B0 + stop - 719 <= b <= B0 + stop}
        merged = ev.RevisionEvidence({"": ring}, B0 + stop, 1, (), T0 + stop * 5)
        now = _cut(merged, span=span, enough=enough)
        for first, end, queries in now:
            assert end <= stop
            assert end - first >= span
            assert queries >= enough
            assert seen.setdefault(first, (end, queries)) == (end, queries)
        for one, other in pairwise(now):
            assert one[1] <= other[0]
    assert len(seen) * span <= length


# ---------------------------------------------------------------- histogram


@given(st.lists(st.floats(2e-6, 10), min_size=1, max_size=300), st.sampled_from([0.05, 0.01]))
def test_histogram_against_the_durations_themselves(durations: list[float], share: float) -> None:
    latency: dict[int, int] = {}
    for seconds in durations:
        index = max(0, math.floor(math.log(seconds * 1e6) / math.log(1.05)))
        latency[index] = latency.get(index, 0) + 1
    ordered = sorted(durations, reverse=True)
    for rank in (1, len(ordered) // 2 + 1, len(ordered)):
        index = histogram.slowest(latency, rank)
        floor, ceiling = histogram.bin_floor(index), histogram.bin_floor(index + 1)
        assert floor * (1 - 1e-9) <= ordered[rank - 1] <= ceiling * (1 + 1e-9)
    value = histogram.quantile(latency, share)
    exact = float(np.quantile(durations, 1 - share, method="inverted_cdf"))
    assert value / 1.0501 <= exact <= value * 1.0501
    with pytest.raises(ValueError, match="beyond"):
        histogram.slowest(latency, len(durations) + 1)


def test_a_quantile_is_interpolated_within_its_bin() -> None:
    latency = {100: 300, 200: 100}
    for share, place in ((0.0, 201.0), (0.05, 200.8), (0.2, 200.2), (0.25, 101.0), (0.5, 100 + 2 / 3)):
        assert histogram.quantile(latency, share) == pytest.approx(1.05**place / 1e6)


def test_an_empty_histogram_has_no_quantile() -> None:
    assert histogram.quantile({}, 0.05) == 0.0


# ---------------------------------------------------------------- baseline


def _busy(seconds: int = 900) -> ev.RevisionEvidence:
    rng = np.random.default_rng(3)
    segments = ["keyword", "question", "title", "long", "short", "code", "image", "other"]
    items = []
    for i in range(seconds // 5):
        for name in segments:
            bins = np.floor(np.log(rng.lognormal(math.log(9000), 0.5, 40)) / math.log(1.05)).astype(int)
            latency = {int(b): int(n) for b, n in zip(*np.unique(bins, return_counts=True), strict=True)}
            items.append(
                bucket(
                    B0 + i,
                    name,
                    40,
                    errors=1,
                    zero_results=2,
                    top_count=39,
                    top_sum=20.1,
                    top_sum_squares=11.7,
                    latency=latency,
                )
            )
    now = T0 + seconds
    return ev.merge([pod("p", items, now=now)], now)


def test_a_baseline_survives_a_status_and_fits_into_it() -> None:
    merged = _busy()
    frozen = base.freeze_baseline(merged, T0, T0 + 900)
    text = json.dumps(frozen.to_wire(), allow_nan=False)
    assert base.Baseline.from_wire(json.loads(text)) == frozen
    assert len(text) < 6000, len(text)  # eight segments and all together
    assert (frozen.from_time, frozen.to_time) == (T0, T0 + 900)
    whole = merged.total("", B0)
    for share in (0.149, 0.05, 0.01):
        assert histogram.quantile(frozen.cells[""].latency, share) == histogram.quantile(whole.latency, share)
    assert frozen.cells[""].queries == whole.queries == sum(frozen.mix.values())


def test_a_baseline_holds_whole_buckets_of_its_time_only() -> None:
    merged = _steady(100, 7)
    frozen = base.freeze_baseline(merged, T0 + 1, T0 + 24)
    assert (frozen.from_time, frozen.to_time) == (T0 + 5, T0 + 20)
    assert frozen.cells[""].queries == 21
    assert base.freeze_baseline(merged, T0 + 500, T0 + 600).cells == {}


def test_a_baseline_leaves_out_scores_that_are_no_numbers() -> None:
    merged = ev.merge([pod("p", [bucket(B0, top_count=5, top_sum=math.nan)], now=T0 + 5)], T0 + 5)
    frozen = base.freeze_baseline(merged, T0, T0 + 5)
    assert frozen.cells[""].top_count == 0
    json.dumps(frozen.to_wire(), allow_nan=False)


@pytest.mark.parametrize("wire", [
    {}, {"from": 1, "to": 2}, {"from": 1, "to": 2, "segments": 3}, {"from": "x", "to": 2, "segments": []},
    {"from": 1, "to": 2, "segments": [{"segment": "a"}]},
    {"from": 1, "to": 2, "segments": [{"segment": "a", "latencyCounts": {}}]},
])  # fmt: skip
def test_what_is_no_baseline_is_refused(wire: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a baseline"):
        base.Baseline.from_wire(wire)


def test_all_segments_together_take_only_the_uniform_part_of_the_live_sample() -> None:
    """A rare segment's own sample is large against its traffic: added up, its bad recall would be that of everybody."""
    items = [
        bucket(
            B0, "a", 990, live_queries=99, live_recall_sum=99.0, live_overall_queries=99, live_overall_recall_sum=99
        ),
        bucket(B0, "b", 10, live_queries=10, live_recall_sum=0.0, live_overall_queries=1, live_overall_recall_sum=0),
    ]
    merged = ev.merge([pod("p", items, now=T0 + 5)], T0 + 5)
    assert (merged.segments["b"][B0].live_queries, merged.segments["b"][B0].live_recall_sum) == (10, 0.0)
    assert (merged.segments[""][B0].live_queries, merged.segments[""][B0].live_recall_sum) == (100, 99.0)


def live_pod(name: str, live_before: int | None, *, now: float, skew: float = 0.0) -> ev.PodEvidence:
    evidence = Evidence(pod=name, revision="r", now=now + skew, live_before=live_before, buckets=())
    return ev.PodEvidence(name, evidence, now)


def test_late_evidence_is_final_where_every_pod_that_measures_it_says_so() -> None:
    now = T0 + 500  # bucket 100 of the test
    pods = [live_pod("a", B0 + 80, now=now), live_pod("b", B0 + 94, now=now, skew=20.0), live_pod("c", None, now=now)]
    merged = ev.merge(pods, now)
    assert (merged.complete_before, merged.live_before) == (B0 + 100, B0 + 80)
    assert ev.merge(pods[1:], now).live_before == B0 + 90
    final = merged.until(merged.live_before)
    assert (final.complete_before, final.lag, final.oldest) == (B0 + 80, 20, merged.oldest)
    assert ev.merge(pods[2:], now).live_before is None
    assert merged.until(None) == merged
    assert merged.until(B0 - 10_000).complete_before == B0 + 100 - ev.LATEST, "a pod that stopped measuring"


def test_a_baseline_leaves_out_queries_that_may_still_be_clicked() -> None:
    """Frozen right after the switch: the last minutes' queries would all look as if nobody liked their answers."""
    items = [bucket(B0 + i, "a", 10, tracked=10, tracked_depth_sum=110, click_depth_top=11) for i in range(180)]
    merged = ev.merge([pod("p", items, now=T0 + 900)], T0 + 900)
    frozen = base.freeze_baseline(merged, T0, T0 + 900)
    assert (frozen.cells["a"].queries, frozen.cells["a"].tracked) == (1800, 10 * (180 - ev.CLICKS_LATE))
    assert frozen.cells["a"].click_depth_top == 11
    assert base.Baseline.from_wire(json.loads(json.dumps(frozen.to_wire()))) == frozen


def test_mix_distance() -> None:
    assert base.mix_distance({"a": 80, "b": 20}, {"a": 8, "b": 2}) == 0
    assert base.mix_distance({"a": 80, "b": 20}, {"a": 5, "b": 5}) == pytest.approx(0.3)
    assert base.mix_distance({"a": 1}, {"b": 1}) == 1
    assert base.mix_distance({}, {"b": 1}) == 0
