"""What a run on a real cluster is to do: how many rollouts, under which faults, in which order, for how long."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

CYCLES = 50
"""A bad revision and a good one each."""
Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Campaign:
    """As `make test-chaos` was asked. `rate`: queries a second, all indexes together."""

    cycles: int = CYCLES
    indexes: int = 5
    rate: float = 250.0
    minutes: float = 65.0
    """After so many no fault begins."""
    seed: int = 1
    only: str = ""
    """A regular expression: faults whose names it is found in, each once. Empty: all."""

    @property
    def is_whole(self) -> bool:
        return not self.only


@dataclass(frozen=True, slots=True)
class Turn:
    """One fault upon one index. `seed`: of all that is drawn in it."""

    number: int
    fault: str
    seed: int


def asked(environment: Mapping[str, str]) -> Campaign:
    """By the variables CHAOS_*. Raises ValueError that names the one that is no number, or no expression."""
    usual = Campaign()

    def number(name: str, kind: Callable[[str], Number], default: Number) -> Number:
        text = environment.get(name) or str(default)
        try:
            found = kind(text)
        except ValueError:
            raise ValueError(f"{name} is {text!r}: give a number") from None
        if found <= 0:
            raise ValueError(f"{name} is {text!r}: give a number above 0")
        return found

    only = environment.get("CHAOS_SCENES", "")
    try:
        re.compile(only)
    except re.error as error:
        raise ValueError(f"CHAOS_SCENES is {only!r}: give a regular expression ({error})") from None
    return Campaign(
        cycles=number("CHAOS_CYCLES", int, usual.cycles),
        indexes=number("CHAOS_INDEXES", int, usual.indexes),
        rate=number("CHAOS_RATE", float, usual.rate),
        minutes=number("CHAOS_MINUTES", float, usual.minutes),
        seed=number("CHAOS_SEED", int, usual.seed),
        only=only,
    )


def turns(campaign: Campaign, alone: Iterable[str], cycles: Iterable[str]) -> tuple[list[Turn], list[Turn]]:
    """Those that befall every index, once each; and as many cycles as were asked for.

    Each of `cycles` has its turn before any has another one; the order is drawn by the seed.
    """
    first, names = _chosen(campaign, alone), _chosen(campaign, cycles)
    draw, drawn = random.Random(campaign.seed), list[str]()
    wanted = campaign.cycles if campaign.is_whole else len(names)
    while names and len(drawn) < wanted:
        drawn += draw.sample(names, len(names))
    numbered = [Turn(number, fault, 1000 * campaign.seed + number) for number, fault in enumerate([*first, *drawn], 1)]
    return numbered[: len(first)], numbered[len(first) :][:wanted]


def _chosen(campaign: Campaign, faults: Iterable[str]) -> list[str]:
    return [name for name in faults if re.search(campaign.only, name)]
