"""What live queries show is in no single sender's hands, and honest traffic is rarely held for nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from vectorindex_searcher.contract import FEWEST_LIVE_SENDERS, FEWEST_QUERIES, OperatingPoint
from vectorindex_searcher.index.choose.tuning import Tuning
from vectorindex_searcher.proof.exact import no_truth
from vectorindex_searcher.proof.live import judge
from vectorindex_searcher.proof.live.judge import Live
from vectorindex_searcher.proof.live.report import LiveReport
from vectorindex_searcher.proof.live.senders import Voices, _student
from vectorindex_searcher.proof.queries import Queries

FLOOR = 0.95
Means = npt.NDArray[np.float64]


def high(means: Means) -> float:
    """Of senders with one query each."""
    return Voices.of(means, np.arange(len(means))).high


def held(means: Means) -> float:
    """The share of the simulated gates [simulations, senders] that are held."""
    return float(np.mean([high(row) < FLOOR for row in means]))


@pytest.mark.parametrize("freedom", [FEWEST_LIVE_SENDERS - 2, 5, 6, 9, 30, 99, 5000])
def test_the_quantile_is_students(freedom: int) -> None:
    assert _student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=0.001)


def test_a_sender_counts_once_however_much_it_asks_and_however_alike() -> None:
    rng = np.random.default_rng(0)
    others = 1 - rng.integers(0, 2, 110) / 10
    who = np.arange(110) % 11
    few = Voices.of(np.append(others, [0.0]), np.append(who, 11))
    many = Voices.of(np.append(others, np.zeros(100)), np.append(who, np.full(100, 11)))
    assert np.array_equal(few.means, many.means)
    assert (len(many), many.mean) == (12, pytest.approx(11 / 12 * few.mean_without_worst))
    assert many.low < many.mean < many.high


@pytest.mark.parametrize("senders", [FEWEST_LIVE_SENDERS, 7, 10, 12, 30, 100])
@pytest.mark.parametrize("hostile", [1, 2, 3, 4])
def test_up_to_four_senders_hold_nothing_where_the_others_reach_the_floor(senders: int, hostile: int) -> None:
    """Whatever they ask: t over voices cannot pass its quantile, since who lies far off makes the spread as large."""
    if senders - hostile < 2:
        return
    rng = np.random.default_rng(senders * 10 + hostile)
    worst: list[Means] = [np.full(hostile, value) for value in (0.0, 0.3, 0.6, 0.8, 0.9, 0.94)]
    for asked in (*worst, *rng.uniform(0, FLOOR, (50, hostile))):
        for others in (np.full(senders - hostile, FLOOR), rng.uniform(FLOOR, 1.0, senders - hostile)):
            assert high(np.append(others, asked)) >= FLOOR - 1e-9


def test_a_sender_that_nothing_finds_hides_nothing_either() -> None:
    """With it among the others the spread would be too large for any verdict."""
    others = np.linspace(0.86, 0.92, 11)
    assert high(others) < FLOOR
    assert high(np.append(others, 0.0)) < FLOOR


def answered(
    rng: np.random.Generator, recall: npt.NDArray[np.float64], queries: int, simulations: int
) -> npt.NDArray[np.float64]:
    """Voices of senders with these recalls [senders] and so many queries each, whose hits go together."""
    p = np.broadcast_to(recall, (simulations, *recall.shape[-1:]))[..., None]
    hits = rng.beta(np.maximum(4 * p, 1e-3), np.maximum(4 * (1 - p), 1e-3), (*p.shape[:2], queries))
    means: npt.NDArray[np.float64] = (rng.binomial(10, hits) / 10).mean(axis=-1)
    return means


SIMULATED = 1500


def population(rng: np.random.Generator, kind: str, senders: int) -> npt.NDArray[np.float64]:
    """Recalls [SIMULATED, senders] of senders drawn from one whose mean is the floor."""
    size, miss = (SIMULATED, senders), 1 - FLOOR
    return {
        "alike": lambda: np.full(size, FLOOR),
        "spread": lambda: rng.beta(40 * FLOOR, 40 * miss, size),
        "far apart": lambda: rng.beta(3 * FLOOR, 3 * miss, size),
        "one in ten asks hard": lambda: np.where(rng.random(size) < 0.1, 1 - 9.99 * miss, 1.0),
        "most are just below": lambda: np.where(rng.random(size) < 0.95, 1 - miss / 0.95, 1.0),
    }[kind]()


@pytest.mark.parametrize("kind", ["alike", "spread", "far apart", "one in ten asks hard", "most are just below"])
@pytest.mark.parametrize("senders", [FEWEST_LIVE_SENDERS, 12, 50])
@pytest.mark.parametrize("queries", [1, 8, 40])
def test_honest_senders_at_the_floor_are_held_one_time_in_forty_at_most(kind: str, senders: int, queries: int) -> None:
    rng = np.random.default_rng(7)
    noise = 3 * (0.025 * 0.975 / SIMULATED) ** 0.5
    assert held(answered(rng, population(rng, kind, senders), queries, SIMULATED)) <= 0.025 + noise


@pytest.mark.parametrize("senders", [FEWEST_LIVE_SENDERS, 12, 50])
def test_one_hostile_sender_among_honest_ones_at_the_floor_makes_that_no_more(senders: int) -> None:
    """Whatever recall it chooses; where the others are a hundredth above the floor, it holds nothing to speak of."""
    for recall, most in ((FLOOR, 0.025), (FLOOR + 0.01, 0.005)):
        voices = answered(np.random.default_rng(8), np.full(senders, recall), 40, SIMULATED)
        for asked in (0.0, 0.5, 0.8, 0.9, 0.93):
            voices[:, 0] = asked
            assert held(voices) <= most + 3 * (most * (1 - most) / SIMULATED) ** 0.5, asked


@pytest.mark.parametrize(("senders", "recall"), [(FEWEST_LIVE_SENDERS, 0.88), (12, 0.92), (50, 0.935)])
def test_a_revision_that_answers_all_of_them_badly_is_held(senders: int, recall: float) -> None:
    voices = answered(np.random.default_rng(9), np.full(senders, recall), 40, 300)
    assert held(voices) > 0.9
    voices[:, 0] = 0.0
    assert held(voices) > 0.9


# ---------------------------------------------------------------- how wide a search they ask for

NARROW = OperatingPoint(params={"nprobe": 8}, recall=0.9, recall_low=0.9, latency_us=1.0)


@dataclass
class Search:
    """Stands for an engine that is tuned: how often, by which recalls, and what it finds to be enough."""

    senders: int
    enough: dict[str, int]
    of_each: int = 10
    asked: list[Means] = field(default_factory=list)

    def tune(self, *given: Any, fixed: dict[str, int] | None = None) -> Tuning:
        self.asked.append(given[2](fixed or self.enough))
        point = OperatingPoint(params=fixed or self.enough, recall=1.0, recall_low=1.0, latency_us=2.0)
        return Tuning(point, None, ())

    def recalls(self, numbers: Means) -> Callable[[object], Means]:
        """Sender 0 is answered nothing, the others .9."""
        return lambda params: np.where(self.who[numbers] == 0, 0.0, 0.9)

    @property
    def who(self) -> npt.NDArray[np.int64]:
        return np.repeat(np.arange(self.senders), self.of_each)

    def wider(self, monkeypatch: pytest.MonkeyPatch) -> OperatingPoint:
        """What they make of NARROW, with .95 asked for."""
        monkeypatch.setattr(judge, "tune", self.tune)
        who, every = self.who, np.arange(self.senders * self.of_each)
        queries = Queries(np.zeros((len(every), 2), np.float32), np.full(len(every), -1))
        live = Live(LiveReport(judged=True), queries, no_truth(10), np.ones(len(every), np.bool_), every, who)
        tuner = SimpleNamespace(recalls=self.recalls, queries=queries, engine=None)
        return live._wider(tuner, NARROW, every, FLOOR)  # type: ignore[arg-type]


def test_who_is_answered_worst_says_nothing_of_how_wide_to_search(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(senders=FEWEST_LIVE_SENDERS, enough={"nprobe": 16})
    assert search.wider(monkeypatch).params == {"nprobe": 16}
    tuned_by, told = search.asked
    assert tuned_by == pytest.approx(np.full(FEWEST_LIVE_SENDERS - 1, 0.9))
    assert (len(told), told[0]) == (FEWEST_LIVE_SENDERS, 0.0), "the figure that is told is of all"


def test_live_queries_make_no_search_narrower(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(senders=FEWEST_LIVE_SENDERS, enough={"nprobe": 4})
    assert search.wider(monkeypatch) is NARROW
    assert len(search.asked) == 1


@pytest.mark.parametrize(
    ("senders", "of_each"), [(FEWEST_LIVE_SENDERS - 1, 100), (FEWEST_LIVE_SENDERS, FEWEST_QUERIES // 6 - 1)]
)
def test_few_senders_or_few_queries_tune_nothing(monkeypatch: pytest.MonkeyPatch, senders: int, of_each: int) -> None:
    """Also where all together are enough: a segment with a point of its own has few of them."""
    search = Search(senders=senders, enough={"nprobe": 64}, of_each=of_each)
    assert search.wider(monkeypatch) is NARROW
    assert not search.asked
