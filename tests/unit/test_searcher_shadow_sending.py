"""A shadow's sender, each part by itself: what is put aside, what is sent together, and over which connections."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vectorindex_searcher import contract
from vectorindex_searcher.contract import Metric
from vectorindex_searcher.index.rows import RawIds
from vectorindex_searcher.serve.shadow.answers import ExactScores
from vectorindex_searcher.serve.shadow.link import ANSWER_BYTES, HEAD_BYTES, IDLE_SECONDS, KEPT, Link, Links
from vectorindex_searcher.serve.shadow.mirror import Answered, Mirror
from vectorindex_searcher.serve.shadow.packer import SCORED, Packer
from vectorindex_searcher.serve.shadow.sender import MirrorSender, _Outgoing
from vectorindex_searcher.serve.shadow.wire import Packed, decode, join, query_hash

DIMENSION = 8


# ---------------------------------------------------------------- what is put aside


def offered(mirror: Mirror, *segments: str, began: float = 0.0) -> None:
    """Queries of these segments that were answered together: the first asks for 0, 0, ... and finds row 0."""
    numbers = np.arange(len(segments))
    asked = [
        SimpleNamespace(plan=SimpleNamespace(segment=one, k=3, asked={}, min_score=None), began=began)
        for one in segments
    ]
    vectors = np.repeat(numbers[:, None], DIMENSION, 1).astype(np.float32)
    rows, scores = np.repeat(numbers[:, None], 3, 1), np.zeros((len(segments), 3), np.float32)
    mirror.offer(asked, vectors, rows, scores)
    for one in (vectors, rows, scores):
        one[:] = 77  # what was put aside is nobody else's


def test_of_what_was_answered_together_each_is_considered_and_what_is_left_out_is_counted() -> None:
    now = [100.0]
    mirror = Mirror(("rare",), DIMENSION, lambda: "listing-2", lambda: 36.0, lambda: now[0])
    offered(mirror, "other")
    assert not mirror.queue, "there is no lease"
    lease = contract.MirrorLease(revision="docs-new", addresses=("127.0.0.1",), max_per_second=3, shadow="docs-new@1")
    mirror.take(lease, "", "docs-old")
    offered(mirror, "rare", "other", "other", "rare", "other", "rare", began=99.5)
    assert [one.segment for one in mirror.queue] == ["rare", "other", "other"]
    for number, one in enumerate(mirror.queue):
        assert np.frombuffer(one.vector, np.float32).tolist() == [number] * DIMENSION
        assert np.frombuffer(one.rows, np.int64).tolist() == [number] * 3
        assert np.frombuffer(one.scores, np.float32).tolist() == [0.0] * 3
        assert (one.seconds, one.bucket, one.deleted) == (0.5, 7, "listing-2")
    now[0] += 0.4  # there is a token again
    offered(mirror, "other", "rare")
    assert len(mirror.queue) == 4
    mirror.count_left_out()
    assert mirror.counts is not None
    place = contract.PAIR_COUNTERS.index("dropped")
    assert {segment: row[place] for _, segment, row in mirror.counts.rows()} == {"rare": 3, "other": 1}
    now[0] += 300
    offered(mirror, "other")
    assert mirror.lease is None
    assert len(mirror.queue) == 4


def test_of_a_request_for_several_any_one_is_taken() -> None:
    mirror = Mirror((), DIMENSION)
    lease = contract.MirrorLease(revision="docs-new", addresses=("127.0.0.1",), max_per_second=1e4, shadow="docs-new@1")
    mirror.take(lease, "", "docs-old")
    asked: Any = SimpleNamespace(plan=SimpleNamespace(segment="other", k=1, asked={}, min_score=None), began=0.0)
    vectors = np.repeat(np.arange(4)[:, None], DIMENSION, 1).astype(np.float32)
    for _ in range(200):
        mirror.offer_one(asked, vectors, np.arange(4)[:, None], np.arange(4, dtype=np.float32)[:, None])
    taken = [(np.frombuffer(one.vector, np.float32)[0], np.frombuffer(one.rows, np.int64)[0]) for one in mirror.queue]
    assert len(taken) == 200
    assert set(taken) == {(n, n) for n in range(4)}


# ---------------------------------------------------------------- what is sent together


def answered(
    number: int,
    rows: Sequence[int],
    told: Sequence[float] = (),
    *,
    asked: Mapping[str, object] | None = None,
    min_score: float | None = None,
) -> Answered:
    """Query `number` with these answers; -1 where there is none. `told`: their scores (default: 0)."""
    return Answered(
        segment="other",
        k=len(rows),
        asked=asked or {},
        min_score=min_score,
        vector=np.full(DIMENSION, number, np.float32).tobytes(),
        rows=np.array(rows, np.int64).tobytes(),
        scores=np.array(told or [0.0] * len(rows), np.float32).tobytes(),
        seconds=0.001,
        bucket=7,
        overall=bool(number % 2),
        deleted="listing-2",
    )


def test_a_request_holds_no_more_than_one_core_answers_in_time() -> None:
    """Queries of 0.2 s each here, on several cores: 64 of them would find no answer within two seconds."""
    engine = SimpleNamespace(manifest=SimpleNamespace(index_type="Flat"))
    mirror = Mirror()
    sender = MirrorSender("uid", "docs-old", mirror, engine, ExactScores(engine, lambda: None))  # type: ignore[arg-type]
    lease = contract.MirrorLease(revision="docs-new", addresses=("127.0.0.1",), max_per_second=9, shadow="docs-new@1")
    mirror.take(lease, "", "docs-old")
    nothing = Packed(b"", b"", b"", b"", b"", b"")
    sent: list[list[float]] = []

    async def connect(_address: str, _port: int) -> None:
        return None

    async def exchange(_link: None, _lease: object, _address: str, some: Sequence[Any]) -> frozenset[int]:
        sent.append([query.seconds for query in some])
        return frozenset()

    async def begin(*seconds: float) -> list[list[float]]:
        sent.clear()
        waiting = deque(_Outgoing((7, "other", True), each, nothing, 1) for each in seconds)
        sender._waiting["127.0.0.1"] = waiting
        assert mirror.lease is not None
        sender._begin(mirror.lease)
        while waiting or sender._sending:
            await asyncio.sleep(0)
        return sent

    sender._links.to = connect  # type: ignore[method-assign, assignment]
    sender._exchange = exchange  # type: ignore[method-assign, assignment]
    assert asyncio.run(begin(0.2, 0.2, 0.2, 0.2, 0.2)) == [[0.2, 0.2], [0.2, 0.2], [0.2]]
    assert asyncio.run(begin(3.0, 3.0)) == [[3.0], [3.0]], "one at least, and the next as soon as it is answered"
    assert asyncio.run(begin(*[0.001] * 70)) == [[0.001] * 64, [0.001] * 6]


def test_of_many_queries_some_are_scored_exactly_and_all_are_sent() -> None:
    """Reading vectors is the most of what mirroring costs where an index holds codes."""
    engine = SimpleNamespace(manifest=SimpleNamespace(index_type="PQ"))
    asked = []

    def of(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
        asked.append(rows.shape)
        return np.asarray(rows + vectors[:, :1])

    exact = SimpleNamespace(possible=True, of=of)
    some = [answered(number, range(3 + number % 2)) for number in range(SCORED + 10)]
    found = Packer(engine, exact).exact_scores(some)  # type: ignore[arg-type]
    assert sorted(asked) == [(SCORED // 2, 3), (SCORED // 2, 4)], "those with as many answers together"
    assert [scores is not None for scores in found] == [True] * SCORED + [False] * 10
    for number, scores in enumerate(found[:SCORED]):
        assert scores is not None
        assert scores.tolist() == [row + number for row in range(3 + number % 2)]


class Holding:
    """An engine as the packer knows it. The id of row 7 is 700, or `i7` with so many dashes behind."""

    dimension = DIMENSION

    def __init__(self, kind: str, index_type: str) -> None:
        self.manifest = SimpleNamespace(index_type=index_type, id_type=kind)

    def ids(self, rows: Sequence[int]) -> list[Any]:
        return [f"i{row}" + row * "-" if self.manifest.id_type == "string" else 100 * row for row in rows]

    def raw_ids(self, rows: np.ndarray) -> RawIds:
        found = self.ids(rows.tolist())
        if self.manifest.id_type != "string":
            return RawIds(np.array(found, np.int64), b"", None)
        lengths = [len(one) for one in found]
        return RawIds(np.array(lengths, np.uint32), "".join(found).encode(), [0, *np.cumsum(lengths).tolist()])


@pytest.mark.parametrize("kind", ["string", "int64"])
@pytest.mark.parametrize("index_type", ["IndexHNSWFlat", "IndexPQ"])
def test_what_is_packed_together_is_what_each_was_asked_and_answered(kind: str, index_type: str) -> None:
    """Of queries with more answers and fewer, and none, nobody gets those of another."""
    codes = index_type == "IndexPQ"
    exact = SimpleNamespace(possible=True, of=lambda vectors, rows: np.where(rows < 0, -np.inf, rows + vectors[:, :1]))
    engine = Holding(kind, index_type)
    filtered = {"filter": {"colour": "red"}, "minScore": 0.5}
    some = [
        answered(0, [4, 1, -1], [0.75, 0.5, -9.0]),
        answered(1, [-1, -1], [-9.0, -9.0]),
        answered(2, [3, 2, 6], [0.75, 0.5, 0.25], asked=filtered, min_score=0.5),
        answered(3, [5], [0.25], min_score=0.5),
    ]
    packed = Packer(engine, exact).packed(some)  # type: ignore[arg-type]
    batch = decode(join("docs@1", "docs-old", DIMENSION, packed, text=kind == "string"), Metric.L2)
    assert [query.asked.hits for query in batch.queries] == [2, 0, 2, 0]
    assert [query.asked.first for query in batch.queries] == [0.75, None, 0.75, 0.25]
    for number, (before, after) in enumerate(zip(some, batch.queries, strict=True)):
        rows = [row for row in np.frombuffer(before.rows, np.int64).tolist() if row >= 0]
        told = np.frombuffer(before.scores, np.float32)[: len(rows)].tolist()
        assert list(after.ids) == engine.ids(rows)
        assert after.scores.tolist() == ([row + number for row in rows] if codes else told)
        assert (after.asked.exact, after.asked.k, after.asked.answers) == (True, before.k, len(rows))
        assert (after.asked.overall, after.asked.deleted) == (bool(number % 2), "listing-2")
        assert after.asked.fields == before.asked
        assert after.vector.tobytes() == before.vector
        assert after.name == query_hash(before.vector, before.k, before.asked)
    assert len({query.name for query in batch.queries}) == len(some)
    assert Packer(engine, exact).packed([]) == []  # type: ignore[arg-type]


# ---------------------------------------------------------------- over which connections


class Wire:
    """A transport, as far as a connection asks it."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


def linked() -> tuple[Link, Wire]:
    link, wire = Link(), Wire()
    link.connection_made(wire)  # type: ignore[arg-type]
    return link, wire


def told(link: Link, *pieces: bytes, end: bool = False) -> tuple[int, bytes]:
    """What it makes of these pieces of an answer, and of the other side's end after them."""

    async def ask() -> tuple[int, bytes]:
        asked = asyncio.ensure_future(link.ask(b"queries"))
        await asyncio.sleep(0)
        for piece in pieces:
            link.data_received(piece)
        if end:
            link.connection_lost(None)
        async with asyncio.timeout(60):
            return await asked

    return asyncio.run(ask())


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def test_a_connection_is_asked_again_as_long_as_the_other_side_keeps_it() -> None:
    link, wire = linked()
    for _ in range(2):
        assert told(link, *(bytes([one]) for one in OK)) == (200, b"{}")
        assert link.usable
    assert wire.sent == b"queriesqueries"
    for last in (OK.replace(b"OK\r\n", b"OK\r\nConnection: Close\r\n"), OK.replace(b"1.1", b"1.0")):
        link, _ = linked()
        assert told(link, last) == (200, b"{}")
        assert not link.usable
    link, wire = linked()
    wire.closed = True
    assert not link.usable


def test_what_nobody_asked_for_ends_the_connection() -> None:
    """It would be taken for the answer to the next request."""
    link, wire = linked()
    assert told(link, OK) == (200, b"{}")
    link.data_received(OK)
    assert wire.closed
    with pytest.raises(ValueError, match="more than an answer"):
        told(linked()[0], OK + OK)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * HEAD_BYTES,
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (ANSWER_BYTES + 1),
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
        b"SSH-2.0-OpenSSH\r\n\r\n",
    ],
)
def test_little_is_held_of_what_no_searcher_answers(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"head of the answer|an answer of|no searcher"):
        told(linked()[0], answer)


def test_a_connection_that_ends_early_is_no_answer() -> None:
    for pieces in ((), (OK[:20],), (OK[:-1],)):
        with pytest.raises(EOFError):
            told(linked()[0], *pieces, end=True)
    assert told(linked()[0], b"HTTP/1.1 503 No\r\nContent-Length: 2000000\r\n\r\n") == (503, b"")


def test_few_connections_are_kept_none_for_long_and_none_to_whom_nothing_is_sent() -> None:
    kept, made = Links(), {f"10.0.0.{n}": linked() for n in range(KEPT + 3)}

    def still_open() -> list[str]:
        return [address for address, (_, wire) in made.items() if not wire.closed]

    async def to(address: str) -> Link:
        return await kept.to(address, 8081)

    for address, (link, _) in made.items():
        kept.put_back(address, 8081, link)
    first = list(made)[:KEPT]
    assert still_open() == first
    assert asyncio.run(to("10.0.0.1")) is made["10.0.0.1"][0]
    kept.close_idle(tuple(first[2:4]))
    assert still_open() == first[1:4], "that of a request on its way is the caller's"
    kept.put_back("10.0.0.1", 8081, made["10.0.0.1"][0])
    for address in first[2:4]:
        made[address][0].free_since -= IDLE_SECONDS
    kept.close_idle(tuple(made))
    assert still_open() == ["10.0.0.1"]
    again, wire = linked()
    kept.put_back("10.0.0.1", 8081, again)
    assert wire.closed, "one to each pod"
