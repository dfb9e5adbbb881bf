"""The searcher of bench/shadow_cost.py: `vectorindex-searcher` with vectors.npy at hand (BENCH_VECTORS), which
otherwise only live recall fetches: its scans would be part of what is measured."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

from vectorindex_searcher.serve.server import Server


def main() -> None:
    path = Path(os.environ["BENCH_VECTORS"])
    Server._vectors = lambda _self: path  # type: ignore[method-assign]
    runpy.run_module("vectorindex_searcher", run_name="__main__")


if __name__ == "__main__":
    main()
