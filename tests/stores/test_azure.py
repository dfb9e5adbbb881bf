"""Azure Blob Storage, against a real server: Microsoft's Azurite on loopback, in memory."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hashlib
import hmac
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trustme
from cloud_promises import CloudPromises, OverTLS
from layers import program
from ports import held
from store_promises import below

from vectorindex_searcher.contract import Azure, ExitCode
from vectorindex_searcher.errors import TaskError
from vectorindex_searcher.storage.cloud import CloudStore
from vectorindex_searcher.storage.store import Role

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of Azurite's one account, as its documentation has it."""
CONTAINER = "indexes"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with azurite() as at:
        yield at


@contextlib.contextmanager
def azurite(tls: trustme.LeafCert | None = None, trusted: ssl.SSLContext | None = None) -> Iterator[str]:
    """The endpoint of a server with an empty container. tls: its certificate, which `trusted` takes."""
    with held() as (port,), tempfile.TemporaryDirectory() as folder:
        listen = ["--inMemoryPersistence", "--blobHost", "127.0.0.1", "--blobPort", str(port)]
        if tls is not None:
            cert, key = Path(folder) / "cert.pem", Path(folder) / "key.pem"
            tls.cert_chain_pems[0].write_to_path(cert)
            tls.private_key_pem.write_to_path(key)
            listen += ["--cert", str(cert), "--key", str(key)]
        command = [program("stores", "azurite"), *listen, "--disableTelemetry", "--silent"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 60
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                assert process.poll() is None, "Azurite ended"
                assert time.monotonic() < deadline, "Azurite never listened"
                time.sleep(0.1)
            at = f"http{'s' if tls else ''}://127.0.0.1:{port}/{ACCOUNT}"
            _put(at, f"/{CONTAINER}", "restype:container", trusted)
            yield at
        finally:
            process.terminate()
            process.wait()


def _put(endpoint: str, path: str, query: str = "", trusted: ssl.SSLContext | None = None, **more: str) -> None:
    """What obstore does not do: one request without a body, signed as Azure's documentation says."""
    headers = {f"x-ms-{name}": value for name, value in more.items()}
    headers |= {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    names = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    text = "PUT" + "\n" * 12 + f"{names}/{ACCOUNT}/{ACCOUNT}{path}" + (f"\n{query}" if query else "")
    signed = base64.b64encode(hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()).decode()
    headers |= {"Authorization": f"SharedKey {ACCOUNT}:{signed}", "Content-Length": "0"}
    address = f"{endpoint}{path}" + (f"?{query.replace(':', '=')}" if query else "")
    asked = urllib.request.Request(address, method="PUT", headers=headers)
    with urllib.request.urlopen(asked, context=trusted) as answer:
        assert answer.status == 201


@pytest.fixture
def place(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Azure:
    for role in Role:
        monkeypatch.setenv(f"{role.env_prefix}AZURE_STORAGE_ACCOUNT_KEY", KEY)
    return Azure(account=ACCOUNT, endpoint=endpoint, container=CONTAINER, prefix=f"{request.node.name}/")


class TestAzure(CloudPromises):
    many = 5005
    """Azure tells of 5,000 blobs in one answer."""

    @pytest.fixture
    def nowhere(self, place: Azure) -> Azure:
        return place.model_copy(update={"container": "nowhere"})

    @pytest.fixture
    def over_tls(self, place: Azure, monkeypatch: pytest.MonkeyPatch) -> Iterator[OverTLS]:
        ca, trusted = trustme.CA(), ssl.create_default_context()
        ca.configure_trust(trusted)
        with azurite(ca.issue_cert("127.0.0.1"), trusted) as endpoint, monkeypatch.context() as setting:
            there = place.model_copy(update={"endpoint": endpoint, "prefix": ""})
            setting.setenv("ARTIFACTS_CA_PEM", ca.cert_pem.bytes().decode())
            CloudStore(there, Role.ARTIFACTS).put("greeting", b"hello")
            setting.delenv("ARTIFACTS_CA_PEM")
            yield there, ca


def test_refusals_name_field_and_remedy_and_no_key(place: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(b"wrong").decode())
    with pytest.raises(TaskError) as caught:
        list(CloudStore(place, Role.SOURCE).list(""))
    assert (caught.value.reason, caught.value.exit_code) == ("InvalidCredentials", ExitCode.SOURCE_MISSING)
    monkeypatch.delenv("SOURCE_AZURE_STORAGE_ACCOUNT_KEY")
    token = "sv=2021-08-06&ss=b&srt=sco&sp=rl&se=2099-01-01&sig=c2VjcmV0c2lnbmF0dXJl"
    monkeypatch.setenv("SOURCE_AZURE_STORAGE_SAS_TOKEN", token)
    with pytest.raises(TaskError) as caught:
        list(CloudStore(place, Role.SOURCE).list(""))
    assert caught.value.reason == "InvalidCredentials"
    assert "c2VjcmV0" not in caught.value.failure.model_dump_json()


def test_the_marker_of_a_folder_is_no_data(place: Azure, endpoint: str) -> None:
    """As Azure's own tools leave them, and mounts of containers."""
    store = CloudStore(place, Role.SOURCE)
    store.put(f"{store.prefix}/folder/rows.parquet", b"x")
    store.put(f"{store.prefix}/empty", b"")
    _put(endpoint, f"/{CONTAINER}/{store.prefix}/folder/", **{"blob-type": "BlockBlob"})
    assert set(below(store)) == {"folder/rows.parquet", "empty"}


def test_a_file_of_several_parts_arrives_whole(place: Azure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectorindex_searcher.storage.cloud.PART_BYTES", 5 << 20)
    store, path = CloudStore(place, Role.ARTIFACTS), tmp_path / "file"
    path.write_bytes(np.random.default_rng(0).bytes((16 << 20) + 12_345))
    store.upload(f"{store.prefix}/file", path)
    assert b"".join(store.stream(f"{store.prefix}/file")) == path.read_bytes()


def test_a_server_that_is_not_there_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTIFACTS_AZURE_STORAGE_ACCOUNT_KEY", KEY)
    monkeypatch.setattr("vectorindex_searcher.storage.cloud.RETRIES", 0)
    with held() as (port,):
        place = Azure(account=ACCOUNT, endpoint=f"http://127.0.0.1:{port}/{ACCOUNT}", container=CONTAINER)
        with pytest.raises(TaskError) as caught:
            CloudStore(place, Role.ARTIFACTS).put("x", b"")
    said = caught.value
    assert (said.reason, said.exit_code) == ("StoreUnavailable", ExitCode.STORE_UNAVAILABLE)
    assert said.failure.field == "spec.artifacts.azure.endpoint"
