"""An application of a user's own in the cluster, which counts what only it can know, and the Prometheus that keeps it.

The shop's customers each look for one row, and order it when it is among the hits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from e2e.workspace import NAME, Workspace
from layers import unavailable

from harness.kube import Json, Kube

PROMETHEUS = Path("/usr/bin/prometheus")
"""As Debian's package has it. It runs in a pod with the searcher's image, whose Debian is the same."""
ORDERED = (
    'sum(increase(shop_orders_total{index_revision="{{revision}}"}[{{window}}]))'
    ' / sum(increase(shop_searches_total{index_revision="{{revision}}"}[{{window}}]))'
)
"""How many customers in a hundredth of all found what they came for, of one revision."""
PROGRAM = """
import collections, http.server, itertools, json, os, threading, time, urllib.request

searches, orders = collections.Counter(), collections.Counter()
customers = json.load(open("/shop/customers.json"))

def serve_customers():
    for body, wanted in itertools.cycle(customers):
        asked = urllib.request.Request(os.environ["SEARCH"], body.encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(asked, timeout=5) as answer:
                said = json.load(answer)
        except OSError:
            continue
        searches[said["revision"]] += 1
        orders[said["revision"]] += wanted in said["results"][0]["ids"]
        time.sleep(0.02)

class Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        rows = [f'shop_{name}_total{{index_revision="{revision}"}} {count}'
                for name, counts in (("searches", searches), ("orders", orders))
                for revision, count in list(counts.items())]
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(("\\n".join(rows) + "\\n").encode())

    def log_message(self, *words):
        pass

threading.Thread(target=serve_customers, daemon=True).start()
http.server.ThreadingHTTPServer(("", 8000), Metrics).serve_forever()
"""
SCRAPES = """
global: {scrape_interval: 1s}
scrape_configs:
  - job_name: shop
    static_configs: [{targets: ["localhost:8000"]}]
"""


@contextmanager
def opened(space: Workspace, customers: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Both, for as long as the test runs; the address of Prometheus. `customers`: a search, and whom they look for."""
    if space.kube.cluster.name != "local" or not PROMETHEUS.exists():
        unavailable("e2e", "there is no Prometheus for a pod of the local cluster", "apt-get install prometheus")
    namespace = f"{space.namespace}-shop"
    marks = {"pod-security.kubernetes.io/enforce": "privileged", "vectorindex.dev/e2e": "true"}
    space.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": marks}})
    try:
        for manifest in _manifests(space, namespace, customers):
            space.kube.apply(manifest)
        _wait_ready(space.kube, namespace)
        yield f"http://shop.{namespace}.svc:9090"
    finally:
        space.kube.delete("Namespace", namespace)


def _manifests(space: Workspace, namespace: str, customers: Sequence[tuple[str, str]]) -> Iterator[Json]:
    meta = {"name": "shop", "namespace": namespace, "labels": {"app": "shop"}}
    files = {"shop.py": PROGRAM, "prometheus.yml": SCRAPES, "customers.json": json.dumps(customers)}
    yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": files}
    ports = [{"name": "prometheus", "port": 9090}]
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {"selector": {"app": "shop"}, "ports": ports},
    }
    image = space.images.searcher.reference
    shop = {
        "name": "shop",
        "image": image,
        "command": ["python", "/shop/shop.py"],
        "env": [{"name": "SEARCH", "value": f"http://{NAME}.{space.namespace}.svc/v1/search"}],
        "volumeMounts": [{"name": "shop", "mountPath": "/shop"}],
    }
    flags = ["--config.file=/shop/prometheus.yml", "--storage.tsdb.path=/data", "--web.listen-address=:9090"]
    prometheus = {
        "name": "prometheus",
        "image": image,
        "command": ["/prometheus", *flags],
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": 9090}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "shop", "mountPath": "/shop"},
            {"name": "data", "mountPath": "/data"},
            {"name": "program", "mountPath": "/prometheus", "readOnly": True},
        ],
    }
    volumes = [
        {"name": "shop", "configMap": {"name": "shop"}},
        {"name": "data", "emptyDir": {}},
        {"name": "program", "hostPath": {"path": str(PROMETHEUS), "type": "File"}},
    ]
    spec = {
        "containers": [shop, prometheus],
        "volumes": volumes,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "enableServiceLinks": False,
    }
    yield {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def _wait_ready(kube: Kube, namespace: str) -> None:
    kube.kubectl("-n", namespace, "wait", "pod/shop", "--for=condition=Ready", "--timeout=120s", timeout=130)
