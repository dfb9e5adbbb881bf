"""What a run on a real cluster says: bench/results/chaos.md and its figures, as far as the run has come."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layers import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "bench"))

import results
from chaos.ledger import Ledger, Row

FOLDER = CHECKOUT / "build" / "chaos"
"""What the tests of this layer found, for the page."""
BY_HAND = "<!-- What follows is written by hand and stays when this page is written anew. -->"
HEAD = ("fault", "times", "rollouts", "rollbacks", "ended otherwise", "queries", "failed", "unproven")


def remember(name: str, found: dict[str, Any]) -> None:
    """Keeps what another test found: `writes` or `answers`."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(found | {"stamp": results.stamp()}))


def remembered(name: str) -> dict[str, Any]:
    """Empty: it has not run."""
    file = FOLDER / f"{name}.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def forget() -> None:
    """A new run begins: what the tests of another one found is not its."""
    for name in ("writes", "answers"):
        (FOLDER / f"{name}.json").unlink(missing_ok=True)


def is_known(name: str) -> bool:
    """Whether a run that goes on has found this already, and nothing wrong."""
    found = remembered(name) if os.environ.get("CHAOS_RESUME") else {}
    return bool(found) and not found["wrong"]


def write(ledger: Ledger) -> None:
    """The page, whose part by hand stays, and the figures."""
    old = results.FOLDER / "chaos.md"
    results.write_page("chaos", page(ledger) + by_hand(old))
    results.add_to_summary(figures(ledger))


def by_hand(file: Path) -> str:
    """What somebody wrote at the end of the page."""
    text = file.read_text() if file.exists() else ""
    return f"\n\n{BY_HAND}{text.partition(BY_HAND)[2]}" if BY_HAND in text else ""


def merged(rows: Sequence[Row]) -> list[Row]:
    """One row for each fault, however often it had its turn."""
    found: dict[str, Row] = {}
    for row in rows:
        one = found.setdefault(row.fault, Row(row.fault))
        for name in ("rollouts", "rollbacks", "times", "queries", "failed", "unproven", "seconds"):
            setattr(one, name, getattr(one, name) + getattr(row, name))
        one.wrong += row.wrong
        one.failures += row.failures
        one.phases = dict(Counter(one.phases) + Counter(row.phases))
    return sorted(found.values(), key=lambda row: row.fault)


def figures(ledger: Ledger) -> dict[str, float]:
    """The keys of summary.json."""
    rows = ledger.rows
    return {
        "chaos.rollouts": float(sum(row.rollouts for row in rows)),
        "chaos.rollbacks": float(sum(row.rollbacks for row in rows)),
        "chaos.faults": float(sum(row.times for row in rows)),
        "chaos.queries": float(sum(row.queries for row in rows)),
        "chaos.failed": float(sum(row.failed for row in rows)),
        "chaos.unproven": float(sum(row.unproven for row in rows)),
        "chaos.left_behind": float(len(ledger.left)),
    }


def page(ledger: Ledger) -> str:
    """bench/results/chaos.md, without what was written by hand."""
    rows, told = merged(ledger.rows), figures(ledger)
    failures = [f"{row.fault}: {text}" for row in rows for text in [*row.wrong, *row.failures]]
    broken = [f"turn {number} broke off: {text}" for number, text in sorted(ledger.broken.items())]
    return "\n\n".join(
        [
            "# Faults on a real cluster",
            f"`make test-chaos`, {'; then '.join(ledger.parts)}. {results.machine()}.",
            f"**{told['chaos.rollouts']:.0f} rollouts and {told['chaos.rollbacks']:.0f} rollbacks**, "
            f"{told['chaos.faults']:,.0f} faults, {told['chaos.queries']:,.0f} queries: "
            f"**{told['chaos.failed']:.0f} failed, {told['chaos.unproven']:.0f} answers of what was not proven**."
            + _cut_off(ledger),
            _how(ledger),
            results.table(HEAD, [_cells(row) for row in rows]),
            *_phases(rows),
            "## What failed or ended otherwise",
            _lines([*failures, *broken]),
            *_elsewhere(),
            "## Left behind after deletion",
            _lines(ledger.left),
        ]
    )


def _how(ledger: Ledger) -> str:
    asked = ledger.campaign
    return (
        "Each fault all through a bad revision, which a guardrail rolls back, and a good one, on an index of two "
        f"searchers, {asked.indexes} indexes at once, {asked.rate:g} queries a second in all; the order is drawn "
        f"(seed {asked.seed}), each fault has its turn before any has another one. Those of the control plane, the "
        "store and of nodes befall one index by itself, at the same rate. Queries never stop; one is sent again as the "
        "Python client does it ([docs/client.md](../../docs/client.md)), and failed is one that has no answer then. "
        "The operator of each index is a process with the chart's rights in one namespace and a key to sign with, on "
        "its way to the API server through a proxy with faults (tests/chaos)."
    )


def _cut_off(ledger: Ledger) -> str:
    if len(ledger.done) >= ledger.planned:
        return ""
    return f" {len(ledger.done)} of {ledger.planned} turns are done: `make test-chaos RESUME=1` goes on."


def _phases(rows: Sequence[Row]) -> list[str]:
    """In which phase it happened, of the faults that tell it."""
    return [
        f"{row.fault}, by the phase of the revision: "
        + ", ".join(f"{phase} {count}" for phase, count in sorted(row.phases.items()))
        + "."
        for row in rows
        if row.phases
    ]


def _elsewhere() -> list[str]:
    """What the tests without a kubelet found."""
    said = []
    if writes := remembered("writes"):
        said += [
            "## At each write",
            f"Without a kubelet, by the dozen (`tests/chaos/test_writes.py`, {writes['stamp']}): the operator was "
            f"killed right before or right after {_every(writes['every'])} of a rollout ({writes['rollout']} writes) "
            f"and of a rollback ({writes['rollback']}), {writes['killed']} times in {writes['runs']} runs. "
            f"{len(writes['wrong'])} of them ended otherwise than if nothing had been.",
            *([_lines(writes["wrong"])] if writes["wrong"] else []),
        ]
    if answers := remembered("answers"):
        said += [
            "## Whatever the API server answers",
            f"Without a kubelet (`tests/chaos/test_answers.py`, {answers['stamp']}): {answers['faults']} faults of its "
            f"answers, each all through a rollout and all through a rollback. {len(answers['wrong'])} ended otherwise "
            "than they must.",
            *([_lines(answers["wrong"])] if answers["wrong"] else []),
        ]
    return said


def _every(number: int) -> str:
    return "every write" if number == 1 else f"one write of {number}"


def _lines(texts: Sequence[str]) -> str:
    return "\n".join("- " + " ".join(text.split())[:400].replace("|", "/") for text in texts) or "Nothing."


def _cells(row: Row) -> tuple[object, ...]:
    ended = row.times, row.rollouts, row.rollbacks, len(row.wrong)
    return row.fault, *ended, f"{row.queries:,}", row.failed, row.unproven
