"""Runs a layer of tests many times, each time in another order and beside busy loops, and says which failed and when.

    python tests/run_flakes.py LAYER [--times 10] [--seed 1] [--loops 3] [--only "EXPRESSION of pytest -k"]

A test that fails here, and not alone, waits for time where it should wait for an event, or needs what another left.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager

from run_layers import ROOT, command, prepared

LAYERS = ("unit", "simulator", "apiserver")
"""Not e2e: its modules tell stories whose order is meant."""
REPORTS = ROOT / "build" / "flakes"
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(100_000))"
SHOWN_CHARACTERS = 300

Failures = dict[str, str]
"""Test -> the beginning of what it said."""


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Processes that want a core each; they end with this one, however it ends."""
    loops = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def run_once(layer: str, seed: int, only: str) -> Failures:
    """One run in the order of `seed`; what failed."""
    report = REPORTS / f"{layer}-{seed}.xml"
    report.unlink(missing_ok=True)
    arguments = ["-p", "shuffled", f"--junitxml={report}", "--tb=short", *(["-k", only] if only else [])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "SHUFFLE_SEED": str(seed), "DRAW": str(seed)}
    log = report.with_suffix(".log")
    with log.open("wb") as out:
        done = subprocess.run(
            command(layer, *arguments), cwd=ROOT, env=environment, stdout=out, stderr=out, check=False
        )
    failed = failures(report.read_text()) if report.exists() else {}
    return failed or ({f"(pytest ended with {done.returncode}, see {log})": ""} if done.returncode else {})


def failures(report: str) -> Failures:
    """Of a report in JUnit's format."""
    found = {}
    for case in ET.fromstring(report).iter("testcase"):
        for kind in ("failure", "error"):
            said = case.find(kind)
            if said is not None:
                found[f"{case.get('classname')}::{case.get('name')}"] = (said.get("message") or "")[:SHOWN_CHARACTERS]
    return found


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("layer", choices=LAYERS)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 10_000), help="of the first run; then one more")
    parser.add_argument("--loops", type=int, default=3)
    parser.add_argument("--only", default="", help="as pytest -k")
    asked = parser.parse_args(words)
    if not prepared(asked.layer):
        return 1
    REPORTS.mkdir(parents=True, exist_ok=True)
    seen: dict[str, list[int]] = {}
    with busy_loops(asked.loops):
        for seed in range(asked.seed, asked.seed + asked.times):
            began = time.monotonic()
            failed = run_once(asked.layer, seed, asked.only)
            print(f"seed {seed}: {len(failed) or 'none'} failed in {time.monotonic() - began:.0f} s", flush=True)
            for test, said in failed.items():
                print(f"  {test}: {said}", flush=True)
                seen.setdefault(test, []).append(seed)
    print(f"\n{asked.layer}: {asked.times} runs beside {asked.loops} busy loops, {len(seen)} tests failed in any")
    for test, seeds in sorted(seen.items(), key=lambda row: -len(row[1])):
        print(f"  {len(seeds)} x {test}, seeds {', '.join(map(str, seeds))}")
    return int(bool(seen))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
