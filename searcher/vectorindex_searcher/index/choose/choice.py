"""What `Auto` is asked for and what it answers: the goal, the choice, and a verdict in words on every candidate."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from ...artifact.manifest import Candidate
from ...contract import Effort, Minimise
from ...errors import BadSpec
from ..sizes import size_text
from .candidates import Entry

MEMORY_FIELD = "spec.index.objective.memoryLimit"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Goal:
    """What to choose for. recall: floor of recall@10. memory_limit: bytes for the index alone, None for none."""

    recall: float
    minimise: Minimise = Minimise.LATENCY
    memory_limit: int | None = None
    effort: Effort = Effort.NORMAL


@dataclass(frozen=True, slots=True)
class Choice:
    """The factory string to build, every candidate with its verdict, and the winner's reason in words."""

    factory: str
    candidates: tuple[Candidate, ...]
    reason: str
    ef_construction: int | None = None
    """Of its graphs, beside the factory string."""


def within_memory(entries: list[Entry], goal: Goal) -> list[Entry]:
    """Those within the memory limit; the others get their verdict. Raises BadSpec when none is."""
    if goal.memory_limit is None:
        return list(entries)
    for entry in entries:
        if entry.size.resident > goal.memory_limit:
            entry.verdict = (
                f"over memoryLimit: needs {size_text(entry.size.resident)} of {size_text(goal.memory_limit)}"
            )
    fitting = [entry for entry in entries if not entry.verdict]
    if not fitting:
        least = min(entries, key=lambda entry: entry.size.resident)
        raise BadSpec(
            "MemoryLimitTooSmall",
            f"the smallest index, {least.factory}, needs {size_text(least.size.resident)}; "
            f"memoryLimit leaves {size_text(goal.memory_limit)} for the index beside ids and metadata",
            field=MEMORY_FIELD,
            remedy="Raise memoryLimit, or keep fewer metadata columns.",
        )
    return fitting


def conclude(winner: Entry, entries: list[Entry], goal: Goal, count: int) -> Choice:
    """The result for `count` rows, with the verdict on each of `entries` in words."""
    own = winner.at(count)
    smallest = goal.minimise is Minimise.MEMORY
    for entry in entries:
        if entry is not winner and not entry.verdict:
            entry.verdict = _verdict(entry, winner, goal, count)
    size, time = size_text(winner.size.resident), f"about {own:.0f} us a query"
    aim = f"the smallest ({size}, {time})" if smallest else f"the fastest ({time}, {size})"
    reached = math.isfinite(own)
    best = winner.last.best if winner.last else None
    reason = f"{aim} of {len(entries)} candidates" + (f" at recall {best.recall:.3f} on a sample" if best else "")
    winner.verdict = f"chosen: {reason if reached else 'none reaches the recall, this one comes nearest'}"
    ordered = sorted(entries, key=lambda one: (one is not winner, one.at(count), one.size.resident))
    found = tuple(one.wire(count) for one in ordered)
    for one in found:
        _log.info("candidate", extra=one.wire())
    return Choice(winner.factory, found, winner.verdict, winner.ef_construction)


def _verdict(entry: Entry, winner: Entry, goal: Goal, count: int) -> str:
    last = entry.last
    if last is None:
        smaller = goal.minimise is Minimise.MEMORY
        return f"not measured: {'larger' if smaller else 'expected to be no faster'} than the chosen one"
    if last.best is None:
        return f"reaches recall {last.ceiling:.3f} at most on the sample"
    if goal.minimise is Minimise.MEMORY and entry.at(count) < math.inf:
        ratio = entry.size.resident / winner.size.resident
        return f"{ratio:.2f}x the memory of {winner.name}" if ratio > 1 else "slower than exact search"
    return f"{entry.at(count) / winner.at(count):.2f}x the latency of {winner.name}"
