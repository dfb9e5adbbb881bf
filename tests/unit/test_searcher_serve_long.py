"""Long requests and answers hold the event loop no longer than short ones: whoever else asks waits behind them."""

from __future__ import annotations

from functools import partial

import pytest
from cost import cpu, least
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
    """CPU of the event loop's thread for the last bytes of a request of `size` bytes, or for an answer of so many."""
    port, transport = Port(), Full()
    answer = Response(200, b"" if asked else b"x" * size)
    port.app.handle = lambda request: answer  # type: ignore[method-assign]
    connection = transport.connection = Connection(port.listener)
    connection.connection_made(transport)  # type: ignore[arg-type]
    whole = post(b"x" * size) if asked else get()
    last = len(whole) - 10
    for at in range(0, last, 64 << 10):
        connection.data_received(whole[at : min(at + (64 << 10), last)])
    found = cpu(lambda: connection.data_received(whole[last:]))()
    assert port.app.statuses == [200]
    return found


@pytest.mark.parametrize("asked", [False, True], ids=["an answer", "a request"])
def test_a_long_message_holds_the_loop_no_longer_than_a_short_one(asked: bool) -> None:
    """Each was copied as a whole: 4 ms in which nobody else was answered."""

    def alike(long: float, short: float) -> bool:
        return long < 10 * short + 100e-6

    with running_loop():
        measures = [partial(seconds, size, asked=asked) for size in (8 << 20, 100 << 10)]
        long, short = least(*measures, until=alike)
    assert alike(long, short), f"{long * 1e3:.2f} ms, {short * 1e3:.2f} ms"
