"""Asking the pods of stable for their live queries: each bounded in bytes and in time, none trusted.

A pod that answers nonsense, too much or too slowly is left out whole, and the others' queries are judged.
"""

from __future__ import annotations

import contextlib
import hmac
import http.client
import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ...contract import (
    LIVE_HOURS,
    LIVE_SEAL_BYTES,
    InternalRequest,
    LiveSource,
    Metric,
    Target,
    live_page,
    live_room,
    seal,
    sign,
)
from .sample import LiveQuery, LiveSample
from .wire import HEAD_BYTES, MalformedError, Tally, decode, record_bytes, tally

POD_SECONDS = 60.0
"""For all that one pod tells."""
AT_ONCE = 4
"""Pods that are asked at the same time: what one tells is held until all of it is there."""
_READ_SECONDS = 10.0
_READ_BYTES = 256 << 10
_HOUR = 3600
_LONGEST_WORDS = 200
_PROBLEM_BYTES = 2048
_KIND = re.compile(rb'"type": ?"urn:vectorindex:problem:([A-Za-z]{1,40})"')
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Told:
    """What all pods told together."""

    sample: LiveSample
    pods: int = 0
    """Those that told all they have."""
    problems: list[str] = field(default_factory=list)
    """One for each of the others."""
    asked: Tally | None = None
    """Searches of the pods that count them; None: none does."""

    def add(self, queries: list[LiveQuery], asked: Tally | None) -> None:
        """What one pod told."""
        self.pods += 1
        for query in queries:
            self.sample.add(query)
        if asked is not None:
            self.asked = asked.and_of(self.asked or Tally())


def ask_pods(
    source: LiveSource, dimension: int, metric: Metric, key: str, clock: Callable[[], float] = time.time
) -> Told:
    """The live queries of the source's pods as one sample. Never raises: silence is an answer, too."""
    told = Told(LiveSample(live_room(dimension)))
    lock, turn = threading.Lock(), threading.Semaphore(AT_ONCE)
    over = threading.Event()
    until = time.monotonic() + POD_SECONDS * -(-len(source.addresses) // AT_ONCE)

    def one(address: str) -> None:
        problem = ""
        queries: list[LiveQuery] = []
        with turn:
            if over.is_set():
                return
            pod = _Pod(source, address, dimension, metric, key, clock)
            # However it drips: no other pod waits for it, and what is measured later shares no CPU with it.
            timer = threading.Timer(POD_SECONDS, pod.hang_up)
            timer.daemon = True
            timer.start()
            try:
                queries = pod.queries(time.monotonic() + POD_SECONDS)
            except (OSError, MalformedError) as error:
                problem = f"{address}: {str(error)[:_LONGEST_WORDS] or type(error).__name__}"
            except http.client.HTTPException as error:  # which repeats what came
                problem = f"{address}: what it answers is no HTTP ({type(error).__name__})"
            finally:
                timer.cancel()
            if problem and pod.late:
                problem = f"{address}: it takes too long to tell its queries"
        with lock:
            if over.is_set():
                return  # nobody waits for it any more
            if problem:
                told.problems.append(problem)
                _log.warning("no live queries from a pod of stable", extra={"problem": problem})
                return
            told.add(queries, pod.asked)

    # Threads that do not keep the process alive: a pod that drips bytes into its head is waited for by nobody.
    threads = [threading.Thread(target=one, args=(address,), daemon=True) for address in source.addresses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    with lock:
        over.set()
        silent = len(threads) - told.pods - len(told.problems)
        told.problems += ["a pod did not tell its queries in time"] * silent
    return told


@dataclass(slots=True)
class _Pod:
    source: LiveSource
    address: str
    dimension: int
    metric: Metric
    key: str
    clock: Callable[[], float]
    _connection: http.client.HTTPConnection | None = None
    late: bool = False
    asked: Tally | None = None
    """Searches of all hours; None: it does not count them."""

    def hang_up(self) -> None:
        """End the conversation, wherever it is: who waits for bytes gets none."""
        self.late = True
        if self._connection is not None and self._connection.sock is not None:
            with contextlib.suppress(OSError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)

    def queries(self, until: float) -> list[LiveQuery]:
        """Of all hours, the sample that an honest pod would have. Raises OSError, HTTPException, MalformedError."""
        mine = LiveSample(live_room(self.dimension))
        for age in range(LIVE_HOURS):
            if self.late or time.monotonic() > until:
                raise TimeoutError("it takes too long to tell its queries")
            for query in self._page(age, until):
                mine.add(query)
        return list(mine)

    def _page(self, age: int, until: float) -> list[LiveQuery]:
        most = max(1, live_room(self.dimension) // LIVE_HOURS)
        path = live_page(age, self.address)
        longest = HEAD_BYTES + most * record_bytes(self.dimension) + LIVE_SEAL_BYTES
        told = self._get(path, longest, until)
        data, sealed = told[:-LIVE_SEAL_BYTES], told[-LIVE_SEAL_BYTES:]
        if not hmac.compare_digest(seal(self.key, path, data), sealed):
            raise MalformedError("its answer is not made with its revision's key: another pod may have its address")
        queries = decode(data, self.dimension, self.metric, most)
        hours = {query.hour for query in queries}
        expected = int(self.clock()) // _HOUR - age
        if hours and (len(hours) > 1 or abs(hours.pop() - expected) > 1):
            raise MalformedError("its queries are not of the hour that was asked for, or its clock is another")
        if (asked := tally(data)) is not None:
            self.asked = asked.and_of(self.asked or Tally())
        return queries

    def _get(self, path: str, most: int, until: float) -> bytes:
        target = Target(self.source.index_uid, self.source.revision)
        headers = sign(self.key, InternalRequest("GET", path), target, self.clock())
        connection = http.client.HTTPConnection(self.address, self.source.port, timeout=_READ_SECONDS)
        self._connection = connection
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise MalformedError(f"it answers with status {answer.status}{_kind(answer.read(_PROBLEM_BYTES))}")
            pieces: list[bytes] = []
            size = 0
            while piece := answer.read1(_READ_BYTES):
                pieces.append(piece)
                size += len(piece)
                if size > most:
                    raise MalformedError(f"it answers with more than the {most} bytes of an hour")
                if time.monotonic() > until:
                    raise TimeoutError("it takes too long to tell its queries")
            return b"".join(pieces)
        finally:
            connection.close()


def _kind(body: bytes) -> str:
    """Of a searcher's problem. Nothing else that a pod says is passed on: it may be anything, a user's query too."""
    found = _KIND.search(body)
    return f" ({found[1].decode()})" if found else ""
