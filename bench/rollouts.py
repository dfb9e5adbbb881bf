"""Rollouts and rollbacks under live traffic on a real cluster: does a query fail, and how fast is the way back?

    python bench/rollouts.py [--cycles 10] [--rate 250] [--json FILE]

A cycle rolls out a bad revision (half of the data spoiled), which a guardrail rolls back, and then a good one, which
is promoted: two rollouts and a rollback, about 2.5 minutes on two cores. The queries never stop. Prints a table and, at
the end, one line of JSON. CLUSTER= chooses the cluster as for `make test`; a release that is there is upgraded.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT / "hack"), str(CHECKOUT / "tests")]

from e2e.vectors import Corpus  # noqa: E402
from e2e.workspace import Workspace  # noqa: E402

from harness import cluster, images, release, s3  # noqa: E402
from harness.kube import Kube  # noqa: E402
from harness.traffic import Traffic  # noqa: E402
from harness.vix import unix  # noqa: E402

FIGURES = ("first_bad_to_trip_s", "trip_to_switch_s", "trip_to_last_bad_answer_s")


@dataclass(frozen=True, slots=True)
class Rollback:
    """Seconds. Switch: the first answer of the revision that it went back to. Answers are timed by the client."""

    revision: str
    rule: str
    first_bad_to_trip_s: float
    trip_to_switch_s: float
    trip_to_last_bad_answer_s: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=10)
    parser.add_argument("--rate", type=float, default=250.0, help="queries per second")
    parser.add_argument("--json", type=Path, help="write the result here too")
    options = parser.parse_args()
    chosen = cluster.choose()
    chosen.up()
    built = images.build(chosen)
    release.install(chosen, built)
    space = Workspace.create(Kube(chosen), s3.connect(chosen), built, f"bench-rollouts-{secrets.token_hex(2)}")
    try:
        document = measure(space, options.cycles, options.rate)
    finally:
        space.remove()
    line = json.dumps(document)
    if options.json:
        options.json.write_text(line + "\n")
    print(line)
    return int(bool(document["failed"]))


def measure(space: Workspace, cycles: int, rate: float) -> dict[str, object]:
    """Everything that was measured, as it is printed."""
    corpus, rollbacks = Corpus.make(), []
    space.put("good", corpus)
    space.apply("good")
    space.index.wait_condition("RolledOut", timeout=300)
    print("cycle  rule            first bad to trip  trip to switch  trip to last bad answer  queries   failed")
    with space.traffic(corpus, rate) as traffic:
        for cycle in range(cycles):
            row = roll_back(space, traffic, corpus.spoiled(0.5, seed=1000 + cycle), f"bad-{cycle}")
            rollbacks.append(row)
            promote(space, corpus.moved(seed=2000 + cycle), f"good-{cycle}")
            seen = traffic.snapshot()
            print(
                f"{cycle + 1:5}  {row.rule:<14}  {row.first_bad_to_trip_s:15.2f} s  {row.trip_to_switch_s:12.3f} s  "
                f"{row.trip_to_last_bad_answer_s:21.2f} s  {seen.queries:7}  {seen.failed:7}",
                flush=True,
            )
    seen = traffic.snapshot()
    if seen.failed:
        print(seen.describe_failures(limit=20))
    values = {name: [getattr(row, name) for row in rollbacks] for name in FIGURES}
    return {
        "rollouts": 2 * cycles,
        "rollbacks": len(rollbacks),
        "queries": seen.queries,
        "failed": seen.failed,
        "sent_again": seen.sent_again,
        "queries_per_second": round(seen.queries / seen.seconds, 1),
        "p95_ms": round(seen.p95_ms, 2),
        **{name: {"median": round(statistics.median(all_), 3), "max": max(all_)} for name, all_ in values.items()},
        "each": [asdict(row) for row in rollbacks],
    }


def roll_back(space: Workspace, traffic: Traffic, data: Corpus, folder: str) -> Rollback:
    """One bad revision from apply to the last of its answers."""
    index, known = space.index, set(space.index.revisions())
    prior = index.traffic()
    space.put(folder, data)
    space.apply(folder)
    bad = index.wait_new_revision(known)
    index.wait_revision(bad, "RolledBack", timeout=600)
    seen = traffic.wait(lambda s: s.at - s.revisions[bad].last_at > 5, 120, f"no more answers of {bad}")
    decision = index.decision()
    assert decision is not None
    assert (decision.from_revision, decision.to_revision) == (bad, prior)
    back = seen.revisions[prior].first_after(decision.at)
    assert back is not None
    trip = unix(index.revision(bad)["rollout"]["trip"]["at"])
    return Rollback(
        bad,
        decision.rule,
        round(trip - seen.revisions[bad].first_at, 3),
        round(back - trip, 3),
        round(max(0.0, seen.revisions[bad].last_at - trip), 3),
    )


def promote(space: Workspace, data: Corpus, folder: str) -> None:
    """One good revision from apply to Stable."""
    known = set(space.index.revisions())
    space.put(folder, data)
    space.apply(folder)
    space.index.wait_revision(space.index.wait_new_revision(known), "Stable", timeout=600)


if __name__ == "__main__":
    sys.exit(main())
