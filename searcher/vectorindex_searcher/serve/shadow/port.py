"""The paths of the admin port that a shadow takes: leases, queries, pairs. See contract/shadow.py."""

from __future__ import annotations

import asyncio
import re
import time
from abc import ABC, abstractmethod
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


class ShadowPaths(ABC):
    """The three paths, whoever does what they ask for: one process of a pod, or several. Belongs to the event loop.

    `incarnation`: as in evidence; `key`: the revision's, empty without one.
    """

    def __init__(self, task: contract.ServeTask, pod: str, incarnation: str, key: str = "") -> None:
        self._task, self._pod, self._incarnation, self._key = task, pod, incarnation, key
        self._newest = 0
        """When the newest lease was signed, unix seconds."""

    def routes(self) -> Routes:
        """Its part of the admin port."""
        return {
            contract.MIRROR_PATH.encode(): ((b"POST",), self._lease),
            contract.SHADOW_PATH.encode(): ((b"POST",), self._queries),
            contract.PAIRS_PATH.encode(): ((b"GET", b"HEAD"), self._pairs),
        }

    @abstractmethod
    def check_loaded(self) -> None:
        """Raises Problem 503 while there is nothing to answer with."""

    @abstractmethod
    def take(self, lease: contract.MirrorLease, key: str) -> None:
        """Send queries as it says. `key`: its shadow key, opened."""

    @abstractmethod
    async def answer(self, request: Request) -> Response:
        """Search the queries of a request to SHADOW_PATH. Raises Problem 400, 409 or 503."""

    @abstractmethod
    async def counts_of(self, shadow: str) -> tuple[str, PairRows | None]:
        """What was counted until now, and whom it is about, if anybody. Raises Problem 503."""

    def _lease(self, request: Request) -> Response:
        self.check_loaded()
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
        self.take(lease, key)
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
        self.check_loaded()
        return asyncio.get_running_loop().create_task(self.answer(request))

    def _pairs(self, request: Request) -> asyncio.Future[Response]:
        shadow = _shadow_of(request)

        async def write() -> Response:
            judged, counts = await self.counts_of(shadow)
            head = {
                "pod": self._pod,
                "revision": self._task.revision,
                "incarnation": self._incarnation,
                "now": time.time(),
                "judged": judged,
            }
            return Response(200, await asyncio.to_thread((counts or PairRows(shadow)).document, head))

        return asyncio.get_running_loop().create_task(write())


class Shadowing(ShadowPaths):
    """Both sides of a pod of one process: which of them it is, leases say. `differ`: told, from any thread, that the
    other side has another list of deleted ids."""

    def __init__(
        self,
        task: contract.ServeTask,
        pod: str,
        incarnation: str,
        key: str = "",
        differ: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(task, pod, incarnation, key)
        self._differ = differ
        self._mirror: Mirror | None = None
        self._sender: MirrorSender | None = None
        self._receiver: ShadowReceiver | None = None
        self._judge: AnswersJudge | None = None

    def send(self, engine: Engine, deleted: Callable[[], str], vectors: Callable[[], Path | None]) -> Mirror:
        """Begin to take leases: what is to be offered each answered query. `deleted`: the fingerprint of the ids that
        are hidden now; `vectors`: where vectors.npy is, once it is there."""
        self._mirror = Mirror(self._task.segments, engine.dimension, deleted)
        exact = ExactScores(engine, vectors)
        uid, revision = self._task.identity.uid, self._task.revision
        self._sender = MirrorSender(uid, revision, self._mirror, engine, exact, self._differ)
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
            searches,
            engine,
            pool,
            self._judge,
            self._task.segments,
            revision=self._task.revision,
            deleted=deleted,
            threads=threads,
            differ=self._differ,
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

    def check_loaded(self) -> None:
        """As ShadowPaths."""
        if self._mirror is None or self._receiver is None:
            raise loading()

    def take(self, lease: contract.MirrorLease, key: str) -> None:
        """As ShadowPaths."""
        assert self._mirror is not None
        assert self._sender is not None
        self._mirror.take(lease, key, self._task.revision)
        self._sender.start()

    async def answer(self, request: Request) -> Response:
        """As ShadowPaths."""
        assert self._receiver is not None
        assert self._judge is not None
        self._judge.start()
        return await self._receiver.take(request)

    async def counts_of(self, shadow: str) -> tuple[str, PairRows | None]:
        """As ShadowPaths."""
        received = self._receiver.counts if self._receiver is not None else None
        if received is not None and received.shadow == shadow:
            return received.judged, received
        if self._mirror is not None and self._mirror.counts is not None and self._mirror.counts.shadow == shadow:
            self._mirror.count_left_out()
            return "", self._mirror.counts
        return "", None


def loading() -> Problem:
    """What is said before there is an index."""
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
