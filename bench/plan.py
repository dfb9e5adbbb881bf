"""How often `kubectl vectorindex plan` says something else than what then happens: `plan.cases` and `plan.wrong`.

    python bench/plan.py

Each edit of tests/planned_edits.py is planned at some moment of an index's life, applied to the simulated cluster with
the operator's own loop, and played on for four minutes of its clock. Half a minute. Writes bench/results/plan.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT / "tests")]

import results  # noqa: E402
from planned_edits import CASES, LATER, Case, Played, played  # noqa: E402

from vectorindex_plugin.planning import Effect  # noqa: E402


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    rows = [(case, played(case)) for case in CASES]
    wrong = [case for case, one in rows if one.planned != one.happened]
    text = page(rows, len(wrong))
    print(text)
    results.write_page("plan", text)
    results.add_to_summary({"plan.cases": len(rows), "plan.wrong": len(wrong)})


def page(rows: Iterable[tuple[Case, Played]], wrong: int) -> str:
    """The Markdown page."""
    lines = [
        (case.moment.__name__.replace("_", " "), _edit(case), _words(one.planned), _words(one.happened))
        for case, one in rows
    ]
    return "\n".join(
        [
            "# Plans: what was said of an edit, and what then happened\n",
            f"`python bench/plan.py`, {results.stamp()}.\n",
            f"**{wrong} of {len(lines)} plans were wrong**, by what can be told from outside within "
            f"{LATER / 60:.0f} minutes.\n",
            results.table(("an index that is", "edit", "planned", "happened"), lines),
        ]
    )


def _edit(case: Case) -> str:
    return ", ".join(f"`{name.replace('__', '.')}`" for name in case.edit) or "none"


def _words(found: frozenset[Effect]) -> str:
    return ", ".join(effect.value for effect in Effect if effect in found) or "nothing"


if __name__ == "__main__":
    main()
