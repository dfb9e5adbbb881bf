"""Tokens and TLS from Secrets: missing ones are named, and what they ask for holds for everybody who queries."""

from __future__ import annotations

import pytest
import trustme
import urllib3
from e2e.vectors import Corpus
from e2e.workspace import NAME, Workspace

from harness.kube import Json

TOKEN, NEXT = "first-token-0123456789", "second-token-0123456789"
DEADLINE_SECONDS = 20
ROTATION_SECONDS = 150
"""The kubelet looks at mounted Secrets about once a minute, and caches them for as long."""


def _blocked(space: Workspace) -> Json | None:
    rows = space.index.status().get("blockedBy", [])
    return next((row for row in rows if row["rule"] == "PodWaiting"), None)


@pytest.mark.together("without traffic")
def test_missing_secrets_are_named_then_only_a_token_over_tls_is_answered(workspace: Workspace, corpus: Corpus) -> None:
    index, authority = workspace.index, trustme.CA()
    host = f"{NAME}.{workspace.namespace}.svc"
    workspace.put("good", corpus)
    refs = {"auth": {"secretRef": {"name": "clients"}}, "tls": {"secretRef": {"name": "certificate"}}}
    workspace.apply("good", searcher=refs, rollout={"progressDeadline": f"{DEADLINE_SECONDS}s"})
    index.wait_revision(index.wait_new_revision(set()), "Surging")
    row = index.wait(lambda: _blocked(workspace), 120, "to say which Secrets are missing")
    assert "Secret/clients" in row["message"]
    assert "Secret/certificate" in row["message"]
    (waiting,) = [pod["metadata"]["name"] for pod in index.pods() if pod["status"]["phase"] == "Pending"]
    past = DEADLINE_SECONDS + 10
    workspace.hold(lambda: not index.condition("Stalled"), past, "the deadline does not run while a Secret is missing")

    leaf = authority.issue_cert(host)
    pair = {"tls.crt": leaf.cert_chain_pems[0].bytes().decode(), "tls.key": leaf.private_key_pem.bytes().decode()}
    workspace.kube.apply_secret("certificate", workspace.namespace, pair)
    workspace.kube.apply_secret("clients", workspace.namespace, {"website": TOKEN})
    workspace.kube.delete("Pod", waiting, workspace.namespace)  # its next try to mount is up to two minutes away
    index.wait_condition("RolledOut", timeout=240)
    assert not index.status().get("blockedBy")
    service = index.service()
    assert service is not None
    assert [port["appProtocol"] for port in service["spec"]["ports"]] == ["https"]
    if workspace.kube.cluster.direct:  # else the API server's proxy would speak for the client
        _ask(workspace, corpus, service["spec"]["clusterIP"], authority.cert_pem.bytes().decode(), host)


def _ask(workspace: Workspace, corpus: Corpus, address: str, authority: str, host: str) -> None:
    """Query with and without a token, rotate it, and query again."""
    index = workspace.index
    body = {"vector": corpus.queries(1)[0].tolist()}
    pool = urllib3.HTTPSConnectionPool(
        address, 80, ca_cert_data=authority, server_hostname=host, assert_hostname=host, timeout=10.0, retries=False
    )

    def status(token: str = "") -> int:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return pool.request("POST", "/v1/search", json=body, headers=headers).status

    assert [status(), status("wrong-token"), status(TOKEN), status(NEXT)] == [401, 401, 200, 401]
    (pod,) = {pod["metadata"]["name"] for pod in index.pods() if pod["status"]["phase"] == "Running"}
    workspace.kube.apply_secret("clients", workspace.namespace, {"website": NEXT})
    index.wait(lambda: status(NEXT) == 200, ROTATION_SECONDS, "to take up the new token")
    assert status(TOKEN) == 401
    assert pod in {pod["metadata"]["name"] for pod in index.pods()}, "a rotation restarts nothing"
    # Unknown is right for a first revision: it has no soak, so nothing was judged yet.
    assert index.condition("GuardrailsHealthy")["status"] != "False", "refused requests are nobody's error"
    assert TOKEN not in workspace.kube.logs(pod, workspace.namespace, lines=500)


@pytest.mark.together("without traffic")
def test_the_admin_port_gives_evidence_to_the_operator_alone(served: Workspace) -> None:
    """By the key that the chart made. That the operator itself is let in, every rollout here depends on."""
    (pod,) = {pod["metadata"]["name"] for pod in served.index.pods() if pod["status"]["phase"] == "Running"}
    admin = f"/api/v1/namespaces/{served.namespace}/pods/{pod}:8081/proxy"

    def status(path: str, method: str = "GET") -> int:
        return served.kube.call(method, f"{admin}{path}")[0]

    assert [status("/readyz"), status("/livez"), status("/metrics")] == [200, 200, 200]
    assert [status("/v1/evidence"), status("/v1/lease", "POST")] == [401, 401]
    manifest = served.kube.get("Pod", pod, served.namespace)
    assert manifest is not None
    assert manifest["metadata"]["annotations"]["vectorindex.dev/internal-key"]
