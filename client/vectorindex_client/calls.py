"""What both clients share, without any waiting or sending: requests, how answers are read, and what is tried again.

What is tried again, and why that is safe. A search only reads, so a request that was answered twice, or was carried
out and its answer lost, changes nothing. What is left to consider is load:

- 503 with Retry-After: the searcher asks for it. Waits as long as it says and a little longer, by chance, so that those
  who were refused together do not come back together.
- No connection: nothing was sent.
- A connection that broke before the first byte of an answer: usually the searcher closed an idle connection at the very
  moment of the request. Once, on another connection. Not more, since a query that makes a searcher crash must not be
  handed round to all of them.

Nothing else: another 4xx or 5xx would be the same again, and after a timeout the time is over. Feedback counts: once
sent it is not sent again, since two searchers could both count it.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx

from . import vectors
from .errors import DeadlineExceeded, Overloaded, ServerError, Unreachable, VectorIndexError, problem
from .results import Result, results_of

SEARCH, INDEX, FEEDBACK = "/v1/search", "/v1/index", "/v1/feedback"
MAX_VECTORS = 256
"""Queries in one request: the searcher's limit. More go in several."""
MAX_BODY_BYTES = 4 << 20
"""Half of the searcher's limit."""
MAX_QUERY_STRING = 8000
"""Characters; a longer one (a long filter) travels in a JSON body."""
MAX_DEADLINE_MS = 600_000
JITTER = 0.5
_BROKEN = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError, httpx.CloseError)
_UNCONNECTED = (httpx.ConnectError, httpx.ConnectTimeout)


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. `queries`: how many results its answer must have."""

    method: str
    path: str
    content: bytes | None = None
    content_type: str | None = None
    queries: int = 0
    reads_only: bool = True
    """Whether it may be sent again when nobody knows if it was carried out."""


def search_requests(
    found: Sequence[bytes],
    dimension: int,
    k: int,
    *,
    segment: str | None,
    filter: Mapping[str, Any] | None,  # noqa: A002 - the API's name
    min_score: float | None,
    params: Mapping[str, int] | None,
    include_metadata: bool,
    track: bool,
) -> list[Request]:
    """The requests for these vectors (bytes each), as few as the searcher's limits allow."""
    fields: dict[str, object] = {"k": k}
    if segment is not None:
        fields["segment"] = segment
    if min_score is not None:
        fields["minScore"] = min_score
    query = fields | {f"params.{name}": value for name, value in (params or {}).items()}
    if track:
        query["track"] = "true"
    if include_metadata:
        query["include"] = "metadata"
    if filter is not None:
        query["filter"] = json.dumps(filter, separators=(",", ":"))
    text = urlencode(query)
    together = max(1, min(MAX_VECTORS, MAX_BODY_BYTES // max(4 * dimension, 1)))
    pieces = [found[start : start + together] for start in range(0, len(found), together)]
    if len(text) <= MAX_QUERY_STRING:
        path = f"{SEARCH}?{text}"
        return [
            Request("POST", path, vectors.joined(piece), "application/octet-stream", len(piece)) for piece in pieces
        ]
    body: dict[str, object] = fields | {"filter": filter, "params": dict(params or {})}
    if track:
        body["track"] = True
    if include_metadata:
        body["include"] = ["metadata"]
    return [
        Request(
            "POST",
            SEARCH,
            json.dumps(body | {"vectors": [vectors.numbers(one) for one in piece]}).encode(),
            "application/json",
            len(piece),
        )
        for piece in pieces
    ]


def feedback_request(query_id: str, rank: int) -> Request:
    """Which answer of a tracked query was chosen first."""
    body = json.dumps({"queryId": query_id, "rank": rank}).encode()
    return Request("POST", FEEDBACK, body, "application/json", reads_only=False)


class Call:
    """One request from its first attempt to its answer, within `timeout` seconds and with at most `retries` more."""

    def __init__(self, request: Request, token: str | None, timeout: float, retries: int) -> None:
        self.request = request
        self._token = token
        self._ends = time.monotonic() + timeout
        self._timeout = timeout
        self._left = retries
        self._broken_once = False

    @property
    def remaining(self) -> float:
        """Seconds until the call's deadline. Raises DeadlineExceeded when none are left."""
        left = self._ends - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(f"no answer within {self._timeout:g} s", kind="Timeout")
        return left

    def headers(self) -> dict[str, str]:
        """Headers of the next attempt: its deadline is what is left of the call's."""
        milliseconds = max(1, min(MAX_DEADLINE_MS, int(self.remaining * 1e3)))
        found = {"X-Request-Timeout-Ms": str(milliseconds)}
        if self.request.content_type is not None:
            found["Content-Type"] = self.request.content_type
        if self._token is not None:
            found["Authorization"] = f"Bearer {self._token}"
        return found

    def failed(self, error: httpx.TransportError) -> float:
        """Seconds to wait before the next attempt, after one without an answer. Raises when there is none."""
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            raise DeadlineExceeded(f"no answer within {self._timeout:g} s", kind="Timeout") from error
        again = isinstance(error, _UNCONNECTED)
        if isinstance(error, _BROKEN) and self.request.reads_only and not self._broken_once:
            self._broken_once = again = True
        told = Unreachable(f"{type(error).__name__}: {error}", kind="Unreachable")
        # At once after an idle connection that was closed; a server that is not there yet gets a moment.
        return self._wait(0.0 if self._broken_once else 0.1, told, again)

    def answered(self, response: httpx.Response) -> tuple[Any, float | None]:
        """The document of a good answer and None, or seconds to wait before the next attempt. Raises for any other."""
        if response.is_success:
            try:
                return response.json(), None
            except ValueError:
                status = response.status_code
                raise ServerError("the answer is not JSON", status=status, remedy="check the URL") from None
        error = _problem(response)
        seconds = _retry_after(response)
        return None, self._wait(seconds or 0.0, error, isinstance(error, Overloaded) and seconds is not None)

    def _wait(self, seconds: float, error: VectorIndexError, again: bool) -> float:
        seconds *= random.uniform(1, 1 + JITTER)  # noqa: S311 - no secret
        if not again or self._left <= 0 or time.monotonic() + seconds >= self._ends:
            raise error
        self._left -= 1
        return seconds


def _problem(response: httpx.Response) -> VectorIndexError:
    document = None
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        try:
            document = response.json()
        except ValueError:
            document = None
    return problem(response.status_code, document if isinstance(document, dict) else None)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds of a Retry-After header; None without one, or for a date, which searchers never send."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdigit() and len(text) < 6 else None


def results(request: Request, document: Any) -> list[Result]:
    """The results in the answer to `request`."""
    if not isinstance(document, dict):
        raise ServerError("the answer is not one of a searcher", remedy="check the URL")
    return results_of(document, request.queries)


def counted(document: Any) -> bool:
    """Whether the answer to a feedback says that it was counted."""
    if not isinstance(document, dict) or "counted" not in document:
        raise ServerError("the answer is not one of a searcher", remedy="check the URL")
    return bool(document["counted"])
