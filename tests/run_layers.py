"""Runs layers of tests one after the other, each as its own pytest, and says which ran.

A layer that cannot run here (no root, no Linux ...) is named with the reason and what to do; under CI=true that is a
failure, because a layer that silently does not run proves nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = ROOT / "hack" / "local-cluster" / "cluster"
LAYERS = ("unit", "simulator", "apiserver", "e2e")
NEEDS_CLUSTER = frozenset({"apiserver", "e2e"})
PREPARATIONS: dict[str, tuple[list[str], ...]] = {
    "apiserver": tuple([str(CLUSTER), "binary", name] for name in ("kubernetes", "helm", "versitygw")),
    "e2e": ([sys.executable, "-m", "harness"],),
}
"""Run before pytest: minutes on a fresh machine, seconds later."""
ONE_PROCESS_PER_CORE = frozenset({"unit", "simulator"})
NO_TESTS = 5  # pytest's exit code when it collected nothing: a layer without tests is a failure


def obstacle(layer: str) -> str:
    """Why `layer` cannot run on this machine; empty when it can."""
    if layer not in NEEDS_CLUSTER or os.environ.get("CLUSTER") in ("kind", "current"):
        return ""
    check = subprocess.run([str(CLUSTER), "check"], capture_output=True, text=True, check=False)
    return "" if check.returncode == 0 else (check.stdout + check.stderr).strip()


def prepared(layer: str) -> bool:
    """Makes ready what `layer` needs; says so when that cannot be."""
    reason = obstacle(layer)
    if reason:
        print(f"{layer}: cannot run here\n{reason}", flush=True)
        return False
    for preparation in PREPARATIONS.get(layer, ()):
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "hack")}
        if subprocess.run(preparation, cwd=ROOT, env=environment, check=False).returncode:
            print(f"{layer}: its preparation failed: {' '.join(preparation)}", flush=True)
            return False
    return True


def command(layer: str, *arguments: str) -> list[str]:
    """The command line of pytest for one layer."""
    spread = ["--numprocesses=auto", "--dist=worksteal"] if layer in ONE_PROCESS_PER_CORE else []
    return [sys.executable, "-m", "pytest", f"tests/{layer}", "-q", "-rs", *spread, *arguments]


def run(layer: str) -> str:
    """Run one layer: "passed", "failed" or "could not run"."""
    print(f"--- {layer}", flush=True)
    if not prepared(layer):
        return "could not run"
    code = subprocess.run(command(layer, "--durations=5"), cwd=ROOT, check=False).returncode
    if code == NO_TESTS:
        print(f"tests/{layer} holds no test", flush=True)
    return "passed" if code == 0 else "failed"


def main(layers: list[str]) -> int:
    unknown = [layer for layer in layers if layer not in LAYERS]
    if unknown:
        print(f"unknown layer {unknown[0]!r}: choose from {', '.join(LAYERS)}", file=sys.stderr)
        return 64
    rows = []
    for layer in layers:
        started = time.monotonic()
        outcome = run(layer)
        rows.append((layer, outcome, time.monotonic() - started))
    print("\nlayer       outcome         seconds")
    for layer, outcome, seconds in rows:
        print(f"{layer:<12}{outcome:<16}{seconds:7.1f}")
    bad = {"failed", "could not run"} if os.environ.get("CI") == "true" else {"failed"}
    return int(any(outcome in bad for _, outcome, _ in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(LAYERS)))
