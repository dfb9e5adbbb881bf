"""How do build, search and memory grow with the number of vectors?

    python bench/growth.py [--full] [--quick]

Clustered vectors x 128, 10,000 and 100,000 of them, with --full also 1,000,000; each build in a process of its own
(build_once.py), CPU seconds of the whole process. Search: mean CPU of one query at the default operating point, one
thread.
The figure that matters is the growth: ten times the rows cost about ten times the build, and much less than ten times
the search. summary.json: growth.<factory>.{build,search,memory}_per_10x, the last step.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from datasets import FOLDER, Dataset, clustered
from results import add_to_summary, machine, stamp, table, write_page

from vectorindex_searcher.artifact.manifest import Manifest
from vectorindex_searcher.index.engine import Engine

ONCE = Path(__file__).with_name("build_once.py")
DIMENSION = 128
FACTORIES = {"HNSW": "HNSW32,SQ8", "IVF": "IVF{lists},SQ8"}
QUERIES = 300
FIGURES = ("build CPU-s", "search us", "index MiB", "peak MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="1,000,000 vectors too (an hour)")
    parser.add_argument("--quick", action="store_true", help="see that it runs; writes no results")
    options = parser.parse_args()
    sizes = [1_000, 10_000] if options.quick else [10_000, 100_000, *([1_000_000] if options.full else [])]
    where, rows, summary = machine(), [], {}
    for name, pattern in FACTORIES.items():
        before: list[float] = []
        for size in sizes:
            factory = pattern.format(lists=2 ** round(np.log2(4 * np.sqrt(size))))
            found = measure(clustered(size, DIMENSION), factory)
            recall, figures = found[0], found[1:]
            growth = [f"x{now / then:.1f}" for now, then in zip(figures, before, strict=True)] if before else [""] * 4
            rows.append([factory, size, *figures, recall, " ".join(growth)])
            print(*rows[-1], flush=True)
            if before:
                build, search, index, _ = (now / then for now, then in zip(figures, before, strict=True))
                summary |= {
                    f"growth.{name}.build_per_10x": build,
                    f"growth.{name}.search_per_10x": search,
                    f"growth.{name}.memory_per_10x": index,
                }
            before = figures
    if options.quick:
        return
    head = ["factory", "rows", *FIGURES, "recall@10", "growth of the four"]
    text = ["# Cost growth", f"{stamp()}. {where}.", f"Clustered vectors x {DIMENSION}.", table(head, rows)]
    write_page("growth", "\n\n".join(text))
    add_to_summary(summary)


def measure(dataset: Dataset, factory: str) -> list[float]:
    """Recall, build CPU seconds without what measuring took, us of one query, MiB of the index, MiB at the peak."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as out:
        program = [sys.executable, str(ONCE), "ours", str(dataset.path), factory, out]
        done = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True)
        built = json.loads(done.stdout.splitlines()[-1])
        (found,) = Path(out).rglob("manifest.json")
        manifest = Manifest.model_validate_json(found.read_text())
        engine = Engine.open(found.parent / manifest.attempt, manifest)
        queries = dataset.queries(QUERIES)
        engine.search(queries, 10)  # the pages are in memory
        began = time.process_time()
        for number in range(QUERIES):
            engine.search(queries[number : number + 1], 10)
        microseconds = (time.process_time() - began) / QUERIES * 1e6
    return [built["recall"], built["cpu_index"], microseconds, built["index"] / 2**20, built["peak"] / 2**20]


if __name__ == "__main__":
    main()
