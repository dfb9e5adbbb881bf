"""`python -m harness`: make the chosen cluster ready for tests: running, with both images of this checkout and, with
E2E=long, of the release that one story upgrades from.

Run before pytest, not in a fixture: the first time it takes ten minutes or more, which no test's time limit allows for
and whose progress pytest would hide.
"""

from __future__ import annotations

import os
import sys

from harness import cluster as clusters
from harness import images, past
from harness.base import Cluster
from harness.errors import HarnessError, LackingError


def main() -> int:
    """Exit code 0 when tests can start."""
    try:
        cluster = clusters.choose()
        if cluster.namespace:
            raise HarnessError("these tests make namespaces of their own: run them without CLUSTER_NAMESPACE")
        cluster.up()
        built = images.build(cluster)
        if os.environ.get("E2E") == "long":
            _build_past(cluster)
    except HarnessError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"cluster {cluster.name} is ready, image {built.operator.reference}", flush=True)
    return 0


def _build_past(cluster: Cluster) -> None:
    """The story that needs it says itself that it cannot run."""
    try:
        with past.release(cluster):
            pass
    except LackingError as lacking:
        print(lacking, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
