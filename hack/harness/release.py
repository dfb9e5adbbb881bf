"""The operator, installed with its Helm chart as a user would."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from harness.base import CHECKOUT, Cluster
from harness.errors import HarnessError, WaitTimeout
from harness.images import Images
from harness.waiting import wait_for

NAMESPACE = "vectorindex-system"
CHART = CHECKOUT / "charts" / "vectorindex-operator"
CHART_NAME = "vectorindex-operator"
DEFAULT_NAME = "vectorindex"
WAIT_SECONDS = 180
LIMIT_SECONDS = WAIT_SECONDS + 30
"""After so long a Helm of ours was ended, whatever it was doing."""


def install(cluster: Cluster, images: Images, chart: Path = CHART, **values: str) -> str:
    """Installs or upgrades the release and waits until the operator is ready; the release's name.

    A release of this chart that is there already is upgraded under its own name; the operator restarts only when that
    changes its pod. `values`: further chart values, with `__` for a dot.
    """
    name = installed(cluster) or DEFAULT_NAME
    _end_what_was_cut_off(cluster, name)
    more = {key.replace("__", "."): value for key, value in values.items()}
    make = [] if cluster.namespace else ["--create-namespace"]
    try:
        cluster.helm(
            "upgrade", "--install", name, chart, "--namespace", home(cluster), *make,
            "--wait", "--timeout", f"{WAIT_SECONDS}s", "--history-max", "5", "--reset-values",
            *settings(cluster, images, more), timeout=LIMIT_SECONDS,
        )  # fmt: skip
    except HarnessError as failure:
        raise HarnessError(f"{failure}\n{_pods(cluster)}") from failure
    return name


def install_beside(cluster: Cluster, images: Images, name: str, namespace: str, *words: str) -> None:
    """Installs or upgrades a second operator, which has the indexes of the operator class `name` and takes the CRDs as
    they are. `words`: further ones of Helm's."""
    cluster.helm(
        "upgrade", "--install", name, CHART, "--namespace", namespace, "--create-namespace",
        "--set", "crds.enabled=false", *words, "--wait", "--timeout", "120s",
        *settings(cluster, images, {"operatorClass": name}), timeout=150,
    )  # fmt: skip


def home(cluster: Cluster) -> str:
    """The namespace of the release."""
    return cluster.namespace or NAMESPACE


def settings(cluster: Cluster, images: Images, more: Mapping[str, str]) -> list[str]:
    """Helm's words for the images, for the rights that there are, and for `more` values."""
    wanted = {
        "image.repository": images.operator.repository,
        "image.tag": images.operator.tag,
        "image.digest": images.operator.digest,
        "searcherImage.repository": images.searcher.repository,
        "searcherImage.tag": images.searcher.tag,
        "searcherImage.digest": images.searcher.digest,
        **{f"imagePullSecrets[{at}].name": secret for at, secret in enumerate(cluster.pull_secrets)},
    }
    if cluster.namespace:  # a class of its own: another operator may watch all of a cluster that is not ours
        wanted |= {"scope": "namespace", "operatorClass": cluster.namespace}
    past = {key: value for key, value in wanted.items() if value or not key.endswith("digest")}
    return [word for key, value in {**past, **more}.items() for word in ("--set-string", f"{key}={value}")]


def objects(cluster: Cluster, images: Images) -> list[dict[str, Any]]:
    """What an installation makes."""
    words = ["template", DEFAULT_NAME, str(CHART), "--namespace", home(cluster), *settings(cluster, images, {})]
    return [one for one in yaml.safe_load_all(cluster.helm(*words)) if one]


def go_back(cluster: Cluster, name: str, revision: int) -> None:
    """`helm rollback` to a revision of the release; waits until the operator is ready."""
    cluster.helm(
        "rollback", name, str(revision), "--namespace", home(cluster), "--wait", "--timeout", f"{WAIT_SECONDS}s",
        timeout=LIMIT_SECONDS,
    )  # fmt: skip


def revision(cluster: Cluster, name: str) -> int:
    """The number of the release's newest revision."""
    listed = json.loads(cluster.helm("history", name, "--namespace", home(cluster), "--max", "1", "--output", "json"))
    return int(listed[-1]["revision"])


def deployment(cluster: Cluster) -> str:
    """The name of the operator's Deployment."""
    selector = f"app.kubernetes.io/name={CHART_NAME},app.kubernetes.io/component=operator"
    said = cluster.kubectl("-n", home(cluster), "get", "deployment", "-l", selector, "-o", "name")
    if not said.strip():
        raise HarnessError(f"the operator is not installed in namespace {home(cluster)}")
    return said.split()[0].removeprefix("deployment.apps/")


def installed(cluster: Cluster) -> str:
    """The name of the release of this chart in its namespace; empty when there is none."""
    mine = [row["name"] for row in _releases(cluster) if row["chart"].rpartition("-")[0] == CHART_NAME]
    return str(mine[0]) if mine else ""


def _releases(cluster: Cluster) -> list[dict[str, Any]]:
    """What `helm list` says of the release's namespace."""
    listed = cluster.helm("list", "--namespace", home(cluster), "--all", "--output", "json")
    return list(json.loads(listed or "[]"))


def _end_what_was_cut_off(cluster: Cluster, name: str) -> None:
    """A Helm that was killed leaves a release that no other may touch. Once it can only be that, its record goes, as
    Helm's own documentation has it; what it had made stays and is taken over by the next.

    While another Helm may be at work it is waited for.
    """

    def pending() -> dict[str, Any] | None:
        rows = (row for row in _releases(cluster) if row["name"] == name)
        return next((row for row in rows if row["status"].startswith("pending-")), None)

    if (row := pending()) is None:
        return
    left = LIMIT_SECONDS - _seconds_since(row["updated"])
    if left > 0:
        what = f"{row['status']} of release {name}, begun at {row['updated'][:19]}"
        print(f"{what}: a Helm may be at work, or was cut off; waiting {left:.0f} s at most", file=sys.stderr)
        with suppress(WaitTimeout):
            wait_for(lambda: pending() != row, left, "it to end", every=2)
        if pending() != row:
            return
    cluster.kubectl("-n", home(cluster), "delete", "secret", f"sh.helm.release.v1.{name}.v{row['revision']}")


def _seconds_since(helms_time: str) -> float:
    """Of a time as `helm list` writes it: 2026-11-28 18:09:33.191123927 +0000 UTC."""
    began = datetime.strptime(helms_time[:19], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    return (datetime.now(UTC) - began).total_seconds()


def _pods(cluster: Cluster) -> str:
    """What the operator's pods say, for a failed installation."""
    pods = cluster.kubectl("-n", home(cluster), "get", "pods", "-o", "wide")
    try:
        logs = cluster.kubectl("-n", home(cluster), "logs", f"deployment/{deployment(cluster)}", "--tail=20")
    except HarnessError as failure:
        logs = str(failure)
    return f"{pods}\n{logs}"
