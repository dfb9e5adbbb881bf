"""The installed operator from the outside: its pods, log, metrics, chart values, and how to kill it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from e2e.workspace import Workspace

from harness import release
from harness.base import Cluster
from harness.errors import HarnessError
from harness.kube import Json, Kube

SELECTOR = f"app.kubernetes.io/name={release.CHART_NAME},app.kubernetes.io/component=operator"
LEASE = "vectorindex-operator"


@dataclass(frozen=True, slots=True)
class Operator:
    cluster: Cluster
    kube: Kube
    release: str
    since: float = 0.0
    """Unix seconds: when the tests began."""
    namespace: str = release.NAMESPACE
    _other_roles: list[tuple[float, float]] = field(default_factory=list)

    # ------------------------------------------------------------ looks

    def pods(self) -> list[Json]:
        """Its pods that are not on their way out."""
        pods = self.kube.list("Pod", self.namespace, SELECTOR)
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def leader(self) -> str:
        """The pod that holds the Lease; empty when nobody does."""
        lease = self.kube.get("Lease", LEASE, self.namespace)
        return str((lease or {}).get("spec", {}).get("holderIdentity") or "")

    def metric(self, name: str, pod: str = "") -> dict[str, float]:
        """A metric of the leader (or of `pod`): labels -> value."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod or self.leader()}:8080/proxy/metrics"
        status, body = self.kube.call("GET", path)
        if status != 200:
            raise HarnessError(f"no metrics: {status} {body}")
        rows = re.findall(rf"^{name}(?:{{(.*?)}})? (\S+)$", body["text"], re.MULTILINE)
        return {labels: float(value) for labels, value in rows}

    def passes(self) -> tuple[str, float]:
        """The leader and how many passes it has made."""
        return self.leader(), self.metric("vectorindex_reconcile_total").get('result="ok"', 0.0)

    def may(self, verb: str, resource: str, group: str = "", *, subresource: str = "") -> bool:
        """Whether the API server lets the operator's ServiceAccount do this in any namespace."""
        account = self.pods()[0]["spec"]["serviceAccountName"]
        asked = {"verb": verb, "resource": resource, "group": group, "subresource": subresource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{self.namespace}:{account}",
                "groups": ["system:serviceaccounts", "system:authenticated"],
                "resourceAttributes": asked,
            },
        }
        status, body = self.kube.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body=review)
        if status >= 400:
            raise HarnessError(f"the API server does not say what {account} may do: {status} {body}")
        return bool(body["status"]["allowed"])

    @staticmethod
    def log_of(kube: Kube, namespace: str = "", lines: int = 2000) -> str:
        """What the operators said about `namespace` (without its Events), or everything."""
        said = []
        for pod in kube.list("Pod", release.NAMESPACE, SELECTOR):
            name = pod["metadata"]["name"]
            log = kube.logs(name, release.NAMESPACE, lines=lines)
            said += [f"{name}: {line}" for line in log.splitlines() if _about(line, namespace)]
        return "\n".join(said[-40:] if namespace else said)

    # ------------------------------------------------------------ changes

    def upgrade(self, *settings: str) -> None:
        """`helm upgrade` with further values, as in "replicaCount=2"; waits until the pods are ready."""
        sets = [word for setting in settings for word in ("--set", setting)]
        self.cluster.helm(
            "upgrade", self.release, release.CHART, "--namespace", self.namespace,
            "--reuse-values", "--wait", "--timeout", "120s", *sets, timeout=150,
        )  # fmt: skip

    @contextlib.contextmanager
    def earlier(self) -> Iterator[None]:
        """For as long as an earlier chart may be installed, whose roles are others."""
        began = time.time()
        try:
            yield
        finally:
            self._other_roles.append((began, time.time()))

    def under_other_roles(self, at: float) -> bool:
        """Whether an earlier chart's roles may have been in force at this time (Unix seconds)."""
        return any(first <= at <= last for first, last in self._other_roles)

    def kill(self) -> None:
        """SIGKILL to the process that holds the Lease; returns when it is dead."""

        def alive() -> Json | None:
            pod = self.kube.get("Pod", self.leader(), self.namespace)
            return pod if pod is not None and _life(pod)[1] == "running" else None

        pod = self.kube.wait_for(alive, 60, "an operator that leads and runs", last_seen=self.leader)
        kill_container(self.cluster, self.kube, pod)
        name = pod["metadata"]["name"]
        self.kube.wait_for(
            lambda: _life(self.kube.get("Pod", name, self.namespace)) != _life(pod), 30, f"the end of {name}"
        )


def _life(pod: Json | None) -> tuple[int, str]:
    """Changes when a pod's container ends: its restarts and what it does now."""
    (container,) = (pod or {}).get("status", {}).get("containerStatuses") or ({"state": {}},)
    return container.get("restartCount", -1), next(iter(container["state"]), "gone")


def _about(line: str, namespace: str) -> bool:
    return not namespace or (namespace in line and "adapters.events" not in line)


def kill_container(cluster: Cluster, kube: Kube, pod: Json) -> None:
    """SIGKILL to the main process of a pod's container.

    From inside, PID 1 cannot be killed: so through the host where the cluster runs on it. Elsewhere the pod is deleted
    without grace, which is the nearest thing a client can do.
    """
    meta = pod["metadata"]
    if cluster.name != "local":
        kube.delete("Pod", meta["name"], meta["namespace"], grace=0)
        return
    for process in main_processes(meta["uid"]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def crash_until(space: Workspace, revision: str, ended: Callable[[], bool], timeout: float = 120) -> None:
    """Kills every searcher of `revision` as soon as it runs, until `ended`."""
    killed: set[tuple[str, int]] = set()

    def crash() -> bool:
        for pod in space.index.pods(revision):
            for container in pod["status"].get("containerStatuses", []):
                life = (pod["metadata"]["uid"], int(container["restartCount"]))
                if "running" in container["state"] and life not in killed:
                    killed.add(life)
                    kill_container(space.kube.cluster, space.kube, pod)
        return ended()

    space.index.wait(crash, timeout, f"the end of {revision}, killed again and again")


def main_processes(uid: str) -> list[int]:
    """Processes of the pod's containers that are PID 1 in their own namespace, without the pause container's."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if uid not in (folder / "cgroup").read_text():
                continue
            status = (folder / "status").read_text()
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile
        inner = re.search(r"^NSpid:.*\s(\d+)$", status, re.MULTILINE)
        if inner is not None and inner.group(1) == "1" and b"pause" not in words[0]:
            found.append(int(folder.name))
    return found
