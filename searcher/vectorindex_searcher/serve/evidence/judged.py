"""Queries whose recall is known, added up for the evidence. Opens no FAISS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .ring import LiveTally


@dataclass(frozen=True, slots=True)
class Judged:
    """A sampled query's recall in [0, 1]. `wide`: against a wider search, not an exact one."""

    bucket: int
    segment: str
    recall: float
    overall: bool
    wide: bool


def tallies(judged: Sequence[Judged]) -> list[LiveTally]:
    """Added up per bucket and segment: the event loop should not have to."""
    found: dict[tuple[int, str], LiveTally] = {}
    for one in judged:
        tally = found.setdefault((one.bucket, one.segment), LiveTally(one.bucket, one.segment))
        tally.queries += 1
        tally.recall_sum += one.recall
        tally.wide += one.wide
        tally.overall_queries += one.overall
        tally.overall_recall_sum += one.recall * one.overall
    return list(found.values())
