"""What `lint` says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FaultFacts:
    """One fault. `field`: its path; empty: the document as a whole."""

    file: str
    line: int
    name: str
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class LintFacts:
    """`checked`: VectorIndexes that were looked at; `notes`: what could not be checked, and what is needed for it."""

    checked: int
    faults: tuple[FaultFacts, ...]
    notes: tuple[str, ...]
