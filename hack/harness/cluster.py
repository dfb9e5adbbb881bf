"""Which cluster: CLUSTER= if given, else the local one on Linux as root without Docker, else kind.

Never one that merely happens to be in the user's kubeconfig: that needs CLUSTER=current.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from functools import cache

from harness.base import CHECKOUT, Cluster, Image, S3Access
from harness.errors import HarnessError
from harness.external_cluster import CurrentCluster, KindCluster
from harness.local import LocalCluster

KINDS: dict[str, Callable[[], Cluster]] = {"local": LocalCluster, "kind": KindCluster, "current": CurrentCluster}
__all__ = ["CHECKOUT", "Cluster", "Image", "S3Access", "choose", "lacking"]


def choose(wish: str | None = None) -> Cluster:
    """The cluster to use; `wish` defaults to the environment's CLUSTER. Starts nothing. Raises HarnessError."""
    wish = os.environ.get("CLUSTER", "") if wish is None else wish
    if wish and wish not in KINDS:
        raise HarnessError(f"CLUSTER={wish} is not known; use one of {', '.join(KINDS)}")
    kind = wish or _possible()
    if not kind:
        raise HarnessError("no cluster can be used here:\n" + "\n".join(f"  {line}" for line in lacking()))
    return KINDS[kind]()


def lacking() -> list[str]:
    """What this machine lacks for each kind of cluster, one line each. For people."""
    local = [what for what, there in (("Linux", _linux()), ("root", _root())) if not there]
    if local:
        first = f"the local cluster needs {' and '.join(local)}: run as root on Linux (a container or a VM will do)"
    else:
        first = "the local cluster is not chosen by itself where a Docker engine runs: set CLUSTER=local"
    kind = [what for what, there in (("a running Docker engine", docker_runs()), ("kind", _has("kind"))) if not there]
    second = f"kind needs {' and '.join(kind)}"
    third = "another cluster is used only with CLUSTER=current, IMAGE_REPOSITORY and IMAGE_TAG"
    return [first, *([second] if kind else []), third]


def _possible() -> str:
    if _linux() and _root() and not docker_runs():
        return "local"
    if docker_runs() and all(map(_has, ("kind", "kubectl", "helm"))):
        return "kind"
    return ""


@cache
def docker_runs() -> bool:
    """Whether a Docker engine answers; the client alone is not enough."""
    if not _has("docker"):
        return False
    try:
        question = ["docker", "version", "--format", "{{.Server.Version}}"]
        return subprocess.run(question, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _linux() -> bool:
    return platform.system() == "Linux"


def _root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _has(program: str) -> bool:
    return shutil.which(program) is not None
