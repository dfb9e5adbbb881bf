"""What idle.py found, as headline figures with their verdicts and as a page."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass, field

import results
from idle_audit import GOALS, Usage, Use

SEGMENTS = (8, 32)
"""Of the two indexes whose looks are measured."""
AT_REST, SOAKING, FIRST_DAY, HOUR_ON = "at rest", "soaking", "first day", "first day, an hour on"
AS_IT_IS, QUARTER, HOUR = "as it is", "15 minutes", "an hour"
AGES = {AS_IT_IS: 0, QUARTER: 900, HOUR: 3600}
"""Seconds by which the start of a soak is set back. 15 minutes is how long a soak takes by default."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for."""

    indexes: int
    namespaces: int
    replicas: int
    soaks: int
    segments: int
    fails: int
    minutes: float
    looks: int
    relist_seconds: int
    quick: bool
    keep: bool
    rest_only: bool = False


@dataclass(frozen=True, slots=True)
class Phase:
    """What was counted in one phase."""

    name: str
    seconds: float
    uses: Counter[Use]
    writes: Counter[str]
    cpu: float
    usage: Usage
    passes: float
    pass_ms: float

    def rate(self, *uses: Use) -> float:
        return sum(self.uses[use] for use in uses) / self.seconds

    @property
    def reads_per_s(self) -> float:
        return self.rate(*(use for use in Use if use.reads))


@dataclass(slots=True)
class Found:
    """Everything that was found."""

    created: dict[str, float] = field(default_factory=dict)
    phases: list[Phase] = field(default_factory=list)
    looks: dict[tuple[int, str], list[tuple[float, float, int]]] = field(default_factory=dict)
    """By segments and age of the soak; the first look of each is not among them."""
    first_looks: dict[tuple[int, str], tuple[float, float, int]] = field(default_factory=dict)
    switches: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Of what could not be measured, besides the goals."""

    def figures(self) -> dict[str, float]:
        """The headline figures, as far as they were measured."""
        rest = next((phase for phase in self.phases if phase.name == AT_REST), None)
        found = {}
        if rest is not None:
            found["idle_reads_per_s"] = rest.reads_per_s
            found["idle_writes_per_s"] = rest.rate(Use.WRITE)
            found["idle_cpu_share"] = rest.cpu / rest.seconds
            found["idle_memory_mb"] = rest.usage.memory
        for wide in SEGMENTS:
            if rows := self.looks.get((wide, QUARTER)):
                found[f"soak_look_ms_{wide}"] = statistics.median(row[0] for row in rows)
        if self.switches:
            found["fail_to_switch_p99_s"] = nearest_rank(self.switches, 0.99)
        return found


def nearest_rank(values: list[float], share: float) -> float:
    """Of up to a hundred values, the 99th percentile is the largest."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def median(found: Found, wide: int, age: str, column: int) -> float:
    return statistics.median(row[column] for row in found.looks[wide, age])


def verdicts(figures: dict[str, float]) -> list[tuple[str, str, str, str]]:
    """A row for each goal: figure, value, goal, verdict."""
    return [
        (
            goal.figure,
            "-" if goal.figure not in figures else f"{figures[goal.figure]:.4g} {goal.unit}",
            f"{goal.most:g} {goal.unit}",
            goal.verdict(figures.get(goal.figure)),
        )
        for goal in GOALS
    ]


def page(found: Found, of: Options) -> str:
    """bench/results/idle.md."""
    heads = ("phase", "seconds", "reads/s", "of these relist", "of these watches", "writes/s", "Lease, requests/s")
    rows = [
        (
            one.name, f"{one.seconds:.0f}", f"{one.reads_per_s:.3f}", f"{one.rate(Use.RELIST):.3f}",
            f"{one.rate(Use.WATCH):.3f}", f"{one.rate(Use.WRITE):.3f}",
            f"{one.rate(Use.LEASE_READ, Use.LEASE_WRITE):.2f}", f"{one.cpu / one.seconds:.2%}",
            f"{one.usage.memory:.0f}", f"{one.passes / one.seconds:.1f}", f"{one.pass_ms:.1f}",
        )
        for one in found.phases
    ]  # fmt: skip
    made, switches = found.created, found.switches
    return "\n\n".join(
        [
            "# At rest and soaking",
            f"`python bench/idle.py{' --rest-only' * of.rest_only}`, {results.stamp()}.\n{results.machine()}.",
            results.busy(),
            f"{of.indexes} indexes in {of.namespaces} namespaces, {of.replicas} pods each; relist every "
            f"{of.relist_seconds} s; polling of sources is off.",
            results.table(("figure", "value", "goal", "verdict"), verdicts(found.figures())),
            "Reads at rest count everything but the Lease: looks, the relist, and watches that begin anew. In the "
            "first day a stable revision is watched: its pods are asked every 30 s. *An hour on*: their promotion was "
            "set back.",
            results.table((*heads, "CPU, share of a core", "memory, MB", "passes/s", "ms a pass, wall"), rows),
            *found.notes,
            f"**Creation** until all are Stable: {made['seconds']:.0f} s; of the operator, for each index, "
            f"{made['writes']:.0f} writes, {made['reads']:.0f} reads, {made['cpu']:.2f} s of CPU; peak memory "
            f"{made['peak']:.0f} MB." if made else "",
            *(_of_looks(found) if found.looks else ()),
            f"**From the start of the look that sees a Fail to the switch**, {len(switches)} times, beside {of.soaks} "
            f"soaks: median {statistics.median(switches):.3f} s, largest {max(switches):.3f} s (which is the 99th "
            "percentile of so few)." if switches else "",
        ]
    )  # fmt: skip


def _of_looks(found: Found) -> tuple[str, str]:
    rows = [
        (
            wide, age, len(taken), f"{median(found, wide, age, 0):.1f}", f"{median(found, wide, age, 1):.1f}",
            f"{max(row[0] for row in taken):.1f}", f"{found.first_looks[wide, age][0]:.0f}",
            sum(row[2] for row in taken),
        )
        for (wide, age), taken in found.looks.items()
    ]  # fmt: skip
    heads = ("segments", "age of the soak", "looks", "CPU, ms (median)", "wall, ms (median)", "CPU, ms (most)")
    return (
        "**A soak look**, in a process with nothing else in it, three pods; both indexes in turns. For soaks of 15 "
        "minutes (the default, and the figure above) and of an hour (all that pods keep) their start was set back. "
        "The first look asks for everything, the later ones for what changed.",
        results.table((*heads, "first look, CPU ms", "writes"), rows),
    )
