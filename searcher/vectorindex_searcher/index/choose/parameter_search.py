"""The one search of parameters: the cheapest that reach a goal, by doubling and bisection instead of a ladder.

`Auto` fits its trials with it, `build` the default point, `validate` the points of segments. It knows no index: what
the recall at some parameters is, and what they cost, it asks. See docs/adr/0009-auto-measures.md.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from ..parameters import effort_parameter
from .effort import Point, cheapest

STEP = 1.05
"""Of the parameter: what is found is at most this much above the least that reaches the goal."""
LEAST_EF_SEARCH = 10
"""FAISS keeps as many candidates as there are answers, so less changes nothing at k = 10."""
MOST: dict[str, int] = {"nprobe": 4096, "efSearch": 2048}
"""Of the parameter of effort: a search of more takes longer than exact search of what it looks at is worth."""
FACTORS = (64, 32, 16, 8, 4, 2, 1)
"""Refine factors of the stairs, falling."""
MIN_GAIN = 0.0003
"""Of recall: two doublings of the effort that gain less, one after the other, end a search."""
SLOWER = 1.1
"""A stair this many times slower than the fastest one is the last."""
COARSE = "quantizer_efSearch"

Spare = Callable[[Mapping[str, int]], float]
"""Recall at some parameters, minus what is asked of it there: 0 or more reaches the goal."""
P = TypeVar("P", bound=Point)


@dataclass(frozen=True, slots=True)
class Grid:
    """The parameters of an index in the order in which they cost more."""

    main: str | None
    """nprobe or efSearch; None where there is neither."""
    efforts: tuple[int, ...]
    """Values of `main`, rising by STEP at most (small ones by 1); one value without a `main`."""
    factors: tuple[int, ...] = ()
    """Values of k_factor, falling; none without a refine layer."""
    coarse_limit: int = 0
    """Greatest quantizer_efSearch; 0 without a graph over the centroids."""
    others: Mapping[str, tuple[int, ...]] | None = None
    """Further parameters with their values, rising in effort; they are at their most until the rest is found."""

    @classmethod
    def of(cls, limits: Mapping[str, tuple[int, int]], faiss_grid: Mapping[str, Sequence[int]] | None = None) -> Grid:
        """limits: `parameter_limits`. faiss_grid: values of parameters that are not known here (`faiss_ladders`)."""
        main = effort_parameter(limits)
        known = {"nprobe", "efSearch", "k_factor", COARSE}
        others = {name: tuple(v) for name, v in (faiss_grid or {}).items() if name not in known and len(v) > 1}
        efforts: tuple[int, ...] = (0,)
        if main:
            least, most = limits[main]
            efforts = steps(max(least, LEAST_EF_SEARCH if main == "efSearch" else 1), min(most, MOST[main]))
        factors = tuple(one for one in FACTORS if one <= limits["k_factor"][1]) if "k_factor" in limits else ()
        return cls(main, efforts, factors, limits[COARSE][1] if COARSE in limits else 0, others)

    def params(self, effort: int, factor: int = 0) -> dict[str, int]:
        """All parameters at this effort and, with a refine layer, this factor."""
        found = {self.main: effort} if self.main else {}
        if factor:
            found["k_factor"] = factor
        if self.coarse_limit:
            # The graph over the centroids must find nprobe of them; twice as many makes its own loss negligible.
            found[COARSE] = min(max(64, 2 * effort), self.coarse_limit)
        return found | {name: values[-1] for name, values in (self.others or {}).items()}

    def most(self) -> dict[str, int]:
        """The parameters of the most effort."""
        return self.params(self.efforts[-1], self.factors[0] if self.factors else 0)

    def below(self, params: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """What may be lowered once effort and stair are found: name -> values up to that of `params`, rising."""
        found: dict[str, tuple[int, ...]] = {}
        if "k_factor" in params:
            found["k_factor"] = steps(params["k_factor"] // 2 + 1, params["k_factor"])
        if COARSE in params and self.main:
            # A graph asked for more than its beam holds takes the beam that it is asked for.
            found[COARSE] = steps(min(params[self.main], params[COARSE]), params[COARSE])
        return found | dict(self.others or {})


def steps(least: int, most: int) -> tuple[int, ...]:
    """Whole numbers from `least` to `most`, both among them, each at most STEP above the one before (or 1 more)."""
    found = [least]
    while found[-1] < most:
        found.append(min(most, max(found[-1] + 1, int(found[-1] * STEP))))
    return tuple(found)


def least(
    values: Sequence[int], spare: Callable[[int], float], start: int | None = None, guess: int | None = None
) -> int | None:
    """The least of rising `values` that reaches the goal, from `start` on; None when none does, or none will.

    By doubling and then bisection: where recall rises with the value it is the least one. Where it is noisy, it reaches
    the goal and the value before it does not. guess: where it may be; near to it few values are looked at.
    """
    first = bisect.bisect_left(values, values[0] if start is None else start)
    high = first if guess is None else min(max(first, bisect.bisect_left(values, guess)), len(values) - 1)
    failed, stalls, step = first - 1, 0, 1
    found = spare(values[high])
    while found >= 0 and high > first:
        lower = max(first, high - step)
        if spare(values[lower]) < 0:
            failed = lower
            break
        high, step = lower, 2 * step
    while found < 0:
        if high == len(values) - 1 or stalls == 2:
            return None
        failed = high
        double = max(bisect.bisect_left(values, 2 * values[high], high), high + 1)
        step = 2 * step if guess is not None else len(values)
        high = min(double, high + step, len(values) - 1)
        more = spare(values[high])
        if high >= min(double, len(values) - 1):
            stalls = stalls + 1 if more < found + MIN_GAIN else 0
        found = more
    return values[_between(values, spare, failed, high)]


def find_cheapest(
    grid: Grid, spare: Spare, timed: Callable[[Mapping[str, int]], P], guess: Mapping[str, int] | None = None
) -> P | None:
    """The cheapest point that reaches the goal; None when none does.

    timed: measures what a search costs at some parameters. It is asked only where parameters do not say it themselves.
    guess: parameters that may be near to them; they save looks and decide nothing.
    No parameter of the answer could be STEP smaller without missing the goal.

    Recall rises with the effort and with the refine factor, so a smaller factor needs at least the effort of a larger
    one: the search walks down a staircase and stops when it only gets slower.
    """
    found: list[P] = []
    effort: int | None = grid.efforts[0]
    for factor in grid.factors or (0,):
        near = guess.get(grid.main) if guess and grid.main and not found else None
        effort = least(grid.efforts, partial(_spare_at, grid, spare, factor), effort, near)
        if effort is None:
            break
        found.append(timed(grid.params(effort, factor)))
        if len(found) > 1 and found[-1].latency_us > SLOWER * min(point.latency_us for point in found):
            break
    if not found:
        return None
    best = cheapest(found)
    params = dict(best.params)
    for name, values in grid.below(params).items():
        params[name] = values[_between(values, partial(_spare_with, params, spare, name), -1, len(values) - 1)]
    return best if params == dict(best.params) else timed(params)


def _spare_at(grid: Grid, spare: Spare, factor: int, effort: int) -> float:
    return spare(grid.params(effort, factor))


def _spare_with(params: Mapping[str, int], spare: Spare, name: str, value: int) -> float:
    return spare({**params, name: value})


def _between(values: Sequence[int], spare: Callable[[int], float], failed: int, reached: int) -> int:
    """Where the least value is that reaches the goal, by bisection: `failed` does not (-1: none), `reached` does."""
    while reached > failed + 1:
        middle = (reached + failed) // 2
        if spare(values[middle]) >= 0:
            reached = middle
        else:
            failed = middle
    return reached
