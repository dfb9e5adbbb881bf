"""The adapter for clouds that do not speak S3: what it makes of answers. Real servers: tests/stores."""

from __future__ import annotations

import base64
import contextlib
import re
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from obstore.exceptions import GenericError, PermissionDeniedError

from vectorindex_searcher.cli.flag_names import for_a_person
from vectorindex_searcher.contract import GCS, Azure, ExitCode, Location
from vectorindex_searcher.errors import SourceChanged, TaskError
from vectorindex_searcher.storage import cloud
from vectorindex_searcher.storage.cloud import CloudStore, brief
from vectorindex_searcher.storage.store import Role, open_store

DATA = bytes(range(256)) * 4096
KEY = base64.b64encode(b"the key of the account").decode()
SIGNATURE = "c2VjcmV0c2lnbmF0dXJl"


class Blob:
    """One blob of Azure, and the faults of its server."""

    def __init__(self) -> None:
        self.etag = '"e1"'
        self.cuts = 0
        """How many bodies still break off, each after a third of what was asked for."""
        self.refuses: tuple[int, str] | None = None
        self.hears_if_match = True
        self.asked: list[str] = []


@contextlib.contextmanager
def serving(tls: trustme.LeafCert | None = None) -> Iterator[tuple[Blob, str]]:
    blob = Blob()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            blob.asked.append(self.path)
            if blob.refuses is not None:
                code = blob.refuses[1]
                return self.answer(blob.refuses[0], f"<Error><Code>{code}</Code><Message>{SIGNATURE}</Message></Error>")
            if blob.hears_if_match and self.headers.get("If-Match", blob.etag) != blob.etag:
                return self.answer(412, "<Error><Code>ConditionNotMet</Code></Error>")
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            first, last = (int(asked[1]), int(asked[2] or len(DATA) - 1)) if asked else (0, len(DATA) - 1)
            body = DATA[first : last + 1]
            self.send_response(206 if asked else 200)
            self.send_header("ETag", blob.etag)
            self.send_header("Last-Modified", "Sat, 28 Nov 2026 08:00:00 GMT")
            self.send_header("Content-Length", str(len(body)))
            if asked:
                self.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{len(DATA)}")
            self.end_headers()
            cut = blob.cuts > 0 and self.command == "GET"
            blob.cuts -= cut
            self.close_connection = cut
            if self.command == "GET":
                self.wfile.write(body[: len(body) // 3] if cut else body)
            return None

        do_HEAD = do_PUT = do_DELETE = do_GET  # noqa: N815 - http.server's names

        def answer(self, status: int, body: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield blob, f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}/acme"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Blob, CloudStore]]:
    monkeypatch.setattr(cloud, "RETRIES", 1)
    monkeypatch.setattr(cloud.time, "sleep", lambda seconds: None)
    with serving() as (blob, endpoint):
        place = Azure(account="acme", container="vectors", endpoint=endpoint, anonymous=True)
        yield blob, CloudStore(place, Role.SOURCE)


def test_a_body_that_breaks_off_is_read_again(served: tuple[Blob, CloudStore]) -> None:
    blob, store = served
    blob.cuts = 2
    assert store.read("x", etag="e1") == DATA
    blob.cuts = 1
    assert b"".join(store.stream("x")) == DATA
    blob.cuts = 1000
    with pytest.raises(TaskError) as caught:
        store.read("x", offset=5, length=7000)
    assert caught.value.reason == "StoreUnavailable"
    assert blob.cuts > 900, "the tries are counted"


def test_a_server_that_does_not_hear_if_match_is_not_believed(served: tuple[Blob, CloudStore]) -> None:
    blob, store = served
    blob.hears_if_match = False
    assert store.read("x", etag="e1") == DATA
    blob.etag = '"e2"'
    with pytest.raises(SourceChanged):
        store.read("x", etag="e1", offset=1, length=2)


def test_a_stream_is_of_one_object(served: tuple[Blob, CloudStore], monkeypatch: pytest.MonkeyPatch) -> None:
    blob, store = served
    monkeypatch.setattr(cloud, "RANGE_BYTES", 1 << 18)
    stream = store.stream("x")
    assert next(stream) == DATA[: 1 << 18]
    blob.etag = '"e2"'
    with pytest.raises(SourceChanged):
        next(stream)


@pytest.mark.parametrize(
    ("status", "code", "reason", "field"),
    [
        (404, "ContainerNotFound", "BucketNotFound", "spec.source.azure.container"),
        (403, "AuthenticationFailed", "InvalidCredentials", "spec.source.azure"),
        (401, "NoAuthenticationInformation", "InvalidCredentials", "spec.source.azure"),
        (403, "AuthorizationPermissionMismatch", "AccessDenied", "spec.source.azure"),
        (503, "ServerBusy", "StoreUnavailable", "spec.source.azure.endpoint"),
        (400, "InvalidHeaderValue", "StoreUnavailable", "spec.source.azure.endpoint"),
    ],
)
def test_refusals_have_the_reasons_of_s3(
    served: tuple[Blob, CloudStore], status: int, code: str, reason: str, field: str
) -> None:
    blob, store = served
    blob.refuses = (status, code)
    for call in (lambda: store.read("x"), lambda: list(store.list("")), lambda: store.put("x", b"1", exclusive=True)):
        with pytest.raises(TaskError) as caught:
            call()
        said = caught.value
        assert (said.reason, said.failure.field) == (reason, field)
        assert said.failure.remedy
        assert said.__suppress_context__, "what obstore says has the answer in it"
        assert SIGNATURE not in said.failure.model_dump_json()
    assert said.exit_code == (ExitCode.SOURCE_MISSING if reason != "StoreUnavailable" else ExitCode.STORE_UNAVAILABLE)


def test_a_certificate_is_trusted_by_the_secret_or_the_bundle_or_its_refusal_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud, "RETRIES", 0)
    house, other, bundle = trustme.CA(), trustme.CA(), tmp_path / "bundle.pem"
    both = other.cert_pem.bytes() + house.cert_pem.bytes()
    with serving(house.issue_cert("127.0.0.1")) as (_, endpoint):
        place = Azure(account="acme", container="vectors", endpoint=endpoint, anonymous=True)

        def read() -> bytes:
            return CloudStore(place, Role.SOURCE).read("x")

        for pem in ("", other.cert_pem.bytes().decode(), "no certificate"):
            monkeypatch.setenv("SOURCE_CA_PEM", pem)
            with pytest.raises(TaskError) as caught:
                read()
            said = caught.value
            assert (said.reason, said.failure.field) == ("CertificateNotTrusted", "spec.source.azure.endpoint")
            assert all(word in str(said.failure.remedy) for word in ("CA_PEM", "trustBundle", "SSL_CERT_FILE"))
            assert ("UnknownIssuer" in str(said)) == (pem != "no certificate")
        monkeypatch.setenv("SOURCE_CA_PEM", both.decode())
        assert read() == DATA
        monkeypatch.delenv("SOURCE_CA_PEM")
        bundle.write_bytes(both)
        monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
        assert read() == DATA


def test_what_is_told_of_an_error_has_no_body_and_no_signature() -> None:
    body = f"<Error><Code>AuthenticationFailed</Code><Detail>signature {SIGNATURE}</Detail></Error>"
    text = f"Error performing GET https://acme/x?sig={SIGNATURE} - Server returned non-2xx status code: 403 Forbidden: "
    assert brief(PermissionDeniedError(text + body)) == "403 Forbidden AuthenticationFailed"
    for error in (
        GenericError(f"Error performing GET https://acme/x?sig={SIGNATURE}: connection refused"),
        GenericError(f"no connection\n\nDebug source:\nhttps://acme/x?sig={SIGNATURE}"),
    ):
        assert SIGNATURE not in brief(error)
        assert "connection" in brief(error)


def test_an_identity_that_gets_no_token_is_told_from_an_outage(served: tuple[Blob, CloudStore]) -> None:
    _, store = served
    said = {
        "Error performing token request: GET http://a - status code: 400 Bad Request: nobody": "InvalidCredentials",
        "Error reading federated token file": "InvalidCredentials",
        "Error performing token request: GET http://a/token - HTTP error: no connection": "StoreUnavailable",
    }
    assert {text: store._failed("x", GenericError(text)).reason for text in said} == said


@pytest.mark.parametrize(
    ("name", "value"), [("ACCOUNT_KEY", "no base64 !"), ("SAS_TOKEN", "noequals")], ids=["key", "token"]
)
def test_keys_that_cannot_be_read_are_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"ARTIFACTS_AZURE_STORAGE_{name}", value)
    with pytest.raises(TaskError) as caught:
        open_store(Location(azure=Azure(account="acme", container="vectors")), Role.ARTIFACTS)
    said = caught.value
    assert (said.reason, said.failure.field) == ("InvalidCredentials", "spec.artifacts.azure")
    assert value not in said.failure.model_dump_json()


def test_each_role_has_keys_of_its_own_and_the_pods_identity_does_not_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """A webhook gives every pod of a ServiceAccount its identity: what the spec names goes before it."""
    for name in ("CLIENT_ID", "TENANT_ID", "FEDERATED_TOKEN_FILE"):
        monkeypatch.setenv(f"AZURE_{name}", "of-the-pod")
    monkeypatch.setenv("SOURCE_AZURE_STORAGE_SAS_TOKEN", f"sv=2021&sig={SIGNATURE}")
    monkeypatch.setenv("ARTIFACTS_AZURE_STORAGE_ACCOUNT_KEY", KEY)
    for name in ("CLIENT_ID", "TENANT_ID", "CLIENT_SECRET"):
        monkeypatch.setenv(f"QUERIES_AZURE_{name}", "of-the-secret")
    place, given = Azure(account="acme", container="vectors"), (Role.SOURCE, Role.ARTIFACTS, Role.QUERIES)
    kinds = {role: CloudStore(place, role)._store.config.get("credential_type") for role in Role}
    assert kinds == {
        Role.SOURCE: "sas_token", Role.TOMBSTONES: "sas_token", Role.FRESH: "sas_token", Role.ARTIFACTS: "access_key",
        Role.QUERIES: "client_secret", **dict.fromkeys(set(Role) - {*given, Role.TOMBSTONES, Role.FRESH}),
    }  # fmt: skip
    public = CloudStore(place.model_copy(update={"anonymous": True}), Role.SOURCE)._store.config
    assert "sas_key" not in public


ACCOUNT = '{"private_key": "", "private_key_id": "", "client_email": "", "disable_oauth": true, "gcs_base_url": "%s"}'
"""The key of a service account that asks nobody for a token, and would have its own endpoint."""


def test_a_bucket_of_google_is_reached_where_the_spec_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a key says of the endpoint is not heard: rules of an installation are about the one in the spec."""
    with serving() as (blob, endpoint):
        monkeypatch.setenv("SOURCE_GOOGLE_SERVICE_ACCOUNT_KEY", ACCOUNT % "http://127.0.0.1:9")
        place = GCS(bucket="vectors", endpoint=endpoint)
        assert open_store(Location(gcs=place), Role.SOURCE).read("x", etag="e1") == DATA
        assert blob.asked == ["/acme/vectors/x"]
        blob.refuses = (404, "NoSuchBucket")
        with pytest.raises(TaskError) as caught:
            CloudStore(place, Role.SOURCE).read("x")
    assert (caught.value.reason, caught.value.failure.field) == ("BucketNotFound", "spec.source.gcs.bucket")
    monkeypatch.setenv("SOURCE_GOOGLE_SERVICE_ACCOUNT_KEY", "{no key of anybody")
    with pytest.raises(TaskError) as caught:
        CloudStore(place, Role.SOURCE)
    assert caught.value.reason == "InvalidCredentials"
    assert "no key" not in caught.value.failure.model_dump_json()


@pytest.mark.parametrize(
    "place", [Azure(account="acme", container="vectors", anonymous=True), GCS(bucket="v-s", anonymous=True)]
)
@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("code", ["ContainerNotFound", "NoSuchBucket", "AuthenticationFailed", "AccessDenied"])
def test_a_person_at_a_terminal_is_told_flags(place: Azure | GCS, role: Role, code: str) -> None:
    error = PermissionDeniedError(f"status code: 403 Forbidden: <Code>{code}</Code>")
    failure = CloudStore(place, role)._failed("k", error).failure
    for verb in ("build", "validate", "serve"):
        said = for_a_person(failure, verb)
        text = f"{said.message} {said.field} {said.remedy}"
        assert not re.search(r"spec\.|secretRef|anonymous: true", text), text
