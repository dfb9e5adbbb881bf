"""All scenarios, by what happens in them."""

from __future__ import annotations

from simulator.scenarios import (
    builds,
    canaries,
    data,
    deletions,
    edits,
    figures,
    filters,
    guardrails,
    kept,
    mirrored_soaks,
    notices,
    others,
    places,
    points,
    refusals,
    removals,
    rollbacks,
    rollouts,
    shadows,
    suspends,
    verbs,
)
from simulator.scenarios.scenario import SCENARIOS, Scenario

__all__ = [
    "SCENARIOS",
    "Scenario",
    "builds",
    "canaries",
    "data",
    "deletions",
    "edits",
    "figures",
    "filters",
    "guardrails",
    "kept",
    "mirrored_soaks",
    "notices",
    "others",
    "places",
    "points",
    "refusals",
    "removals",
    "rollbacks",
    "rollouts",
    "shadows",
    "suspends",
    "verbs",
]
