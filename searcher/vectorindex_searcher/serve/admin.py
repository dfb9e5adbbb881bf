"""The admin port: probes, metrics, evidence, the source, fresh rows, live queries, leases, operating points, shadows.
For the kubelet, Prometheus, the operator, the gate and other revisions, never for users.

Up from the first moment, long before the index is loaded.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import re
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qs

import orjson
from pydantic import ValidationError

from .. import contract
from .artifacts import Artifacts
from .evidence.columns import ColumnsPage
from .evidence.ring import EvidenceRing
from .http.dispatch import Answer, Routes, dispatch
from .http.internal import InternalRequests
from .http.limits import Limits
from .http.messages import Problem, Request, Response, body_too_large, json_response, overload
from .traffic import Traffic

if TYPE_CHECKING:  # most of them open FAISS, which a router has not
    from .evidence.live_queries import LiveQueries
    from .evidence.metrics import SearcherMetrics
    from .fresh_port import FreshPort
    from .point import PodPoint
    from .settings import Settings
    from .shadow.port import ShadowPaths
    from .source import SourceListing

METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
METRICS_SECONDS = 1.0
"""How long an exposition is told again: a millisecond for each segment, made for whoever asks."""
_BUCKETS_AT_ONCE = 8
"""Evidence buckets written down before searches get a turn again (about 0.3 ms)."""
_READ = (b"GET", b"HEAD")
_COLUMNS = contract.EVIDENCE_COLUMNS_TYPE.encode()
_LIVE_QUERIES_TYPE = contract.LIVE_QUERIES_TYPE.encode()
_PAGE = re.compile(rb"age=([0-9]{1,2})&pod=([0-9A-Fa-f:.]{2,45})")
_CURSOR = contract.EVIDENCE_CURSOR_HEADER.lower().encode()
_CURSOR_BYTES = 64
_SMALL_BODY_BYTES = 64 << 10
_LARGE_BODIES = {
    contract.SHADOW_PATH.encode(): Limits().body_bytes,
    contract.NEAREST_PATH.encode(): contract.NEAREST_BYTES,
}
"""Of paths that take queries."""
_Told = TypeVar("_Told", contract.TrafficLease, contract.PointOrder, contract.FreshOrder)


class AdminApp:
    """Answers the admin port of a pod, whether one process answers its users or several. `progress`: a sentence about
    the loading, for people who look at /readyz. `queries`: the sample of live queries, once there is one. `source`:
    None where the index's source is not listed here. `settled`: waits until the ring has what was counted until now,
    and tells when that was (unix seconds); None: it always has. `stalled`: what of the pod does not answer, empty if
    all does. `shadowing`: None where it takes part in no shadow. `point`: None where it has one operating point.
    `fresh`: None where there are no rows besides the artifact's. `canary`: what routers are told of it (ShardCanary,
    as JSON), once there is one. `nearest`: takes a request of routers' live recall (contract/nearest.py) and tells what
    was found, or None where too many wait; None where none are taken."""

    def __init__(
        self,
        task: contract.ServeTask | contract.RouteTask,
        settings: Settings,
        traffic: Traffic,
        ring: EvidenceRing,
        metrics: Callable[[], SearcherMetrics],
        progress: Callable[[], str],
        *,
        queries: Callable[[], LiveQueries | None] = lambda: None,
        source: SourceListing | None = None,
        settled: Callable[[], Awaitable[float]] | None = None,
        stalled: Callable[[], str] = lambda: "",
        shadowing: ShadowPaths | None = None,
        point: PodPoint | None = None,
        fresh: FreshPort | None = None,
        canary: Callable[[], bytes | None] = lambda: None,
        nearest: Callable[[bytes], asyncio.Future[bytes] | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Logs whether internal requests must be signed."""
        self._settled = settled or self._now
        self._stalled = stalled
        self._pod = settings.pod
        self.revision = task.revision
        """A router without one in its task learns it from its shards."""
        self._traffic = traffic
        self._ring = ring
        self._metrics = metrics
        self._progress = progress
        self._internal = InternalRequests(task, settings.internal_key)
        self._internal.announce()
        self._queries, self._canary, self._nearest = queries, canary, nearest
        self._source, self._point, self._fresh = source, point, fresh
        self._artifacts = Artifacts(task) if isinstance(task, contract.ServeTask) else None
        unknown = () if settings.columns_before is not None else (contract.COMPARED,)
        self._tells = tuple(name for name in contract.LATER_COUNTERS if name not in unknown)
        self._clock = clock
        self._exposed = b""
        self._exposed_until = -math.inf
        self._routes: Routes = {
            b"/livez": (_READ, self._livez),
            b"/readyz": (_READ, self._readyz),
            b"/metrics": (_READ, self._exposition),
            b"/v1/evidence": (_READ, self._evidence),
            b"/v1/lease": ((b"POST",), self._lease),
            contract.LIVE_QUERIES_PATH.encode(): (_READ, self._live_queries),
            contract.SOURCE_PATH.encode(): (_READ, self._look_at_source),
            contract.CANARY_PATH.encode(): (_READ, self._tell_canary),
            **({contract.NEAREST_PATH.encode(): ((b"POST",), self._find_nearest)} if nearest is not None else {}),
            **({contract.POINT_PATH.encode(): ((b"POST",), self._take_point)} if point is not None else {}),
            **({contract.FRESH_PATH.encode(): ((*_READ, b"POST"), self._of_fresh)} if fresh is not None else {}),
            **(shadowing.routes() if shadowing is not None else {}),
        }

    def handle(self, request: Request) -> Answer:
        """Route one request, if its sender may ask for it."""
        most = _LARGE_BODIES.get(request.path, _SMALL_BODY_BYTES)
        if len(request.body) > most:
            raise body_too_large(len(request.body), most, remedy="send what this path takes")
        self._internal.check(request)
        return dispatch(self._routes, request)

    def answered(self, request: Request, response: Response, seconds: float) -> None:
        """Nothing: probes are no evidence."""

    async def _now(self) -> float:
        return self._ring.now()

    def _livez(self, _request: Request) -> Response:
        stalled = self._stalled()
        document: dict[str, object] = {"live": not stalled, "revision": self.revision}
        return json_response(document | {"message": stalled}, 503) if stalled else json_response(document)

    def _readyz(self, _request: Request) -> Response:
        traffic, stalled = self._traffic, self._stalled()
        ready = traffic.ready and not stalled
        document = {
            "ready": ready,
            "reason": "Stalled" if stalled and traffic.ready else traffic.reason,
            "message": stalled or self._progress(),
            "lease": traffic.lease.value,
            "revision": self.revision,
        }
        return json_response(document, 200 if ready else 503)

    def _exposition(self, _request: Request) -> Response:
        if self._clock() >= self._exposed_until:
            self._exposed = self._metrics().exposition()
            self._exposed_until = self._clock() + METRICS_SECONDS
        return Response(200, self._exposed, METRICS_TYPE)

    def _evidence(self, request: Request) -> asyncio.Future[Response]:
        since, loop = _number(request, "since", "?since=1700000000"), asyncio.get_running_loop()
        if _COLUMNS not in request.headers.get(b"accept", b"").lower():
            return loop.create_task(self._write_evidence(since))
        cursor = request.headers.get(_CURSOR, b"")[:_CURSOR_BYTES].decode("latin-1")
        return loop.create_task(self._write_columns(since, cursor))

    async def _write_columns(self, since: float, cursor: str) -> Response:
        """contract.EvidenceColumns. Searches go on between the pieces; what changes meanwhile is told the next time."""
        ring, page = self._ring, ColumnsPage()
        now = await self._settled()
        incarnation, point = ring.incarnation, self._point.point if self._point is not None else ""
        live_before, after = ring.live_before, ring.version_of(cursor)
        told, changes = ring.changes(after or 0, since)
        more = False
        for number, (version, slot) in enumerate(changes):
            for row in ring.rows(slot):
                page.add(*row)
            if page.full and number + 1 < len(changes):
                told, more = version, True
                break
            await asyncio.sleep(0)
        head: dict[str, object] = {
            "pod": self._pod,
            "revision": self.revision,
            "incarnation": incarnation,
            "now": now,
            "liveBefore": live_before,
            "cursor": ring.cursor(told, incarnation),
            "whole": after is None,
            "more": more,
            "tells": self._tells,
            "point": point,
            "points": self._point.points if self._point is not None else (),
            "segments": ring.segments,
        }
        return Response(200, page.write(head), _COLUMNS)

    async def _write_evidence(self, since: float) -> Response:
        """contract.Evidence, for operators that know no columns. An hour of many segments is a lot to write: searches
        go on between the pieces."""
        # Before the buckets: none that is still filling may look complete.
        now = await self._settled()
        live_before = self._ring.live_before
        buckets: list[dict[str, object]] = []
        for bucket in self._ring.buckets(since):
            buckets.append(bucket)
            if len(buckets) % _BUCKETS_AT_ONCE == 0:
                await asyncio.sleep(0)
        document = {
            "pod": self._pod,
            "revision": self.revision,
            "now": now,
            "liveBefore": live_before,
            "buckets": buckets,
        }
        return Response(200, orjson.dumps(document))

    def _live_queries(self, request: Request) -> asyncio.Future[Response]:
        """The queries of one hour, put together on a thread: they are more than a megabyte."""
        queries = self._queries()
        if queries is None:
            raise Problem(404, "NoLiveQueries", "this searcher keeps no live queries", remedy="gate.queries.live")
        age = _age(request)

        async def write() -> Response:
            await self._settled()
            return Response(
                200, await asyncio.to_thread(queries.page, age, request.target.decode()), _LIVE_QUERIES_TYPE
            )

        return asyncio.get_running_loop().create_task(write())

    def _look_at_source(self, request: Request) -> asyncio.Future[Response]:
        """contract.SourceLook, with the artifact that was asked for: both are looked at side by side."""
        source, artifacts = self._source, self._artifacts
        max_age, digest = _of_source(request)
        if source is None or artifacts is None:
            raise Problem(404, "NoSource", "this searcher lists no source", remedy="spec.source.poll")

        async def look() -> Response:
            listing = source.look(self._pod, self.revision, max_age)
            if digest:
                said, found = await asyncio.gather(listing, artifacts.look(digest, max_age))
            else:
                said, found = await listing, None
            fresh = self._fresh.look() if self._fresh is not None else None
            update = {"artifacts": True, "artifact": found, "fresh": fresh}
            return json_response(said.model_copy(update=update).wire())

        return asyncio.get_running_loop().create_task(look())

    def _tell_canary(self, _request: Request) -> Response:
        told = self._canary()
        if told is None:
            remedy = "only a shard that was loaded with the gate of the whole has one"
            raise Problem(404, "NoCanary", "this pod knows no canary of merged answers", remedy=remedy)
        return Response(200, told)

    def _find_nearest(self, request: Request) -> asyncio.Future[Response]:
        assert self._nearest is not None
        told = self._nearest(request.body)
        if told is None:
            raise overload("as many requests of routers wait for scans as may")

        async def answer() -> Response:
            return Response(200, await told)

        return asyncio.get_running_loop().create_task(answer())

    def _lease(self, request: Request) -> Response:
        remedy = 'send {"state": "Serving" or "Draining", "ttlSeconds": 0 < s <= 300}'
        lease = _body(contract.TrafficLease, request, remedy)
        self._traffic.take_lease(lease)
        return json_response({"pod": self._pod, "revision": self.revision, **lease.wire()})

    def _of_fresh(self, request: Request) -> Response:
        fresh = self._fresh
        assert fresh is not None
        if request.method != b"POST":
            return json_response(fresh.look().wire())
        order = _body(contract.FreshOrder, request, 'send {"off": true or false, "ttlSeconds": 0 < s <= 300}')
        return json_response(fresh.take(order).wire())

    def _take_point(self, request: Request) -> asyncio.Future[Response]:
        point = self._point
        assert point is not None
        remedy = 'send {"point": "Default" or "Conservative", "decidedAt": unix seconds}'
        order = _body(contract.PointOrder, request, remedy)

        async def take() -> Response:
            await point.take(order)
            return json_response({"pod": self._pod, "revision": self.revision, "point": point.point})

        return asyncio.get_running_loop().create_task(take())


def _body(model: type[_Told], request: Request, remedy: str) -> _Told:
    """What a request says. Raises Problem 400."""
    try:
        return model.model_validate_json(request.body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "body"
        raise Problem(400, "InvalidField", str(first["msg"]), place, first["input"], remedy) from None


def _age(request: Request) -> int:
    """Hours from ?age=H&pod=ADDRESS. Raises Problem 400, and 421 where that is not the address asked."""
    found = _PAGE.fullmatch(request.query)
    asked = _plain(found[2].decode()) if found else None
    if found is None or asked is None or int(found[1]) >= contract.LIVE_HOURS:
        query, remedy = request.query.decode("latin-1"), f"?age=0 to ?age={contract.LIVE_HOURS - 1}, &pod=its address"
        raise Problem(400, "InvalidField", "age must be whole hours", field="age", value=query, remedy=remedy)
    if asked != _plain(request.local):
        what = "the request was signed for the pod at another address"
        raise Problem(
            421, "MisdirectedRequest", what, field="pod", value=str(asked), remedy="look the address up again"
        )
    return int(found[1])


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address of IPv4 may come as one of IPv6."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return None
    mapped = known.ipv4_mapped if isinstance(known, ipaddress.IPv6Address) else None
    return mapped or known


def _of_source(request: Request) -> tuple[float, str]:
    """maxAge and artifact (empty: none was asked for) of a look at the source. A digest is all that may be asked for:
    where it lies is known here. Raises Problem 400."""
    given = _parameters(request)
    digest = given.pop("artifact", "")
    if digest and not contract.ARTIFACT_DIGEST.fullmatch(digest):
        remedy = "64 hexadecimal digits, as VectorIndexRevision.spec.digest has them"
        raise Problem(400, "InvalidField", "artifact must be a digest", "artifact", digest, remedy)
    return _seconds(request, given, "maxAge", "?maxAge=150"), digest


def _number(request: Request, name: str, example: str) -> float:
    """The seconds of the only parameter that there may be; 0 without it. Raises Problem 400."""
    return _seconds(request, _parameters(request), name, example)


def _parameters(request: Request) -> dict[str, str]:
    """Of each name the last value; bytes that are no ASCII make it one that nobody knows."""
    query = request.query.decode("ascii", errors="replace")
    return {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}


def _seconds(request: Request, given: dict[str, str], name: str, example: str) -> float:
    try:
        number = float(given.pop(name, "0"))
        if given or not math.isfinite(number):
            raise ValueError
    except ValueError:
        query = request.query.decode("latin-1")
        raise Problem(400, "InvalidField", f"{name} must be seconds", name, query, example) from None
    return number
