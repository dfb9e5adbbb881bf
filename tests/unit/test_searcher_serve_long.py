"""Long requests and answers hold the event loop no longer than short ones: whoever else asks waits behind them."""

from __future__ import annotations

import time

import pytest
from wire import Port, Transport, get, post, running_loop

from vectorindex_searcher.serve.http.connection import Connection
from vectorindex_searcher.serve.http.messages import Response


class Full(Transport):
    """A socket that takes what it is given first, and then no more."""

    connection: Connection | None = None

    def write(self, data: bytes) -> None:
        self.written = bytes(data[:100])
        if self.connection is not None:
            self.connection.pause_writing()

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> None:
        return None


def seconds(size: int, *, asked: bool) -> float:
    """CPU of the event loop's thread for the last bytes of a request of `size` bytes, or for an answer of so many; the
    least of several."""
    found = []
    for _ in range(7):
        port, transport = Port(), Full()
        answer = Response(200, b"" if asked else b"x" * size)
        port.app.handle = lambda request, answer=answer: answer  # type: ignore[method-assign, misc]
        connection = transport.connection = Connection(port.listener)
        connection.connection_made(transport)  # type: ignore[arg-type]
        whole = post(b"x" * size) if asked else get()
        last = len(whole) - 10
        for at in range(0, last, 64 << 10):
            connection.data_received(whole[at : min(at + (64 << 10), last)])
        began = time.thread_time()
        connection.data_received(whole[last:])
        found.append(time.thread_time() - began)
        assert port.app.statuses == [200]
    return min(found)


@pytest.mark.parametrize("asked", [False, True], ids=["an answer", "a request"])
def test_a_long_message_holds_the_loop_no_longer_than_a_short_one(asked: bool) -> None:
    """Each was copied as a whole: 4 ms in which nobody else was answered."""
    with running_loop():
        short, long = seconds(100 << 10, asked=asked), seconds(8 << 20, asked=asked)
    assert long < 10 * short + 100e-6, f"{long * 1e3:.2f} ms, {short * 1e3:.2f} ms"
