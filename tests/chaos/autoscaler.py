"""The cluster's own HorizontalPodAutoscaler controller, on a metrics API that is answered here.

metrics.k8s.io is served behind the API server by whoever an APIService names: elsewhere metrics-server, here this
process, so that the load is what a test wants at this moment. It says that the searchers of an index together take the
memory of so many: the controller, asked for one such share a pod, sets that many replicas through /scale. It counts the
ready pods that `status.selector` selects, as everywhere.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import trustme
import yaml
from e2e.workspace import Workspace

from harness.kube import Json, Kube
from harness.waiting import wait_for

GROUP, VERSION = "metrics.k8s.io", "v1beta1"
BASE = f"/apis/{GROUP}/{VERSION}"
NAME, API_SERVICE = "metrics", f"{VERSION}.{GROUP}"
SHARE = 100 << 20
"""Bytes of memory that one searcher is to take: the target of the autoscalers."""
FEWEST, MOST = 2, 3
AVAILABLE_SECONDS, OBEYED_SECONDS = 60.0, 120.0
"""The controller looks every 15 s."""


@dataclass(slots=True)
class MetricsApi:
    """Which load each namespace is to have, in searchers. `asked`: namespaces whose pods the controller asked for."""

    kube: Kube
    load: dict[str, int] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)

    def answer(self, target: str) -> tuple[int, Json]:
        """Status and body of a GET."""
        url = urlsplit(target)
        match url.path.strip("/").split("/"):
            case ["apis", group, version] if (group, version) == (GROUP, VERSION):
                return 200, _kinds()
            case ["apis", group, _, "namespaces", namespace, "pods"] if group == GROUP:
                self.asked.add(namespace)
                selector = parse_qs(url.query).get("labelSelector", [""])[0]
                pods = self.kube.list("Pod", namespace, selector)
                return 200, _listed([_measured(pod, share) for pod, share in shares(pods, self.load.get(namespace, 0))])
        return 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound"}


def shares(pods: Sequence[Json], load: int) -> list[tuple[Json, int]]:
    """The load in bytes, spread over the pods that run."""
    running = [
        pod for pod in pods if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
    ]
    return [(pod, SHARE * load // len(running)) for pod in running]


@contextmanager
def metrics_api(kube: Kube, home: str) -> Iterator[MetricsApi]:
    """Served behind the API server until the end of the block. `home`: a namespace for its Service."""
    made, authority = MetricsApi(kube), trustme.CA()
    certificate = authority.issue_cert(f"{NAME}.{home}.svc")
    with _server(made.answer, _this_machine(kube), certificate) as (address, port), _api_removed(kube):
        meta = {"name": NAME, "namespace": home}
        service: Json = {"apiVersion": "v1", "kind": "Service", "metadata": meta}
        kube.apply(service | {"spec": {"ports": [{"name": "https", "port": 443, "targetPort": port}]}})
        labels = {"kubernetes.io/service-name": NAME}
        ends = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4"}
        ends |= {"metadata": meta | {"labels": labels}, "ports": [{"name": "https", "port": port}]}
        kube.apply(ends | {"endpoints": [{"addresses": [address], "conditions": {"ready": True}}]})
        spec = {"group": GROUP, "version": VERSION, "groupPriorityMinimum": 100, "versionPriority": 100}
        trusted = base64.b64encode(authority.cert_pem.bytes()).decode()
        spec |= {"caBundle": trusted, "service": {"name": NAME, "namespace": home, "port": 443}}
        api = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": API_SERVICE}}
        kube.apply(api | {"spec": spec})
        wait_for(lambda: kube.call("GET", BASE)[0] == 200, AVAILABLE_SECONDS, f"{GROUP} behind the API server")
        yield made


@contextmanager
def _api_removed(kube: Kube) -> Iterator[None]:
    """The APIService is gone after the block, also when this process is killed in it.

    One that nobody answers holds up the end of every namespace: so another process removes it, when its input ends.
    """
    remove = kube.cluster.kubectl_command("delete", "apiservice", API_SERVICE, "--ignore-not-found")
    script = ["sh", "-c", 'cat > /dev/null; exec "$@"', "remove", *remove]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(script, stdin=subprocess.PIPE, start_new_session=True, **quiet)
    assert process.stdin is not None
    try:
        yield
    finally:
        process.stdin.close()
        process.wait(60)


@contextmanager
def autoscaled(metrics: MetricsApi, space: Workspace) -> Iterator[Callable[[int], None]]:
    """An autoscaler of the index. What is yielded sets a load, and returns when the controller has obeyed."""
    meta = {"name": space.index.name, "namespace": space.namespace}
    target = {"apiVersion": "vectorindex.dev/v1alpha1", "kind": "VectorIndex", "name": space.index.name}
    average = {"name": "memory", "target": {"type": "AverageValue", "averageValue": str(SHARE)}}
    at_once = {"stabilizationWindowSeconds": 0}
    spec = {
        "scaleTargetRef": target,
        "minReplicas": FEWEST,
        "maxReplicas": MOST,
        "metrics": [{"type": "Resource", "resource": average}],
        "behavior": {"scaleUp": at_once, "scaleDown": at_once},
    }

    def set_load(searchers: int) -> None:
        metrics.load[space.namespace] = searchers
        space.index.wait(
            lambda: space.index.get()["spec"]["searcher"]["replicas"] == searchers,
            OBEYED_SECONDS,
            f"the autoscaler to set {searchers} replicas",
        )

    metrics.load[space.namespace] = FEWEST
    space.kube.apply(
        {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": meta, "spec": spec}
    )
    try:
        yield set_load
    finally:
        space.kube.delete("HorizontalPodAutoscaler", space.index.name, space.namespace)
        space.kube.kubectl("-n", space.namespace, "scale", f"vix/{space.index.name}", f"--replicas={FEWEST}")


# ---------------------------------------------------------------- what is answered


def _kinds() -> Json:
    pods = {"name": "pods", "singularName": "", "namespaced": True, "kind": "PodMetrics", "verbs": ["get", "list"]}
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/{VERSION}", "resources": [pods]}


def _listed(items: list[Json]) -> Json:
    return {"kind": "PodMetricsList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}, "items": items}


def _measured(pod: Json, memory: int) -> Json:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    usage = {"cpu": "1m", "memory": str(memory)}
    meta = {"name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]}
    containers = [{"name": pod["spec"]["containers"][0]["name"], "usage": usage}]
    return {"metadata": meta, "timestamp": now, "window": "15s", "containers": containers}


# ---------------------------------------------------------------- the server


@contextmanager
def _server(
    answer: Callable[[str], tuple[int, Json]], address: str, certificate: trustme.LeafCert
) -> Iterator[tuple[str, int]]:
    """HTTPS on this address; where."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, document = answer(self.path)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(tls)
    server = ThreadingHTTPServer((address, 0), Handler)
    server.daemon_threads = True
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, name="metrics-api", daemon=True)
    thread.start()
    try:
        yield address, int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _this_machine(kube: Kube) -> str:
    """Its address as the cluster sees it: the one that it speaks to the API server from."""
    url = urlsplit(yaml.safe_load(kube.cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
    assert url.hostname is not None
    with socket.create_connection((url.hostname, url.port or 443), timeout=10) as connection:
        return str(connection.getsockname()[0])
