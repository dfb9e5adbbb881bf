"""The operator, installed with its Helm chart as a user would."""

from __future__ import annotations

import json
from pathlib import Path

from harness.base import CHECKOUT, Cluster
from harness.errors import HarnessError
from harness.images import Images

NAMESPACE = "vectorindex-system"
CHART = CHECKOUT / "charts" / "vectorindex-operator"
CHART_NAME = "vectorindex-operator"
DEFAULT_NAME = "vectorindex"
WAIT_SECONDS = 180


def install(cluster: Cluster, images: Images, chart: Path = CHART, **values: str) -> str:
    """Installs or upgrades the release and waits until the operator is ready; the release's name.

    A release of this chart that is there already is upgraded under its own name; the operator restarts only when that
    changes its pod. `values`: further chart values, with `__` for a dot.
    """
    name = installed(cluster) or DEFAULT_NAME
    wanted = {
        "image.repository": images.operator.repository,
        "image.tag": images.operator.tag,
        "searcherImage.repository": images.searcher.repository,
        "searcherImage.tag": images.searcher.tag,
        **{key.replace("__", "."): value for key, value in values.items()},
    }
    settings = [word for key, value in wanted.items() for word in ("--set-string", f"{key}={value}")]
    try:
        cluster.helm(
            "upgrade", "--install", name, chart, "--namespace", NAMESPACE, "--create-namespace",
            "--wait", "--timeout", f"{WAIT_SECONDS}s", "--history-max", "5", "--reset-values", *settings,
            timeout=WAIT_SECONDS + 30,
        )  # fmt: skip
    except HarnessError as failure:
        raise HarnessError(f"{failure}\n{_pods(cluster)}") from failure
    return name


def go_back(cluster: Cluster, name: str, revision: int) -> None:
    """`helm rollback` to a revision of the release; waits until the operator is ready."""
    cluster.helm(
        "rollback", name, str(revision), "--namespace", NAMESPACE, "--wait", "--timeout", f"{WAIT_SECONDS}s",
        timeout=WAIT_SECONDS + 30,
    )  # fmt: skip


def revision(cluster: Cluster, name: str) -> int:
    """The number of the release's newest revision."""
    listed = json.loads(cluster.helm("history", name, "--namespace", NAMESPACE, "--max", "1", "--output", "json"))
    return int(listed[-1]["revision"])


def deployment(cluster: Cluster) -> str:
    """The name of the operator's Deployment."""
    selector = f"app.kubernetes.io/name={CHART_NAME},app.kubernetes.io/component=operator"
    said = cluster.kubectl("-n", NAMESPACE, "get", "deployment", "-l", selector, "-o", "name")
    if not said.strip():
        raise HarnessError(f"the operator is not installed in namespace {NAMESPACE}")
    return said.split()[0].removeprefix("deployment.apps/")


def installed(cluster: Cluster) -> str:
    """The name of the release of this chart in our namespace; empty when there is none."""
    listed = json.loads(cluster.helm("list", "--namespace", NAMESPACE, "--all", "--output", "json") or "[]")
    mine = [row["name"] for row in listed if row["chart"].rpartition("-")[0] == CHART_NAME]
    return str(mine[0]) if mine else ""


def _pods(cluster: Cluster) -> str:
    """What the operator's pods say, for a failed installation."""
    pods = cluster.kubectl("-n", NAMESPACE, "get", "pods", "-o", "wide")
    try:
        logs = cluster.kubectl("-n", NAMESPACE, "logs", f"deployment/{deployment(cluster)}", "--tail=20")
    except HarnessError as failure:
        logs = str(failure)
    return f"{pods}\n{logs}"
