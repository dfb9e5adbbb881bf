"""What the operator writes about indexes on which nothing happens: nothing, besides the renewals of its Lease.

    python bench/idle_writes.py [--minutes 10] [--indexes 3]

Rolls out some small indexes, lets them settle, then counts the operator's writes (vectorindex_api_writes_total), and
the changes of every object about the indexes. For true figures nothing else may use this
operator meanwhile. CLUSTER= chooses the cluster as for `make test`.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT / "hack"), str(CHECKOUT / "tests")]

from e2e.operator_release import Operator  # noqa: E402
from e2e.vectors import Corpus  # noqa: E402
from e2e.workspace import Workspace  # noqa: E402

from harness import cluster, images, release, s3  # noqa: E402
from harness.kube import Kube  # noqa: E402

KINDS = ("VectorIndex", "VectorIndexRevision", "Job", "Deployment", "Service", "PodDisruptionBudget", "Pod", "Event")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--indexes", type=int, default=3)
    options = parser.parse_args()
    chosen = cluster.choose()
    chosen.up()
    built = images.build(chosen)
    kube, store = Kube(chosen), s3.connect(chosen)
    operator = Operator(chosen, kube, release.install(chosen, built))
    names = [f"bench-idle-{number}-{secrets.token_hex(2)}" for number in range(options.indexes)]
    spaces = [Workspace.create(kube, store, built, name) for name in names]
    try:
        document = measure(spaces, operator, options.minutes)
    finally:
        for space in spaces:
            space.remove()
    print(json.dumps(document))
    return int(document["writes"] != 0 or document["changed_objects"] != [])


def measure(spaces: list[Workspace], operator: Operator, minutes: float) -> dict[str, object]:
    """Counts between two moments."""
    corpus = Corpus.make()
    for space in spaces:
        space.put("good", corpus)
        space.apply("good")
    for space in spaces:
        space.index.wait_condition("RolledOut", timeout=300)
    others = [
        f"{item['metadata']['namespace']}/{item['metadata']['name']}"
        for item in operator.kube.list("VectorIndex")
        if item["metadata"]["namespace"] not in {space.namespace for space in spaces}
    ]
    if others:
        print(f"not alone, so writes about these count too: {', '.join(others)}", file=sys.stderr)
    time.sleep(30)  # the last Events and status writes of the rollouts
    leader, passes = operator.passes()
    writes, before = _writes(operator), _versions(spaces)
    print(f"counting for {minutes:g} minutes", file=sys.stderr)
    time.sleep(minutes * 60)
    after, now = _versions(spaces), operator.passes()
    if now[0] != leader:
        sys.exit(f"another operator leads now ({now[0]}, before {leader}): the counts mean nothing")
    return {
        "minutes": minutes,
        "indexes": len(spaces),
        "other_indexes": others,
        "passes": now[1] - passes,
        "writes": sum(_writes(operator).values()) - sum(writes.values()),
        "changed_objects": sorted(key for key in before | after if before.get(key) != after.get(key)),
    }


def _writes(operator: Operator) -> dict[str, float]:
    return operator.metric("vectorindex_api_writes_total")


def _versions(spaces: list[Workspace]) -> dict[str, str]:
    """resourceVersion of every object about the indexes."""
    return {
        f"{kind}/{space.namespace}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
        for space in spaces
        for kind in KINDS
        for item in space.kube.list(kind, space.namespace)
    }


if __name__ == "__main__":
    sys.exit(main())
