"""What cold.py says of what it saw: one cold rollback, the table by size, the page and its figures."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import results

STEPS = ("node", "container", "fetch", "map", "canary", "start and probe", "switch", "answer")


@dataclass(frozen=True, slots=True)
class WayBack:
    """One cold rollback. Seconds. `steps`: one after the other, from the trip to the first good answer."""

    gigabytes: float
    decided: float
    """From the command to the trip."""
    steps: Mapping[str, float]
    total: float
    last_bad: float
    """From the trip to the last answer of the revision that was left."""
    expected: float | None
    """What RollbackPossible said before."""
    there: float
    """What fetching (which hashes) took in a container that found the files."""
    queries: int
    failed: int
    answered_again: int

    @property
    def with_files(self) -> float:
        """The whole with the files in a cache: computed."""
        return self.total - self.steps["fetch"] + self.there


def expected_of(message: str) -> float | None:
    """The seconds in the words of RollbackPossible; None: it names none."""
    found = re.search(r"takes about (\d+) s", message)
    return float(found.group(1)) if found else None


def by_size(found: Sequence[WayBack]) -> dict[float, list[WayBack]]:
    return {size: [one for one in found if one.gigabytes == size] for size in dict.fromkeys(o.gigabytes for o in found)}


def table(found: Sequence[WayBack]) -> str:
    """A row a size; medians of its rounds."""
    head = [
        "index, GB",
        *STEPS,
        "first good answer",
        "said before",
        "with the files there",
        "last bad answer",
        "failed",
    ]
    rows = []
    for size, mine in by_size(found).items():
        steps = [statistics.median(one.steps[name] for one in mine) for name in STEPS]
        said = [one.expected for one in mine if one.expected is not None]
        rows.append(
            [
                f"{size:g}",
                *(f"{value:.1f}" for value in steps),
                f"**{statistics.median(one.total for one in mine):.1f}**",
                f"{statistics.median(said):.0f}" if said else "-",
                f"{statistics.median(one.with_files for one in mine):.1f}",
                f"{statistics.median(one.last_bad for one in mine):.1f}",
                f"{sum(one.failed for one in mine)} of {sum(one.queries for one in mine):,}",
            ]
        )
    return results.table(head, rows)


def figures(found: Sequence[WayBack]) -> dict[str, float]:
    """The keys of summary.json."""
    totals = {f"cold.{size:g}gb_s": statistics.median(one.total for one in m) for size, m in by_size(found).items()}
    return totals | {"cold.failed": float(sum(one.failed for one in found))}


def page(found: Sequence[WayBack], command: str, rate: float) -> str:
    """bench/results/cold.md."""
    rounds = max(len(mine) for mine in by_size(found).values())
    again = sum(one.answered_again for one in found)
    return "\n\n".join(
        [
            "# Cold rollback: from the trip to the first good answer",
            f"`{command}`, {results.stamp()}. {results.machine()}.",
            *([results.busy()] if results.busy() else []),
            f"One searcher a revision, {rate:g} queries a second that never stop, {rounds} round(s) a size, medians. "
            "Index, S3 server, client and both revisions share the machine. Seconds from the trip: a node, the "
            "container, download with SHA-256, map, canary queries, the process's start and the kubelet's probe, the "
            "switch, the first answer of the revision that was gone back to. Meanwhile the one that was left answers. "
            "*Said before*: what `RollbackPossible` expected. *With the files there*: computed with the load of a "
            "container that found the files in its pod (it hashes them all the same); a new pod never does, since each "
            "has a volume of its own.",
            table(found),
            f"{again} queries were answered at a further attempt, as the Python client makes them.",
        ]
    )
