"""The two clients: the same calls, waiting (Client) and awaiting (AsyncClient). What they decide is in calls.py."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, TypeVar

from . import blocking, calls
from .address import address_of
from .answers import Answer
from .attempts import FAILURES, Attempts, Deadline
from .calls import Plan, Request
from .results import Result
from .vectors import Vector, Vectors

Token = str | Callable[[], str] | None
Ca = str | PathLike[str] | ssl.SSLContext | None
T = TypeVar("T")


class _Settings:
    """What both clients are made with; its text never shows the token."""

    def __init__(
        self, url: str, token: Token, timeout: float, ca: Ca, retries: int, connections: int, waiting: int
    ) -> None:
        self.address = address_of(url)
        _check_timeout(timeout)
        for name, value, least in (("retries", retries, 0), ("connections", connections, 1), ("waiting", waiting, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        self._token = token
        self.timeout = timeout
        self.retries = retries
        self.tls: ssl.SSLContext | None = None  # in clear: nothing to verify, and loading certificates takes 20 ms
        if self.address.tls:
            self.tls = ca if isinstance(ca, ssl.SSLContext) else ssl.create_default_context(cafile=ca)

    def deadline(self, timeout: float | None) -> Deadline:
        if timeout is None:
            return Deadline(self.timeout)
        _check_timeout(timeout)
        return Deadline(timeout)

    def attempts(self, request: Request, deadline: Deadline) -> Attempts:
        token = self._token() if callable(self._token) else self._token
        if token is not None:
            _check_token(token)
        return Attempts(request, token, deadline, self.retries)


def _check_timeout(timeout: float) -> None:
    if not 0 < timeout <= threading.TIMEOUT_MAX:
        raise ValueError(f"timeout must be positive seconds, not {timeout}")


def _check_token(token: str) -> None:
    """No header can hold a line's end; a token that was read from a file often does. The text names no token."""
    for position, character in enumerate(token):
        if not "!" <= character <= "~":
            raise ValueError(f"the token has a character that no header may hold ({position}): strip() what was read")


class Client:
    """A searcher's user port. Safe for several threads; keeps its connections.

    `url`: of the Service, http://products.shop.svc or https://...; `token`: a bearer token, or a function that gives
    the current one; `timeout`: seconds a call may take in all: waiting for a connection, retries and reading included;
    `ca`: file of trusted certificates, or an SSLContext (default: the system's); `retries`: further attempts where that
    is safe (see attempts.py); `connections`: calls under way at a time; `waiting`: calls that may wait beyond them, the
    next is refused at once.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token = None,
        timeout: float = 10.0,
        ca: Ca = None,
        retries: int = 3,
        connections: int = 32,
        waiting: int = 1024,
    ) -> None:
        self._settings = _Settings(url, token, timeout, ca, retries, connections, waiting)
        self._http = blocking.Connections(self._settings.address, self._settings.tls, connections, waiting)

    def search(
        self,
        query: Vector | None = None,
        k: int = 10,
        *,
        text: str | None = None,
        segment: str | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the API's name
        min_score: float | None = None,
        params: Mapping[str, int] | None = None,
        include_metadata: bool = False,
        track: bool = False,
        min_fresh: int = 0,
        timeout: float | None = None,
    ) -> Result:
        """The best hits for one vector (a sequence of numbers, or an array of any float type), or instead of it for a
        `text`, where the index has an encoder. Raises ValueError for what is neither, VectorIndexError when it is not
        answered. `track`: the result gets a `query_id`, which `feedback` takes. `min_fresh`: the `fresh` of an earlier
        result: a searcher that has not come so far is asked again until the timeout (NotFreshYet).
        """
        wanted = calls.fields(
            k, segment=segment, filter=filter, min_score=min_score, params=params, include_metadata=include_metadata,
            track=track, min_fresh=min_fresh,
        )  # fmt: skip
        return self._run(lambda: calls.search(query, text, wanted), timeout)

    def search_many(
        self,
        queries: Vectors | None = None,
        k: int = 10,
        *,
        texts: Sequence[str] | None = None,
        segment: str | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the API's name
        min_score: float | None = None,
        params: Mapping[str, int] | None = None,
        include_metadata: bool = False,
        track: bool = False,
        min_fresh: int = 0,
        timeout: float | None = None,
    ) -> list[Result]:
        """As `search`, for several vectors or `texts`: one result each, in order. More than 256 vectors or 32 texts go
        in several requests, one after the other, all within the timeout.
        """
        wanted = calls.fields(
            k, segment=segment, filter=filter, min_score=min_score, params=params, include_metadata=include_metadata,
            track=track, min_fresh=min_fresh,
        )  # fmt: skip
        return self._run(lambda: calls.search_many(queries, texts, wanted), timeout)

    def index(self, *, timeout: float | None = None) -> dict[str, Any]:
        """What is served: revision, count, dimension, metric, parameters with their limits (GET /v1/index)."""
        return self._run(lambda: calls.index(), timeout)

    def feedback(self, query_id: str, rank: int, *, timeout: float | None = None) -> bool:
        """Tell which answer a user chose first (`rank`, from 1) of a search with `track`. Whether it was counted: not
        when that query was counted already, is older than 5 minutes, or was answered by another revision.
        """
        return self._run(lambda: calls.feedback(query_id, rank), timeout)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, make: Callable[[], Plan[T]], timeout: float | None) -> T:
        deadline = self._settings.deadline(timeout)
        self._http.enter()
        try:
            plan = make()  # not before: what is refused at once should cost next to nothing
            return plan.read([self._send(request, deadline) for request in plan.requests])
        finally:
            self._http.leave()

    def _send(self, request: Request, deadline: Deadline) -> Answer:
        attempts = self._settings.attempts(request, deadline)
        while True:
            try:
                answer = self._http.exchange(attempts)
            except FAILURES as error:
                wait: float | None = attempts.failed(error)
            else:
                wait = attempts.answered(answer)
            if wait is None:
                return answer
            time.sleep(wait)


class AsyncClient:
    """As Client, for asyncio: the same arguments, calls and errors."""

    def __init__(
        self,
        url: str,
        *,
        token: Token = None,
        timeout: float = 10.0,
        ca: Ca = None,
        retries: int = 3,
        connections: int = 32,
        waiting: int = 1024,
    ) -> None:
        from . import awaiting  # aiohttp takes a third of a second to import: only who uses it waits for it

        self._settings = _Settings(url, token, timeout, ca, retries, connections, waiting)
        self._http = awaiting.Connections(self._settings.address, self._settings.tls, connections, waiting)

    async def search(
        self,
        query: Vector | None = None,
        k: int = 10,
        *,
        text: str | None = None,
        segment: str | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the API's name
        min_score: float | None = None,
        params: Mapping[str, int] | None = None,
        include_metadata: bool = False,
        track: bool = False,
        min_fresh: int = 0,
        timeout: float | None = None,
    ) -> Result:
        """See Client.search."""
        wanted = calls.fields(
            k, segment=segment, filter=filter, min_score=min_score, params=params, include_metadata=include_metadata,
            track=track, min_fresh=min_fresh,
        )  # fmt: skip
        return await self._run(lambda: calls.search(query, text, wanted), timeout)

    async def search_many(
        self,
        queries: Vectors | None = None,
        k: int = 10,
        *,
        texts: Sequence[str] | None = None,
        segment: str | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the API's name
        min_score: float | None = None,
        params: Mapping[str, int] | None = None,
        include_metadata: bool = False,
        track: bool = False,
        min_fresh: int = 0,
        timeout: float | None = None,
    ) -> list[Result]:
        """See Client.search_many."""
        wanted = calls.fields(
            k, segment=segment, filter=filter, min_score=min_score, params=params, include_metadata=include_metadata,
            track=track, min_fresh=min_fresh,
        )  # fmt: skip
        return await self._run(lambda: calls.search_many(queries, texts, wanted), timeout)

    async def index(self, *, timeout: float | None = None) -> dict[str, Any]:
        """See Client.index."""
        return await self._run(lambda: calls.index(), timeout)

    async def feedback(self, query_id: str, rank: int, *, timeout: float | None = None) -> bool:
        """See Client.feedback."""
        return await self._run(lambda: calls.feedback(query_id, rank), timeout)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _run(self, make: Callable[[], Plan[T]], timeout: float | None) -> T:
        deadline = self._settings.deadline(timeout)
        self._http.enter()
        try:
            plan = make()  # not before: what is refused at once should cost next to nothing
            return plan.read([await self._send(request, deadline) for request in plan.requests])
        finally:
            self._http.leave()

    async def _send(self, request: Request, deadline: Deadline) -> Answer:
        attempts = self._settings.attempts(request, deadline)
        while True:
            try:
                answer = await self._http.exchange(attempts)
            except FAILURES as error:
                wait: float | None = attempts.failed(error)
            else:
                wait = attempts.answered(answer)
            if wait is None:
                return answer
            await asyncio.sleep(wait)
