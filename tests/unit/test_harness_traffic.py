"""The load generator against a small server: what it counts, how it paces, when it opens connections again."""

from __future__ import annotations

import ast
import asyncio
import itertools
import json
import re
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from ports import held

from harness.base import CHECKOUT
from harness.errors import HarnessError
from harness.load_worker import Reader
from harness.traffic import WORKER, Settings, Snapshot, Traffic
from harness.waiting import wait_for

Answer = Callable[[int, int], bytes | None]
"""From the number of the connection and of the request on it, each from 1. None: the connection ends without one."""


def ok(
    revision: str = "r-1", *, top: float | None = 0.8, close: bool = False, status: int = 200, found: int | str = 1
) -> bytes:
    scores = [] if top is None else [top]
    document = {"revision": revision, "results": [{"ids": [found], "scores": scores}], "zeroResults": int(top is None)}
    body = json.dumps(document).encode()
    closing = b"Connection: close\r\n" if close else b""
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(body), closing, body)


@contextmanager
def server(answer: Answer, heads: Callable[[bytes], object] = lambda _: None) -> Iterator[int]:
    """A server on loopback; yields its port. `heads` is told those of requests."""
    loop = asyncio.new_event_loop()
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        mine, requests = connections, 0
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                heads(head)
                length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
                await reader.readexactly(int(length.split(b":")[1]))
                requests += 1
                said = answer(mine, requests)
                if said is None:
                    break
                writer.write(said)
                if b"Connection: close" in said:
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    listening = loop.run_until_complete(asyncio.start_server(talk, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(asyncio.sleep(0))  # whoever was just let in begins, and so can end
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.run_until_complete(asyncio.sleep(0))  # what was closed is let go of in the next turn
        loop.close()


def drive(answer: Answer, queries: int = 60, *, rate: float = 300, connections: int = 4, retries: int = 0) -> Snapshot:
    with server(answer) as port:
        return ask(Settings("127.0.0.1", port, rate, connections, max_queries=queries, timeout=60, retries=retries))


def ask(settings: Settings) -> Snapshot:
    traffic = Traffic(settings, ['{"vector": [1.0]}'])
    traffic.start()
    traffic.wait(lambda seen: seen.done, 120, "the end")
    return traffic.stop()


def test_each_query_shows_its_own_token() -> None:
    shown: list[bytes] = []
    with server(lambda *_: ok(), shown.append) as port:
        settings = Settings("127.0.0.1", port, rate=300, connections=1, max_queries=6, timeout=60, tokens=("a", "b"))
        traffic = Traffic(settings, ['{"vector": [1.0]}', '{"vector": [2.0]}', '{"vector": [3.0]}'])
        traffic.start()
        traffic.wait(lambda seen: seen.done, 120, "the end")
        traffic.stop()
    tokens = [line for head in shown for line in head.split(b"\r\n") if line.startswith(b"Authorization")]
    assert tokens == [b"Authorization: Bearer " + one for one in (b"a", b"b", b"a") * 2]


@pytest.mark.parametrize("name", ["", "search.example.com"])
def test_each_query_names_the_host_that_is_meant(name: str) -> None:
    heads: list[bytes] = []
    with server(lambda *_: ok(), heads.append) as port:
        ask(Settings("127.0.0.1", port, rate=300, connections=1, max_queries=1, timeout=60, name=name))
    (head,) = heads
    assert f"Host: {name or f'127.0.0.1:{port}'}\r\n".encode() in head


def test_counts_answers_by_revision() -> None:
    numbers = itertools.count(1)

    def answer(*_: int) -> bytes:
        number = next(numbers)
        return ok("r-1", top=None if number <= 4 else 0.5) if number <= 40 else ok("r-2")

    seen = drive(answer)

    assert (seen.queries, seen.failed, seen.connections) == (60, 0, 4)
    first, second = seen.revisions["r-1"], seen.revisions["r-2"]
    assert (first.answers, first.zero_results, second.answers) == (40, 4, 20)
    assert first.top_score == pytest.approx(0.5)
    assert first.first_at <= first.last_at <= second.last_at
    assert sum(count for _, _, count in first.episodes) == 40


def test_what_was_to_be_found_is_looked_for_in_the_answer_to_each_query() -> None:
    """Every answer is the document a."""
    seen = []
    for right in ((("a", "b"), ("c",)), ()):
        with server(lambda *_: ok(found="a")) as port:
            settings = Settings("127.0.0.1", port, rate=300, max_queries=6, timeout=60, expected=right)
            with Traffic(settings, ['{"text": "a"}', '{"text": "b"}']) as traffic:
                seen.append(traffic.wait(lambda now: now.done, 60, "the end"))
    assert [(one.queries, one.failed, one.found) for one in seen] == [(6, 0, 3), (6, 0, 0)]


def test_keeps_the_pace() -> None:
    seen = drive(lambda *_: ok(), 300, rate=200)

    assert 1.45 < seen.seconds < 6, "one and a half, and what a busy machine adds"
    assert seen.queries == 300


def test_opens_again_after_connection_close() -> None:
    seen = drive(lambda _, request: ok(close=request == 5))

    assert (seen.queries, seen.failed) == (60, 0)
    assert seen.closed_by_server >= 8
    assert seen.connections >= 12


def test_a_used_connection_that_ends_silently_costs_nothing() -> None:
    seen = drive(lambda connection, request: None if connection == 1 and request == 3 else ok())

    assert (seen.queries, seen.failed, seen.sent_again) == (60, 0, 1)


def test_a_fresh_connection_that_ends_silently_is_a_failure() -> None:
    seen = drive(lambda connection, _: None if connection == 2 else ok())

    assert (seen.queries, seen.failed, dict(seen.kinds)) == (60, 1, {"broken": 1})


def test_as_the_python_client_it_sends_a_query_of_an_ended_connection_once_again() -> None:
    once = drive(lambda connection, _: None if connection == 2 else ok(), retries=3)
    twice = drive(lambda connection, _: None if connection > 4 or connection == 2 else ok(), retries=3)

    assert (once.queries, once.failed, once.sent_again, once.answered_again) == (60, 0, 1, 1)
    assert twice.failed >= 1, "a query that makes a searcher crash is not handed round to all of them"


def test_as_the_python_client_it_tries_three_times_more_to_connect() -> None:
    with held() as (nobody,):
        seen = ask(Settings("127.0.0.1", nobody, rate=50, connections=4, max_queries=5, timeout=60, retries=3))

    assert (seen.queries, dict(seen.kinds), seen.sent_again, seen.answered_again) == (5, {"refused": 5}, 15, 0)


def test_an_answer_that_breaks_off_is_a_failure() -> None:
    def answer(connection: int, request: int) -> bytes:
        whole = ok(close=True)
        return whole[:-5] if connection == 1 and request == 4 else ok()

    seen = drive(answer)

    assert (seen.failed, dict(seen.kinds), seen.sent_again) == (1, {"broken": 1}, 0)


def test_what_a_busy_searcher_refuses_is_asked_again_as_the_client_does_it() -> None:
    busy = ok(status=503).replace(b"X\r\n", b"X\r\nRetry-After: 0\r\n")
    once = drive(lambda connection, request: busy if (connection, request) == (1, 1) else ok(), retries=3)
    always = drive(lambda *_: busy, queries=2, retries=3)
    assert (once.failed, once.answered_again) == (0, 1)
    assert (always.failed, dict(always.kinds)) == (2, {"status 503": 2})


def test_every_other_status_is_a_failure() -> None:
    seen = drive(lambda connection, request: ok(status=503) if (connection, request) == (1, 2) else ok())

    assert dict(seen.kinds) == {"status 503": 1}
    assert "status 503" in seen.describe_failures()


def test_refused_connections_are_failures() -> None:
    with (
        held() as (port,),
        Traffic(Settings("127.0.0.1", port, rate=100, max_queries=10, timeout=60), ["{}"]) as traffic,
    ):
        seen = traffic.wait(lambda now: now.done, 60, "the end")

    assert (seen.queries, dict(seen.kinds)) == (10, {"refused": 10})


def test_a_failure_tells_when_the_query_was_sent() -> None:
    """What is known late was not sent late: an answer that never comes is given up after the timeout."""

    def answer(connection: int, request: int) -> bytes:
        if (connection, request) == (1, 2):
            time.sleep(1.2)
        return ok()

    with server(answer) as port:
        settings = Settings("127.0.0.1", port, rate=100, connections=1, max_queries=4, timeout=0.5)
        with Traffic(settings, ["{}"]) as traffic:
            seen = traffic.wait(lambda now: now.done, 60, "the end")

    late = next(row for row in seen.failures if row["kind"] == "timeout")
    assert late["at"] - late["sent_at"] >= 0.5


def test_stops_when_told_and_changes_its_pace() -> None:
    with server(lambda *_: ok()) as port:
        traffic = Traffic(Settings("127.0.0.1", port, rate=20, report_seconds=0.05), ["{}"])
        traffic.start()
        traffic.wait_answers("r-1", 10)
        traffic.pace(400)
        traffic.wait(lambda seen: seen.queries > 400, 60, "more queries")
        seen = traffic.stop()

    assert seen.done
    assert seen.failed == 0
    assert seen.seconds < 15, "at the old pace it would be 20"


DEAF = "read settings; exec 0<&-; echo deaf; sleep 1"
LAST_WORDS = {
    "while it listens": "read settings; echo no such thing; exit 3",
    "after it has stopped listening": f"{DEAF}; echo no such thing; exit 3",
    "after it has ended": "read settings; (sleep 2.5; echo no such thing) & exit 3",  # a pipe outlives its writer
}


@pytest.mark.parametrize("when", LAST_WORDS)
def test_says_why_it_ended(when: str) -> None:
    """Judged at the end of what it says, however late that comes and is read."""
    traffic = saying(LAST_WORDS[when])

    with pytest.raises(HarnessError, match="no such thing"):
        traffic.stop()


def test_what_it_said_is_told_where_it_does_not_end() -> None:
    """kubectl waits on, with what nobody reads any more, when a worker died in its pod."""
    traffic = saying("echo no such thing; cat > /dev/null")
    try:
        wait_for(lambda: traffic._said, 10, "its words")
        with pytest.raises(HarnessError, match="no such thing"):
            traffic.wait_answers("r-1", 0.2)
    finally:
        traffic._end()


def test_the_worker_runs_on_what_the_searchers_image_has() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    there = {re.split(r"[<>=]", one)[0] for one in project["optional-dependencies"]["dataplane"]}
    found = set()
    for node in ast.walk(ast.parse(WORKER.read_text())):
        found |= {one.name for one in node.names} if isinstance(node, ast.Import) else set()
        found |= {str(node.module).partition(".")[0]} if isinstance(node, ast.ImportFrom) else set()
    assert "orjson" in found
    assert found - sys.stdlib_module_names <= there


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_answers_are_cut_out_of_what_comes(size: int) -> None:
    reader, found = Reader(), []
    stream = ok("r-1") + ok("r-2", close=True)
    for at in range(0, len(stream), size):
        body = reader.feed(stream[at : at + size])
        while body is not None:
            found.append(json.loads(body)["revision"])
            body = reader.feed(b"")
    assert found == ["r-1", "r-2"]
    assert (reader.status, reader.lasts) == (200, False)


@pytest.mark.parametrize("said", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"])
def test_what_tells_no_length_is_a_failure(said: bytes) -> None:
    seen = drive(lambda connection, number: said, 3)
    assert seen.kinds == {"garbled": 3}


def test_final_numbers_count_though_nobody_listens_any_more() -> None:
    """Its bound was reached between a look at the numbers and the word to stop."""
    last = json.dumps({"queries": 5, "revisions": {}, "done": True})

    seen = saying(f"{DEAF}; echo '{last}'").stop()

    assert (seen.done, seen.queries) == (True, 5)


def saying(script: str) -> Traffic:
    """A worker that is a shell script; one that is to be deaf is so already."""
    traffic = Traffic(Settings("127.0.0.1", 1), ["{}"], ["sh", "-c", script])
    traffic.start()
    if DEAF in script:
        wait_for(lambda: "deaf" in traffic._said, 60, "it to have stopped listening", every=0.01)
    return traffic
