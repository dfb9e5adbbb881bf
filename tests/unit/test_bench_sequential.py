"""The simulated tests of bench/sequential.py are the operator's own, and its traffic is what it is called."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import sequential
import sequential_false
import sequential_trials as trials_of

from vectorindex_operator.core.judging import eprocess
from vectorindex_operator.core.judging.evidence import VISIBLE, Counts, RevisionEvidence
from vectorindex_operator.core.judging.judge import judge
from vectorindex_operator.core.judging.rules import Rule, Verdict

BOUND = 0.02
HOURS = 6
STARTS = HOURS * 60


def windows_of_the_operator(hits: np.ndarray, trials: np.ndarray, rule: Rule) -> int:
    """The first look at which the operator's own function says Fail, one bucket after the other."""
    cells = {i: Counts(queries=int(n), zero_results=int(x)) for i, (x, n) in enumerate(zip(hits, trials, strict=True))}
    for stop in range(1, len(hits) + 1):
        seen = {i: cell for i, cell in cells.items() if i < stop}
        merged = RevisionEvidence({"": seen}, stop, 1, (), stop * 5.0)
        (said,) = judge(
            (rule,), merged, started_at=0.0, now=stop * 5.0, baseline=None, alpha_budget=0.01,
            horizon_seconds=HOURS * 3600.0, ready_pods=1, steady=False,
        )  # fmt: skip
        if said.verdict is Verdict.FAIL:
            return stop
    return trials_of.NEVER


@pytest.mark.parametrize("rate", [0.02, 0.06, 0.2])
@pytest.mark.parametrize(("seconds", "consecutive", "per_second"), [(60, 2, 10), (10, 1, 10), (60, 2, 1)])
def test_windows_are_those_of_the_operator(rate: float, seconds: int, consecutive: int, per_second: int) -> None:
    hits, trials = trials_of.independent(np.random.default_rng(3), 3, 130, per_second, rate)
    rule = Rule("r", "ZeroResultRate", max=BOUND, window_seconds=seconds, consecutive=consecutive)
    how = trials_of.Windows.of(0.01, HOURS * 3600, seconds, 200, consecutive)
    found = trials_of.window_looks(hits, trials, BOUND, how)
    assert list(found) == [windows_of_the_operator(x[:, 0], n[:, 0], rule) for x, n in zip(hits, trials, strict=True)]


def wealth_of_the_operator(hits: np.ndarray, trials: np.ndarray, enough: int) -> int:
    """The first look at which the operator's own function finds enough; its buckets begin within a minute."""
    first = trials_of.OFFSET
    buckets, parts = hits.shape
    for at in range(buckets):
        cells = {first + i: (int(hits[i].sum()), int(trials[i].sum())) for i in range(at)}
        cells[first + at] = int(hits[at, 0]), int(trials[at, 0])
        found = eprocess.wealth(
            eprocess.of_rate(cells, BOUND), first=first, stop=first + at + 1,
            oldest=first + at + (parts == 1) - VISIBLE, starts=STARTS, enough=enough,
        )  # fmt: skip
        if found >= 100:
            return at
    return trials_of.NEVER


@pytest.mark.parametrize("rate", [0.03, 0.05, 0.2])
@pytest.mark.parametrize("parts", [1, 2])
def test_wealth_is_that_of_the_operator(rate: float, parts: int) -> None:
    rng = np.random.default_rng(4)
    trials = rng.poisson(30 / parts, (4, 150, parts))
    rates = np.full(150, rate)
    rates[:20] = 0.01
    hits = rng.binomial(trials, rates[None, :, None])
    gains = trials_of.rate_gains(hits, trials, BOUND)
    looks = trials_of.wealth_looks(gains, trials, starts=STARTS, level=0.01)
    for name, enough in (("pair", 1), ("enough", trials_of.ENOUGH)):
        own = [wealth_of_the_operator(x, n, enough) for x, n in zip(hits, trials, strict=True)]
        assert list(looks[name]) == own
    plain, bucket, pair, enough_of_it = (
        np.where(looks[one] == trials_of.NEVER, 999, looks[one]) for one in trials_of.VARIANTS
    )
    assert (plain <= bucket).all()
    assert (bucket <= pair).all()
    assert (pair <= enough_of_it).all()
    if parts == 1:
        assert list(trials_of.most_wealth(gains, starts=STARTS, level=0.01)) == list(looks["plain"])


def test_what_is_older_than_the_rings_is_forgotten() -> None:
    """A fault that is over for an hour fails nobody any more: looks that come later must not see it."""
    trials = np.full((1, 760, 1), 100)
    hits = np.zeros((1, 760, 1), int)
    hits[:, :10] = 50
    gains = trials_of.rate_gains(hits, trials, BOUND)
    calm = np.full((1, 760, 1), 2)
    assert trials_of.wealth_looks(gains, trials, starts=STARTS, level=0.01)["pair"][0] == 2
    kept = trials_of.rate_gains(np.where(np.arange(760)[None, :, None] < 10, hits, calm), trials, BOUND)
    assert trials_of.wealth_looks(kept, trials, starts=STARTS, level=0.01, since=600)["pair"][0] == 600
    assert trials_of.wealth_looks(kept, trials, starts=STARTS, level=0.01, since=725)["pair"][0] == trials_of.NEVER


def test_gains_of_arrays_are_those_of_the_operator() -> None:
    trials = np.array([[[7, 3]]])
    total, squares = np.array([[[6.2, 1.5]]]), np.array([[[5.9, 1.1]]])
    found = sequential.mean_gains(0.93, total, squares, trials)
    for part in (0, 1):
        expected = eprocess.MeanBets(0.93).gains(total[0, 0, part], squares[0, 0, part], int(trials[0, 0, part]))
        assert found[0, 0, part] == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("draw", [
    lambda rng: trials_of.independent(rng, 30, 360, 20, BOUND),
    lambda rng: trials_of.sessions(rng, 30, 360, 20, BOUND, 5, 0.5),
    lambda rng: trials_of.batches(rng, 30, 360, 20, BOUND, 16, 0.2),
])  # fmt: skip
def test_traffic_has_the_rates_that_it_is_said_to_have(draw: object) -> None:
    hits, trials = draw(np.random.default_rng(5))  # type: ignore[operator]
    assert hits.shape == trials.shape == (30, 360, 1)
    assert (hits <= trials).all()
    assert trials[:, 10:].mean() == pytest.approx(100, rel=0.05)
    assert hits.sum() / trials.sum() == pytest.approx(BOUND, rel=0.1)


def test_a_burst_is_counted_once() -> None:
    rng = np.random.default_rng(6)
    healthy = trials_of.independent(rng, 5, 60, 1, 0.0)
    hits, trials = trials_of.with_burst(rng, healthy, 150, 5.0)
    assert (hits.sum(axis=(1, 2)) == 150).all()
    assert ((hits > 0).sum(axis=(1, 2)) <= 2).all()
    assert (trials - healthy[1] == hits).all()


def test_a_pod_that_goes_takes_its_sums_along() -> None:
    before, after, *_ = trials_of.scaled(np.random.default_rng(7), 3, 120, 20, 0.5, 60, unlucky=False)
    assert (before[0], after[0]) == (0, 60)
    left = after[2][:, :60].sum() / before[2].sum()
    assert 0.7 < left < 0.8


def test_the_other_parts_of_the_page_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    size = sequential_false.Size(4, 8, 4, 1)
    text, figures = sequential.demo(size)
    assert "wealth, without 2 neighbours" in text
    assert 0 < figures["sequential.default_ratio"] < 0.2
    text, figures = sequential_false.bursts(size)
    assert figures == {"sequential.burst_trips": 0.0}
    monkeypatch.setattr(sequential_false, "SCALED", 120)
    text, _ = sequential_false.scale_down(size)
    assert "every 5 min, that with the fewest hits" in text
    monkeypatch.setattr(sequential_false, "SOAK", 600)
    monkeypatch.setattr(sequential_false, "DAY", 900)
    text, figures = sequential_false.false_trips(size)
    assert set(figures) == {"sequential.false_soak", "sequential.false_day"}
    text, _ = sequential_false.not_independent(size)
    assert "at half of it: 20/s, a bot" in text
