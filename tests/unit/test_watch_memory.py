"""What a listing of everything takes in memory: what is kept of it, not all of it at once."""

from __future__ import annotations

import json
import threading
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cost import in_a_process_of_its_own
from http_stub import Exchange, answering

from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile.watches import WATCHED

FILLER_BYTES = 40_000
"""Of an object, and not kept: managed fields, how a pod is made."""
PODS_OF_ONE = 100
PROGRAM = """
    import os, sys, threading, time
    os.environ["KUBECONFIG"] = sys.argv[3]
    from cost import forget_peak, memory
    from vectorindex_operator import handlers
    from vectorindex_operator.reconcile.cache import ReadCache
    from vectorindex_operator.reconcile.queue import KeyedQueue, Outcome
    from vectorindex_operator.reconcile.relist import Relist
    from vectorindex_operator.reconcile.watches import watches

    pods, of_one = int(sys.argv[1]), int(sys.argv[2])
    cache, stop = ReadCache(), threading.Event()
    for number in range(-(-pods // of_one)):
        meta = {"namespace": "team", "name": f"i{number}", "uid": f"u{number}", "resourceVersion": "1"}
        cache.put({"kind": "VectorIndex", "metadata": meta})
    indexes = cache.size()[0]

    def ends() -> None:
        while cache.size()[0] < indexes + pods:
            time.sleep(0.01)
        stop.set()

    threading.Thread(target=ends, daemon=True).start()
    queue = KeyedQueue(lambda namespace, name: Outcome(None))
    forget_peak()
    before = memory("VmRSS")
    handlers.run(queue, Relist(cache, None, queue.mark), (), watches(()), stop)
    print(memory("VmHWM") - before)
"""


class Listing:
    """Answers as an API server with so many pods would, and nothing else."""

    def __init__(self, pods: int) -> None:
        self.pods, self.over = pods, threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        url = urlsplit(exchange.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if "watch" in query:
            exchange.begin(200, 1 << 30)
            exchange.wfile.flush()
            self.over.wait(60)
        elif "/namespaces" not in url.path and url.path in COLLECTIONS:
            first, limit = int(query.get("continue", 0)), int(query["limit"])
            last = min(first + limit, self.pods if url.path == "/api/v1/pods" else 0)
            meta = {"resourceVersion": "9", "continue": str(last) if first < last < self.pods else ""}
            items = [pod(number) for number in range(first, last)]
            exchange.answer(200, {"apiVersion": "v1", "kind": "PodList", "metadata": meta, "items": items})
        else:
            exchange.answer(200, DISCOVERY[url.path])


KINDS = (
    *((one.group, one.version, one.plural, one.kind) for one in WATCHED),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition"),
    ("", "v1", "namespaces", "Namespace"),
    ("", "v1", "events", "Event"),
)
"""The last ones kopf looks for."""


def _root(group: str, version: str) -> str:
    return f"/apis/{group}/{version}" if group else f"/api/{version}"


COLLECTIONS = {f"{_root(group, version)}/{plural}" for group, version, plural, _ in KINDS}


def _discovery() -> dict[str, Any]:
    """What kopf asks for before it watches."""
    groups = [
        {"name": group, "versions": [{"version": version}], "preferredVersion": {"version": version}}
        for group, version in sorted({(group, version) for group, version, _, _ in KINDS if group})
    ]
    found: dict[str, Any] = {"/api": {"versions": ["v1"]}, "/apis": {"groups": groups}}
    for group, version, plural, kind in KINDS:
        one = {"name": plural, "kind": kind, "singularName": kind.lower(), "namespaced": True}
        here = found.setdefault(_root(group, version), {"resources": []})
        here["resources"].append({**one, "verbs": ["get", "list", "watch", "patch", "create"]})
    return found


DISCOVERY = _discovery()


def pod(number: int) -> dict[str, Any]:
    fields = {f"f:{place:04}": {"f:name": {}, "f:value": {}} for place in range(FILLER_BYTES // 45)}
    return {
        "metadata": {
            "namespace": "team", "name": f"p{number}", "uid": f"p{number}", "resourceVersion": str(number + 2),
            "labels": {labels.INDEX: f"i{number // PODS_OF_ONE}", labels.MANAGED_BY: labels.OPERATOR},
            "managedFields": [{"manager": "kubelet", "fieldsV1": fields}],
        },
        "status": {"phase": "Running"},
    }  # fmt: skip


def peak(pods: int, tmp_path: Any) -> int:
    """Bytes that the watches of so many pods take at most."""
    answer = Listing(pods)
    with answering(answer) as url:
        config = tmp_path / "kubeconfig"
        context = {"cluster": "c", "user": "u"}
        config.write_text(
            json.dumps(
                {
                    "current-context": "x",
                    "contexts": [{"name": "x", "context": context}],
                    "clusters": [{"name": "c", "cluster": {"server": url}}],
                    "users": [{"name": "u", "user": {"token": "t"}}],
                }
            )
        )
        try:
            return int(in_a_process_of_its_own(PROGRAM, pods, PODS_OF_ONE, config, timeout=120))
        finally:
            answer.over.set()


def test_what_a_listing_takes_is_what_is_kept(tmp_path: Any) -> None:
    few, many = 100, 500
    one = (peak(many, tmp_path) - peak(few, tmp_path)) / (many - few)
    print(f"{one / 1e3:.1f} kB for each object of {len(json.dumps(pod(1))) / 1e3:.0f} kB")
    assert one < FILLER_BYTES / 2
