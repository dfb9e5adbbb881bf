"""What stands between a pod and its bucket: a proxy, and who vouches for the server's certificate."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from http_stub import Exchange, answering
from unit.test_searcher_store_faults import keys, serving, store

from vectorindex_searcher.errors import TaskError


def test_requests_go_through_the_proxy_and_what_is_in_the_cluster_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    keys(monkeypatch)
    asked: list[str] = []

    def answer(exchange: Exchange) -> None:
        asked.append(exchange.path)
        exchange.answer(200, "through the proxy", ETag='"e"')

    with answering(answer) as proxy, serving() as (state, endpoint):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1,.svc")
        assert store("http://s3.house.example").read("k") == b"through the proxy"
        assert asked == ["http://s3.house.example/bucket/k"]
        state.objects["/bucket/k"] = b"direct"
        assert store(endpoint).read("k") == b"direct"
        assert len(asked) == 1


def test_a_bundle_of_the_installation_is_trusted_and_a_secrets_own_goes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keys(monkeypatch)
    house, other = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    house.issue_cert("127.0.0.1").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    with serving(context) as (state, endpoint):
        bundle.write_bytes(other.cert_pem.bytes() + house.cert_pem.bytes())
        store(endpoint).put("k", b"x")
        assert state.objects == {"/bucket/k": b"x"}
        monkeypatch.setenv("ARTIFACTS_CA_PEM", other.cert_pem.bytes().decode())
        with pytest.raises(TaskError, match="certificate"):
            store(endpoint).put("other", b"x")
