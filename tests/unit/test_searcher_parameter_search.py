"""The one search of parameters: on simulated curves it finds the cheapest point to within 5 % of the parameter."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest

from vectorindex_searcher.contract import OperatingPoint
from vectorindex_searcher.index.choose.parameter_search import FACTORS, Grid, find_cheapest, least, steps

STEP = 1.05
NOISE = 0.001
"""Of recall: what that of 1,000 queries departs from a smooth curve between neighbouring parameters, and more."""


class Curve:
    """Recall 1 - loss * (scale / effort) ** power, once less with each refine factor; and what was asked of it."""

    def __init__(self, seed: int, noise: float = 0.0) -> None:
        rng = np.random.default_rng(seed)
        self.scale, self.power = 2.0 ** rng.uniform(0, 7), rng.uniform(0.4, 1.5)
        self.coarse = rng.uniform(0.0, 0.3)
        self.weights = rng.uniform(0.2, 3.0, 2)
        self._noise = noise * rng.uniform(-1, 1, 5000)
        self.asked: list[tuple[int, int]] = []
        self.timed: list[tuple[int, int]] = []

    def smooth(self, effort: int, factor: int = 0) -> float:
        lost = 0.5 * (self.scale / (self.scale + effort)) ** self.power
        return 1.0 - lost - (self.coarse / factor if factor else 0.0)

    def recall(self, effort: int, factor: int = 0) -> float:
        self.asked.append((effort, factor))
        return float(min(1.0, self.smooth(effort, factor) + self._noise[effort]))

    def cost(self, effort: int, factor: int = 0) -> float:
        return float(self.weights @ (effort, factor))

    def timed_at(self, params: Mapping[str, int]) -> OperatingPoint:
        effort, factor = params["nprobe"], params.get("k_factor", 0)
        self.timed.append((effort, factor))
        return OperatingPoint(params=dict(params), recall=0, recall_low=0, latency_us=self.cost(effort, factor))


@pytest.mark.parametrize(("low", "most"), [(1, 1), (1, 7), (10, 2048), (1, 4096), (3, 22)])
def test_no_step_is_larger_than_5_percent(low: int, most: int) -> None:
    found = steps(low, most)
    assert (found[0], found[-1]) == (low, most)
    assert all(before < after <= max(before + 1, STEP * before) for before, after in itertools.pairwise(found))


@pytest.mark.parametrize("goal", [0.7, 0.9, 0.95, 0.99])
def test_the_least_effort_is_found_to_within_5_percent(goal: float) -> None:
    values, off, looks = steps(1, 4096), {}, []
    for seed in range(200):
        curve = Curve(seed)
        found = least(values, lambda effort, curve=curve: curve.recall(effort) - goal)
        true = next((effort for effort in range(1, 4097) if curve.smooth(effort) >= goal), None)
        looks.append(len(curve.asked))
        if (found is None) != (true is None) or (found and true and not true <= found <= max(true + 1, STEP * true)):
            off[seed] = (found, true)
    assert not off
    assert np.mean(looks) < 14, "a ladder of such steps takes 120"


@pytest.mark.parametrize("away", [0.5, 0.9, 1.0, 1.1, 2.0, 20.0])
def test_a_guess_changes_nothing_but_the_looks(away: float) -> None:
    values, looks = steps(1, 4096), []
    for seed in range(100):
        curve = Curve(seed)
        plain = least(values, lambda effort, curve=curve: curve.recall(effort) - 0.95)
        curve.asked.clear()
        guess = max(1, round((plain or 100) * away))
        assert least(values, lambda effort, curve=curve: curve.recall(effort) - 0.95, None, guess) == plain
        looks.append(len(curve.asked))
    assert np.mean(looks) < (7 if 0.9 <= away <= 1.1 else 16)


@pytest.mark.parametrize("goal", [0.9, 0.95, 0.98])
def test_with_noise_it_reaches_the_goal_and_costs_what_the_noise_is_worth(goal: float) -> None:
    values, off, missed = steps(1, 4096), {}, 0
    for seed in range(300):
        curve = Curve(seed, NOISE)
        found = least(values, lambda effort, curve=curve: curve.recall(effort) - goal)
        easier, harder = (
            next((effort for effort in range(1, 4097) if curve.smooth(effort) >= goal + sign * NOISE), None)
            for sign in (-1, 1)
        )
        if found is None:
            missed += harder is not None
        elif curve.recall(found) < goal or easier is None or found < easier or found > STEP * (harder or 5000) + 1:
            off[seed] = (easier, found, harder)
    assert not off
    assert missed <= 6, "a curve that rises less than its noise for two doublings is given up"


def test_a_goal_out_of_reach_is_given_up_where_the_recall_stands_still() -> None:
    asked: list[int] = []
    assert least(steps(1, 4096), lambda effort: asked.append(effort) or min(effort, 16) / 100 - 1) is None
    assert max(asked) < 70
    assert least((3,), lambda effort: -1.0) is None
    assert least((3,), lambda effort: 0.0) == 3
    assert least(steps(1, 4096), lambda effort: effort - 300.0, 100) in range(300, 316)


def test_with_a_refine_layer_no_parameter_could_be_smaller_and_the_whole_is_near_the_cheapest() -> None:
    grid = Grid.of({"nprobe": (1, 2000), "k_factor": (1, 256)})
    goal, worse, regrets = 0.95, {}, []
    for seed in range(150):
        curve = Curve(seed)
        found = find_cheapest(
            grid,
            lambda params, curve=curve: curve.recall(params["nprobe"], params["k_factor"]) - goal,
            curve.timed_at,
        )
        every = [(e, f) for e in grid.efforts for f in range(1, 65) if curve.smooth(e, f) >= goal]
        assert (found is None) == (not every), seed
        if found is None:
            continue
        effort, factor = found.params["nprobe"], found.params["k_factor"]
        assert curve.smooth(effort, factor) >= goal
        for less in ((int(effort / STEP) - 1, factor), (effort, int(factor / STEP) - 1)):
            if min(less) > 0 and curve.smooth(*less) >= goal:
                worse[seed] = (effort, factor, less)
        regrets.append(curve.cost(effort, factor) / min(curve.cost(*point) for point in every))
        assert len(curve.timed) <= len(FACTORS) + 1
    assert not worse
    assert np.mean(regrets) < 1.05
    assert max(regrets) < 1.25, "between two stairs of the refine factor"


def test_a_graph_over_the_centroids_is_asked_for_no_more_than_it_must() -> None:
    grid = Grid.of({"nprobe": (1, 4096), "quantizer_efSearch": (1, 4096)})

    def spare(params: Mapping[str, int]) -> float:
        found = min(1.0, 0.9 + 0.1 * params["quantizer_efSearch"] / (1.3 * params["nprobe"]))
        return found * min(1.0, params["nprobe"] / 200) - 0.99

    found = find_cheapest(
        grid, spare, lambda params: OperatingPoint(params=dict(params), recall=0, recall_low=0, latency_us=1)
    )
    assert found is not None
    assert 198 <= found.params["nprobe"] <= 208
    assert found.params["nprobe"] <= found.params["quantizer_efSearch"] < 1.6 * found.params["nprobe"]
