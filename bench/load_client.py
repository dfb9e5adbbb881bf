"""The load of bench/serving.py, in a process of its own: raw sockets, keep-alive, closed loop or open loop.

Standard input: one JSON command a line; standard output: one JSON answer each.

    {"do": "connect", "port": 8080, "connections": 64, "format": "binary"}   opens, asks one query on each connection;
                                                         "params": {"efSearch": 16} goes with every query;
                                                         "json-traced": each request has a trace id of its own;
                                                         "token": of every request
    {"do": "closed", "seconds": 2}                                            each connection asks as soon as answered
    {"do": "open", "seconds": 5, "rate": 900}                                 Poisson arrivals, whatever the answers do

Latency is counted from the moment a query was to be sent, not from when a connection was free for it. Any answer but a
200 ends the process with an error, except that an open loop counts 503 apart: a benchmark that takes refusals for
answers measures nothing.
"""

from __future__ import annotations

import json
import random
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

K = 10
TRACED = "-traced"
_TRACE = b"0af7651916cd43dd8448eb211c80319c"
"""Stands for the trace id until a request is sent."""


def requests_of(queries: npt.NDArray[np.float32], kind: str, params: dict[str, int], token: str = "") -> list[bytes]:
    """One whole HTTP request for each query. `json-long`: numbers as Python's json writes a float32 made a float;
    `KIND-traced`: with the headers that a tracing proxy adds."""
    made = []
    trace = _TRACE.decode()
    added = f"traceparent: 00-{trace}-b7ad6b7169203331-01\r\nX-Request-Id: {trace}\r\n" if kind.endswith(TRACED) else ""
    added += f"Authorization: Bearer {token}\r\n" if token else ""
    kind = kind.removesuffix(TRACED)
    named = "".join(f"&params.{name}={value}" for name, value in params.items())
    fields: dict[str, Any] = {"k": K, "params": params} if params else {"k": K}
    for query in queries:
        target, accept, content_type = "/v1/search", "application/json", "application/json"
        if kind == "binary":
            target, body = f"/v1/search?k={K}{named}", query.astype("<f4").tobytes()
            accept = content_type = "application/octet-stream"
        elif kind == "json":
            body = orjson.dumps({"vector": query, **fields}, option=orjson.OPT_SERIALIZE_NUMPY)
        else:
            body = json.dumps({"vector": query.tolist(), **fields}).encode()
        head = (
            f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {accept}\r\nContent-Type: {content_type}\r\n{added}"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


class Client:
    """Connections to one server, driven by epoll in one thread."""

    def __init__(self, queries: npt.NDArray[np.float32]) -> None:
        self._queries = queries
        self._made: dict[tuple[str, str, str], list[bytes]] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._since: dict[int, float] = {}
        """When the query under way on a connection was to be sent."""
        self._partial: dict[int, bytes] = {}
        self._epoll = select.epoll()
        self._requests: list[bytes] = []
        self._traced = False
        self._port = 0
        self._next = 0
        self.latencies: list[float] = []
        self.refused = 0
        """503 in an open loop: more was asked than the machine gave the server time for."""
        self._refusable = False

    def connect(self, port: int, connections: int, kind: str, params: dict[str, int], token: str = "") -> None:
        """Replace all connections."""
        for descriptor in list(self._sockets):
            self._drop(descriptor)
        key = (kind, repr(params), token)
        if key not in self._made:
            self._made[key] = requests_of(self._queries, kind, params, token)
        self._requests, self._port, self._traced = self._made[key], port, kind.endswith(TRACED)
        for _ in range(connections):
            self._ask(self._open(), time.perf_counter())
        while self._since:
            self._collect(1.0)

    def closed(self, seconds: float) -> int:
        """Queries answered within `seconds`, each connection asking again at once. Ends with none under way."""
        self.latencies, self._refusable = [], False
        began = now = time.perf_counter()
        for descriptor in list(self._sockets):
            self._ask(descriptor, now)
        while now - began < seconds:
            for descriptor in self._collect(1.0):
                self._ask(descriptor, time.perf_counter())
            now = time.perf_counter()
        while self._since:
            self._collect(1.0)
        return len(self.latencies)

    def open(self, seconds: float, rate: float) -> int:
        """Queries at `rate` a second on average, at random moments; waits until all are answered."""
        self.latencies, self.refused, self._refusable = [], 0, True
        rng = random.Random(5)
        now = time.perf_counter()
        end, due = now + seconds, now + rng.expovariate(rate)
        waiting: deque[float] = deque()
        free = deque(self._sockets)
        while now < end or waiting or self._since:
            while due <= now and due < end:
                waiting.append(due)
                due += rng.expovariate(rate)
            while waiting and free:
                self._ask(free.popleft(), waiting.popleft())
            # epoll counts in milliseconds: nearer than that, look again at once.
            pause = min(due, end) - now
            free.extend(self._collect(pause - 0.001 if pause > 0.002 and not waiting else 0.0))
            now = time.perf_counter()
        return len(self.latencies)

    def _open(self) -> int:
        made = socket.create_connection(("127.0.0.1", self._port))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets[made.fileno()] = made
        self._epoll.register(made.fileno(), select.EPOLLIN)
        return made.fileno()

    def _drop(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        self._sockets.pop(descriptor).close()

    def _ask(self, descriptor: int, intended: float) -> None:
        request = self._requests[self._next % len(self._requests)]
        self._next += 1
        if self._traced:
            request = request.replace(_TRACE, b"%032x" % self._next, 2)
        self._since[descriptor] = intended
        self._sockets[descriptor].sendall(request)

    def _collect(self, seconds: float) -> list[int]:
        """Read what came; returns the connections that are free again."""
        free = []
        for descriptor, _ in self._epoll.poll(seconds):
            data = self._partial.pop(descriptor, b"") + self._sockets[descriptor].recv(1 << 18)
            head = data.find(b"\r\n\r\n")
            if head < 0 or len(data) < head + 4 + _length(data):
                if not data:
                    raise SystemExit("the server closed a connection while a query waited")
                self._partial[descriptor] = data
                continue
            since = self._since.pop(descriptor)
            if data.startswith(b"HTTP/1.1 200"):
                self.latencies.append(time.perf_counter() - since)
            elif self._refusable and data.startswith(b"HTTP/1.1 503"):
                self.refused += 1
            else:
                raise SystemExit(f"not answered: {data[:400]!r}")
            if data.find(b"\r\nConnection: close", 0, head + 2) >= 0:
                self._drop(descriptor)
                descriptor = self._open()
            free.append(descriptor)
        return free

    def quantiles(self) -> dict[str, float]:
        """p50 and p99 in milliseconds."""
        if not self.latencies:
            return {}
        p50, p99 = np.quantile(self.latencies, [0.5, 0.99])
        return {"p50": float(p50) * 1e3, "p99": float(p99) * 1e3, "refused": self.refused}


def _length(data: bytes) -> int:
    at = data.find(b"Content-Length: ") + 16
    return int(data[at : data.index(b"\r", at)])


def main() -> None:
    client = Client(np.load(Path(sys.argv[1])))
    for line in sys.stdin:
        command: dict[str, Any] = json.loads(line)
        kind = command.pop("do")
        began, cpu = time.perf_counter(), time.process_time()
        if kind == "connect":
            params, token = command.get("params", {}), command.get("token", "")
            client.connect(command["port"], command["connections"], command["format"], params, token)
            answer: dict[str, Any] = {}
        else:
            count = client.closed(**command) if kind == "closed" else client.open(**command)
            answer = {"count": count, **client.quantiles()}
        answer |= {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
