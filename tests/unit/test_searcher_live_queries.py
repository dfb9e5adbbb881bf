"""A searcher keeps what users ask if it is told to, and tells it to whoever has the key for it; and nobody owns it."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import orjson
import pytest
from searcher_process import Searcher, started
from served import DIMENSION, Published, publish_all
from unit.test_internal_requests import KEY, LEASE, ME, ask, sent, serving, task

from vectorindex_searcher import contract
from vectorindex_searcher.contract import InternalRequest, LiveSource, Metric, live_key, live_seed, seal, sign
from vectorindex_searcher.proof.live import ask as asking
from vectorindex_searcher.proof.live.ask import Told, ask_pods
from vectorindex_searcher.proof.live.sample import LiveQuery
from vectorindex_searcher.proof.live.wire import HEAD_BYTES, MalformedError, Tally, decode, encode, record_bytes, tally
from vectorindex_searcher.serve.evidence.live_queries import LiveQueries
from vectorindex_searcher.serve.http.head import Credential
from vectorindex_searcher.serve.http.internal import InternalRequests

CAP = contract.live_room(DIMENSION) // contract.LIVE_SENDER_SHARE
OF_AN_HOUR = contract.live_room(DIMENSION) // contract.LIVE_HOURS
PAGE = InternalRequest("GET", contract.live_page(0, "127.0.0.1"))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_all(tmp_path_factory.mktemp("artifact"), ef_search=300)


@contextmanager
def keeping(published: Published, key: str = KEY, **environment: str) -> Iterator[Searcher]:
    identity = published.task.identity.model_copy(update={"uid": ME.index_uid})
    asked = published.task.model_copy(update={"identity": identity, "revision": ME.revision})
    with started(asked, **{contract.INTERNAL_KEY_ENV: key, contract.LIVE_QUERIES_ENV: "1"} | environment) as searcher:
        searcher.port()
        yield searcher


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)


def search(
    searcher: Searcher, rows: np.ndarray, address: str = "127.0.0.1", token: Callable[[int], str] | None = None,
    **fields: object,
) -> None:  # fmt: skip
    """One request for each row, from this address."""
    connection = http.client.HTTPConnection("127.0.0.1", searcher.port(), timeout=60, source_address=(address, 0))
    with closing(connection):
        for number, row in enumerate(rows):
            headers = {"Authorization": f"Bearer {token(number)}"} if token else {}
            connection.request("POST", "/v1/search", orjson.dumps({"vector": row.tolist(), **fields}), headers)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            answer.read()


def get(port: int, path: str, headers: dict[str, str], method: str = "GET", body: bytes = b"") -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, body or None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def source(port: int, *addresses: str) -> LiveSource:
    return LiveSource(
        index_uid=ME.index_uid,
        revision=ME.revision,
        addresses=addresses or ("127.0.0.1",),
        port=port,
        min_queries=120,
    )


def told(searcher: Searcher, key: str = KEY) -> Told:
    return ask_pods(source(searcher.port("admin port open")), DIMENSION, Metric.COSINE, live_key(key))


def rows_of(queries: list[LiveQuery]) -> set[bytes]:
    return {query.vector for query in queries}


@pytest.mark.parametrize("processes", ["1", "2"])
def test_what_users_ask_of_all_rows_with_the_revisions_own_parameters_is_kept(
    published: Published, processes: str
) -> None:
    plain, keyword, filtered, wide, batch = (vectors(8, seed) for seed in range(5))
    with keeping(published, VECTORINDEX_PROCESSES=processes) as searcher:
        search(searcher, np.concatenate([plain, plain]))
        search(searcher, keyword, segment="keyword", k=7)
        search(searcher, filtered, filter={"title": "t"})
        search(searcher, wide, params={"efSearch": 11})
        several = orjson.dumps({"vectors": batch.tolist(), "segment": "undeclared"})
        assert ask(searcher.port(), InternalRequest("POST", "/v1/search", several), {})[0] == 200
        answer = told(searcher)
        _, exposed = get(searcher.port("admin port open"), "/metrics", {})
        assert b'vectorindex_live_queries{revision="docs-1a2b3c"} 24.0' in exposed
    queries = list(answer.sample)
    assert (answer.pods, answer.problems) == (1, [])
    assert rows_of(queries) == {row.tobytes() for row in (*plain, *keyword, *batch)}
    assert {(one.segment, one.k) for one in queries} == {("other", 10), ("keyword", 7)}
    assert {one.vector for one in queries if one.segment == "keyword"} == {row.tobytes() for row in keyword}
    assert len(queries) == 24
    assert answer.asked == Tally(searches=48, filtered=8, own_params=8)
    said = str(searcher.log)
    assert "127.0.0.1" not in said
    assert str(float(plain[0, 0]))[:8] not in said


@pytest.mark.parametrize("processes", ["1", "2"])
def test_an_address_has_its_share_whatever_tokens_it_makes_up(published: Published, processes: str) -> None:
    flood, few = vectors(3 * CAP, seed=7), vectors(20, seed=8)
    with keeping(published, VECTORINDEX_PROCESSES=processes) as searcher:
        search(searcher, flood, token=lambda number: f"made-up-{number:08d}")
        search(searcher, few, address="127.0.0.2")
        answer = told(searcher)
    assert answer.sample.senders() == [CAP, 20]
    assert {row.tobytes() for row in few} <= rows_of(list(answer.sample))


def test_where_tokens_are_asked_for_a_token_is_a_sender_and_an_address_is_none(
    published: Published, tmp_path: Path
) -> None:
    (tmp_path / "one").write_text("token-of-the-first-client")
    (tmp_path / "two").write_text("token-of-the-second-client")
    with keeping(published, VECTORINDEX_TOKEN_FILE=str(tmp_path)) as searcher:
        search(searcher, vectors(2 * CAP, seed=1), token=lambda _: "token-of-the-first-client")
        search(
            searcher,
            vectors(2 * CAP, seed=1)[:30] + 1,
            address="127.0.0.2",
            token=lambda _: "token-of-the-first-client",
        )
        search(searcher, vectors(9, seed=2), token=lambda _: "token-of-the-second-client")
        assert told(searcher).sample.senders() == [CAP, 9]


def test_the_key_for_live_queries_reads_them_and_nothing_else(published: Published) -> None:
    counts = InternalRequest("GET", "/v1/evidence?since=0")
    with keeping(published) as searcher:
        search(searcher, vectors(3))
        port = searcher.port("admin port open")

        def status(request: InternalRequest, key: str) -> int:
            headers = sign(key, request, ME, time.time())
            return get(port, request.path, headers, request.method, request.body)[0]

        assert [status(PAGE, key) for key in (live_key(KEY), KEY, "")] == [200, 403, 401]
        assert [status(request, live_key(KEY)) for request in (LEASE, counts)] == [403, 403]
        assert [status(request, KEY) for request in (LEASE, counts)] == [200, 200]
        mine = "pod=127.0.0.1"
        for query in ("", "?age=1", f"?age=24&{mine}", f"?age=-1&{mine}", "?age=1&pod=::::", f"?age=1&{mine}&x=2"):
            assert status(InternalRequest("GET", contract.LIVE_QUERIES_PATH + query), live_key(KEY)) == 400
        assert told(searcher, "another").problems == ["127.0.0.1: it answers with status 403 (ForgedSignature)"]


def test_what_was_signed_for_another_pods_address_is_refused(published: Published) -> None:
    """A Job's list of pods lags behind: whoever got the address of one could repeat to another what it was sent."""
    with keeping(published) as searcher:
        search(searcher, vectors(3))
        for address, expected in (("127.0.0.1", 200), ("::ffff:127.0.0.1", 200), ("127.0.0.2", 421), ("::1", 421)):
            request = InternalRequest("GET", contract.live_page(0, address))
            headers = sign(live_key(KEY), request, ME, time.time())
            assert get(searcher.port("admin port open"), request.path, headers)[0] == expected, address


@pytest.mark.parametrize("processes", ["1", "2"])
def test_nothing_is_kept_unless_asked_for_and_never_without_a_key(published: Published, processes: str) -> None:
    with serving(published, ME, KEY) as searcher:
        search(searcher, vectors(3))
        assert told(searcher).problems == ["127.0.0.1: it answers with status 404 (NoLiveQueries)"]
    with keeping(published, key="", VECTORINDEX_PROCESSES=processes) as searcher:
        search(searcher, vectors(3))
        port = searcher.port("admin port open")
        for headers in ({}, sign("", PAGE, ME, time.time()), sign(live_key(""), PAGE, ME, time.time())):
            status, answer = ask(port, PAGE, headers)
            assert (status, answer["type"]) == (403, "urn:vectorindex:problem:KeyNeeded")
        assert sum("no live queries are kept" in line["message"] for line in searcher.log) == 1, "said once"


def test_without_a_key_the_check_lets_nobody_in() -> None:
    from unit.test_internal_requests import NOW, arrived, refusal

    path = contract.LIVE_QUERIES_PATH
    for headers in (("", ""), sent(InternalRequest("POST", path, LEASE.body), key=live_key(""))):
        assert refusal(InternalRequests(task(), clock=lambda: NOW), arrived(path, *headers)) == (403, "KeyNeeded")


# ---------------------------------------------------------------- draws


def kept(key: str = KEY, clock: Callable[[], float] = lambda: 1_800_000_000.0) -> LiveQueries:
    return LiveQueries(DIMENSION, ("keyword",), key, clock)


def names(queries: LiveQueries, age: int = 0) -> set[bytes]:
    data = queries.page(age)[: -contract.LIVE_SEAL_BYTES]
    head = data.index(b"\n") + 1
    size = record_bytes(DIMENSION)
    return {data[at : at + 16] for at in range(head, len(data), size)}


def test_pods_of_a_revision_draw_alike_and_nobody_else_can_foresee_what_is_drawn() -> None:
    rows = vectors(1500)
    pods = kept(), kept(), kept("another key")
    for number, row in enumerate(rows):
        for pod in pods:
            pod.offer("other", f"10.0.{number // 200}.{number % 200}", 10, row[None])
    first, second, other = map(names, pods)
    assert first == second
    assert 0 < len(first) < len(rows)
    assert not first & other
    assert live_seed(KEY) != live_seed("another key")


def test_a_query_of_another_segment_is_another_query() -> None:
    pod, row = kept(), vectors(1)
    for segment in ("other", "keyword", "other"):
        pod.offer(segment, "10.0.0.1", 10, row)
    assert len(pod) == 2


@pytest.mark.parametrize(
    ("senders", "different"),
    [
        (["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.1"], 1),
        (["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:0:1::"], 1),
        (["2001:db8::1", "2001:db8:0:1::1", "fe80::1%eth0", "fe80::2%eth1"], 3),
        ([Credential(b"a" * 32), Credential(b"b" * 32), Credential(b"a" * 32)], 2),
        (["", "no address"], 2),
    ],
)
def test_a_network_of_ipv6_is_one_sender(senders: list[str | Credential], different: int) -> None:
    pod = kept()
    for number, sender in enumerate(senders * (CAP + 1)):
        pod.offer("other", sender, 10, vectors(1, seed=number))
    assert len(pod) == different * CAP


def test_after_a_day_it_is_forgotten_also_when_nobody_asks() -> None:
    now = [1_800_000_000.0]
    pod = kept(clock=lambda: now[0])
    pod.offer("other", "10.0.0.1", 10, vectors(5))
    pod.leave_out(7, filtered=True)
    assert (len(names(pod)), len(names(pod, 23))) == (5, 0)
    assert (counted(pod), counted(pod, 23)) == ((12, 7, 0), (0, 0, 0))
    now[0] += 23 * 3600
    pod.leave_out(1, filtered=False)
    assert (len(names(pod)), len(names(pod, 23))) == (0, 5)
    assert (counted(pod), counted(pod, 23)) == ((1, 0, 1), (12, 7, 0))
    now[0] += 3600
    pod.forget()
    assert len(pod) == 0
    assert (counted(pod), counted(pod, 1), counted(pod, 23)) == ((0, 0, 0), (1, 0, 1), (0, 0, 0))
    for _ in range(100):
        now[0] += 3600
        pod.leave_out(1, filtered=True)
    assert len(pod._counted) <= contract.LIVE_HOURS


def counted(queries: LiveQueries, age: int = 0) -> tuple[int, int, int]:
    told = tally(queries.page(age)[: -contract.LIVE_SEAL_BYTES])
    assert told is not None
    return told.searches, told.filtered, told.own_params


# ---------------------------------------------------------------- pods of another release


def as_told(head: bytes) -> bytes:
    """A page of one query of this hour, below the head of another release."""
    hour = int(time.time()) // 3600
    facts = np.array([(hour, 10, 0)], "<i8,<u2,<u2").tobytes()
    return head + b"\n" + b"n" * 16 + b"s" * 8 + facts + vectors(1)[0].astype("<f4").tobytes()


OLDER = b'{"dimension":%d,"segments":["other"]}' % DIMENSION
NEWER = b'{"dimension":%d,"segments":["other"],"asked":{"searches":9,"filtered":4,"of":1},"more":{}}' % DIMENSION


@pytest.mark.parametrize(("head", "asked"), [(OLDER, None), (NEWER, Tally(searches=9, filtered=4))])
def test_a_searcher_of_another_release_is_understood(head: bytes, asked: Tally | None) -> None:
    with answering(lambda path: as_told(head) if "age=0&" in path else EMPTY) as port:
        answer = ask_pods(source(port), DIMENSION, Metric.COSINE, "key")
    assert (len(answer.sample), answer.pods, answer.problems) == (1, 1, [])
    assert answer.asked == asked


@pytest.mark.parametrize("count", [b"-1", b"1e99", b'"many"', b"99999999999999999999"])
def test_counts_that_are_none_are_nonsense(count: bytes) -> None:
    head = b'{"dimension":%d,"segments":["other"],"asked":{"searches":%s}}' % (DIMENSION, count)
    with answering(lambda path: as_told(head)) as port:
        answer = ask_pods(source(port), DIMENSION, Metric.COSINE, "key")
    assert (len(answer.sample), answer.pods, answer.asked) == (0, 0, None)


# ---------------------------------------------------------------- pods that are hostile


def honest(count: int = 5, hour: int | None = None) -> bytes:
    now = int(time.time()) // 3600 if hour is None else hour
    queries = [
        LiveQuery(number.to_bytes(16, "big"), b"s" * 8, now, 10, "other", row.tobytes())
        for number, row in enumerate(vectors(count))
    ]
    return encode(queries, DIMENSION, ("other",))


@contextmanager
def answering(
    body: Callable[[str], bytes],
    wait: threading.Event | None = None,
    status: int = 200,
    raw: bytes = b"",
    port: int = 0,
    host: str = "127.0.0.1",
    key: str = "key",
    sealed: Callable[[str, bytes], bytes] | None = None,
) -> Iterator[int]:
    class Pod(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if raw:
                self.wfile.write(raw + b"\r\n\r\n")
                return
            self.send_response(status)
            if wait is not None:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-")
                wait.wait(60)
            data = body(self.path)
            data += seal(key, self.path, data) if sealed is None else sealed(self.path, data)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((host, port), Pod) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            if wait is not None:
                wait.set()
            server.shutdown()
            thread.join()


EMPTY = encode([], DIMENSION, ("other",))


@pytest.mark.parametrize(
    ("newest", "said"),
    [
        (b"nonsense", "no head"),
        (encode([], DIMENSION + 1, ("other",)), "dimensions"),
        (honest(hour=7), "not of the hour"),
        (honest(2) + honest(2, hour=int(time.time()) // 3600 - 1)[len(EMPTY) :], "not of the hour"),
        (EMPTY + b"\xff" * (HEAD_BYTES + 500 * record_bytes(DIMENSION)), "more than the"),
        (EMPTY + b"\xff" * record_bytes(DIMENSION) * 400, "of no segment"),
        (honest(OF_AN_HOUR + 1), f"{OF_AN_HOUR + 1} queries, {OF_AN_HOUR} at most"),
    ],
)
def test_a_pod_that_tells_nonsense_is_left_out_whole(newest: bytes, said: str) -> None:
    with answering(lambda path: newest if "age=0&" in path else honest(hour=int(time.time()) // 3600 - 3)) as port:
        answer = ask_pods(source(port), DIMENSION, Metric.COSINE, "key")
    assert (len(answer.sample), answer.pods) == (0, 0)
    assert said in answer.problems[0]


@pytest.mark.parametrize(
    ("number", "metric", "said"),
    [
        (np.nan, Metric.L2, "not finite"),
        (0.0, Metric.COSINE, "zero"),
        (1e19, Metric.L2, "too long"),
        (1e19, Metric.INNER_PRODUCT, "too long"),
        (1e19, Metric.COSINE, ""),
        (0.0, Metric.L2, ""),
    ],
)
def test_what_searchers_refuse_is_no_query_of_theirs(number: float, metric: Metric, said: str) -> None:
    """Nothing is near a vector whose squared length is no float32 number: it holds any index."""
    vector = np.full(DIMENSION, number, "<f4").tobytes()
    data = encode([LiveQuery(b"n" * 16, b"s" * 8, 1, 10, "other", vector)], DIMENSION, ("other",))
    if not said:
        assert len(decode(data, DIMENSION, metric, 5)) == 1
        return
    with pytest.raises(MalformedError, match=said):
        decode(data, DIMENSION, metric, 5)


def test_a_stranger_at_a_pods_address_adds_no_query() -> None:
    """Who got the address can answer, but has no key: it could fill all places of the sample otherwise."""
    with answering(lambda path: honest() if "age=0&" in path else EMPTY, key="another") as port:
        answer = ask_pods(source(port), DIMENSION, Metric.COSINE, "key")
    assert (len(answer.sample), answer.pods) == (0, 0)
    assert "not made with its revision's key" in answer.problems[0]


@pytest.mark.parametrize(
    "sealed",
    [
        lambda path, page: seal("key", contract.live_page(1, "127.0.0.1"), page),
        lambda path, page: seal("key", contract.live_page(0, "127.0.0.9"), page),
        lambda path, page: seal("key", path, EMPTY),
    ],
    ids=["of another hour", "of another pod", "of another page"],
)
def test_a_seal_that_was_heard_seals_nothing_else(sealed: Callable[[str, bytes], bytes]) -> None:
    """Samples go in clear: whoever listens has pages of honest pods, with their seals."""
    with answering(lambda path: honest() if "age=0&" in path else EMPTY, sealed=sealed) as port:
        answer = ask_pods(source(port), DIMENSION, Metric.COSINE, "key")
    assert (len(answer.sample), answer.pods) == (0, 0)
    assert "not made with its revision's key" in answer.problems[0]


@pytest.mark.parametrize("body", [b"[0.25, 0.5, 0.75]", b'{"type": "urn:vectorindex:problem:Of 0.25, 0.5"}', b"{", b""])
def test_what_a_pod_says_for_itself_is_not_passed_on(body: bytes) -> None:
    """It ends up in the report and in the message of the verdict."""
    with answering(lambda path: body, status=500) as port:
        answer = ask_pods(source(port), DIMENSION, Metric.COSINE, "key")
    assert answer.problems == ["127.0.0.1: it answers with status 500"]
    with answering(lambda path: b"", raw=b"0.25 0.5 " + body) as port:
        (problem,) = ask_pods(source(port), DIMENSION, Metric.COSINE, "key").problems
    assert problem == "127.0.0.1: what it answers is no HTTP (BadStatusLine)"


def test_one_pod_that_is_there_is_enough_and_its_flood_is_cut() -> None:
    """A pod may be forged: it says that one sender asked everything."""
    page = honest(OF_AN_HOUR)
    with answering(lambda path: page if "age=0&" in path else EMPTY) as port:
        answer = ask_pods(source(port, "127.0.0.1", "127.0.0.255"), DIMENSION, Metric.COSINE, "key")
    assert (answer.pods, len(answer.problems)) == (1, 1)
    assert answer.sample.senders() == [CAP]


def test_a_pod_that_never_ends_its_head_is_waited_for_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "POD_SECONDS", 0.5)
    held = threading.Event()
    with answering(lambda path: EMPTY, held) as port:
        answer = ask_pods(source(port), DIMENSION, Metric.COSINE, "key")
        assert not held.is_set()
    assert (answer.pods, len(answer.sample)) == (0, 0)
    assert any(said in answer.problems[0] for said in ("in time", "timed out", "too long"))


def test_a_pod_that_drips_is_hung_up_on_and_the_next_one_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes come all the time, so that no read ever times out; and with it the turns of all others would be over."""
    monkeypatch.setattr(asking, "POD_SECONDS", 5.0)
    monkeypatch.setattr(asking, "AT_ONCE", 1)
    ended = threading.Event()

    with dripping(ended) as port, answering(lambda path: EMPTY, port=port, host="127.0.0.3"):
        answer = ask_pods(source(port, "127.0.0.2", "127.0.0.3"), DIMENSION, Metric.COSINE, "key")
        assert ended.wait(60)
    assert answer.pods == 1
    (problem,) = answer.problems
    assert problem.startswith("127.0.0.2: ")


@contextmanager
def dripping(ended: threading.Event) -> Iterator[int]:
    """Interim answers without end, until the other side hangs up."""
    with closing(socket.create_server(("127.0.0.2", 0))) as server:

        def serve() -> None:
            with closing(server.accept()[0]) as one, contextlib.suppress(OSError):
                one.recv(65536)
                while True:
                    one.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            ended.set()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
