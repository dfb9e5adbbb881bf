"""Servers in place of searchers' admin ports: such as answer, and such as only drip."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Handler = Callable[[socket.socket, bytes], None]


@contextmanager
def server(handle: Handler, host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A server whose every connection is given to `handle` with the head of its request, on a thread of its own."""
    listening = socket.create_server((host, port), backlog=512)

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    def serve(connection: socket.socket) -> None:
        try:
            handle(connection, received(connection, b"", b"\r\n\r\n"))
        except OSError:
            pass  # the operator hung up
        finally:
            connection.close()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listening.getsockname()[1])
    finally:
        listening.close()


def received(connection: socket.socket, before: bytes, until: bytes) -> bytes:
    """What came, `before` included, as soon as `until` is in it. OSError: the operator hung up before."""
    while until not in before:
        more = connection.recv(65536)
        if not more:
            raise ConnectionAbortedError("the operator hung up")
        before += more
    return before


def answering(body: bytes, kind: str = "application/json", status: str = "200 OK") -> Handler:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    def handle(connection: socket.socket, _head: bytes) -> None:
        connection.sendall(head + body)

    return handle


def dripping(start: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n") -> Handler:
    """A byte every 50 ms until the operator hangs up: each read of a socket gets one in time, and no answer ends."""

    def handle(connection: socket.socket, _head: bytes) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    return handle


DRIPPING = """
import socket, sys
listening = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=1024)
listening.settimeout(0.1)
print("listening", flush=True)
hanging = []
while True:
    try:
        hanging.append(listening.accept()[0])
        hanging[-1].sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 100000\\r\\n\\r\\n")
        print("hanging", flush=True)
        continue
    except TimeoutError:
        pass
    for one in list(hanging):
        try:
            one.send(b"x")
        except OSError:
            hanging.remove(one)
"""


@contextmanager
def dripping_process(host: str, port: int) -> Iterator[Callable[[int], None]]:
    """A dripping server in a process of its own: it takes nothing of ours but what it sends. Call what this yields to
    wait until so many connections more hang."""
    with subprocess.Popen(
        [sys.executable, "-c", DRIPPING, host, str(port)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = process.stdout
        assert lines.readline().strip() == "listening"

        def wait(connections: int) -> None:
            for _ in range(connections):
                assert lines.readline().strip() == "hanging"

        try:
            yield wait
        finally:
            process.kill()
