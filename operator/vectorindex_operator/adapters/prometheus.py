"""Asks the installation's Prometheus for the numbers of rules on PromQL, each question bounded in time and size.

Who writes a rule chooses the query but never the server. What a query may read is the server's to say: `url` may hold
`{namespace}` (a path, or a parameter of prom-label-proxy), and a header may name the namespace as tenant (Mimir,
Cortex). An answer is kept while nothing new can be in it, that is until the next window is over.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from vectorindex_operator.adapters.shares import Pool, Share
from vectorindex_operator.core.judging.figures import FigureAnswer, FigureQuestion

log = logging.getLogger(__name__)

DEADLINE_SECONDS = 5.0
"""Of all questions of one look, with the time that they wait for their turn."""
LARGEST_ANSWER = 256 << 10
"""Bytes: one series of 240 values is a tenth of it."""
PARALLEL = 32
"""Questions that all indexes have under way; slow queries of one index hold up nobody else's (shares.py)."""
KEPT_ANSWERS = 1024
LARGEST_NUMBER = 1e300
"""Either way: a bound in percent of it is a number as well, and so a status can hold it."""
LONGEST_WORDS = 200
"""Of what the server says, in words for people."""

Key = tuple[str, FigureQuestion]
Start = Callable[[Coroutine[Any, Any, tuple[FigureAnswer, ...]]], Future[tuple[FigureAnswer, ...]]]


@dataclass(frozen=True, slots=True)
class Server:
    """Where Prometheus is. `secret`: a folder with `token` (a bearer token), or `username` and `password`, and with
    `ca.crt`, each of them as it is needed; read anew for each question, so that they can be rotated."""

    url: str
    tenant_header: str = ""
    secret: str = ""

    def address(self, namespace: str) -> str:
        """Of range queries."""
        parts = urlsplit(self.url.replace("{namespace}", quote(namespace, safe="")))
        return parts._replace(path=f"{parts.path.rstrip('/')}/api/v1/query_range").geturl()

    def headers(self, namespace: str) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if self.tenant_header:
            headers[self.tenant_header] = namespace
        if token := self._read("token"):
            headers["Authorization"] = f"Bearer {token}"
        elif user := self._read("username"):
            headers["Authorization"] = aiohttp.encode_basic_auth(user, self._read("password"))
        return headers

    def trust(self) -> ssl.SSLContext | bool:
        """Whose certificates are believed; True: those that the image believes."""
        path = Path(self.secret) / "ca.crt"
        return ssl.create_default_context(cafile=str(path)) if self.secret and path.exists() else True

    def _read(self, name: str) -> str:
        path = Path(self.secret) / name
        return path.read_text(encoding="utf-8").strip() if self.secret and path.exists() else ""


class _NoAnswerError(Exception):
    """`invalid`: the server answered, and not with one number a time."""

    def __init__(self, problem: str, *, invalid: bool = False) -> None:
        super().__init__(problem)
        self.invalid = invalid


@dataclass(slots=True)
class Prometheus:
    """Implements reconcile.ports.Figures. `start` runs a coroutine on an event loop, always the same one."""

    server: Server
    start: Start
    _kept: OrderedDict[Key, FigureAnswer] = field(default_factory=OrderedDict)
    _turns: Pool = field(default_factory=lambda: Pool(PARALLEL))

    def ask(self, namespace: str, questions: Sequence[FigureQuestion]) -> Future[tuple[FigureAnswer, ...]]:
        return self.start(self._ask(namespace, list(questions)))

    async def _ask(self, namespace: str, questions: list[FigureQuestion]) -> tuple[FigureAnswer, ...]:
        turns, until = self._turns.share(), asyncio.get_running_loop().time() + DEADLINE_SECONDS
        async with aiohttp.ClientSession(trust_env=False) as session:
            asked = (self._one(session, namespace, one, turns, until) for one in questions)
            return tuple(await asyncio.gather(*asked))

    async def _one(
        self, session: aiohttp.ClientSession, namespace: str, question: FigureQuestion, turns: Share, until: float
    ) -> FigureAnswer:
        key = namespace, question
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        try:
            async with asyncio.timeout_at(until), turns.one():
                answer = FigureAnswer(read_values(await self._exchange(session, namespace, question), question))
        except TimeoutError:
            return FigureAnswer(problem=f"no whole answer within {DEADLINE_SECONDS:g} s")
        except _NoAnswerError as error:
            return FigureAnswer(problem=str(error), invalid=error.invalid)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # No text of an exception: it may hold the address, and with it what an admin wrote there.
            log.warning("prometheus: %s", type(error).__name__)
            return FigureAnswer(problem=f"Prometheus cannot be asked ({type(error).__name__})")
        if answer.values[-1] is not None:  # else it may be scraped yet
            self._kept[key] = answer
            while len(self._kept) > KEPT_ANSWERS:
                self._kept.popitem(last=False)
        return answer

    async def _exchange(self, session: aiohttp.ClientSession, namespace: str, question: FigureQuestion) -> bytes:
        form = {
            "query": question.query,
            "start": f"{question.first:.3f}",
            "end": f"{question.last:.3f}",
            "step": f"{question.step:.3f}",
            "timeout": f"{DEADLINE_SECONDS:g}s",
        }
        async with session.post(
            self.server.address(namespace),
            data=form,
            headers=self.server.headers(namespace),
            ssl=self.server.trust(),
            allow_redirects=False,
        ) as response:
            body = await _bounded(response)
            if response.status != 200:
                raise _NoAnswerError(f"Prometheus answers with status {response.status}: {_words(body)}")
            return body


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    pieces, taken = list[bytes](), 0
    async for piece in response.content.iter_any():
        taken += len(piece)
        if taken > LARGEST_ANSWER:
            raise _NoAnswerError(
                f"the answer is larger than {LARGEST_ANSWER >> 10} KiB: one series is wanted, aggregate with sum()",
                invalid=True,
            )
        pieces.append(piece)
    return b"".join(pieces)


def _words(body: bytes) -> str:
    """What a server says was wrong: of a query, its own words."""
    try:
        told = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "no reason is given"
    return repr(str(told)[:LONGEST_WORDS])


def read_values(body: bytes, question: FigureQuestion) -> tuple[float | None, ...]:
    """One value for each time that was asked about, in their order. _NoAnswerError for anything but one series."""
    try:
        told = json.loads(body)
        data = told["data"]
        kind, series = data["resultType"], data["result"]
        if told["status"] != "success" or kind != "matrix" or not isinstance(series, list):
            raise _NoAnswerError("Prometheus answers with something else than a range of numbers", invalid=True)
        if len(series) > 1:
            raise _NoAnswerError(
                f"{len(series)} series: one number is wanted, aggregate with sum() or name more labels", invalid=True
            )
        found = {
            round((float(at) - question.first) / question.step): float(value)
            for one in series
            for at, value in one["values"]
        }
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        raise _NoAnswerError("what Prometheus answers is not understood", invalid=True) from None
    if not found:
        raise _NoAnswerError(
            "no series: the query finds nothing (a name, a label, or nobody scrapes it); `or vector(0)` says that "
            "nothing is 0",
            invalid=True,
        )
    values = (found.get(number) for number in range(question.count))
    return tuple(value if value is not None and abs(value) <= LARGEST_NUMBER else None for value in values)
