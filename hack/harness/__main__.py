"""`python -m harness`: make the chosen cluster ready for tests: running, with both images of this checkout.

Run before pytest, not in a fixture: the first time it takes ten minutes or more, which no test's time limit allows for
and whose progress pytest would hide.
"""

from __future__ import annotations

import sys

from harness import cluster as clusters
from harness import images
from harness.errors import HarnessError


def main() -> int:
    """Exit code 0 when tests can start."""
    try:
        cluster = clusters.choose()
        cluster.up()
        built = images.build(cluster)
    except HarnessError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"cluster {cluster.name} is ready, image {built.operator.reference}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
