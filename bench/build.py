"""What does building cost beside FAISS itself, in CPU and in memory?

    python bench/build.py [--repeats 3] [--rows 2200000] [--quick]

Rate: CPU of reading, training, adding and writing against a plain FAISS script on the same data, sample size and
factory string, the two taking turns, each in a process of its own; wall time would say what else the machine did.
Measuring and publishing have no counterpart in the script and are shown apart. Memory: the kernel's peak of a build
whose source is five times the formula of docs/building.md, over that formula.

summary.json: build.rate_share (the lowest over the factory strings), build.peak_memory_share.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from datasets import FOLDER, clustered, real
from results import add_to_summary, machine, stamp, table, write_page

ONCE = Path(__file__).with_name("build_once.py")
FACTORIES = ("IVF512,PQ96x4fs,Refine(SQ8)", "IVF1024,SQ8", "HNSW32,SQ8")
QUICK_FACTORIES = ("IVF64,SQ8",)
MEMORY_FACTORY = "IVF256,PQ32x4fs"
MEMORY_DIMENSION = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="builds of each kind for each factory string")
    parser.add_argument("--rows", type=int, default=2_200_000, help=f"rows of the large source, x {MEMORY_DIMENSION}")
    parser.add_argument("--quick", action="store_true", help="see that it runs; writes no results")
    options = parser.parse_args()
    where = machine()
    repeats, factories = (1, QUICK_FACTORIES) if options.quick else (options.repeats, FACTORIES)
    dataset = real()
    rows, shares = [], []
    for factory in factories:
        row, share = rate(dataset.path, factory, repeats)
        rows.append([factory, *row])
        shares.append(share)
        print(factory, *row, flush=True)
    memory = once("ours", clustered(20_000 if options.quick else options.rows, MEMORY_DIMENSION).path, MEMORY_FACTORY)
    share = memory["peak"] / memory["formula"]
    print(json.dumps(memory))
    if options.quick:
        return
    head = ["factory", "plain rows/CPU-s", "ours rows/CPU-s", "share", "measuring and publishing, CPU-s", "peak MiB"]
    mib = {name: memory[name] / 2**20 for name in ("source", "index", "sample", "formula", "peak")}
    memory_head = ["factory", "source MiB", "index MiB", "sample MiB", "formula MiB", "peak MiB", "share"]
    memory_row = [
        MEMORY_FACTORY,
        *(round(mib[name]) for name in ("source", "index", "sample", "formula", "peak")),
        share,
    ]
    text = [
        "# Building against a plain FAISS script",
        f"{stamp()}. {where}.",
        f"Data: {dataset.name}. CPU seconds of the whole process, median of {repeats}, taking turns.",
        table(head, rows),
        f"Memory of a source {memory['source'] / memory['formula']:.1f} times the formula (docs/building.md):",
        table(memory_head, [memory_row]),
    ]
    write_page("build", "\n\n".join(text))
    add_to_summary({"build.rate_share": min(shares), "build.peak_memory_share": share})


def rate(source: Path, factory: str, repeats: int) -> tuple[list[object], float]:
    """Cells of one line, and our share of the plain script's rate."""
    pairs = [(once("plain", source, factory), once("ours", source, factory)) for _ in range(repeats)]
    share = statistics.median(plain["cpu_index"] / ours["cpu_index"] for plain, ours in pairs)
    plain, ours = (
        statistics.median(pair[number]["rows"] / pair[number]["cpu_index"] for pair in pairs) for number in (0, 1)
    )
    rest = statistics.median(pair[1]["cpu_all"] - pair[1]["cpu_index"] for pair in pairs)
    return [plain, ours, share, rest, round(max(pair[1]["peak"] for pair in pairs) / 2**20)], share


def once(kind: str, source: Path, factory: str) -> dict[str, float]:
    """One build in a process of its own."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as out:
        program = [sys.executable, str(ONCE), kind, str(source), factory, out]
        done = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
