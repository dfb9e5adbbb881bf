"""Google Cloud Storage, against fake-gcs-server on loopback, in memory.

That server knows the objects, their generations and what a write may find; what it lacks of the XML protocol, which
obstore speaks, is put before it here: a write by PUT and its condition, and the codes of what is not there.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
import trustme
from cloud_promises import CloudPromises, OverTLS
from layers import program
from ports import held

from vectorindex_searcher.contract import GCS
from vectorindex_searcher.storage.store import Role

BUCKET = "indexes"
ACCOUNT = json.dumps({"private_key": "", "private_key_id": "", "client_email": "", "disable_oauth": True})
"""The key of a service account that asks nobody for a token."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with fake_gcs_server("-scheme", "http") as port:
        status, _, _ = _asked(port, "POST", "/storage/v1/b?project=p", json.dumps({"name": BUCKET}).encode())
        assert status == 200
        with _xml(port) as address:
            yield address


@contextlib.contextmanager
def fake_gcs_server(*options: str) -> Iterator[int]:
    """The port at which it listens."""
    with held() as (port,):
        listen = ["-backend", "memory", "-host", "127.0.0.1", "-port", str(port), *options]
        command = [program("stores", "fake-gcs-server"), *listen, "-public-host", f"127.0.0.1:{port}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 20
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                assert process.poll() is None, "fake-gcs-server ended"
                assert time.monotonic() < deadline, "fake-gcs-server never listened"
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            process.wait()


def _asked(port: int, method: str, path: str, body: bytes, headers: Any = ()) -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, dict(headers) | {"Content-Length": str(len(body))})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


@contextlib.contextmanager
def _xml(behind: int) -> Iterator[str]:
    """The protocol that obstore speaks, before the server at a port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if not self.path.startswith(f"/{BUCKET}"):
                return self.answer(404, {}, b"<Error><Code>NoSuchBucket</Code></Error>")
            if self.command == "PUT":
                return self.write(body)
            passed = {name: self.headers[name] for name in ("Range",) if name in self.headers}
            return self.answer(*_asked(behind, self.command, self.path, body, passed))

        do_HEAD = do_PUT = do_DELETE = do_GET  # noqa: N815 - http.server's names

        def write(self, body: bytes) -> None:
            name = quote(unquote(self.path.removeprefix(f"/{BUCKET}/")), safe="")
            match = self.headers.get("x-goog-if-generation-match")
            condition = f"&ifGenerationMatch={match}" if match is not None else ""
            path = f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={name}{condition}"
            status, _, said = _asked(behind, "POST", path, body, {"Content-Type": "application/octet-stream"})
            headers = {"ETag": json.loads(said)["etag"]} if status == 200 else {}
            self.answer(status, headers, b"")

        def answer(self, status: int, headers: Any, body: bytes) -> None:
            self.send_response(status)
            for name in ("ETag", "Last-Modified", "Content-Range", "x-goog-generation"):
                if name in headers:
                    self.send_header(name, headers[name])
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def place(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> GCS:
    for role in Role:
        monkeypatch.setenv(f"{role.env_prefix}GOOGLE_SERVICE_ACCOUNT_KEY", ACCOUNT)
    return GCS(endpoint=endpoint, bucket=BUCKET, prefix=f"{request.node.name}/")


class TestGCS(CloudPromises):
    @pytest.fixture
    def nowhere(self, place: GCS) -> GCS:
        return place.model_copy(update={"bucket": "nowhere"})

    @pytest.fixture
    def over_tls(self, place: GCS, tmp_path: Path) -> Iterator[OverTLS]:
        """The server itself, without what is put before it: reading needs none of that."""
        ca = trustme.CA()
        files = {name: tmp_path / f"{name}.pem" for name in ("cert", "key")}
        leaf = ca.issue_cert("127.0.0.1")
        leaf.cert_chain_pems[0].write_to_path(files["cert"])
        leaf.private_key_pem.write_to_path(files["key"])
        (tmp_path / "data" / BUCKET).mkdir(parents=True)
        (tmp_path / "data" / BUCKET / "greeting").write_bytes(b"hello")
        tls = ("-cert-location", str(files["cert"]), "-private-key-location", str(files["key"]))
        with fake_gcs_server("-scheme", "https", *tls, "-data", str(tmp_path / "data")) as port:
            yield place.model_copy(update={"endpoint": f"https://127.0.0.1:{port}", "prefix": ""}), ca
