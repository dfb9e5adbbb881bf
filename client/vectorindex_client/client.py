"""The two clients: the same calls, waiting (Client) and awaiting (AsyncClient). What they decide is in calls.py."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from os import PathLike
from types import TracebackType
from typing import Any

import httpx

from . import vectors
from .calls import INDEX, Call, Request, counted, feedback_request, results, search_requests
from .errors import ServerError
from .results import Result
from .vectors import Vector, Vectors

Token = str | Callable[[], str] | None
Ca = str | PathLike[str] | ssl.SSLContext | None
_KEEP_ALIVE_SECONDS = 60.0
"""Idle connections are kept as long; searchers close theirs after 120 s, so a client rarely meets a closed one."""


class _Settings:
    """What both clients are made with."""

    def __init__(self, url: str, token: Token, timeout: float, ca: Ca, retries: int, connections: int) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url must begin with http:// or https://, not {url!r}: write http://{url}")
        if timeout <= 0:
            raise ValueError(f"timeout must be positive seconds, not {timeout}")
        self._token = token
        self.timeout = timeout
        self.retries = retries
        self.verify: ssl.SSLContext | bool = False  # in clear: nothing to verify, and loading certificates takes 20 ms
        if url.startswith("https:"):
            self.verify = ca if isinstance(ca, ssl.SSLContext) else ssl.create_default_context(cafile=ca)
        self.limits = httpx.Limits(
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=_KEEP_ALIVE_SECONDS,
        )

    def call(self, request: Request, timeout: float | None) -> Call:
        token = self._token() if callable(self._token) else self._token
        return Call(request, token, self.timeout if timeout is None else timeout, self.retries)


class Client:
    """A searcher's user port. Safe for several threads; keeps its connections.

    `url`: of the Service, http://products.shop.svc or https://...; `token`: a bearer token, or a function that gives
    the current one; `timeout`: seconds a call may take in all, retries included; `ca`: file of trusted certificates, or
    an SSLContext (default: the system's); `retries`: further attempts where that is safe (see calls.py).
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
    ) -> None:
        self._settings = _Settings(url, token, timeout, ca, retries, connections)
        self._http = httpx.Client(
            base_url=url, verify=self._settings.verify, limits=self._settings.limits, timeout=timeout
        )

    def search(
        self,
        query: Vector,
        k: int = 10,
        *,
        segment: str | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the API's name
        min_score: float | None = None,
        params: Mapping[str, int] | None = None,
        include_metadata: bool = False,
        track: bool = False,
        timeout: float | None = None,
    ) -> Result:
        """The best hits for one vector (a sequence of numbers, or an array of any float type). Raises ValueError for
        what is no vector, VectorIndexError when it is not answered. `track`: the result gets a `query_id`, which
        `feedback` takes.
        """
        (found,) = self._search(
            [vectors.one(query)], k, timeout, segment=segment, filter=filter, min_score=min_score, params=params,
            include_metadata=include_metadata, track=track,
        )  # fmt: skip
        return found

    def search_many(
        self,
        queries: Vectors,
        k: int = 10,
        *,
        segment: str | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the API's name
        min_score: float | None = None,
        params: Mapping[str, int] | None = None,
        include_metadata: bool = False,
        track: bool = False,
        timeout: float | None = None,
    ) -> list[Result]:
        """As `search`, for several vectors: one result each, in order. More than 256 go in several requests, each with
        the timeout for itself.
        """
        return self._search(
            vectors.many(queries)[0], k, timeout, segment=segment, filter=filter, min_score=min_score, params=params,
            include_metadata=include_metadata, track=track,
        )  # fmt: skip

    def index(self, *, timeout: float | None = None) -> dict[str, Any]:
        """What is served: revision, count, dimension, metric, parameters with their limits (GET /v1/index)."""
        return _index(self._send(Request("GET", INDEX), timeout))

    def feedback(self, query_id: str, rank: int, *, timeout: float | None = None) -> bool:
        """Tell which answer a user chose first (`rank`, from 1) of a search with `track`. Whether it was counted: not
        when that query was counted already, is older than 5 minutes, or was answered by another revision.
        """
        return counted(self._send(feedback_request(query_id, rank), timeout))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _search(self, found: list[bytes], k: int, timeout: float | None, **fields: Any) -> list[Result]:
        if not found:
            return []
        requests = search_requests(found, len(found[0]) // 4, k, **fields)
        return [one for request in requests for one in results(request, self._send(request, timeout))]

    def _send(self, request: Request, timeout: float | None) -> Any:
        call = self._settings.call(request, timeout)
        while True:
            try:
                response = self._http.request(
                    request.method,
                    request.path,
                    content=request.content,
                    headers=call.headers(),
                    timeout=call.remaining,
                )
            except httpx.TransportError as error:
                wait: float | None = call.failed(error)
            else:
                document, wait = call.answered(response)
            if wait is None:
                return document
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
    ) -> None:
        self._settings = _Settings(url, token, timeout, ca, retries, connections)
        self._http = httpx.AsyncClient(
            base_url=url, verify=self._settings.verify, limits=self._settings.limits, timeout=timeout
        )

    async def search(
        self,
        query: Vector,
        k: int = 10,
        *,
        segment: str | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the API's name
        min_score: float | None = None,
        params: Mapping[str, int] | None = None,
        include_metadata: bool = False,
        track: bool = False,
        timeout: float | None = None,
    ) -> Result:
        """See Client.search."""
        (found,) = await self._search(
            [vectors.one(query)], k, timeout, segment=segment, filter=filter, min_score=min_score, params=params,
            include_metadata=include_metadata, track=track,
        )  # fmt: skip
        return found

    async def search_many(
        self,
        queries: Vectors,
        k: int = 10,
        *,
        segment: str | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the API's name
        min_score: float | None = None,
        params: Mapping[str, int] | None = None,
        include_metadata: bool = False,
        track: bool = False,
        timeout: float | None = None,
    ) -> list[Result]:
        """See Client.search_many."""
        return await self._search(
            vectors.many(queries)[0], k, timeout, segment=segment, filter=filter, min_score=min_score, params=params,
            include_metadata=include_metadata, track=track,
        )  # fmt: skip

    async def index(self, *, timeout: float | None = None) -> dict[str, Any]:
        """See Client.index."""
        return _index(await self._send(Request("GET", INDEX), timeout))

    async def feedback(self, query_id: str, rank: int, *, timeout: float | None = None) -> bool:
        """See Client.feedback."""
        return counted(await self._send(feedback_request(query_id, rank), timeout))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _search(self, found: list[bytes], k: int, timeout: float | None, **fields: Any) -> list[Result]:
        if not found:
            return []
        requests = search_requests(found, len(found[0]) // 4, k, **fields)
        return [one for request in requests for one in results(request, await self._send(request, timeout))]

    async def _send(self, request: Request, timeout: float | None) -> Any:
        call = self._settings.call(request, timeout)
        while True:
            try:
                response = await self._http.request(
                    request.method,
                    request.path,
                    content=request.content,
                    headers=call.headers(),
                    timeout=call.remaining,
                )
            except httpx.TransportError as error:
                wait: float | None = call.failed(error)
            else:
                document, wait = call.answered(response)
            if wait is None:
                return document
            await asyncio.sleep(wait)


def _index(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict) or "revision" not in document:
        raise ServerError("the answer is not one of a searcher", remedy="check the URL")
    return document
