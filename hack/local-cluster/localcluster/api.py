"""The few API calls the cluster tool itself makes: readiness, the node, its pods.

kubectl would do, but takes half a second a call; `status` and the waiting loops want it at once.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable
from typing import Any

from . import layout
from .terminal import ClusterError

NODE_PATH = f"/api/v1/nodes/{layout.NODE_NAME}"


def request(method: str, path: str, body: object = None, content_type: str = "application/json") -> tuple[int, bytes]:
    """(status, body) of one call as admin; OSError when nobody answers."""
    context = ssl.create_default_context(cafile=str(layout.PKI / "ca.crt"))
    context.load_cert_chain(layout.PKI / "admin.crt", layout.PKI / "admin.key")
    connection = http.client.HTTPSConnection(layout.NODE_IP, layout.API_PORT, timeout=5, context=context)
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": content_type})
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise OSError(f"broken answer: {error!r}") from error
    finally:
        connection.close()


def get(path: str) -> dict[str, Any] | None:
    """The object at `path`, or None when the API server does not answer or has no such object."""
    try:
        status, body = request("GET", path)
    except OSError:
        return None
    found: dict[str, Any] | None = json.loads(body) if status == 200 else None
    return found


def is_ready() -> bool:
    """Whether the API server says it can serve."""
    try:
        return request("GET", "/readyz")[0] == 200
    except OSError:
        return False


def node_is_ready(name: str = layout.NODE_NAME) -> bool:
    """The node's Ready condition. Stale for up to 40 s after a stop: see `node_has_reported_since`."""
    return _ready_condition(name).get("status") == "True"


def node_has_reported_since(moment: str, name: str = layout.NODE_NAME) -> bool:
    """Ready, with a Lease renewed at or after `moment` (RFC 3339 in UTC), so not the last run's report."""
    lease = get(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}")
    renewed: str = (lease or {}).get("spec", {}).get("renewTime", "")
    return renewed >= moment and node_is_ready(name)


def wait(what: str, condition: Callable[[], bool], seconds: float, where_to_look: str) -> None:
    """Polls until `condition` holds; ClusterError naming `where_to_look` when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not within {seconds:.0f} s. Look at {where_to_look}")
        time.sleep(0.25)


def _ready_condition(name: str) -> dict[str, Any]:
    node = get(f"/api/v1/nodes/{name}") or {}
    conditions = node.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == "Ready"), {})
