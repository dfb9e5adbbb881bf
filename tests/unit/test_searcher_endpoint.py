"""An embeddings endpoint: asked in its form, within a budget, believed in nothing, and left alone while it is down."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import trustme
from http_stub import Exchange, answering
from pydantic import ValidationError

from vectorindex_searcher.cli.main import main
from vectorindex_searcher.contract import EmbeddingsEndpoint, ExitCode
from vectorindex_searcher.errors import BadSpec
from vectorindex_searcher.text.breaker import FAILURES, Breaker
from vectorindex_searcher.text.encoder import Encoded, EncoderError, EncoderUnavailableError, Side
from vectorindex_searcher.text.endpoint import EndpointEncoder, Rechecked

DIMENSION = 3


def vector_of(text: str) -> list[float]:
    return [float(len(text)), 1.0, 0.5]


def embeddings(one: Exchange) -> None:
    """What a server of that API answers, last text first."""
    asked = one.body()
    rows = [{"index": n, "embedding": vector_of(text)} for n, text in enumerate(asked["input"])]
    one.answer(200, {"data": rows[::-1], "model": asked.get("model", "")})


def encoder(url: str, prefixes: dict[Side, str | None] | None = None, **options: Any) -> EndpointEncoder:
    place = EmbeddingsEndpoint(url=f"{url}/v1/embeddings", model="minilm")
    made = EndpointEncoder(place, prefixes or {}, DIMENSION, **options)
    MADE.append(made)
    return made


MADE: list[EndpointEncoder] = []


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    while MADE:
        MADE.pop().close()


def test_texts_go_there_and_vectors_come_back_in_their_order() -> None:
    seen: list[tuple[str, Any, dict[str, str]]] = []

    def answer(one: Exchange) -> None:
        body = one.body()
        seen.append((one.path, body, dict(one.headers)))
        rows = [{"index": n, "embedding": vector_of(text)} for n, text in enumerate(body["input"])]
        one.answer(200, {"data": rows[::-1]})

    with answering(answer) as url:
        asked = encoder(url, {Side.QUERY: "query: "}, token="secret-token")
        found = asked.encode(["red", "a house"], Side.QUERY)
        assert found.vectors.tolist() == [vector_of("query: red"), vector_of("query: a house")]
        assert found.vectors.dtype == np.float32
        asked.encode([f"text {n}" for n in range(70)], Side.DOCUMENT)
    (path, body, headers), *others = seen
    assert path == "/v1/embeddings"
    assert body == {"model": "minilm", "input": ["query: red", "query: a house"], "encoding_format": "float"}
    assert headers["Authorization"] == "Bearer secret-token"
    assert [len(one["input"]) for _, one, _ in others] == [32, 32, 6]


def data(*rows: Any) -> dict[str, Any]:
    return {"data": [{"index": n, "embedding": row} for n, row in enumerate(rows)]}


WRONG: dict[str, Any] = {
    "no JSON": "<html>",
    "no data": {"rows": []},
    "another form": {"data": [1, 2]},
    "too few": data(),
    "too many": data([1, 2, 3], [1, 2, 3]),
    "another dimension": data([1, 2, 3, 4]),
    "no list": data("AAAA"),
    "texts": data(["1", "x", "3"]),
    "nulls": data([1, None, {}]),
    "index twice": {"data": [{"index": 7, "embedding": [1, 2, 3]}]},
    "too long": data([1] * 100_000),
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
def test_an_answer_that_is_not_of_that_form_is_no_vector(body: Any) -> None:
    with answering(lambda one: (one.body(), one.answer(200, body))[1]) as url, pytest.raises(EncoderError):
        encoder(url).encode(["red"], Side.QUERY)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_a_server_that_refuses_is_unavailable_and_its_words_are_not_repeated(status: int) -> None:
    def answer(one: Exchange) -> None:
        one.body()
        one.answer(status, "the token secret-token is wrong")

    with answering(answer) as url, pytest.raises(EncoderUnavailableError, match=str(status)) as refused:
        encoder(url, token="secret-token").encode(["red"], Side.QUERY)
    assert "secret-token" not in str(refused.value)


def test_a_redirect_is_not_followed_and_the_token_goes_nowhere_else() -> None:
    elsewhere: list[str] = []

    def other(one: Exchange) -> None:
        elsewhere.append(one.path)
        one.answer(200, "{}")

    with answering(other) as target:

        def answer(one: Exchange) -> None:
            one.body()
            one.answer(307, "", Location=f"{target}/v1/embeddings")

        with answering(answer) as url, pytest.raises(EncoderUnavailableError, match="307"):
            encoder(url, token="secret-token").encode(["red"], Side.QUERY)
    assert elsewhere == []


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with answering(embeddings) as url:
        assert encoder(url).encode(["red"], Side.QUERY).vectors.tolist() == [vector_of("red")]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_text_that_the_server_refuses_costs_no_other_its_vector(status: int) -> None:
    def answer(one: Exchange) -> None:
        asked = one.body()["input"]
        if "bad" in asked:
            one.answer(status, {"error": "too long"})
        else:
            one.answer(200, data(*map(vector_of, asked)))

    with answering(answer) as url:
        asked = encoder(url)
        for _ in range(FAILURES + 1):
            found = asked.encode(["red", "bad", "blue"], Side.QUERY).vectors
            assert found[[0, 2]].tolist() == [vector_of("red"), vector_of("blue")]
            assert np.isnan(found[1]).all()


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server of sockets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            with contextlib.suppress(OSError):
                while True:
                    serve(server.accept()[0])

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nA: ", HEAD], ids=["nothing", "a head", "a body"])
def test_a_server_that_drips_gets_no_more_than_the_budget(first: bytes) -> None:
    stop = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(first)
            while first and not stop.wait(0.02):
                connection.sendall(b"x")
            stop.wait(10)

    with listening(drip) as url:
        began = time.monotonic()
        with pytest.raises(EncoderUnavailableError, match=r"no answer within 0\.3 s"):
            encoder(url, budget=0.3).encode(["red"], Side.QUERY)
        stop.set()
        assert time.monotonic() - began < 5


def test_a_connection_is_kept_and_one_that_was_closed_meanwhile_is_made_anew() -> None:
    connections: list[Any] = []

    def answer(one: Exchange) -> None:
        connections.append(one.client_address)
        embeddings(one)
        one.close_connection = len(connections) == 2  # without a word

    with answering(answer) as url:
        asked = encoder(url)
        for _ in range(4):
            assert asked.encode(["red"], Side.QUERY).vectors.tolist() == [vector_of("red")]
    assert connections[0] == connections[1]
    assert connections[2] == connections[3] != connections[0]


def test_an_answer_of_any_size_is_not_read() -> None:
    sent: list[int] = []

    def answer(one: Exchange) -> None:
        one.body()
        one.begin(200, 1 << 30)
        with contextlib.suppress(OSError):
            while sum(sent) < 1 << 26:
                sent.append(one.wfile.write(b" " * (1 << 20)) or 1 << 20)
        one.close_connection = True

    with answering(answer) as url, pytest.raises(EncoderError, match="answers more than"):
        encoder(url, budget=30).encode(["red"], Side.QUERY)
    assert sum(sent) < 1 << 25


def test_a_process_that_was_forked_has_connections_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    connections: list[Any] = []

    def answer(one: Exchange) -> None:
        connections.append(one.client_address)
        embeddings(one)

    with answering(answer) as url:
        asked = encoder(url)
        asked.encode(["red"], Side.QUERY)
        inherited = list(asked._idle)
        with monkeypatch.context() as patched:
            patched.setattr("os.getpid", lambda: -1)
            asked.encode(["red"], Side.QUERY)
            asked.close()
        for one in inherited:
            one.close()
    assert connections[0] != connections[1]


def test_whoever_is_down_is_left_alone_and_then_tried_by_one() -> None:
    calls: list[float] = []
    now = [100.0]
    down = [True]

    def answer(one: Exchange) -> None:
        calls.append(now[0])
        if down[0]:
            one.body()
            one.answer(500, "")
        else:
            embeddings(one)

    with answering(answer) as url:
        asked = encoder(url, clock=lambda: now[0])
        for _ in range(FAILURES + 5):
            with pytest.raises(EncoderUnavailableError) as refused:
                asked.encode(["red"], Side.QUERY)
        assert len(calls) == FAILURES, "the others did not wait"
        assert refused.value.retry_after >= 1
        now[0] += 1.1
        with pytest.raises(EncoderUnavailableError):
            asked.encode(["red"], Side.QUERY)
        assert len(calls) == FAILURES + 1
        now[0] += 1.1
        with pytest.raises(EncoderUnavailableError, match="not asked now"):
            asked.encode(["red"], Side.QUERY)
        assert len(calls) == FAILURES + 1, "twice as long"
        down[0], now[0] = False, now[0] + 2
        assert asked.encode(["red"], Side.QUERY).vectors.tolist() == [vector_of("red")]
        assert asked.encode(["red"], Side.QUERY).vectors.tolist() == [vector_of("red")]


def fails_at_long(one: Exchange) -> None:
    asked = one.body()["input"]
    if sum(map(len, asked)) > 1000:
        one.answer(503, "")
    else:
        one.answer(200, data(*map(vector_of, asked)))


def test_long_texts_of_one_keep_nobody_else_from_the_server() -> None:
    with answering(fails_at_long) as url:
        asked = encoder(url)
        for _ in range(FAILURES + 2):
            with pytest.raises(EncoderUnavailableError, match="503"):
                asked.encode(["x" * 2000], Side.QUERY)
        assert asked.encode(["red"], Side.QUERY).vectors.tolist() == [vector_of("red")]


def test_whoever_comes_first_after_a_failure_is_tried_by_a_text_of_ours() -> None:
    now, down = [0.0], [True]

    def answer(one: Exchange) -> None:
        if down[0]:
            one.body()
            one.answer(500, "")
        else:
            fails_at_long(one)

    with answering(answer) as url:
        asked = encoder(url, clock=lambda: now[0])
        for _ in range(FAILURES):
            with pytest.raises(EncoderUnavailableError):
                asked.encode(["red"], Side.QUERY)
        now[0], down[0] = 1.5, False
        with pytest.raises(EncoderUnavailableError, match="503"):
            asked.encode(["x" * 2000], Side.QUERY)
        assert asked.encode(["red"], Side.QUERY).vectors.tolist() == [vector_of("red")]


def test_a_server_with_too_much_to_do_is_not_down() -> None:
    busy = [True]

    def answer(one: Exchange) -> None:
        if busy[0]:
            one.body()
            one.answer(429, "", Retry_After="7")
        else:
            embeddings(one)

    with answering(answer) as url:
        asked = encoder(url)
        for _ in range(FAILURES + 1):
            with pytest.raises(EncoderUnavailableError, match="429") as refused:
                asked.encode(["red"], Side.QUERY)
            assert refused.value.retry_after == 7
        busy[0] = False
        assert asked.encode(["red"], Side.QUERY).vectors.tolist() == [vector_of("red")]


def test_calls_are_bounded_in_characters_and_a_refused_text_is_found_by_halves() -> None:
    calls: list[list[str]] = []

    def answer(one: Exchange) -> None:
        asked = one.body()["input"]
        calls.append(asked)
        if "bad" in asked:
            one.answer(400, "")
        else:
            one.answer(200, data(*map(vector_of, asked)))

    with answering(answer) as url:
        asked = encoder(url, budget=30)
        asked.encode(["x" * 5000, "y" * 5000, "z" * 9000, "red"], Side.QUERY)
        assert [sum(map(len, call)) for call in calls] == [5000, 5000, 9000, 3]
        calls.clear()
        found = asked.encode([*(["red"] * 20), "bad", *(["red"] * 11)], Side.QUERY).vectors
        assert np.flatnonzero(np.isnan(found[:, 0])).tolist() == [20]
        assert len(calls) == 11


def test_all_calls_of_a_request_have_one_budget() -> None:
    def slow(one: Exchange) -> None:
        time.sleep(0.15)
        embeddings(one)

    with answering(slow) as url:
        asked = encoder(url, budget=0.4)
        began = time.monotonic()
        with pytest.raises(EncoderUnavailableError, match="no answer within"):
            asked.encode(["x" * 8000] * 8, Side.QUERY)
        assert time.monotonic() - began < 1
        assert asked.encode(["red"], Side.QUERY).vectors.tolist() == [vector_of("red")]


def test_an_open_breaker_lets_one_try_at_a_time() -> None:
    now = [0.0]
    breaker = Breaker(lambda: now[0])
    for _ in range(FAILURES):
        breaker.enter()
        breaker.failed()
    now[0] = 1.5
    breaker.enter()
    with pytest.raises(EncoderUnavailableError):
        breaker.enter()
    breaker.succeeded()
    breaker.enter()
    breaker.enter()


def test_a_server_with_another_certificate_gets_no_text() -> None:
    authority, other = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    with tls_server(certificate) as (url, heard):
        with pytest.raises(EncoderUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            encoder(url, ca_pem=other.cert_pem.bytes().decode()).encode(["red"], Side.QUERY)
        assert heard == []
        found = encoder(url, ca_pem=authority.cert_pem.bytes().decode()).encode(["red"], Side.QUERY)
        assert found.vectors.tolist() == [vector_of("red")]


@contextmanager
def tls_server(certificate: trustme.LeafCert) -> Iterator[tuple[str, list[str]]]:
    import ssl
    from http.server import ThreadingHTTPServer

    heard: list[str] = []

    class Handler(Exchange):
        def do_POST(self) -> None:  # noqa: N802 - the name of the base class
            heard.append(self.path)
            embeddings(self)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(("more", "named"), [({"token": "a\r\nb"}, "TOKEN"), ({"ca_pem": "none"}, "CA_PEM")])
def test_a_secret_that_is_none_is_told_before_anything_is_asked(more: dict[str, str], named: str) -> None:
    with pytest.raises(BadSpec, match=named) as refused:
        encoder("https://127.0.0.1:9", **more)
    assert more.get("token", "-") not in str(refused.value)


# ---------------------------------------------------------------- compared again


def test_an_endpoint_is_compared_again_and_answers_nothing_while_it_deviates() -> None:
    now, checks = [0.0], []
    outcome: list[Exception | None] = [None]

    def check() -> None:
        checks.append(now[0])
        if outcome[0] is not None:
            raise outcome[0]

    with answering(embeddings) as url:
        asked = Rechecked(encoder(url), check, clock=lambda: now[0])
        encoded = asked.encode(["red"], Side.QUERY)
        assert isinstance(encoded, Encoded)
        now[0] = 299
        asked.encode(["red"], Side.QUERY)
        assert checks == []
        now[0], outcome[0] = 301, ValueError("cosine 0.3")
        with pytest.raises(EncoderUnavailableError, match=r"another one than the gate proved: cosine 0\.3") as refused:
            asked.encode(["red"], Side.QUERY)
        assert refused.value.retry_after == 30
        now[0] = 330
        with pytest.raises(EncoderUnavailableError):
            asked.encode(["red"], Side.QUERY)
        assert checks == [301], "not with each query"
        now[0], outcome[0] = 332, None
        asked.encode(["red"], Side.QUERY)
        assert checks == [301, 332]


def test_who_cannot_be_compared_is_no_other() -> None:
    """The endpoint is down just then: what was proven is not taken for wrong."""
    now = [0.0]

    def check() -> None:
        raise EncoderUnavailableError("down")

    with answering(embeddings) as url:
        asked = Rechecked(encoder(url), check, clock=lambda: now[0])
        now[0] = 301
        with pytest.raises(EncoderUnavailableError, match="down"):
            asked.encode(["red"], Side.QUERY)
        assert asked.encode(["red"], Side.QUERY).vectors.tolist() == [vector_of("red")]


def test_what_is_asked_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def answer(one: Exchange) -> None:
        asked.append(one.rfile.read(int(one.headers["Content-Length"])))
        one.answer(200, data([1, 2, 3]))

    with answering(answer) as url:
        encoder(url).encode(['a "quoted" \u00fc text'], Side.QUERY)
    assert json.loads(asked[0])["input"] == ['a "quoted" ü text']


@pytest.mark.parametrize(
    "url",
    [
        "http://a:99999999/x", "http://a:65536/x", "http://a:0/x", "http://a:/x", "http://a:b/x", "http://[/x", "http://[1]/x",
        "http://[::1/x", "http://::1/x", "http://a..b/x", f"http://{'a' * 64}/x", "http://t\u00e9i/x", "http://a/\u00e9",
        "http://a/\x01", "http://a/x y", "http://me@a/x", "http:///x", "http://a/x?y", "http://a/@b", "ftp://a/x",
    ],
)  # fmt: skip
def test_a_url_that_no_connection_takes_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValidationError, match="url"):
        EmbeddingsEndpoint(url=url)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://a:65535/x", "a", 65535), ("http://a:1", "a", 1),
        ("https://tei.ml.svc./v1/embeddings", "tei.ml.svc.", None),
        ("http://[fd00::1]:8080/x", "fd00::1", 8080), ("http://10.0.0.7:80/a_b/~c;d=%20", "10.0.0.7", 80),
        ("http://my_tei-2/x", "my_tei-2", None),
    ],
)  # fmt: skip
def test_a_url_that_is_taken_can_be_connected_to(url: str, host: str, port: int | None) -> None:
    made = EndpointEncoder(EmbeddingsEndpoint(url=url), {}, DIMENSION)
    made.close()
    parts = urlsplit(url)
    assert (parts.hostname, parts.port) == (host, port)
    host.encode("idna")


def test_the_flag_says_which_url_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    given = [
        "validate",
        "--artifact",
        "/a",
        "--digest",
        "d",
        "--encoder-url",
        "http://a:99999999/x",
        "--text-column",
        "t",
    ]
    assert main(given) == ExitCode.BAD_SPEC
    assert "http://a:99999999/x" in capsys.readouterr().err
