"""The load generator's own process: sends queries at a steady pace over keep-alive connections and counts every answer.

One file without imports of ours and of others that the searcher's image lacks, because it also runs inside a cluster as
`python -c`. Standard input: one line of JSON
with the settings, then commands, one per line; at its end the process stops, so it never outlives its parent. Standard
output: one line of JSON per report, the last one with "done": true.

Failed is any answer but 200 and any connection that breaks or is refused while a query waits on it. One exception, as
in every HTTP client: a connection that was used before and ends without one byte of an answer was closed between two
queries; its query is sent again, once, on a new connection. With `retries` it does as docs/client.md says: that many
further attempts where no connection came about, and one where it ended, new or used, before the answer began, each
after a longer wait; and after 503 with Retry-After, when that time is over.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import resource
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

try:
    import uvloop
except ImportError:
    uvloop = None  # type: ignore[assignment]

EPISODE_GAP_SECONDS = 1.0
"""A revision that was silent for longer begins a new episode with its next answer."""
KEPT_FAILURES = 100
KEPT_EPISODES = 200
LATENCY_RATIO = 1.05
AGAIN_SECONDS, AGAIN_FACTOR = 0.1, 4
CONNECT_SECONDS, UNHEARD_SECONDS = 2.0, 3.0
"""As the Python client's, which is what `retries` stands for."""


now = time.monotonic
"""Not the event loop's clock: uvloop's ticks in milliseconds, which is as long as a search takes."""


@dataclass(slots=True)
class Query:
    """One query on its way. Times are `now()`."""

    number: int
    intended: float
    sent: float = 0.0
    again: bool = False  # sent again, since its connection ended before the answer began
    attempts: int = 1


@dataclass(slots=True)
class Answers:
    """What one revision answered. Times are Unix seconds."""

    answers: int = 0
    zero_results: int = 0
    top_scores: int = 0
    top_sum: float = 0.0
    first_at: float = 0.0
    last_at: float = 0.0
    episodes: list[list[float]] = field(default_factory=list)

    def count(self, at: float, zero: int, top: float | None) -> None:
        if not self.answers or at - self.last_at > EPISODE_GAP_SECONDS:
            if len(self.episodes) < KEPT_EPISODES:
                self.episodes.append([at, at, 0])
            self.first_at = self.first_at or at
        self.answers += 1
        self.last_at = self.episodes[-1][1] = at
        self.episodes[-1][2] += 1
        self.zero_results += zero
        if top is not None:
            self.top_scores += 1
            self.top_sum += top


@dataclass(slots=True)
class Counts:
    """Everything counted since the start."""

    sent: int = 0
    queries: int = 0
    failed: int = 0
    found: int = 0
    sent_again: int = 0
    answered_again: int = 0
    connections: int = 0
    closed_by_server: int = 0
    worst_lag: float = 0.0
    failures: list[dict[str, Any]] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)
    revisions: dict[str, Answers] = field(default_factory=dict)
    latency: dict[int, int] = field(default_factory=dict)

    def fail(self, kind: str, detail: str, query: Query | None) -> None:
        """`at`: when it was known to have failed; `sent_at`: when it was sent, or its connection asked for."""
        self.queries += 1
        self.failed += 1
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if len(self.failures) < KEPT_FAILURES:
            at = time.time()
            sent_at = at - (now() - query.sent) if query is not None and query.sent else at
            number = -1 if query is None else query.number
            self.failures.append({"at": at, "sent_at": sent_at, "kind": kind, "detail": detail[:300], "query": number})

    def time(self, seconds: float) -> None:
        bin_ = int(math.log(max(1.0, seconds * 1e6), LATENCY_RATIO))
        self.latency[bin_] = self.latency.get(bin_, 0) + 1

    def quantile(self, share: float) -> float:
        """Milliseconds; 0 without answers."""
        left = share * sum(self.latency.values())
        for bin_ in sorted(self.latency):
            left -= self.latency[bin_]
            if left <= 0:
                return float(LATENCY_RATIO ** (bin_ + 1)) / 1e3
        return 0.0


class Reader:
    """Cuts what a connection brings into answers. Each has to tell its length, as searchers and gateways do."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._length = -1
        """Of the body that is being read; -1: its head is."""
        self.status = 0
        self.lasts = True
        self.retry_after: float | None = None

    def feed(self, data: bytes) -> bytes | None:
        """The body of an answer that is whole now. Raises ValueError when it is none."""
        self._unread += data
        if self._length < 0:
            head, ended, rest = self._unread.partition(b"\r\n\r\n")
            if not ended:
                return None
            self._read_head(bytes(head).lower())
            self._unread = rest
        if len(self._unread) < self._length:
            return None
        body = bytes(self._unread[: self._length])
        del self._unread[: self._length]
        self._length = -1
        return body

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        fields = {name: value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        if not first.startswith(b"http/1.") or not fields.get(b"content-length", b"").isdigit():
            raise ValueError(f"no answer that tells its length: {head[:200]!r}")
        self.status, self._length = int(first.split()[1]), int(fields[b"content-length"])
        self.lasts = fields.get(b"connection") != b"close"
        wait = fields.get(b"retry-after", b"")
        self.retry_after = float(wait) if wait.isdigit() else None


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one query on it."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.transport: asyncio.Transport | None = None
        self.reader = Reader()
        self.query: Query | None = None
        self.used = False
        self.heard = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        if self.load.retries and hasattr(socket, "TCP_USER_TIMEOUT"):
            connected = transport.get_extra_info("socket")
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNHEARD_SECONDS * 1e3))

    def send(self, query: Query) -> None:
        assert self.transport is not None
        self.query, self.heard = query, False
        query.sent = now()
        self.transport.write(self.load.requests[query.number % len(self.load.requests)])

    def data_received(self, data: bytes) -> None:
        self.heard = True
        try:
            body = self.reader.feed(data)
        except (ValueError, IndexError) as error:
            self.end("garbled", str(error))
            return
        if body is not None:
            self.whole(body)

    def whole(self, body: bytes) -> None:
        """An answer is there."""
        query, self.query = self.query, None
        if query is None:
            return
        self.used = True
        status, retry_after = self.reader.status, self.reader.retry_after
        if status == 503 and retry_after is not None and query.attempts <= self.load.retries:
            self.load.send_again(query, retry_after * random.uniform(1, 1.5))
        else:
            self.load.answered(query, status, body)
        if self.reader.lasts:
            self.load.free(self)
        else:
            self.load.counts.closed_by_server += 1
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        query, self.query = self.query, None
        self.load.lost(self)
        if query is None:
            return
        if not self.heard and not query.again and (self.used or query.attempts <= self.load.retries):
            query.again = True
            self.load.send_again(query, self.load.patience(query))
        else:
            self.load.counts.fail("broken", f"connection ended before the answer: {exc or 'closed'}", query)

    def end(self, kind: str, detail: str) -> None:
        """Give the query up."""
        query, self.query = self.query, None
        if query is not None:
            self.load.counts.fail(kind, detail, query)
        self.close()

    def close(self) -> None:
        self.load.lost(self)
        if self.transport is not None:
            self.transport.abort()


class Load:
    """The pace, the connections, the counts."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.loop = asyncio.get_running_loop()
        self.host, self.port = str(settings["host"]), int(settings["port"])
        self.rate = float(settings["rate"])
        self.limit = int(settings["connections"])
        self.timeout = float(settings["timeout"])
        self.retries = int(settings["retries"])
        self.max_seconds = float(settings["max_seconds"])
        self.max_queries = int(settings["max_queries"])
        self.report_seconds = float(settings["report_seconds"])
        self.name = str(settings.get("name") or f"{self.host}:{self.port}")
        tokens = [str(token) for token in settings.get("tokens", ())] or [""]
        self.requests = [
            self._request(str(settings["path"]), body.encode(), tokens[number % len(tokens)])
            for number, body in enumerate(settings["bodies"])
        ]
        self.expected = [frozenset(ids) for ids in settings["expected"]]
        self.counts = Counts()
        self.started = now()
        self.stopping = False
        self._pace_from, self._pace_sent = self.started, 0
        self._open: set[Connection] = set()
        self._idle: deque[Connection] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._backlog: deque[Query] = deque()

    def _request(self, path: str, body: bytes, token: str) -> bytes:
        head = f"POST {path} HTTP/1.1\r\nHost: {self.name}\r\nContent-Type: application/json\r\n"
        head += f"Authorization: Bearer {token}\r\n" if token else ""
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    # ------------------------------------------------------------ connections

    def dispatch(self, query: Query) -> None:
        """On a new connection while there may be more, else on the one idle longest, else when one gets free."""
        if len(self._open) + len(self._opening) < self.limit:
            self.open_for(query)
        elif self._idle:
            self._idle.popleft().send(query)
        else:
            self._backlog.append(query)

    def open_for(self, query: Query, after: float = 0.0) -> None:
        task = self.loop.create_task(self._connect(query, after))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def send_again(self, query: Query, after: float = 0.0) -> None:
        query.attempts += 1
        self.counts.sent_again += 1
        self.open_for(query, after)

    def patience(self, query: Query) -> float:
        """Seconds until its next attempt: none where `retries` is 0."""
        longer = AGAIN_SECONDS * AGAIN_FACTOR ** (query.attempts - 1)
        return longer * random.uniform(1, 1.5) if self.retries else 0.0

    async def _connect(self, query: Query, after: float) -> None:
        await asyncio.sleep(after)
        query.sent = now()
        try:
            connecting = self.loop.create_connection(lambda: Connection(self), self.host, self.port)
            most = min(self.timeout, CONNECT_SECONDS) if self.retries else self.timeout
            _, connection = await asyncio.wait_for(connecting, most)
        except (TimeoutError, OSError) as error:
            if query.attempts <= self.retries:
                self.send_again(query, self.patience(query))
                return
            kind = "refused" if isinstance(error, ConnectionRefusedError) else "unreachable"
            self.counts.fail(kind, str(error) or "timed out", query)
            self._next()
            return
        self.counts.connections += 1
        self._open.add(connection)
        connection.send(query)

    def free(self, connection: Connection) -> None:
        """It answered and may be used again."""
        if self._backlog:
            connection.send(self._backlog.popleft())
        else:
            self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        """It can be used no more."""
        if connection not in self._open:
            return
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._next()

    def _next(self) -> None:
        if self._backlog and len(self._open) + len(self._opening) <= self.limit:
            self.open_for(self._backlog.popleft())

    # ------------------------------------------------------------ answers

    def answered(self, query: Query, status: int, body: bytes) -> None:
        if status != 200:
            self.counts.fail(f"status {status}", body[:300].decode(errors="replace"), query)
            return
        try:
            answer = orjson.loads(body)
            scores = [result["scores"] for result in answer["results"]]
            top = scores[0][0] if scores and scores[0] else None
            revision, zero = str(answer["revision"]), int(answer["zeroResults"])
            hits = answer["results"][0]["ids"] if self.expected else ()
        except (ValueError, KeyError, TypeError, IndexError) as error:
            self.counts.fail("unreadable", f"{error!r}: {body[:200]!r}", query)
            return
        self.counts.queries += 1
        if self.expected:
            self.counts.found += not self.expected[query.number % len(self.expected)].isdisjoint(hits)
        self.counts.answered_again += query.attempts > 1
        self.counts.time(now() - query.intended)
        self.counts.revisions.setdefault(revision, Answers()).count(time.time(), zero, top)

    # ------------------------------------------------------------ life

    def pace(self, rate: float) -> None:
        """Another rate from now on."""
        self._pace_from, self._pace_sent, self.rate = now(), 0, rate

    async def run(self) -> None:
        """Until told to stop or a bound is reached; then waits for what is under way."""
        helpers = [self.loop.create_task(self._report()), self.loop.create_task(self._sweep())]
        while not self.stopping:
            if now() - self.started >= self.max_seconds or self.counts.sent >= self.max_queries:
                break
            intended = self._pace_from + self._pace_sent / self.rate
            early = intended - now()
            if early > 0:
                await asyncio.sleep(min(early, 0.25))
                continue
            self.counts.worst_lag = max(self.counts.worst_lag, -early)
            query = Query(self.counts.sent, intended)
            self._pace_sent += 1
            self.counts.sent += 1
            self.dispatch(query)
            if self._pace_sent % 64 == 0:
                await asyncio.sleep(0)  # a burst after a stall must not keep the answers waiting
        deadline = now() + self.timeout + 1
        while self.counts.queries < self.counts.sent and now() < deadline:
            await asyncio.sleep(0.02)
        for helper in helpers:
            helper.cancel()
        for connection in tuple(self._open):
            connection.end("unanswered", "no answer when the load generator stopped")
        for _ in range(self.counts.sent - self.counts.queries):
            self.counts.fail("unanswered", "never got a connection", None)
        say(self.report() | {"done": True})

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            for connection in tuple(self._open):
                if connection.query is not None and now() - connection.query.sent > self.timeout:
                    connection.end("timeout", f"no answer in {self.timeout:g} s")

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(self.report_seconds)
            say(self.report())

    def report(self) -> dict[str, Any]:
        counts, used = self.counts, resource.getrusage(resource.RUSAGE_SELF)
        plain = ("sent", "queries", "failed", "found", "sent_again", "answered_again")
        more = ("connections", "closed_by_server", "worst_lag")
        return {name: getattr(counts, name) for name in (*plain, *more)} | {
            "at": time.time(),
            "seconds": now() - self.started,
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "kinds": counts.kinds,
            "failures": counts.failures,
            "p50_ms": counts.quantile(0.5),
            "p95_ms": counts.quantile(0.95),
            "p99_ms": counts.quantile(0.99),
            "revisions": {
                name: {key: getattr(one, key) for key in Answers.__dataclass_fields__}
                for name, one in counts.revisions.items()
            },
            "done": False,
        }


def say(document: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        sys.exit(1)  # the parent is gone


def give_up(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A mistake in this file must not look like a quiet run."""
    loop.default_exception_handler(context)
    sys.stderr.flush()
    os._exit(70)


async def main() -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(give_up)
    reader = asyncio.StreamReader(limit=256 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    load = Load(json.loads(await reader.readline()))

    async def obey() -> None:
        while line := await reader.readline():
            command = json.loads(line)
            if "rate" in command:
                load.pace(float(command["rate"]))
            if command.get("stop"):
                break
        load.stopping = True

    obeying = loop.create_task(obey())
    await load.run()
    obeying.cancel()


if __name__ == "__main__":
    (uvloop.run if uvloop is not None else asyncio.run)(main())
