"""Requests, answers and problems: what passes between the HTTP protocol and the applications behind it.

Must not know sockets, FAISS or routes.
"""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

import orjson

from ... import contract
from ..tracing.context import Context, Stage
from .head import Credential, Head

READ_HEADERS = frozenset(
    name.lower().encode()
    for name in (
        "Accept",
        "Content-Type",
        "X-Request-Timeout-Ms",
        contract.TARGET_HEADER,
        contract.SIGNATURE_HEADER,
        contract.EVIDENCE_CURSOR_HEADER,
    )
)
"""The headers that applications see. Others are checked and dropped: they may be secrets, and nobody needs them."""
JSON_TYPE = b"application/json"
PROBLEM_TYPE = b"application/problem+json"
_SHOWN_VALUE_CHARACTERS = 120
_SHORT = reprlib.Repr()
"""A megabyte of JSON takes 100 ms to write out whole, and what is nested deeply cannot be."""
_SHORT.maxlevel, _SHORT.maxstring = 3, _SHOWN_VALUE_CHARACTERS
_TYPE_PREFIX = "urn:vectorindex:problem:"


@dataclass(slots=True)
class Request:
    """One complete request. Header names are lower case, and only those of READ_HEADERS are there."""

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool
    completed: float
    """time.monotonic() when its last byte had arrived. Latency counts from here. (Not the event loop's time: uvloop
    counts that in whole milliseconds, and once per turn.)"""
    problem: Problem | None = None
    """Set when the protocol itself refuses the request: no application sees it."""
    outcome: object = None
    """Whatever the application wants to see again once the answer is written."""
    head: Head | None = None
    """What it may share with other requests."""
    size: int = 0
    """Bytes that came for it."""
    peer: str = ""
    """Address of the client, as the connection has it."""
    local: str = ""
    """Ours, that it came to."""
    trace: Context | None = None
    """The trace that it belongs to, where that is told to a collector."""

    @property
    def credential(self) -> Credential | None:
        """What is known of its token."""
        return self.head.credential if self.head is not None else None

    @property
    def path(self) -> bytes:
        """The target without its query string."""
        return self.target.partition(b"?")[0]

    @property
    def query(self) -> bytes:
        """The query string, without the question mark."""
        return self.target.partition(b"?")[2]


@dataclass(slots=True)
class Response:
    """One answer."""

    status: int
    body: bytes
    content_type: bytes = JSON_TYPE
    headers: tuple[tuple[bytes, bytes], ...] = ()
    rest: tuple[bytes, ...] = ()
    """What follows `body`, of a long answer: put together, or sent at once, it would hold the event loop."""
    stages: tuple[Stage, ...] = ()
    """What its trace tells besides the whole."""


class Deferred:
    """An answer that comes later, on the event loop's thread: one callback, called at once when the answer is there.

    What knows of the answer while it is on its way may inherit from it. Not an asyncio.Future, which costs 3 us and
    another turn of the loop.
    """

    __slots__ = ("_outcome", "_then")

    def __init__(self) -> None:
        self._outcome: Response | BaseException | None = None
        self._then: Callable[[Response | BaseException], None] | None = None

    @property
    def done(self) -> bool:
        """Whether there is an answer."""
        return self._outcome is not None

    def then(self, callback: Callable[[Response | BaseException], None]) -> None:
        """Have the answer given to `callback`, now if it is there. Once."""
        self._then = callback
        if self._outcome is not None:
            callback(self._outcome)

    def resolve(self, outcome: Response | BaseException) -> None:
        """The answer, or what went wrong. Only the first counts."""
        if self._outcome is None:
            self._outcome = outcome
            if self._then is not None:
                self._then(outcome)


@dataclass(slots=True, eq=False)
class Problem(Exception):  # noqa: N818 - RFC 9457's name
    """A refusal, told as RFC 9457 problem+json. `kind` is CamelCase and stable: clients branch on it.

    `field` is the path of the offending part of the request, `value` what was found there, `remedy` what to do.
    """

    status: int
    kind: str
    detail: str
    field: str | None = None
    value: object = None
    remedy: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    members: dict[str, object] = dataclasses.field(default_factory=dict)
    """Further members of the document, for example both dimensions."""

    @classmethod
    def relayed(
        cls, status: int, kind: str, detail: str, field: str | None, value: object, remedy: str | None
    ) -> Problem:
        """One that another searcher told: its kinds are described where they are made."""
        return cls(status, kind, detail, field, value, remedy)

    def __str__(self) -> str:
        return f"{self.status} {self.kind}: {self.detail}"

    def response(self, revision: str) -> Response:
        """The answer that tells this problem; every one names the revision that spoke."""
        document: dict[str, object] = {
            "type": _TYPE_PREFIX + self.kind,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "field": self.field,
            "value": shown(self.value),
            "remedy": self.remedy,
            "revision": revision,
            **self.members,
        }
        body = orjson.dumps({key: value for key, value in document.items() if value is not None})
        return Response(self.status, body, PROBLEM_TYPE, self.headers)


def head_too_large(limit: int) -> Problem:
    """431: more than `limit` bytes of request line and headers."""
    return Problem(431, "HeaderTooLarge", f"request line and headers exceed {limit} bytes")


def body_too_large(size: int, limit: int, remedy: str = "send fewer vectors in one request") -> Problem:
    """413: a body of at least `size` bytes where `limit` are allowed."""
    return Problem(
        413,
        "BodyTooLarge",
        f"the body of at least {size} bytes exceeds the limit of {limit} bytes",
        field="Content-Length",
        value=size,
        remedy=remedy,
    )


def overload(detail: str) -> Problem:
    """503 with Retry-After: the client should come back, not give up. Counted apart from the server's faults."""
    remedy = "retry after the seconds named in Retry-After"
    return Problem(503, "Overload", detail, remedy=remedy, headers=((b"Retry-After", b"1"),))


def shown(value: object) -> object:
    """`value` if it is a short scalar, else a shortened text: an error never echoes a megabyte of vectors."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**53 else str(value)[:_SHOWN_VALUE_CHARACTERS]
    text = value[: _SHOWN_VALUE_CHARACTERS + 1] if isinstance(value, str) else _SHORT.repr(value)
    # A lone surrogate cannot be written as UTF-8, and a value may come from anywhere.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= _SHOWN_VALUE_CHARACTERS else text[:_SHOWN_VALUE_CHARACTERS] + "…"


def json_response(document: object, status: int = 200) -> Response:
    """`document` (dicts, lists, scalars, numpy arrays) as a JSON answer."""
    return Response(status, orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY))
