"""Who may ask, and over what: bearer tokens and certificates from mounted files, replaced while the searcher runs."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http.client
import logging
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
import trustme
import uvloop
from cryptography.hazmat.primitives import serialization
from waiting import until

from vectorindex_searcher.cli import flags as cli_flags
from vectorindex_searcher.errors import BadSpec
from vectorindex_searcher.serve.evidence.metrics import Gauges, SearcherMetrics
from vectorindex_searcher.serve.evidence.ring import EvidenceRing
from vectorindex_searcher.serve.http import tls
from vectorindex_searcher.serve.http.auth import MAX_TOKENS, Tokens, credential_of
from vectorindex_searcher.serve.http.limits import Limits
from vectorindex_searcher.serve.http.listener import Listener
from vectorindex_searcher.serve.http.messages import Problem, Request, Response
from vectorindex_searcher.serve.http.mounted import watch
from vectorindex_searcher.serve.http.tls import Certificate
from vectorindex_searcher.serve.settings import Settings

OLD, NEW = "old-token-0123456789", "new-token-0123456789"


def allowed(tokens: Tokens, header: bytes | None) -> bool:
    """Whether the guard lets a request with this Authorization pass."""
    try:
        tokens.count(credential_of(header))
    except Problem:
        return False
    return True


def bearer(token: str) -> bytes:
    return f"Bearer {token}".encode()


def mount(folder: Path, files: dict[str, str], version: str) -> None:
    """Files as the kubelet mounts a Secret: links to ..data/NAME, which it swaps in one rename."""
    data = folder / f"..{version}"
    data.mkdir(parents=True)
    for name, text in files.items():
        (data / name).write_text(text)
    (folder / "..tmp").symlink_to(data.name)
    (folder / "..tmp").replace(folder / "..data")
    for link in [p for p in folder.iterdir() if not p.name.startswith(".") and p.name not in files]:
        link.unlink()
    for name in files:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")


# ---------------------------------------------------------------- tokens


def test_a_token_of_the_file_passes_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# ours\n{OLD}\n\n  {NEW}  \n")
    tokens = Tokens(path)
    assert tokens.names == ("tokens", "tokens#2")
    for right in (bearer(OLD), b"bearer " + NEW.encode(), b"Bearer   " + NEW.encode() + b" "):
        assert allowed(tokens, right)
    digest = hashlib.sha256(OLD.encode()).digest()
    for wrong in (None, b"", b"Bearer", b"Bearer ", OLD.encode(), bearer(OLD[:-1]), bearer(OLD + "x"), b"Basic abc",
                  b"Bearer # ours", b"Bearer " + digest, b"Bearer \xff\x00"):  # fmt: skip
        assert not allowed(tokens, wrong), wrong
    assert tokens.uses == {"tokens": 1, "tokens#2": 2}


@pytest.mark.parametrize("token", ["the-first-of-the-tokens", "the-last-of-the-tokens", "nobody-knows-it"])
def test_a_token_is_compared_with_every_other_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    """So that the time of an answer tells nothing; and each by what takes as long for all digests."""
    path = tmp_path / "tokens"
    path.write_text("the-first-of-the-tokens\nthe-second-of-the-tokens\nthe-last-of-the-tokens\n")
    tokens, compared, real = Tokens(path), list[bytes](), hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda one, other: compared.append(other) or real(one, other))
    assert allowed(tokens, bearer(token)) == (token != "nobody-knows-it")
    assert len(compared) % 3 == 0
    assert len({*compared}) == 3


@pytest.mark.parametrize("header", [None, b"Basic dTpzZWNyZXQ=", b"Bearer nobody-knows-it"])
def test_a_refusal_challenges_and_echoes_nothing(tmp_path: Path, header: bytes | None) -> None:
    (tmp_path / "t").write_text(OLD)
    with pytest.raises(Problem) as caught:
        Tokens(tmp_path / "t").check(credential_of(header))
    answer = caught.value.response("r")
    assert answer.status == 401
    challenge = dict(answer.headers)[b"WWW-Authenticate"]
    assert challenge.startswith(b'Bearer realm="vectorindex"')
    assert (b"invalid_token" in challenge) is (header is not None and header.startswith(b"Bearer"))
    assert orjson.loads(answer.body)["field"] == "Authorization"
    if header is not None:
        assert header.split()[1] not in answer.body


def test_a_rotated_secret_is_taken_up_and_the_removed_token_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mount(tmp_path, {"site": OLD}, "1")
    tokens = Tokens(tmp_path)
    assert tokens.names == ("site",)
    assert (allowed(tokens, bearer(OLD)), allowed(tokens, bearer(NEW))) == (True, False)
    for version, files, names in (("2", {"site": OLD, "site-2": NEW}, 2), ("3", {"site-2": NEW}, 1)):
        mount(tmp_path, files, version)
        tokens.refresh()
        assert len(tokens.names) == names
        assert (allowed(tokens, bearer(OLD)), allowed(tokens, bearer(NEW))) == (names == 2, True)
    assert OLD not in caplog.text + str([vars(record) for record in caplog.records])
    assert tokens.uses["site"] == 2


def test_no_token_means_nobody_and_a_token_that_comes_later_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tokens"
    path.write_text("# none yet\n")
    tokens = Tokens(path)
    assert not allowed(tokens, bearer(OLD))
    assert not allowed(tokens, b"Bearer ")
    assert "every request is refused" in caplog.text
    with pytest.raises(Problem, match="has no token"):
        tokens.check(None)
    path.write_text(OLD)
    tokens.refresh()
    assert allowed(tokens, bearer(OLD))
    path.unlink()
    tokens.refresh()
    assert not allowed(tokens, bearer(OLD)), "a vanished file must not leave its tokens valid"
    path.write_text(NEW)
    tokens.refresh()
    assert allowed(tokens, bearer(NEW))


def test_the_watch_goes_on_after_a_surprise(caplog: pytest.LogCaptureFixture) -> None:
    class Odd:
        looks = 0

        def refresh(self) -> None:
            self.looks += 1
            raise RuntimeError("surprise")

    async def main() -> None:
        odd = Odd()
        watching = asyncio.create_task(watch([odd], 0.001))
        while odd.looks < 3:
            assert not watching.done()
            await asyncio.sleep(0.001)
        watching.cancel()

    asyncio.run(asyncio.wait_for(main(), 60))
    assert "surprise" in caplog.text


def test_unchanged_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text(OLD)
    tokens = Tokens(tmp_path)
    monkeypatch.setattr("vectorindex_searcher.serve.http.auth._read", lambda paths: pytest.fail("read again"))
    tokens.refresh()
    os.utime(tmp_path / "a", ns=(0, 0))
    with pytest.raises(pytest.fail.Exception):
        tokens.refresh()


def test_unusable_tokens_are_left_out_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a").write_text("two words")
    (tmp_path / "b").write_text("schlüssel-schlüssel")
    (tmp_path / "c").write_text("short")
    assert Tokens(tmp_path).names == ("c",)
    assert {(r.token, r.levelname) for r in caplog.records if hasattr(r, "token")} == {
        ("a", "ERROR"), ("b", "ERROR"), ("c", "WARNING"),
    }  # fmt: skip
    (tmp_path / "c").write_text("\n".join(f"token-number-{n:06}" for n in range(MAX_TOKENS + 3)))
    assert len(Tokens(tmp_path).names) == MAX_TOKENS


def test_a_missing_token_file_ends_the_start_and_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(BadSpec, match="does not exist") as caught:
        Tokens(tmp_path / "nowhere")
    assert caught.value.failure.field == "--token-file"


def test_accepted_requests_are_counted_by_name_of_token() -> None:
    gauges = Gauges(token_uses={"site": 3, "old": 0})
    text = SearcherMetrics("r", EvidenceRing(()), gauges).exposition().decode()
    assert 'vectorindex_token_requests_total{revision="r",token="site"} 3.0' in text
    assert 'token="old"} 0.0' in text


# ---------------------------------------------------------------- settings


def test_flags_win_over_the_environment() -> None:
    options = vars(cli_flags.parser().parse_args(["serve", "--http-port", "1", "--token-file", "/flag"]))
    environment = {"VECTORINDEX_HTTP_PORT": "2", "VECTORINDEX_ADMIN_PORT": "3", "VECTORINDEX_TOKEN_FILE": "/env"}
    settings = Settings.from_environment(environment, options)
    assert (settings.http_port, settings.admin_port, settings.token_file) == (1, 3, Path("/flag"))
    assert Settings.from_environment({}).token_file is None


@pytest.mark.parametrize("given", ["VECTORINDEX_TLS_CERT", "VECTORINDEX_TLS_KEY"])
def test_a_certificate_without_its_key_is_refused(given: str) -> None:
    with pytest.raises(BadSpec, match="needs its"):
        Settings.from_environment({given: "/x"})


# ---------------------------------------------------------------- the port


class Hello:
    """Answers everybody the guard lets in."""

    def __init__(self) -> None:
        self.statuses: list[int] = []

    def handle(self, request: Request) -> Response:
        return Response(200, request.body or b"hello")

    def answered(self, request: Request, response: Response, seconds: float) -> None:
        self.statuses.append(response.status)


@contextmanager
def serving(
    tokens: Tokens | None = None, certificate: Certificate | None = None, limits: Limits = Limits()  # noqa: B008
) -> Iterator[tuple[int, Hello]]:  # fmt: skip
    ready, stop = threading.Event(), threading.Event()
    ports: list[int] = []
    app = Hello()

    async def main() -> None:
        listener = Listener(app, "r", limits, guard=tokens)
        ports.append(await listener.open(0, "127.0.0.1", certificate.context if certificate else None))
        mounted = [one for one in (tokens, certificate) if one is not None]
        watching = asyncio.get_running_loop().create_task(watch(mounted, 0.02))
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.005)
        watching.cancel()
        await listener.close()

    thread = threading.Thread(target=uvloop.run, args=(main(),))
    thread.start()
    assert ready.wait(60)
    try:
        yield ports[0], app
    finally:
        stop.set()
        thread.join(60)


def ask(
    connection: http.client.HTTPConnection, token: str | None = None, body: bytes | None = None
) -> tuple[int, bytes]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    connection.request("POST", "/v1/search", body, headers)
    response = connection.getresponse()
    return response.status, response.read()


def test_the_port_refuses_before_the_body_is_sent(tmp_path: Path) -> None:
    (tmp_path / "t").write_text(OLD)
    with serving(Tokens(tmp_path)) as (port, app):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        assert ask(connection, OLD, b"abc") == (200, b"abc")
        assert ask(connection, OLD) == (200, b"hello")
        status, body = ask(connection, NEW, b"x" * 10)
        assert (status, orjson.loads(body)["type"]) == (401, "urn:vectorindex:problem:Unauthorized")
        connection.close()
        with socket.create_connection(("127.0.0.1", port), timeout=60) as raw:
            raw.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 8000000\r\n\r\n")
            assert raw.recv(100).startswith(b"HTTP/1.1 401 ")
        until(lambda: app.statuses == [200, 200, 401, 401])


def test_the_port_takes_up_a_new_token_without_a_restart(tmp_path: Path) -> None:
    (tmp_path / "t").write_text(OLD)
    with serving(Tokens(tmp_path)) as (port, _):

        def status(token: str) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            try:
                return ask(connection, token)[0]
            finally:
                connection.close()

        assert (status(OLD), status(NEW)) == (200, 401)
        (tmp_path / "t").write_text(NEW)
        until(lambda: status(NEW) == 200)
        assert status(OLD) == 401


# ---------------------------------------------------------------- TLS


def issue(authority: trustme.CA, folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    leaf = authority.issue_cert(name)
    chain, key = folder / "tls.crt", folder / "tls.key"
    leaf.private_key_pem.write_to_path(key)
    leaf.cert_chain_pems[0].write_to_path(chain)
    return chain, key


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def connected(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=60), server_hostname="localhost")


def serial(port: int, context: ssl.SSLContext) -> str:
    with connected(port, context) as secured:
        certificate = secured.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


def test_answers_over_tls_are_whole_and_the_connection_lives_on(tmp_path: Path) -> None:
    authority = trustme.CA()
    with serving(None, Certificate(*issue(authority, tmp_path))) as (port, _):
        connection = http.client.HTTPSConnection("localhost", port, timeout=60, context=trusting(authority))
        big = os.urandom(1 << 20)
        for body in (b"a", big, b"b"):
            assert ask(connection, body=body) == (200, body)
        assert connection.sock.version() in ("TLSv1.2", "TLSv1.3")
        connection.close()


def test_a_refusal_over_tls_reaches_a_client_that_goes_on_sending(tmp_path: Path) -> None:
    """Neither side can close one direction alone under TLS: the answer must be flushed before the end all the same."""
    authority = trustme.CA()
    certificate = Certificate(*issue(authority, tmp_path))
    limits = Limits(body_bytes=1000)
    with serving(None, certificate, limits) as (port, _), connected(port, trusting(authority)) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n")
        client.sendall(b"a" * 100_000)
        assert client.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_old_protocols_and_clear_text_get_no_answer(tmp_path: Path) -> None:
    certificate = Certificate(*issue(trustme.CA(), tmp_path))
    # A client that offers TLS 1.1 would fail by its own OpenSSL's policy, so the server's is looked at.
    assert certificate.context.minimum_version is ssl.TLSVersion.TLSv1_2
    with serving(None, certificate) as (port, app):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"HTTP/1.1 2" not in raw.recv(1000)
        assert app.statuses == []


def test_a_renewed_certificate_is_shown_to_new_connections_and_a_broken_pair_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = trustme.CA()
    context = trusting(authority)
    chain, key = issue(authority, tmp_path)
    with serving(None, Certificate(chain, key)) as (port, _):
        first = serial(port, context)
        kept = http.client.HTTPSConnection("localhost", port, timeout=60, context=context)
        assert ask(kept)[0] == 200
        good = key.read_bytes()
        key.write_text("no key")
        until(lambda: "the certificate was not renewed" in caplog.text)
        assert serial(port, context) == first
        key.write_bytes(good)
        issue(authority, tmp_path)
        until(lambda: serial(port, context) != first)
        assert ask(kept)[0] == 200, "an open connection outlives the renewal"
        kept.close()


def test_files_replaced_while_they_are_read_leave_a_whole_pair_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, other = trustme.CA(), tmp_path / "other"
    other.mkdir()
    chain, key = issue(authority, tmp_path)
    _, foreign = issue(authority, other)
    certificate, read = Certificate(chain, key), tls._loaded

    def read_then_replaced(*files: Path) -> ssl.SSLContext:
        found = read(*files)
        key.write_bytes(foreign.read_bytes())
        return found

    issue(authority, tmp_path)
    monkeypatch.setattr(tls, "_loaded", read_then_replaced)
    certificate.refresh()
    assert key.read_bytes() == foreign.read_bytes(), "the new pair was read"
    with serving(None, certificate) as (port, _):
        assert serial(port, trusting(authority))


def test_a_key_with_a_passphrase_ends_the_start_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    chain, key = issue(trustme.CA(), tmp_path)
    plain = serialization.load_pem_private_key(key.read_bytes(), None)
    sealed = serialization.BestAvailableEncryption(b"secret")
    kind = serialization.PrivateFormat.TraditionalOpenSSL
    key.write_bytes(plain.private_bytes(serialization.Encoding.PEM, kind, sealed))
    with pytest.raises(BadSpec, match="the key is protected by a passphrase") as caught:
        Certificate(chain, key)
    assert "the key without a passphrase" in str(caught.value.failure.remedy)


def test_files_that_are_no_pair_end_the_start(tmp_path: Path) -> None:
    authority = trustme.CA()
    chain, _ = issue(authority, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    _, foreign = issue(authority, other)
    with pytest.raises(BadSpec, match="are no certificate chain") as caught:
        Certificate(chain, foreign)
    assert caught.value.reason == "BadCertificate"
    with pytest.raises(BadSpec) as caught:
        Certificate(chain, tmp_path / "nowhere")
    assert caught.value.failure.field == "--tls-key"
