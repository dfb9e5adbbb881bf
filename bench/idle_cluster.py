"""Everything that idle.py needs around the operator, and the operator as a process; all of it ends with a block."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3
from control_plane import Api, ControlPlane, Json
from idle_audit import Tail, Usage, usage
from idle_kubelet import Kubelet, wait_until
from idle_pods import ADDRESSES
from layers import CHECKOUT, program
from ports import held
from processes import Child

from vectorindex_operator.api.v1alpha1 import API_VERSION

HOME, ACCOUNT = "vectorindex-system", "operator"
USER = f"system:serviceaccount:{HOME}:{ACCOUNT}"
IMAGE = "example/searcher:v1"
TOKEN_SECONDS = 24 * 3600
PARALLEL = 8
_CHILDREN = (
    "apis/batch/v1:jobs",
    "apis/apps/v1:deployments",
    "api/v1:pods",
    "apis/policy/v1:poddisruptionbudgets",
    "apis/networking.k8s.io/v1:networkpolicies",
    "apis/discovery.k8s.io/v1:endpointslices",
    f"apis/{API_VERSION}:vectorindexrevisions",
)


@dataclass(slots=True)
class Operator:
    """The real process. `tail`: its requests by the audit log."""

    process: subprocess.Popen[bytes]
    port: int
    tail: Tail

    def usage(self) -> Usage:
        if self.process.poll() is not None:
            raise SystemExit(f"the operator has ended with {self.process.returncode}")
        return usage(self.process.pid)

    def metric(self, name: str) -> float:
        """The sum of a metric's series."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == name)


@dataclass(slots=True)
class Cluster:
    """A real API server with a fake kubelet and fake searchers."""

    plane: ControlPlane
    api: Api
    kubelet: Kubelet
    pods: Child
    log: Path
    relist_seconds: int
    _asking: threading.Lock = field(default_factory=threading.Lock)

    def tell_pods(self, order: str) -> dict[str, Any]:
        with self._asking:
            return self.pods.ask(order)

    @contextlib.contextmanager
    def operator(self) -> Iterator[Operator]:
        """Until the end of the block; its end is a clean one."""
        kubeconfig = str(self.plane.kubeconfig(HOME, ACCOUNT, TOKEN_SECONDS))
        environment = os.environ | {"KUBECONFIG": kubeconfig, "POD_NAMESPACE": HOME, "POD_NAME": "operator-1"}
        command = [sys.executable, "-m", "vectorindex_operator", "run", f"--searcher-image={IMAGE}"]
        with held() as (port,), self.log.open("ab") as log:
            flags = [f"--http-port={port}", f"--relist-seconds={self.relist_seconds}"]
            process = subprocess.Popen([*command, *flags], env=environment, stdout=log, stderr=log)
            try:
                running = Operator(process, port, Tail(self.plane.folder / "audit.log", USER))
                wait_until(lambda: self._leads(running), self.tail_of_log, 120, every=0.5)
                yield running
            finally:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _leads(self, running: Operator) -> bool:
        running.usage()
        try:
            return running.metric("vectorindex_leader") == 1.0
        except OSError:
            return False

    def tail_of_log(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    # ------------------------------------------------------------ VectorIndexes

    def apply(self, manifests: list[Json]) -> None:
        """As a user does it."""
        with ThreadPoolExecutor(PARALLEL) as pool:
            for answer in pool.map(lambda one: self.api.apply(one, force=True), manifests):
                if not answer.ok:
                    raise SystemExit(f"a VectorIndex was refused: {answer.message}")

    def remove_indexes(self, namespaces: list[str]) -> None:
        """All of them, with what the garbage collector would remove."""
        for namespace in namespaces:
            self._collected(f"/apis/{API_VERSION}/namespaces/{namespace}/vectorindexes")
        for namespace in namespaces:
            for prefix, plural in (one.split(":") for one in _CHILDREN):
                self._collected(f"/{prefix}/namespaces/{namespace}/{plural}")
            services = self.api.get(f"/api/v1/namespaces/{namespace}/services").body["items"]
            for one in services:
                self._collected(f"/api/v1/namespaces/{namespace}/services/{one['metadata']['name']}")

    def _collected(self, path: str) -> None:
        answer = self.api.request("DELETE", path, {"gracePeriodSeconds": 0, "propagationPolicy": "Background"})
        if not answer.ok and answer.status != 404:
            raise SystemExit(f"DELETE {path}: {answer.message}")


@contextlib.contextmanager
def cluster(relist_seconds: int, *, keep: bool, addresses: Sequence[str] = ADDRESSES) -> Iterator[Cluster]:
    """etcd, API server, kubelet and pods, which listen on `addresses`. `keep`: their folder stays."""
    with ExitStack() as stack:
        if keep:
            folder = Path(tempfile.mkdtemp(prefix="idle-"))
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="idle-", ignore_cleanup_errors=True)))
        plane = ControlPlane(program("apiserver", "kubernetes"), folder)
        stack.enter_context(plane.running())
        certificate = str(folder / "certificates" / "apiserver.crt")
        api = Api(plane.api.url, urllib3.PoolManager(ca_certs=certificate, maxsize=32, timeout=60.0))
        pods = Child(str(Path(__file__).with_name("idle_pods.py")), *addresses, core=None)
        stack.callback(pods.close)
        pods.hear()
        kubelet = Kubelet(api, lambda revision, segments: made.tell_pods(_load(revision, segments)), addresses)
        made = Cluster(plane, api, kubelet, pods, folder / "operator.log", relist_seconds)
        _prepare(api)
        kubelet.start()
        stack.callback(kubelet.stop)
        yield made


def _load(revision: str, segments: list[str]) -> str:
    return json.dumps({"load": revision, "segments": segments})


def _prepare(api: Api) -> None:
    """Our kinds, and the operator's account."""
    api.install((CHECKOUT / "crds").glob("*.yaml"), seconds=60)
    make_namespace(api, HOME)
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": HOME}
    _applied(api, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": HOME}})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding"}
    _applied(api, {**binding, "metadata": {"name": ACCOUNT}, "roleRef": role, "subjects": [subject]})
    time.sleep(1.0)  # the schema of our kinds, which an apply reads, is published a little later


def make_namespace(api: Api, name: str) -> None:
    """With the ServiceAccount without which no pod is admitted."""
    _applied(api, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}
    _applied(api, account)


def _applied(api: Api, manifest: Json) -> None:
    answer = api.apply(manifest, "bench", force=True)
    if not answer.ok:
        raise SystemExit(f"{manifest['kind']}/{manifest['metadata']['name']}: {answer.message}")
