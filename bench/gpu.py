"""How much faster does a GPU build an index than the CPUs beside it?

    make bench-gpu            (python bench/gpu.py [--quick], with build/gpu or GPU_PYTHON)

A million clustered vectors x 768, each kind of index built by the command line with `--device CPU` on all cores and
with `--device GPU` on the first GPU, taking turns, by the same Python, whose FAISS is the one for GPUs. Wall time of
whole builds: read, train, fill, measure, publish; the machine must be idle. Both builds tune to the same recall, which
is what makes them comparable: a pair whose recalls differ by more than RECALLS_APART counts for nothing. A build that
fell back to the CPU ends the benchmark with its reason. Writes bench/results/gpu.md and, in
summary.json, gpu.build_ratio: the lowest ratio of the kinds that FAISS trains and fills on a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import FOLDER, Dataset, clustered
from results import add_to_summary, busy, machine, stamp, table, write_page

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "hack"))

import gpu_python  # noqa: E402

ON_GPU = ("IVF4096,SQ8", "IVF4096,PQ96", "IVF4096,Flat")
"""Trained and filled there. PQ96: codes of 8 bits."""
K_MEANS_ONLY = ("IVF2048,PQ192x4fs,Refine(SQ8)",)
GRAPH = ("HNSW32,SQ8",)
"""Of these a GPU finds the exact neighbours alone, against which a build is measured."""
QUICK = ("IVF64,SQ8",)
ROUNDS = 3
RECALLS_APART = 0.01
_HOURS = 3 * 3600


@dataclass(frozen=True, slots=True)
class Build:
    """One build. `device`: where it ran, as its manifest says; `reason`: why it ran elsewhere than it should."""

    device: str
    reason: str
    seconds: float
    rows: int
    recall: float
    query_us: float


@dataclass(frozen=True, slots=True)
class Pair:
    """The same index by both, medians of the rounds."""

    factory: str
    cpu: Build
    gpu: Build

    @property
    def ratio(self) -> float:
        """Rows a second of the GPU for each of the CPUs."""
        return (self.gpu.rows / self.gpu.seconds) / (self.cpu.rows / self.cpu.seconds)

    @property
    def comparable(self) -> bool:
        return abs(self.gpu.recall - self.cpu.recall) <= RECALLS_APART


class FellBackError(Exception):
    """A build that should have run on the GPU did not."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="see that it runs; writes no results")
    options = parser.parse_args()
    if reason := gpu_python.obstacle():
        raise SystemExit(f"not measured: {reason}")
    gpu = names()
    data = clustered(20_000, 64) if options.quick else clustered(1_000_000, 768)
    factories = QUICK if options.quick else (*ON_GPU, *K_MEANS_ONLY, *GRAPH)
    pairs = [pair(data, factory, 1 if options.quick else ROUNDS) for factory in factories]
    text = page(pairs, data.name, gpu)
    print(text)
    if not options.quick:
        write_page("gpu", text)
        add_to_summary(headlines(pairs))


def names() -> str:
    """What nvidia-smi calls the first GPU, with its memory and driver."""
    fields = "--query-gpu=name,memory.total,driver_version"
    said = subprocess.run(
        ["nvidia-smi", fields, "--format=csv,noheader"], check=True, stdout=subprocess.PIPE, text=True
    )
    return said.stdout.splitlines()[0]


def pair(data: Dataset, factory: str, rounds: int) -> Pair:
    """Build it by both, taking turns. Raises FellBackError."""
    found: dict[str, list[Build]] = {"CPU": [], "GPU": []}
    for _ in range(rounds):
        for device, builds in found.items():
            builds.append(checked(once(data, factory, device), device))
            print(factory, builds[-1], flush=True)
    return Pair(factory, median(found["CPU"]), median(found["GPU"]))


def checked(build: Build, device: str) -> Build:
    """The build, if it ran where it should. Raises FellBackError."""
    if build.device != device:
        raise FellBackError(
            f"a build on the {device} ran on the {build.device}: {build.reason or 'no reason is given'}"
        )
    if build.reason:
        raise FellBackError(f"a build on the {device} ran {build.reason}")
    return build


def median(builds: Sequence[Build]) -> Build:
    """The one in the middle by time."""
    return sorted(builds, key=lambda build: build.seconds)[len(builds) // 2]


def once(data: Dataset, factory: str, device: str) -> Build:
    """One build in a process of its own, on the first GPU or on none."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as out:
        words = ["-m", "vectorindex_searcher", "build", "--source", str(data.path), "--out", out, "--factory", factory]
        known = {**os.environ, "CUDA_VISIBLE_DEVICES": "0" if device == "GPU" else ""}
        began = time.monotonic()
        done = [str(gpu_python.python()), *words, "--device", device]
        subprocess.run(done, check=True, env=known, stdout=subprocess.DEVNULL, timeout=_HOURS)
        seconds = time.monotonic() - began
        (path,) = Path(out).rglob("manifest.json")
        return read(json.loads(path.read_text()), seconds)


def read(manifest: dict[str, object], seconds: float) -> Build:
    """What a manifest says of its build."""
    point = manifest["defaultPoint"]
    assert isinstance(point, dict)
    return Build(
        device=str(manifest["device"]),
        reason=str(manifest.get("deviceReason", "")),
        seconds=seconds,
        rows=int(str(manifest["count"])),
        recall=float(point["recall"]),
        query_us=float(point["latencyUs"]),
    )


def headlines(pairs: Sequence[Pair]) -> dict[str, float]:
    """Of the kinds that a GPU trains and fills; nothing where none of them can be compared."""
    ratios = [one.ratio for one in pairs if one.factory in ON_GPU and one.comparable]
    return {"gpu.build_ratio": min(ratios)} if len(ratios) == len(ON_GPU) else {}


def page(pairs: Sequence[Pair], data: str, gpu: str) -> str:
    """bench/results/gpu.md."""
    head = [
        "factory",
        "CPU rows/s",
        "GPU rows/s",
        "ratio",
        "recall, CPU",
        "recall, GPU",
        "query us, CPU",
        "query us, GPU",
    ]
    rows = [
        [
            one.factory,
            one.cpu.rows / one.cpu.seconds,
            one.gpu.rows / one.gpu.seconds,
            one.ratio if one.comparable else "not comparable",
            *(one.cpu.recall, one.gpu.recall, one.cpu.query_us, one.gpu.query_us),
        ]
        for one in pairs
    ]
    return f"""# Builds on a GPU

`python bench/gpu.py`, {stamp()}. {machine()}. GPU: {gpu}.

{data}. Wall time of whole builds, the one in the middle of the rounds, CPU and GPU taking turns; both tuned to the same
recall.

{table(head, rows)}

{busy()}
"""


if __name__ == "__main__":
    main()
