"""The searcher of bench/shadow_cost.py: `vectorindex-searcher` with vectors.npy at hand (BENCH_VECTORS), which
otherwise only live recall fetches: its scans would be part of what is measured. It refuses nobody, and waits for the
judged pod, however busy the machine is."""

from __future__ import annotations

import os
import runpy
from functools import partial
from pathlib import Path

from vectorindex_searcher import contract
from vectorindex_searcher.serve import server
from vectorindex_searcher.serve.search.pool import SearchPool

PATIENCE_SECONDS = 60.0


def main() -> None:
    path = Path(os.environ["BENCH_VECTORS"])
    contract.SHADOW_SECONDS = PATIENCE_SECONDS
    server.Server._vectors = lambda _self: path  # type: ignore[method-assign]
    server.SearchPool = partial(SearchPool, queue_seconds=PATIENCE_SECONDS)  # type: ignore[assignment, misc]
    runpy.run_module("vectorindex_searcher", run_name="__main__")


if __name__ == "__main__":
    main()
