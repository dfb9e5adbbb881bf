"""The operator's side of the admin port, over real sockets: nobody is held up by whoever drips, floods or lies."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from cost import in_a_process_of_its_own
from pods_on_sockets import answering, dripping, received, server

from vectorindex_operator.adapters import evidence
from vectorindex_operator.adapters.admin_port import (
    DEADLINE_SECONDS,
    PARALLEL,
    AdminPort,
    Answer,
    Call,
    Lane,
)
from vectorindex_operator.adapters.evidence import ROW_BYTES, HttpSearchers
from vectorindex_operator.adapters.evidence_cache import EvidenceCache, PodKey
from vectorindex_operator.adapters.reader import Reader
from vectorindex_operator.adapters.shares import Share
from vectorindex_operator.core.internal_keys import Addressee
from vectorindex_operator.core.judging.evidence import PodCounts, PodEvidence, merge
from vectorindex_operator.core.judging.questions import Purpose, Question
from vectorindex_searcher.contract import (
    EVIDENCE_ANSWER_BYTES,
    EVIDENCE_COLUMNS_TYPE,
    EVIDENCE_CURSOR_HEADER,
    EvidenceColumns,
    LeaseState,
    Target,
    TrafficLease,
)

NOW = time.time()
MIB = 1 << 20
BUCKET = int(NOW // 5) - 3


def get(port: int) -> Call:
    return Call("127.0.0.1", port, "GET", "/v1/evidence")


def asked(port: AdminPort, calls: Sequence[Call], lane: Lane, *, largest: int, seconds: float = 60.0) -> list[Answer]:
    """The answers, waited for."""
    share = port.share()
    try:
        return port.start(port.ask(calls, lane, share, largest=largest, seconds=seconds)).result()
    finally:
        share.close()


def timed(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


# ---------------------------------------------------------------- one exchange


@pytest.mark.parametrize("start", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"", b"HTTP/1.1 200 OK\r\n",
])  # fmt: skip
def test_a_deadline_is_one_of_the_whole_answer(start: bytes) -> None:
    port = AdminPort()
    with server(dripping(start)) as slow:
        found: list[Answer] = []
        took = timed(lambda: found.extend(asked(port, [get(slow)], Lane.SOAK, largest=1000_000, seconds=0.5)))
    assert 0.4 < took < 1.5
    assert "no whole answer within 0.5 s" in found[0].problem


@pytest.mark.parametrize(("wrong", "said"), [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n", "3000 bytes is larger than the 2000"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", "how long it is"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "how long it is"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "ended before"),
    (b"220 smtp ready\r\n\r\n", "speaks no HTTP"),
    (b"X" * 20_000, "longer than"),
    (b"", "ended before"),
])  # fmt: skip
def test_what_is_no_answer_is_a_problem_with_words(wrong: bytes, said: str) -> None:
    def handle(connection: socket.socket, _head: bytes) -> None:
        connection.sendall(wrong)

    with server(handle) as port:
        (answer,) = asked(AdminPort(), [get(port)], Lane.WATCH, largest=2000)
    assert said in answer.problem
    assert (answer.status, answer.body) == (0, b"")


def test_nobody_there_is_a_problem_too() -> None:
    with socket.socket() as held:  # bound, so that nobody else gets the port, and not listening
        held.bind(("127.0.0.1", 0))
        port = int(held.getsockname()[1])
        assert asked(AdminPort(), [get(port)], Lane.WATCH, largest=10)[0].problem


def test_an_index_has_so_many_requests_under_way_and_no_more() -> None:
    under_way, most, lock = 0, 0, threading.Lock()

    def handle(connection: socket.socket, head: bytes) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.05)
        with lock:
            under_way -= 1
        answering(b"{}")(connection, head)

    with server(handle) as port:
        answers = asked(AdminPort(), [get(port)] * 50, Lane.SOAK, largest=10)
    assert [answer.status for answer in answers] == [200] * 50
    assert 2 <= most <= PARALLEL


# ---------------------------------------------------------------- tenants


def to(index: str, revision: str = "r") -> Addressee:
    return Addressee(Target(index, revision), "uid")


def rows(revision: str = "r", count: int = 1, now: float | None = None) -> bytes:
    buckets = [{"bucket": BUCKET - n, "segment": "other", "requests": 7, "queries": 7} for n in range(count)]
    document = {"pod": "p", "revision": revision, "now": time.time() if now is None else now, "buckets": buckets}
    return json.dumps(document).encode()


def ask(
    searchers: HttpSearchers, index: str, pods: int = 1, purpose: Purpose = Purpose.WATCH, since: float = NOW - 3000
) -> tuple[PodEvidence, ...]:
    names = [(f"p{number}", "127.0.0.1") for number in range(pods)]
    return searchers.evidence(to(index), names, Question("r", since, purpose)).result()


def test_an_answer_is_as_old_as_it_is_although_it_waits_to_be_read() -> None:
    """A pod's clock is told by when its answer came: read a bucket later, all that it counted would be late by one."""
    turns: list[float] = []

    class Busy(Reader):
        async def read(self, size: int, work: Callable[[], Any]) -> Any:
            await asyncio.sleep(0.01)
            turns.append(time.time())
            return await super().read(size, work)

    with server(lambda connection, head: answering(rows())(connection, head)) as port:
        (one,) = ask(HttpSearchers(admin_port=port, _reader=Busy()), "a")
    assert one.evidence is not None
    assert one.evidence.now <= one.received_at < turns[0]


def test_a_tenant_whose_pods_drip_delays_no_other_tenants_look() -> None:
    """Sixteen and more dripping pods of A, many times over; B's looks go on as if A were not there."""
    port = AdminPort()
    with server(dripping()) as slow, server(answering(rows())) as quick:
        bad, good = HttpSearchers(port=port, admin_port=slow), HttpSearchers(port=port, admin_port=quick)
        ask(good, "b", 4)
        alone = min(timed(lambda: ask(good, "b", 4)) for _ in range(5))
        hostile: list[float] = []
        threads = [
            threading.Thread(target=lambda n=n: hostile.append(timed(lambda: ask(bad, f"a{n}", 16))))  # type: ignore[misc]
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.3)  # long enough for all of them to hang
        beside = [timed(lambda p=p: ask(good, "b", 4, p)) for p in (Purpose.WATCH, Purpose.SOAK)]  # type: ignore[misc]
        assert all(thread.is_alive() for thread in threads), "A still drips"
        for thread in threads:
            thread.join()
    print(f"B's look: alone {alone * 1e3:.0f} ms, beside A {max(beside) * 1e3:.0f} ms; A's {max(hostile):.1f} s")
    assert max(beside) < max(20 * alone, DEADLINE_SECONDS / 4)
    assert max(hostile) < 1.5 * DEADLINE_SECONDS, "A's own look ends as well, with 16 pods or with 100"


def test_a_lease_is_not_waited_for_longer_either() -> None:
    with server(dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")) as slow:
        searchers = HttpSearchers(admin_port=slow)
        lease = TrafficLease(state=LeaseState.SERVING)
        took = timed(lambda: searchers.tell(to("a"), ["127.0.0.1"] * 40, lease).result())
    assert DEADLINE_SECONDS / 2 < took < 1.5 * DEADLINE_SECONDS


# ---------------------------------------------------------------- what is no evidence


FORGED = """
    import sys, time
    from cost import memory
    from vectorindex_operator.adapters.evidence import HttpSearchers
    from vectorindex_operator.core.internal_keys import Addressee
    from vectorindex_operator.core.judging.questions import Purpose, Question
    from vectorindex_searcher.contract import Target
    searchers = HttpSearchers(admin_port=int(sys.argv[1]))
    before, began = memory("VmHWM"), time.process_time()
    said = searchers.evidence(
        Addressee(Target("a", "r"), "u"), [(f"p{n}", "127.0.0.1") for n in range(int(sys.argv[2]))],
        Question("r", 0.0, Purpose.SOAK),
    ).result()
    print(time.process_time() - began, memory("VmHWM") - before, said[0].problem[:100])
"""


def cost_of(body: bytes, kind: str, pods: int = 1) -> tuple[float, float, str]:
    """CPU seconds and bytes of memory that answers cost the operator, in a process of its own."""
    with server(answering(body, kind)) as port:
        seconds, memory, problem = in_a_process_of_its_own(FORGED, port, pods).split(" ", 2)
    return float(seconds), float(memory), problem.strip()


def forged_rows(size: int) -> bytes:
    """As many rows as fit, each with its own segment."""
    row = '{"bucket":%d,"segment":"s%d","latency":{"1":1,"2":1,"3":1}}'
    one = len(row % (BUCKET, 123456)) + 1
    made = ",".join(row % (BUCKET, n) for n in range(size // one))
    return b'{"pod":"p","revision":"r","now":1,"buckets":[' + made.encode() + b"]}"


def test_sixteen_megabytes_of_forged_evidence_cost_little() -> None:
    """Before: 7 s and 850 MiB, the operator's life. Compared with an honest answer of a megabyte."""
    honest = cost_of(rows(count=10_000), "application/json")
    forged = cost_of(forged_rows(16 << 20), "application/json")
    for name, (seconds, memory, _) in (("honest megabyte", honest), ("forged 16 MiB", forged)):
        print(f"{name}: {seconds:.2f} s, {memory / MIB:.0f} MiB")
    assert "is larger than" in forged[2]
    assert forged[0] < honest[0]
    assert forged[1] < max(honest[1], 8 * MIB)


@pytest.mark.parametrize("kind", ["application/json", EVIDENCE_COLUMNS_TYPE])
@pytest.mark.parametrize("filler", [b"[],", b"{},", b"1,", b'"",', b"[" * 50])
def test_forged_answers_within_the_limit_are_bounded_too(kind: str, filler: bytes) -> None:
    body = b'{"pod":"p","buckets":[' + filler * ((EVIDENCE_ANSWER_BYTES - 100) // len(filler)) + b"1]}"
    seconds, memory, problem = cost_of(body, kind, pods=8)
    assert seconds < 2, problem
    assert memory < 128 * MIB, f"{memory / MIB:.0f} MiB: {problem}"
    assert "what it says is no evidence" in problem


def test_what_contradicts_itself_is_silence_with_a_reason() -> None:
    columns = columns_of(requests=[5])
    for change in (
        {"segment": [7]}, {"counts": {"requests": [-5]}}, {"counts": {"requests": [1, 2]}}, {"latencySizes": [3]},
        {"segments": ["x" * 300]}, {"latencyBins": [400], "latencyCounts": [1], "latencySizes": [1]},
        {"segments": [f"s{n}" for n in range(50)]}, {"counts": {"requests": [None]}}, {"incarnation": "x" * 1000},
        {"latencyBins": [3, 0], "latencyCounts": [1, 1], "latencySizes": [2]},
    ):  # fmt: skip
        with server(answering(json.dumps(columns | change).encode(), EVIDENCE_COLUMNS_TYPE)) as port:
            (said,) = ask(HttpSearchers(admin_port=port), "a")
        assert said.evidence is None, change
        assert "what it says is no evidence" in said.problem
        assert len(said.problem) < 300
        assert merge([said], NOW, revision="r").problem.startswith("p0: ")


# ---------------------------------------------------------------- incremental


def columns_of(
    revision: str = "r", incarnation: str = "i1", cursor: str = "i1.1", *, whole: bool = True, more: bool = False,
    bucket: int = BUCKET, **counts: list[int],
) -> dict[str, object]:  # fmt: skip
    return {
        "pod": "p", "revision": revision, "incarnation": incarnation, "now": time.time(), "cursor": cursor,
        "whole": whole, "more": more, "segments": ["other"], "bucket": [bucket], "segment": [0], "counts": counts,
        "latencySizes": [0], "latencyBins": [], "latencyCounts": [], "ofANewerRelease": {"kept": "out"},
    }  # fmt: skip


class Scripted:
    """Answers one document after the other, and remembers with what cursor it was asked."""

    def __init__(self, *documents: dict[str, object]) -> None:
        self.documents = list(documents)
        self.cursors: list[str] = []

    def __call__(self, connection: socket.socket, head: bytes) -> None:
        lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
        assert EVIDENCE_COLUMNS_TYPE in lines["Accept"]
        assert "since=" in head.decode().split("\r\n")[0]
        self.cursors.append(lines.get(EVIDENCE_CURSOR_HEADER, ""))
        body = json.dumps(self.documents.pop(0)).encode()
        answering(body, EVIDENCE_COLUMNS_TYPE)(connection, head)


def requests_of(said: PodEvidence) -> dict[int, int]:
    assert isinstance(said.evidence, PodCounts), said.problem
    return {one.bucket - BUCKET: one.cell.requests for one in said.evidence.counted}


def test_a_later_look_asks_for_what_changed_and_knows_all() -> None:
    pod = Scripted(
        columns_of(requests=[5], bucket=BUCKET, cursor="i1.1", more=True),
        columns_of(requests=[6], bucket=BUCKET + 1, cursor="i1.2", whole=False),
        columns_of(requests=[9], bucket=BUCKET, cursor="i1.3", whole=False),  # a click changed an old bucket
        columns_of(requests=[1], bucket=BUCKET + 2, cursor="i2.1", incarnation="i2"),  # the process started anew
    )
    with server(pod) as port:
        searchers = HttpSearchers(admin_port=port)
        seen = [requests_of(ask(searchers, "a")[0]) for _ in range(3)]
    assert seen == [{0: 5, 1: 6}, {0: 9, 1: 6}, {2: 1}]
    assert pod.cursors == ["", "i1.1", "i1.2", "i1.3"]


@pytest.mark.parametrize("ahead", [-200.0, 0.0, 200.0])
def test_what_a_pod_counted_by_a_clock_of_its_own_is_known_at_the_first_look(ahead: float) -> None:
    """It reads `since` by its own clock: one that is behind would say nothing of what began a moment ago."""
    began, asked_since = time.time() - 20, list[float]()
    counted = int((began + ahead) // 5) + 1

    def pod(connection: socket.socket, head: bytes) -> None:
        asked_since.append(float(head.split(b"since=")[1].split(b" ")[0]))
        told = columns_of(
            requests=[7], bucket=counted, cursor="i1.1", whole=EVIDENCE_CURSOR_HEADER.encode() not in head
        )
        if counted < asked_since[-1] // 5 or not told["whole"]:
            told |= {"bucket": [], "segment": [], "counts": {}, "latencySizes": []}
        document = json.dumps(told | {"now": time.time() + ahead}).encode()
        answering(document, EVIDENCE_COLUMNS_TYPE)(connection, head)

    with server(pod) as port:
        searchers = HttpSearchers(admin_port=port)
        for _ in range(2):
            merged = merge(ask(searchers, "a", since=began), time.time(), revision="r")
            assert merged.total("", int(began // 5) - 1).requests == 7
    assert asked_since[1] == pytest.approx(began + ahead, abs=10), "its clock is known by now"


def test_a_cache_that_was_lost_asks_for_everything() -> None:
    pod = Scripted(columns_of(requests=[5]), columns_of(requests=[5]))
    with server(pod) as port:
        searchers = HttpSearchers(admin_port=port)
        ask(searchers, "a")
        searchers.cache = EvidenceCache()
        assert requests_of(ask(searchers, "a")[0]) == {0: 5}
    assert pod.cursors == ["", ""]


def test_who_wants_to_know_more_than_was_told_asks_for_everything() -> None:
    """The baseline of a revision that was watched only since its promotion, a minute ago."""
    pod = Scripted(*(columns_of(requests=[5], cursor=f"i1.{n}") for n in range(3)))
    with server(pod) as port:
        searchers = HttpSearchers(admin_port=port)
        for since in (NOW - 60, NOW - 30, NOW - 900):
            ask(searchers, "a", since=since)
    assert pod.cursors == ["", "i1.0", ""]


def test_an_address_that_another_revision_has_now_is_not_mixed_in() -> None:
    for handle in (
        answering(json.dumps(columns_of("other", requests=[5])).encode(), EVIDENCE_COLUMNS_TYPE),
        answering(rows("other")),
        answering(b"{}", status="421 Misdirected Request"),
    ):
        with server(handle) as port:
            said = ask(HttpSearchers(admin_port=port), "a")
        assert merge(said, NOW, revision="r").foreign == ("p0",)


def test_nothing_is_kept_of_an_address_that_another_revision_had() -> None:
    """Neither its rows nor its cursor: the pod that has the address next would go on from them."""
    pod = Scripted(columns_of("other", requests=[5], cursor="i9.1"), columns_of(requests=[7], bucket=BUCKET + 1))
    with server(pod) as port:
        searchers = HttpSearchers(admin_port=port)
        assert merge(ask(searchers, "a"), NOW, revision="r").foreign == ("p0",)
        assert searchers.cache.rows == 0
        assert requests_of(ask(searchers, "a")[0]) == {1: 7}
    assert pod.cursors == ["", ""]


def test_counts_of_a_process_that_ended_are_not_added_to_those_of_the_next() -> None:
    pod = Scripted(
        columns_of(requests=[5]),
        columns_of(requests=[6], bucket=BUCKET + 1, whole=False, incarnation="i2", cursor="i2.1"),
        columns_of(requests=[6], bucket=BUCKET + 1, incarnation="i2", cursor="i2.1"),
    )
    with server(pod) as port:
        searchers = HttpSearchers(admin_port=port)
        told = [ask(searchers, "a")[0] for _ in range(3)]
    assert told[1].evidence is None
    assert requests_of(told[2]) == {1: 6}
    assert pod.cursors == ["", "i1.1", ""]


def test_a_searcher_of_before_answers_rows_and_is_understood() -> None:
    with server(answering(rows(count=3))) as port:
        said = ask(HttpSearchers(admin_port=port), "a")
    assert requests_of(said[0]) == {0: 7, -1: 7, -2: 7}


def test_a_searcher_of_before_with_too_many_rows_is_asked_for_fewer() -> None:
    sinces: list[float] = []

    def handle(connection: socket.socket, head: bytes) -> None:
        sinces.append(float(head.split(b"since=")[1].split(b" ")[0]))
        long_ago = time.time() - sinces[-1] > 1000
        answering(forged_rows(3 << 20) if long_ago else rows())(connection, head)

    with server(handle) as port:
        searchers = HttpSearchers(admin_port=port)
        said = [ask(searchers, "a")[0] for _ in range(3)]
    assert ["is larger than" in one.problem for one in said] == [True, True, False]
    assert sinces == sorted(sinces)


def page(count: int, **changes: Any) -> bytes:
    """A page with so many rows, in as few bytes as can be."""
    numbers = list(range(count))
    document = columns_of() | {
        "bucket": [BUCKET + number % 500 for number in numbers], "segment": [0] * count, "latencySizes": [0] * count,
        "segments": ["o"], "counts": {}
    } | changes  # fmt: skip
    return json.dumps(document, separators=(",", ":")).encode()


def fill(cache: EvidenceCache, index: str, pod: str = "p", count: int = 20) -> None:
    cache.take(PodKey(index, "r", pod), EvidenceColumns.model_validate_json(page(count, now=NOW)), 0.0)


def look(cache: EvidenceCache, index: str) -> None:
    cache.begin(index)
    cache.end(index)


def known(cache: EvidenceCache, index: str, pod: str = "p") -> bool:
    return bool(cache.cursor(PodKey(index, "r", pod), 0.0))


def test_the_cache_is_bounded_and_an_index_only_displaces_itself() -> None:
    cache = EvidenceCache(100 * ROW_BYTES, 30 * ROW_BYTES)
    for index in ("b", "c", "d"):
        fill(cache, index)
        look(cache, index)
    for pod in range(10):
        fill(cache, "a", f"p{pod}")
        look(cache, "a")
    assert cache.rows <= 90
    assert all(known(cache, index) for index in ("b", "c", "d"))
    assert sum(known(cache, "a", f"p{pod}") for pod in range(10)) == 1


def test_many_indexes_with_many_rows_displace_each_other_and_nobody_with_few() -> None:
    cache = EvidenceCache(100 * ROW_BYTES, 50 * ROW_BYTES)
    fill(cache, "small", count=5)
    look(cache, "small")
    for number in range(10):
        fill(cache, f"large-{number}", count=40)
        look(cache, f"large-{number}")
    assert cache.rows <= 100
    assert known(cache, "small")


def test_what_is_being_told_stays_until_the_look_is_over() -> None:
    cache = EvidenceCache(100 * ROW_BYTES, 50 * ROW_BYTES)
    cache.begin("a")
    for pod in ("p", "q", "r"):
        fill(cache, "a", pod)
    look(cache, "b")
    assert all(known(cache, "a", pod) for pod in ("p", "q", "r"))
    cache.end("a")
    assert [known(cache, "a", pod) for pod in ("p", "q", "r")] == [False, True, True]


def test_what_goes_on_from_rows_that_are_gone_is_not_taken_for_all() -> None:
    """Between question and answer another index's look may displace them: before, the old rows were simply missing."""
    searchers = HttpSearchers()

    def displaced(connection: socket.socket, head: bytes) -> None:
        if EVIDENCE_CURSOR_HEADER.encode() in head:
            searchers.cache.forget(PodKey("a", "r", "p0"))
        pod(connection, head)

    pod = Scripted(
        columns_of(requests=[5]), columns_of(requests=[6], bucket=BUCKET + 1, whole=False), columns_of(requests=[7])
    )
    with server(displaced) as port:
        searchers.admin_port = port
        told = [ask(searchers, "a")[0] for _ in range(3)]
    assert told[1].evidence is None
    assert "goes on from what is not kept" in told[1].problem
    assert requests_of(told[2]) == {0: 7}


# ---------------------------------------------------------------- memory


class Flooding(AdminPort):
    """Pods that all answer this page, at once."""

    def __init__(self, body: bytes, held_bytes: int) -> None:
        super().__init__(held_bytes=held_bytes)
        self.body = body

    async def ask(self, calls: Sequence[Call], lane: Lane, share: Share, **_: Any) -> list[Answer]:
        return [Answer(200, EVIDENCE_COLUMNS_TYPE, self.body) for _ in calls if share.take(len(self.body))]


def rows_of(told: Sequence[PodEvidence]) -> int:
    return sum(len(one.evidence.counted) for one in told if isinstance(one.evidence, PodCounts))


def test_what_looks_hold_is_bounded_and_shared_and_given_back() -> None:
    """The cheapest page costs its sender six bytes a row, and the operator seven hundred."""
    held, count, body = 8 << 20, 500, page(500)
    port = Flooding(body, held)
    searchers = HttpSearchers(port=port)
    pods = [(f"p{number}", "127.0.0.1") for number in range(20)]
    heard: set[str] = set()
    while len(heard) < len(pods):  # whose turn it is is heard, and each has one
        told = searchers.evidence(to("a"), pods, Question("r", 0.0, Purpose.SOAK)).result()
        assert count <= rows_of(told) <= held * 0.4 / ROW_BYTES, "no more than it leaves for others"
        assert any("more to tell than one look takes" in one.problem for one in told)
        heard |= {one.pod for one in told if one.evidence is not None}

    looks = [searchers.evidence(to(f"a{n}"), pods, Question("r", 0.0, Purpose.SOAK)) for n in range(6)]
    assert sum(rows_of(look.result()) for look in looks) <= held / ROW_BYTES, "and so are all of them together"
    few = searchers.evidence(to("b"), pods[:1], Question("r", 0.0, Purpose.SOAK)).result()
    assert rows_of(few) == count, "who needs little gets it, beside any number of those"
    del looks
    again = searchers.evidence(to("a"), pods, Question("r", 0.0, Purpose.SOAK)).result()
    assert rows_of(again) > held / 5 / ROW_BYTES, "what nobody has any more is free again"


@pytest.mark.parametrize("limit", ["LOOK_SECONDS", "READ_SECONDS"])
def test_a_look_ends_in_time_whatever_there_is_to_read(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    searchers = HttpSearchers(port=Flooding(page(10), 8 << 20))
    assert all(one.evidence is not None for one in ask(searchers, "a", 10))
    monkeypatch.setattr(evidence, limit, 0.0)
    assert all("more to tell" in one.problem for one in ask(searchers, "a", 10))


def test_the_answers_of_an_index_hold_so_many_bytes_together() -> None:
    body = b"x" * 200_000
    with server(answering(body)) as port:
        admin = AdminPort(held_bytes=1_600_000)
        share = admin.share()
        answers = admin.start(admin.ask([get(port)] * 16, Lane.SOAK, share, largest=len(body))).result()
    assert 0 < sum(len(answer.body) for answer in answers) <= 640_000
    assert any("more bytes than are left for it" in answer.problem for answer in answers)
    assert share.held == sum(len(answer.body) for answer in answers), "what was given up half-way is not held"


# ---------------------------------------------------------------- leases


class Patient(AdminPort):
    """Waits for pods until it is told not to."""

    async def ask(
        self, calls: Sequence[Call], lane: Lane, share: Share, *, largest: int, seconds: float = 0.0
    ) -> list[Answer]:
        return await AdminPort.ask(self, calls, lane, share, largest=largest, seconds=600.0)


def test_the_last_word_is_told_and_nothing_twice_at_once() -> None:
    """Pods that drip must not keep a revision from hearing that it has the traffic again."""
    heard: list[str] = []
    hangs = threading.Event()

    def handle(connection: socket.socket, head: bytes) -> None:
        told = received(connection, head, b"}")
        heard.append("Draining" if b"Draining" in told else "Serving")
        if heard == ["Draining"]:
            hangs.set()
            dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")(connection, told)  # what a lease may answer
        answering(b"{}")(connection, told)

    with server(handle) as port:
        searchers = HttpSearchers(port=Patient(), admin_port=port)
        draining, serving = (TrafficLease(state=state) for state in (LeaseState.DRAINING, LeaseState.SERVING))
        first = searchers.tell(to("a"), ["127.0.0.1"], draining)
        assert hangs.wait(60)
        searchers.tell(to("a"), ["127.0.0.1"], draining).result()
        searchers.tell(to("a"), ["127.0.0.1"], serving).result()
        first.result()
    assert heard == ["Draining", "Serving"]
