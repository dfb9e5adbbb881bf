"""What a run on a real cluster says in the end; with CHAOS_WRITE=1 it writes bench/results/chaos.md and its figures."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict

import results
from chaos.site import Row, Site

HEAD = ("fault", "times", "rollouts", "rollbacks", "ended otherwise", "queries", "failed", "unproven")


def tell(place: Site, broke: Sequence[str]) -> None:
    """On standard output, one line of JSON; and the page when it is asked for."""
    rows = sorted(place.rows, key=lambda row: row.fault)
    print(json.dumps({"rows": [asdict(row) for row in rows], "left": place.left, "broke": list(broke)}))
    print(page(rows, place.left, broke))
    if os.environ.get("CHAOS_WRITE"):
        results.write_page("chaos", page(rows, place.left, broke))
        results.add_to_summary(figures(rows, place.left))


def figures(rows: Sequence[Row], left: Sequence[str]) -> dict[str, float]:
    """The keys of summary.json."""
    return {
        "chaos.rollouts": float(sum(row.rollouts for row in rows)),
        "chaos.faults": float(sum(row.times for row in rows)),
        "chaos.queries": float(sum(row.queries for row in rows)),
        "chaos.failed": float(sum(row.failed for row in rows)),
        "chaos.left_behind": float(len(left)),
    }


def page(rows: Sequence[Row], left: Sequence[str], broke: Sequence[str]) -> str:
    """bench/results/chaos.md."""
    cells = [_cells(row) for row in rows]
    failures = [f"- {row.fault}: {text}" for row in rows for text in [*row.wrong, *row.failures]]
    said = [" ".join(line.split())[:400] for line in [*failures, *(f"- {text}" for text in broke)]]
    return "\n\n".join(
        [
            "# Faults on a real cluster",
            f"`make test-chaos CHAOS_WRITE=1`, {results.stamp()}. {results.machine()}.",
            "Each fault all through a bad revision, which a guardrail rolls back, and a good one, on an index of two "
            "searchers, four indexes at once; those of the store and of nodes on one index by itself. Queries never "
            "stop; one is sent again as the Python client does it ([docs/client.md](../../docs/client.md)), and failed "
            "is one that has no answer then. The operator of each index is a process on its way to the API server "
            "through a proxy with faults (tests/chaos).",
            results.table(HEAD, cells),
            "## What failed or ended otherwise",
            "\n".join(said) or "Nothing.",
            "## Left behind after deletion",
            "\n".join(f"- {one}" for one in left) or "Nothing.",
        ]
    )


def _cells(row: Row) -> tuple[object, ...]:
    ended = row.times, row.rollouts, row.rollbacks, len(row.wrong)
    return row.fault, *ended, f"{row.queries:,}", row.failed, row.unproven
