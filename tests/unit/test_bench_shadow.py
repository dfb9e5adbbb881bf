"""The simulated shadows of bench/shadow.py are judged as the operator judges, and its traffic is what it is called."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import shadow
import shadow_trials as trials_of
from sequential_trials import NEVER, OFFSET, independent, sessions
from shadow_refresh import Change, World, compared

from vectorindex_operator.core.judging.pairs import PairSums, judge_pairs
from vectorindex_operator.core.judging.rules import Rule, Verdict, worst

FIRST = 1200 + OFFSET
BUDGET = 0.01
RULES = (
    Rule("errors", "ErrorRate", max=trials_of.ERRORS),
    Rule("zero", "ZeroResultRate", max=trials_of.ZERO),
    Rule("rise", "ZeroResultRate", max_rise_vs_stable=trials_of.RISE),
    Rule("scores", "TopScore", max_drop_vs_stable=trials_of.DROP),
    Rule("changed", "AnswersChanged", max=trials_of.CHANGED),
    Rule("missed", "AnswersMissed", max=trials_of.MISSED),
)


def cells(of: trials_of.Pairs, which: int) -> tuple[list[PairSums], list[PairSums]]:
    """What pods would have counted: x is -c, as if stable's scores were 0."""
    rows = [{name: getattr(of, name)[which, at] for name in of.__slots__} for at in range(of.sent.shape[1])]
    mine = [
        PairSums(
            pairs=row["pairs"], zero_both=row["zero_both"], zero_candidate_only=row["zero_candidate_only"],
            zero_stable_only=row["zero_stable_only"], scored=row["scored"], c_sum=-row["x_sum"],
            c_squares=row["x_squares"], answers_judged=row["judged"], changed_sum=row["changed_sum"],
            changed_squares=row["changed_squares"], missed_sum=row["missed_sum"], missed_squares=row["missed_squares"],
        )
        for row in rows
    ]  # fmt: skip
    return mine, [PairSums(mirrored=row["sent"], unanswered=row["unanswered"]) for row in rows]


def look_of_the_operator(of: trials_of.Pairs, which: int) -> int:
    mine, sent = cells(of, which)
    for stop in range(1, len(mine) + 1):
        sides = ({"": [(FIRST + at, side[at]) for at in range(stop)]} for side in (mine, sent))
        found = judge_pairs(RULES, *sides, alpha_budget=BUDGET, min_queries=1)
        if worst(found) is Verdict.FAIL:
            return stop - 1
    return NEVER


def held_up_by_the_operator(of: trials_of.Pairs, which: int) -> bool:
    mine, sent = cells(of, which)
    sides = ({"": [(FIRST + at, cell) for at, cell in enumerate(side)]} for side in (mine, sent))
    (found,) = judge_pairs((), *sides, alpha_budget=1e-9, min_queries=300)
    return found.reason == "Unanswered"


@pytest.mark.parametrize(("name", "times"), [
    ("unanswered", 9), ("zero_candidate_only", 9), ("changed_sum", 4), ("missed_sum", 4), ("x_sum", 1),
])  # fmt: skip
def test_shadows_are_judged_as_the_operator_judges(name: str, times: int) -> None:
    """Each rule in turn is broken, and proof comes at the same look."""
    good = trials_of.at_bounds(np.random.default_rng(5), independent, 3, 40, 10)
    bad = {one: getattr(good, one) for one in good.__slots__}
    if name == "x_sum":
        bad |= {"x_sum": good.x_sum + good.scored, "x_squares": good.x_squares + 2 * good.x_sum + good.scored}
    else:
        bad[name] = good.__getattribute__(name) * times
        bad |= {"changed_squares": bad["changed_sum"], "missed_squares": bad["missed_sum"]}
    of = trials_of.Pairs(**bad)
    found = list(trials_of.looks(of, BUDGET))
    assert found == [look_of_the_operator(of, which) for which in range(3)]
    assert NEVER not in found


@pytest.mark.parametrize("draw", [
    independent, lambda rng, *what: sessions(rng, *what, size=3, inside=0.5),
])  # fmt: skip
def test_candidates_at_their_bounds_are_at_their_bounds(draw: trials_of.Draw) -> None:
    of = trials_of.at_bounds(np.random.default_rng(6), draw, 40, 120, 20)
    sums = {name: float(getattr(of, name)[:, 10:].sum()) for name in of.__slots__}
    candidate = sums["zero_both"] + sums["zero_candidate_only"]
    stable = sums["zero_both"] + sums["zero_stable_only"]
    assert candidate / sums["pairs"] == pytest.approx(trials_of.ZERO, rel=0.05)
    assert candidate / stable == pytest.approx(1 + trials_of.RISE, rel=0.03)
    assert sums["unanswered"] / sums["sent"] == pytest.approx(0.01, rel=0.07)
    assert sums["changed_sum"] / sums["judged"] == pytest.approx(trials_of.CHANGED, rel=0.05)
    assert sums["missed_sum"] / sums["judged"] == pytest.approx(trials_of.MISSED, rel=0.05)
    assert sums["x_sum"] / sums["scored"] == pytest.approx(0, abs=0.05)
    assert sums["x_squares"] / sums["scored"] == pytest.approx(9, rel=0.05)


def test_answers_that_are_asked_for_have_their_means() -> None:
    rng = np.random.default_rng(7)
    s = rng.random(500) + 0.5
    answers = trials_of.Answers(0.9 * s, s, rng.random(500), np.full(500, 0.25), 0.6)
    for repeats in (1.0, 4.0):
        of = trials_of.asked(rng, answers, 20, 60, 20, unanswered=0.1, repeats=repeats)
        assert of.pairs[:, 10:].mean() == pytest.approx(100, rel=0.1)
        assert of.unanswered.sum() / of.sent.sum() == pytest.approx(0.1, rel=0.05)
        assert of.missed_squares.sum() / of.judged.sum() == pytest.approx(0.0625)
        assert of.changed_sum.sum() / of.judged.sum() == pytest.approx(answers.changed.mean(), rel=0.05)
        both = np.count_nonzero(0.9 * s >= 0.6) / 500
        assert of.scored.sum() / of.pairs.sum() == pytest.approx(both, rel=0.05)
        assert (of.scored + of.zero_both + of.zero_candidate_only + of.zero_stable_only == of.pairs).all()


def test_displaced_is_not_missed_and_what_is_embedded_wrongly_has_changed() -> None:
    world = World.made(np.random.default_rng(8), 3000, 200)
    assert world.recall > 0.9
    answers, kinds = compared(np.random.default_rng(9), world, Change(new=0.5))
    assert kinds["displaced"] > 0.2
    assert kinds["missed"] < 0.02
    assert kinds["changed"] == kinds["gone"] == answers.changed.max() == 0
    for by_topic in (False, True):
        answers, kinds = compared(np.random.default_rng(10), world, Change(wrong=0.2, by_topic=by_topic))
        assert 0.08 < kinds["changed"] < 0.3
        assert kinds["changed"] == pytest.approx(answers.changed.mean())
    _, kinds = compared(np.random.default_rng(11), world, Change(deleted=0.1))
    assert kinds["gone"] == pytest.approx(0.1, abs=0.02)


def test_a_burst_is_seen_by_who_counts_all_and_by_nobody_else() -> None:
    rng = np.random.default_rng(12)
    of = trials_of.with_burst(rng, trials_of.at_bounds(rng, independent, 6, 60, 10), 150)
    assert of.unanswered.sum(axis=1).min() >= 150
    of = trials_of.Pairs(**{name: getattr(of, name) for name in of.__slots__} | {"sent": of.sent * 2})
    assert not trials_of.held_up(of, 300).any()
    assert list(trials_of.held_up(of, 300)) == [held_up_by_the_operator(of, which) for which in range(6)]
    more = trials_of.Pairs(**{name: getattr(of, name) for name in of.__slots__} | {"unanswered": of.unanswered * 3})
    assert list(trials_of.held_up(more, 300)) == [held_up_by_the_operator(more, which) for which in range(6)]
    assert trials_of.held_up(more, 300).any()


def test_the_page_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    size = shadow.Size(4, 4, 2000, 100, 1)
    monkeypatch.setattr(shadow, "BUCKETS", 24)
    monkeypatch.setattr(shadow, "RATES", (50,))
    for part in (shadow.refreshes, shadow.bounds, shadow.burst):
        assert set(part(size)[1]) == {"shadow.false_rejections"}
    monkeypatch.setattr(shadow, "SCORES", dict(list(shadow.SCORES.items())[:1]))
    assert "| normal | 0 %" in shadow.scores(size)[0]
    text, figures = shadow.delays(size)
    assert figures["shadow.tenth_wrong_s"] < 120
    assert "| 2% unanswered |" in text
