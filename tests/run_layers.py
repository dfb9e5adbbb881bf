"""Runs layers of tests one after the other, each as its own pytest, and says which ran.

The simulator runs beside e2e, which mostly waits, and gets what e2e leaves of the machine: it keeps a clock of its own,
so no load can change what it finds. What it said is shown when both have ended.

A layer that cannot run here (no root, no Linux ...) is named with the reason and what to do; under CI=true that is a
failure, because a layer that silently does not run proves nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "hack"))

import gpu_python  # noqa: E402

CLUSTER = ROOT / "hack" / "local-cluster" / "cluster"
LAYERS = ("unit", "simulator", "dashboard", "apiserver", "chaos", "e2e")
ON_REQUEST = ("gitops", "gitops_cluster", "elsewhere", "release", "stores", "traces", "mesh", "gpu")
"""Run only where they are named: what they need takes minutes to build."""
NEEDS_CLUSTER = frozenset({"apiserver", "chaos", "e2e", "gitops_cluster", "elsewhere", "release"})
PREPARATIONS: dict[str, tuple[list[str], ...]] = {
    "apiserver": tuple([str(CLUSTER), "binary", name] for name in ("kubernetes", "helm", "versitygw")),
    "chaos": tuple([str(CLUSTER), "binary", name] for name in ("kubernetes", "helm")),
    "e2e": ([sys.executable, "-m", "harness"],),
    "elsewhere": (
        [str(CLUSTER), "up"],
        [str(CLUSTER), "registry", "on"],
        [str(CLUSTER), "binary", "cosign"],
        [sys.executable, "-m", "releasing", "push", "--local"],
    ),
    "release": tuple([str(CLUSTER), "binary", name] for name in ("registry", "cosign", "helm")),
    "gitops": tuple([str(CLUSTER), "binary", name] for name in ("kubernetes", "helm", "argocd-scripts", "argocd")),
    "stores": tuple([str(CLUSTER), "binary", name] for name in ("azurite", "fake-gcs-server")),
    "traces": ([str(CLUSTER), "binary", "otelcol"],),
    "mesh": tuple([str(CLUSTER), "binary", name] for name in ("kubernetes", "helm", "istio-inject")),
    "gpu": ([sys.executable, str(ROOT / "hack" / "gpu_python.py")],),
    "gitops_cluster": (["env", "CLUSTER=local", sys.executable, "-m", "harness"], [str(CLUSTER), "binary", "argocd"]),
}
"""Run before pytest: minutes on a fresh machine, seconds later."""
ONE_PROCESS_PER_CORE = frozenset({"unit", "simulator"})
BEHIND, IN_FRONT = "simulator", "e2e"
"""The first runs beside the second, at the lowest priority."""
LOWEST = ("nice", "-n", "19")
BEHIND_TIMEOUT = "--timeout=3600"
"""Of one test: behind another layer it may wait long for a core."""
_LOOPBACK = "ip link set lo up && ip address add 192.0.2.1 dev lo && ip route add default dev lo"
ALONE = ("unshare", "--net", "sh", "-c", f'{_LOOPBACK} && exec "$@"', "sh")
NETWORKS: dict[str, tuple[str, ...]] = {"gitops": ALONE, "gitops_cluster": (str(CLUSTER), "network")}
"""Of these some programs listen on every address: they get another network, where root may enter one: with loopback
only, or that of the local cluster's node."""
NO_TESTS = 5  # pytest's exit code when it collected nothing: a layer without tests is a failure


def obstacle(layer: str) -> str:
    """Why `layer` cannot run on this machine; empty when it can."""
    if layer == "gpu":
        return gpu_python.obstacle()
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
    """The command line of pytest for one layer. What takes an hour is heard while it goes on."""
    spread = ["--numprocesses=auto", "--dist=worksteal"] if layer in ONE_PROCESS_PER_CORE else []
    heard = ["--capture=no"] if layer == "chaos" and os.environ.get("CHAOS") == "full" else []
    apart = NETWORKS.get(layer, ()) if os.geteuid() == 0 else ()
    python = str(gpu_python.python()) if layer == "gpu" else sys.executable
    return [*apart, python, "-m", "pytest", f"tests/{layer}", "-q", "-rs", *spread, *heard, *arguments]


def run(layer: str) -> str:
    """Run one layer: "passed", "failed" or "could not run"."""
    print(f"--- {layer}", flush=True)
    if not prepared(layer):
        return "could not run"
    return outcome(layer, subprocess.run(command(layer, "--durations=12"), cwd=ROOT, check=False).returncode)


def outcome(layer: str, code: int) -> str:
    if code == NO_TESTS:
        print(f"tests/{layer} holds no test", flush=True)
    return "passed" if code == 0 else "failed"


@contextmanager
def behind(layer: str) -> Iterator[Callable[[], str]]:
    """Runs a layer at the lowest priority; what is yielded waits for its end, shows all it said and says how it ended.

    It ends with the block.
    """
    with tempfile.TemporaryFile() as said:
        words = [*LOWEST, *command(layer, "--durations=12", BEHIND_TIMEOUT)]
        process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said, stderr=said)

        def ended() -> str:
            code = process.wait()
            said.seek(0)
            print(f"--- {layer} (ran beside {IN_FRONT})\n{said.read().decode(errors='replace')}", flush=True)
            return outcome(layer, code)

        try:
            yield ended
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def run_all(layers: list[str]) -> list[tuple[str, str, float]]:
    """Each layer, how it ended and how many seconds it took; of the one behind another, how many it took longer."""
    rows = []

    def timed(layer: str, how: Callable[[], str]) -> None:
        began = time.monotonic()
        rows.append((layer, how(), time.monotonic() - began))

    both = {BEHIND, IN_FRONT} <= set(layers)
    for layer in layers:
        if both and layer == IN_FRONT:
            with behind(BEHIND) as ended:
                timed(layer, partial(run, layer))
                timed(BEHIND, ended)
        elif not both or layer != BEHIND:
            timed(layer, partial(run, layer))
    return rows


def main(layers: list[str]) -> int:
    known = LAYERS + ON_REQUEST
    unknown = [layer for layer in layers if layer not in known]
    if unknown:
        print(f"unknown layer {unknown[0]!r}: choose from {', '.join(known)}", file=sys.stderr)
        return 64
    rows = run_all(layers)
    print("\nlayer           outcome         seconds")
    for layer, ended, seconds in rows:
        print(f"{layer:<16}{ended:<16}{seconds:7.1f}")
    bad = {"failed", "could not run"} if os.environ.get("CI") == "true" else {"failed"}
    return int(any(ended in bad for _, ended, _ in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(LAYERS)))
