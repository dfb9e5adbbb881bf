"""A router, a hostile client and a pod that hangs: what is held is bounded, evidence is of the index."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from sharded import DIMENSION, Loop, Pod, Router, addresses, dealt_parts, pods_of, routing
from waiting import until

from vectorindex_searcher.contract import Partial
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.serve.http.messages import Response, overload
from vectorindex_searcher.serve.route import pods as pods_module
from vectorindex_searcher.serve.route.link import NoRoomError, Reply, Room

VECTOR = [1.0] * DIMENSION
LONG_BODY = b"x" * (32 << 20)
"""More than two kernels take."""


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> list[Engine]:
    return dealt_parts(tmp_path_factory.mktemp("parts"), 3)


@pytest.fixture(scope="module")
def allowing(engines: list[Engine]) -> Iterator[tuple[Router, list[list[Pod]]]]:
    with pods_of(engines) as pods, routing(addresses(pods), partial=Partial.ALLOW) as router:
        yield router, pods


def counted(router: Router, body: dict[str, Any], **more: Any) -> tuple[Any, float, float]:
    """The answer, and how many errors and refusals it counted as."""
    before = router.evidence()
    answer = router.search(body, **more)
    after = router.evidence()
    return answer, *(after.get(name, 0) - before.get(name, 0) for name in ("failed_requests", "refused"))


def test_a_shard_that_hangs_is_a_fault_and_no_overload(engines: list[Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    with pods_of(engines) as pods, routing(addresses(pods)) as router:
        (pod,) = router.server.shards[1].pods.values()

        def hang() -> None:
            # It answered no look, and owes many answers.
            monkeypatch.setattr(
                type(pod), "alive", property(lambda self: self is not pod, lambda self, value: None), raising=False
            )
            monkeypatch.setattr(type(pod), "outstanding", property(lambda self: 256 if self is pod else 0))

        router.do(hang)
        (status, _, problem), errors, refused = counted(router, {"vector": VECTOR})
        assert (status, problem["type"]) == (503, "urn:vectorindex:problem:ShardsMissing")
        assert (errors, refused) == (1, 0)


def test_a_client_in_a_hurry_makes_no_error(allowing: tuple[Router, list[list[Pod]]]) -> None:
    router, pods = allowing
    pods[2][0].hold()
    headers = {"X-Request-Timeout-Ms": "90"}  # too short for any revision
    answer, errors, refused = counted(router, {"vector": VECTOR}, headers=headers)
    assert answer[0] in (200, 504)
    assert (errors, refused) == (0, 1)
    answer, errors, refused = counted(router, {"vector": VECTOR}, headers={"X-Request-Timeout-Ms": "600"})
    assert (answer[0], answer[2]["shardsMissing"]) == (200, [2])
    assert (errors, refused) == (1, 0)
    pods[2][0].release()


def test_an_answer_without_a_busy_shard_is_no_error(allowing: tuple[Router, list[list[Pod]]]) -> None:
    router, pods = allowing
    pods[0][0].app.lie = lambda request: overload("many wait").response("products-d1")
    answer, errors, refused = counted(router, {"vector": VECTOR})
    assert (answer[0], answer[2]["shardsMissing"]) == (200, [0])
    assert (errors, refused) == (0, 1)
    pods[1][0].app.lie = lambda request: Response(500, b"{}")
    answer, errors, refused = counted(router, {"vector": VECTOR})
    assert (answer[0], answer[2]["shardsMissing"], errors) == (200, [0, 1], 1)
    pods[0][0].app.lie = pods[1][0].app.lie = None


def test_what_clients_choose_times_no_second_request(allowing: tuple[Router, list[list[Pod]]]) -> None:
    router, _ = allowing
    shard = router.server.shards[0]

    def known() -> int:
        return int(router.do(lambda: sum(len(pod.latencies._took) for pod in shard.pods.values())))

    def timed(body: dict[str, Any]) -> int:
        before = known()
        assert router.search(body)[0] == 200
        return known() - before

    assert timed({"vector": VECTOR}) == 1
    assert timed({"vector": VECTOR, "filter": {"size": 1}}) == 0


class Deaf:
    """Answers the first request of a connection, and reads nothing any more."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listening.accept()
                self.connections.append(connection)
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    def close(self) -> None:
        for one in (self.listening, *self.connections):
            one.close()


class Asking:
    """A pod at that address, and the loop that it is asked from."""

    def __init__(self, deaf: Deaf, room: Room) -> None:
        self.running = Loop()
        self.pod = pods_module.Pod("127.0.0.1", deaf.port, room, lambda: b"", lambda reply: None)
        self.told: list[Reply | Exception] = []

    def do(self, work: Callable[[], Any]) -> Any:
        async def call() -> Any:
            return work()

        return self.running.do(call())

    def ask(self, asker: str, rest: tuple[bytes, bytes] | None) -> None:
        self.do(lambda: self.pod.ask(asker, b"POST /", lambda: rest, 100, self.told.append))

    def close(self) -> None:
        self.do(self.pod.close)
        self.running.do(asyncio.sleep(0.01))  # until they are closed
        self.running.close()


@pytest.fixture
def deaf() -> Iterator[Deaf]:
    found = Deaf()
    yield found
    found.close()


def test_a_request_that_nobody_wants_any_more_leaves_nothing_here(deaf: Deaf) -> None:
    with closing(Asking(deaf, Room())) as asking:
        pod = asking.pod
        for asker in ("mine", "mine", "other"):
            asking.ask(asker, (b"\r\n", LONG_BODY))
        until(lambda: asking.do(lambda: sum(link.unsent for link in pod._busy)) == 3)
        asking.do(lambda: pod.give_up("mine"))
        assert (asking.do(lambda: pod.outstanding), len(asking.told)) == (1, 2)
        # Where nobody wants it before its connection is open nothing is sent, and others may have that.
        asking.ask("late", None)
        until(lambda: len(asking.told) == 3)
        assert asking.do(lambda: (len(pod._free), pod.outstanding)) == (1, 1)


def test_no_room_here_says_nothing_about_a_pod(deaf: Deaf) -> None:
    with closing(Asking(deaf, Room(1))) as asking:
        asking.pod.alive = True
        asking.running.do(asking.pod.prove())
        assert asking.pod.alive
        asking.ask("mine", (b"\r\n", b""))
        until(lambda: asking.told)
        assert isinstance(asking.told[0], NoRoomError)
