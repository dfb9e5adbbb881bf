"""The paths of the admin port that a shadow takes: leases, queries, pairs. See contract/shadow.py."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qs

from pydantic import TypeAdapter, ValidationError

from ... import contract
from ...index.engine import Engine
from ..http.dispatch import Routes
from ..http.messages import Problem, Request, Response, json_response, overload
from ..search.pool import SearchPool
from .answers import ExactScores
from .counts import PairRows
from .judge import AnswersJudge
from .mirror import Mirror
from .receiver import Searches, ShadowReceiver
from .sender import MirrorSender, check_addresses

_SIGNATURE = contract.SIGNATURE_HEADER.lower().encode()
_SIGNED_AT = re.compile(rb"v1 ([0-9]{1,12}) ")
_ID: TypeAdapter[str] = TypeAdapter(contract.ShadowId)


class Shadowing:
    """Both sides of one pod: which of them it is, leases say. Belongs to the event loop.

    `incarnation`: as in evidence; `key`: the revision's, empty without one.
    """

    def __init__(self, task: contract.ServeTask, pod: str, incarnation: str, key: str = "") -> None:
        self._task, self._pod, self._incarnation, self._key = task, pod, incarnation, key
        self._mirror: Mirror | None = None
        self._sender: MirrorSender | None = None
        self._receiver: ShadowReceiver | None = None
        self._judge: AnswersJudge | None = None
        self._newest = 0
        """When the newest lease was signed, unix seconds."""

    def routes(self) -> Routes:
        """Its part of the admin port."""
        return {
            contract.MIRROR_PATH.encode(): ((b"POST",), self._lease),
            contract.SHADOW_PATH.encode(): ((b"POST",), self._queries),
            contract.PAIRS_PATH.encode(): ((b"GET", b"HEAD"), self._pairs),
        }

    def send(self, engine: Engine, deleted: Callable[[], str], vectors: Callable[[], Path | None]) -> Mirror:
        """Begin to take leases: what is to be offered each answered query. `deleted`: the fingerprint of the ids that
        are hidden now; `vectors`: where vectors.npy is, once it is there."""
        self._mirror = Mirror(self._task.segments, engine.dimension, deleted)
        exact = ExactScores(engine, vectors)
        self._sender = MirrorSender(self._task.identity.uid, self._task.revision, self._mirror, engine, exact)
        return self._mirror

    def receive(
        self,
        searches: Searches,
        engine: Engine,
        pool: SearchPool,
        deleted: Callable[[], str],
        vectors: Callable[[], Path | None],
        threads: int,
    ) -> None:
        """Begin to take queries. As `send`; `threads`: of the pool."""
        self._judge = AnswersJudge(engine, ExactScores(engine, vectors))
        self._receiver = ShadowReceiver(
            searches, engine, pool, self._judge, self._task.segments, deleted=deleted, threads=threads
        )

    @property
    def results(self) -> Mapping[str, Mapping[str, int]]:
        """By fields of Gauges: queries by what became of them at the sender and at the receiver, and answers."""
        mirror, receiver, judge = self._mirror, self._receiver, self._judge
        return {
            "mirrored": mirror.results if mirror is not None else {},
            "shadowed": receiver.results if receiver is not None else {},
            "shadow_answers": judge.results if judge is not None else {},
        }

    def stop(self) -> None:
        """Ask both threads to end."""
        for one in (self._sender, self._judge):
            if one is not None:
                one.stop()

    # ------------------------------------------------------------ the paths

    def _lease(self, request: Request) -> Response:
        mirror, sender = self._mirror, self._sender
        if mirror is None or sender is None:
            raise _loading()
        self._refuse_older(request)
        try:
            lease = contract.MirrorLease.model_validate_json(request.body)
            check_addresses(lease.addresses)
            key = contract.open_shadow_key(lease.sealed_key, self._key)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "body"
            raise Problem(400, "InvalidField", str(first["msg"]), place, first["input"]) from None
        except ValueError as error:
            raise Problem(400, "InvalidField", str(error), remedy="send what contract.MirrorLease says") from None
        mirror.take(lease, key, self._task.revision)
        sender.start()
        return json_response({"pod": self._pod, "revision": self._task.revision, "shadow": lease.shadow})

    def _refuse_older(self, request: Request) -> None:
        """Raises Problem 409 for a lease that was signed before another that came: somebody repeats what he heard, and
        would have queries sent to addresses that are others' by now. Its signature was checked."""
        found = _SIGNED_AT.match(request.headers.get(_SIGNATURE, b"")) if self._key else None
        if found is None:
            return
        at = int(found[1])
        if at < self._newest:
            raise Problem(409, "OldLease", "a lease that was signed later has come already", value=at)
        self._newest = at

    def _queries(self, request: Request) -> asyncio.Future[Response]:
        receiver, judge = self._receiver, self._judge
        if receiver is None or judge is None:
            raise _loading()
        judge.start()
        return asyncio.get_running_loop().create_task(receiver.take(request))

    def _pairs(self, request: Request) -> asyncio.Future[Response]:
        shadow = _shadow_of(request)

        async def write() -> Response:
            judged, counts = self._counts_of(shadow)
            head = {
                "pod": self._pod,
                "revision": self._task.revision,
                "incarnation": self._incarnation,
                "now": time.time(),
                "judged": judged,
            }
            return Response(200, await asyncio.to_thread((counts or PairRows(shadow)).document, head))

        return asyncio.get_running_loop().create_task(write())

    def _counts_of(self, shadow: str) -> tuple[str, PairRows | None]:
        """Whom they are about, if anybody."""
        received = self._receiver.counts if self._receiver is not None else None
        if received is not None and received.shadow == shadow:
            return self._task.revision, received
        if self._mirror is not None and self._mirror.counts is not None and self._mirror.counts.shadow == shadow:
            self._mirror.count_left_out()
            return "", self._mirror.counts
        return "", None


def _loading() -> Problem:
    return overload("the index is not loaded yet")


def _shadow_of(request: Request) -> str:
    """The only parameter. Raises Problem 400."""
    query = request.query.decode("ascii", errors="replace")
    given = parse_qs(query, keep_blank_values=True)
    try:
        if given.keys() != {"shadow"} or len(given["shadow"]) > 1:
            raise ValueError
        return _ID.validate_python(given["shadow"][0])
    except ValueError:  # pydantic's is one, too
        raise Problem(400, "InvalidField", "shadow must be an id", "shadow", query, "?shadow=ID of a lease") from None
