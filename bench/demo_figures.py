"""What did users get of the revision that was rejected in shadow? From the last `make demo`.

    make demo && python bench/demo_figures.py --write

summary.json: shadow.bad_answers, answers that users got of the revision whose vectors are wrong (`make demo`'s third).
Exit status 1: that run did not end as it must.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import results

RUN = Path(__file__).resolve().parents[1] / "build" / "demo" / "summary.json"
SHADOW = "ShadowRejected"


def figures(document: dict[str, Any]) -> dict[str, float]:
    """Of the demo's summary.json. Raises ValueError where no revision was rejected in shadow, or a query failed."""
    rejected = [one for one in document["revisions"] if one["outcome"] == SHADOW]
    if not rejected or document["failed"]:
        raise ValueError(f"{document['outcomes']}, {document['failed']} queries failed")
    return {"shadow.bad_answers": float(sum(one["bad_answers"] for one in rejected))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=RUN, help="summary.json of a run of the demo")
    parser.add_argument("--write", action="store_true", help="put the figures into bench/results/summary.json")
    asked = parser.parse_args()
    try:
        found = figures(json.loads(asked.run.read_text()))
    except (OSError, ValueError) as error:
        print(f"no figures: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found))
    if asked.write:
        results.add_to_summary(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
