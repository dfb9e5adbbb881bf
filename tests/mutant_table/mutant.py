"""One row of the table: a safety device, what the code looks like without it, and which tests must notice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    """An exact text in one file, and what stands in its place. `file`: from the root of the repository."""

    file: str
    find: str
    replace: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """One device taken out. `tests`: below tests/, the narrowest first: one that fails is enough, and ends the run.

    `each`: tests of which every single one must notice; all are run. What is here can fail.
    `also`: where one device stands behind another, so that only without both harm can come.
    """

    name: str
    file: str
    find: str
    replace: str
    tests: tuple[str, ...]
    why: str
    also: tuple[Edit, ...] = ()
    each: tuple[str, ...] = ()

    @property
    def edits(self) -> Iterator[Edit]:
        yield Edit(self.file, self.find, self.replace)
        yield from self.also


def seeds(scenario: str) -> str:
    """A scenario of the simulator with all its seeds."""
    return f"simulator/test_simulator.py::test_seeds[{scenario}]"


def kept(name: str) -> str:
    """A seed of the simulator that once failed."""
    return f"simulator/test_simulator.py::test_kept_seeds[{name}]"


def late(scenario: str) -> str:
    """A scenario in which one operator's write stands still and is carried out after another's."""
    test = "test_a_write_that_comes_late_breaks_nothing_and_changes_no_end"
    return f"simulator/test_late_writes.py::{test}[{scenario}]"
