"""Clicks: which answer a user chose, told by query id and counted for the query's own time and segment.

A query sent with `track: true` gets an id and counts as tracked; the first click on one of its answers counts once,
within contract.FEEDBACK_SECONDS. The id carries all that is needed, so any pod of the revision takes the click, and no
pod remembers queries. It is plain, not signed: who may ask may click (docs/adr/0012-clicks.md). Belongs to the event
loop. Must not know engines or sockets.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import struct
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from typing import Any

from ... import contract
from ..http.dispatch import Answer
from ..http.limits import FEEDBACK_BYTES, MAX_K
from ..http.messages import Problem, Request, Response, body_too_large, json_response
from ..search.fields import fields_of_json
from ..search.kinds import refuse_unknown
from .recorder import Recorder
from .ring import EvidenceRing

REMEMBERED = 100_000
"""Query ids whose click this pod remembers; about 10 MB. A second click on an older one would count again."""
_FORM = struct.Struct(">8sIBHQ")
_ID_CHARACTERS = 31
_FIELDS = ("queryId", "rank", "clicks")
_MAX_CLICKS = 1000
_BUCKETS_AHEAD = 1
"""Of another pod's clock before this one's. An id from further ahead is forged, or would never be late."""


@dataclass(frozen=True, slots=True)
class QueryId:
    """What an id says. `revision`: hash of its name; `segment`: number in the ring's order."""

    revision: bytes
    bucket: int
    segment: int
    k: int
    nonce: int

    def text(self) -> str:
        packed = _FORM.pack(self.revision, self.bucket, self.segment, self.k, self.nonce)
        return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()

    @classmethod
    def of(cls, text: str) -> QueryId:
        """Raises ValueError for what is no query id."""
        if len(text) != _ID_CHARACTERS:
            raise ValueError(text)
        try:
            packed = base64.b64decode(text.encode("ascii") + b"=", altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise ValueError(text) from None
        query = cls(*_FORM.unpack(packed))
        if not 1 <= query.k <= MAX_K:
            raise ValueError(text)
        return query


class QueryIds(ABC):
    """Ids for tracked queries of one revision, and who is told of their clicks."""

    def __init__(self, revision: str, recorder: Recorder) -> None:
        self._revision = hashlib.blake2b(revision.encode(), digest_size=8).digest()
        self._recorder = recorder

    def ids(self, segment: str, k: int, count: int) -> tuple[int, list[str]]:
        """Ids of `count` queries that are answered now, and their bucket. Callable from search threads."""
        bucket = int(self._recorder.now()) // contract.BUCKET_SECONDS
        number = self._recorder.number(segment)
        made = [QueryId(self._revision, bucket, number, k, secrets.randbits(64)).text() for _ in range(count)]
        return bucket, made

    @abstractmethod
    def handle(self, request: Request) -> Answer:
        """POST /v1/feedback: 202 and whether the click counted. Raises Problem 400 or 413."""


class Feedback(QueryIds):
    """Counts the clicks itself."""

    def __init__(self, revision: str, ring: EvidenceRing) -> None:
        super().__init__(revision, ring)
        self._ring = ring
        self._seen: dict[int, None] = {}
        self.results: Counter[str] = Counter()
        """Feedback by what became of it: Counted, Duplicate, Early, Late, OtherRevision."""

    def handle(self, request: Request) -> Response:
        """As QueryIds."""
        return click_answer(self.take(*read_click(request.body)))

    def take(self, query: QueryId, rank: int) -> str:
        """Count a click if it is one; what became of it."""
        result = self._take(query, rank)
        self.results[result] += 1
        return result

    def _take(self, query: QueryId, rank: int) -> str:
        if query.revision != self._revision or query.segment >= len(self._ring.segments):
            return "OtherRevision"
        now = self._ring.now()
        if now - (query.bucket + 1) * contract.BUCKET_SECONDS >= contract.FEEDBACK_SECONDS:
            return "Late"
        if query.bucket > int(now) // contract.BUCKET_SECONDS + _BUCKETS_AHEAD:
            return "Early"
        if query.nonce in self._seen:
            return "Duplicate"
        self._seen[query.nonce] = None
        if len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]
        self._ring.record_click(query.bucket, self._ring.segments[query.segment], query.k, rank)
        return "Counted"


def click_answer(result: str) -> Response:
    """202, and whether the click counted."""
    document: dict[str, object] = {"counted": result == "Counted"}
    if result != "Counted":
        document["reason"] = result
    return json_response(document, 202)


def read_click(body: bytes) -> tuple[QueryId, int]:
    """Query and rank of the first click. Raises Problem 400 or 413."""
    if len(body) > FEEDBACK_BYTES:
        raise body_too_large(len(body), FEEDBACK_BYTES, remedy="send the rank of the first click only")
    fields = fields_of_json(body)
    refuse_unknown(fields, _FIELDS)
    given = fields.get("queryId")
    try:
        query = QueryId.of(given if isinstance(given, str) else "")
    except ValueError:
        raise _invalid("queryId", given, 'the "queryId" of an answer to a search with "track": true') from None
    if ("rank" in fields) == ("clicks" in fields):
        raise _invalid("rank", fields.get("rank"), "either rank, or clicks: the ranks in the order of the clicks")
    if "rank" in fields:
        return query, _rank("rank", fields["rank"], query.k)
    clicks = fields["clicks"]
    if not isinstance(clicks, list) or not 1 <= len(clicks) <= _MAX_CLICKS:
        raise _invalid("clicks", clicks, f"a list of 1 to {_MAX_CLICKS} ranks")
    ranks = [_rank(f"clicks[{number}]", rank, query.k) for number, rank in enumerate(clicks)]
    return query, ranks[0]


def _rank(field: str, rank: Any, k: int) -> int:
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= k:
        raise _invalid(field, rank, f"a whole number from 1 (the first answer) to {k}, the query's k")
    return rank


def _invalid(field: str, value: object, wanted: str) -> Problem:
    return Problem(400, "InvalidField", f"{field} must be {wanted}", field=field, value=value)
