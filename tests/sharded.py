"""Shards as pods in this process, and a router before them: exact indexes whose pods can be lost and held, and lie."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import faiss
import numpy as np
import orjson
import pyarrow as pa
import uvloop
from waiting import until

from vectorindex_searcher import contract
from vectorindex_searcher.artifact.layout import SERVED_FILES
from vectorindex_searcher.artifact.manifest import Manifest, describe_file
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.index.parameters import index_type
from vectorindex_searcher.serve.admin import AdminApp
from vectorindex_searcher.serve.app import SearchApp
from vectorindex_searcher.serve.evidence.feedback import Feedback
from vectorindex_searcher.serve.evidence.metrics import Gauges, SearcherMetrics
from vectorindex_searcher.serve.evidence.nearest import NearestScans
from vectorindex_searcher.serve.evidence.ring import EvidenceRing
from vectorindex_searcher.serve.http.auth import Tokens
from vectorindex_searcher.serve.http.limits import Limits
from vectorindex_searcher.serve.http.listener import Listener
from vectorindex_searcher.serve.http.messages import Deferred, Problem, Request, Response
from vectorindex_searcher.serve.http.mounted import Mounted
from vectorindex_searcher.serve.route import pods
from vectorindex_searcher.serve.route import server as route_server
from vectorindex_searcher.serve.route.server import Server, Told
from vectorindex_searcher.serve.search.policies import Policies
from vectorindex_searcher.serve.search.pool import SearchPool
from vectorindex_searcher.serve.settings import Settings
from vectorindex_searcher.serve.traffic import Traffic

DIMENSION, REVISION = 8, "products-d1"
IDENTITY = contract.Identity(name="products", uid="u-1")
PLAN = "a" * 64
pods.OPEN_SECONDS = 60.0  # a busy machine loses no pod but those that a test wants lost


def write_table(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def dealt_parts(folder: Path, shards: int, rows: int = 60) -> list[Engine]:
    """Rows of whole numbers, each in the shard that it belongs to."""
    vectors = np.random.default_rng(7).integers(-2, 3, (rows, DIMENSION)).astype(np.float32)
    owners = np.array([contract.shard_of(number, shards) for number in range(rows)])
    dealt = [np.flatnonzero(owners == number) for number in range(shards)]
    return [make_part(folder / str(n), mine.tolist(), vectors[mine], n) for n, mine in enumerate(dealt)]


def make_part(
    folder: Path,
    ids: Sequence[Any],
    vectors: np.ndarray,
    shard: int | None,
    plan: str = PLAN,
    columns: Mapping[str, Any] | None = None,
) -> Engine:
    """An exact index by inner product over these rows; `columns`: their metadata, else `title` and `size`: the length
    or last digit of its id."""
    index = faiss.IndexFlatIP(DIMENSION)
    index.add(vectors)
    folder.mkdir(parents=True)
    faiss.write_index(index, str(folder / "index.faiss"))
    write_table(folder / "ids.arrow", pa.table({"id": ids}))
    sizes = [one % 10 if isinstance(one, int) else len(one) for one in ids]
    columns = columns if columns is not None else {"title": [f"t{one}" for one in ids], "size": sizes}
    write_table(folder / "metadata.arrow", pa.table(dict(columns)))
    manifest = Manifest(
        digest="d1",
        attempt="local",
        identity=IDENTITY,
        fingerprint="f1",
        embedding=contract.Embedding(model="mini", dimension=DIMENSION, metric=contract.Metric.INNER_PRODUCT),
        dimension=DIMENSION,
        count=len(ids),
        vector_dtype="float32",
        id_type="int64" if isinstance(ids[0], int) else "string",
        metadata_columns=tuple(columns),
        factory="Flat",
        index_type=index_type(index),
        default_point=contract.OperatingPoint(params={}, recall=1, recall_low=1, latency_us=1),
        faiss_version=faiss.__version__,
        device=contract.Device.CPU,
        duration_seconds=1,
        peak_memory_bytes=1,
        shard=shard,
        plan_sha256=None if shard is None else plan,
        files=tuple(describe_file(folder / name) for name in SERVED_FILES),
    )
    return Engine.open(folder, manifest)


@dataclass
class App:
    """A searcher's, whose searches a test may hold, or answer itself."""

    app: SearchApp
    asked: int = 0
    held: bool = False
    lie: Callable[[Request], Response] | None = None
    waiting: list[Callable[[], None]] = field(default_factory=list)
    mounted: Sequence[Mounted] = ()

    def handle(self, request: Request) -> Any:
        if request.path != b"/v1/search":
            return self.app.handle(request)
        self.asked += 1
        if self.lie is not None:
            return self.lie(request)
        if not self.held:
            return self.app.handle(request)
        told = Deferred()

        def go_on() -> None:
            try:
                answer = self.app.handle(request)
            except Problem as problem:  # its deadline is over
                told.resolve(problem)
                return
            assert isinstance(answer, Deferred)
            answer.then(told.resolve)

        self.waiting.append(go_on)
        return told

    def answered(self, request: Request, response: Response, seconds: float) -> None:
        self.app.answered(request, response, seconds)


@dataclass
class Pod:
    """One searcher of a part."""

    app: App
    listener: Listener
    port: int
    loop: asyncio.AbstractEventLoop
    admin: Listener
    admin_port: int
    canary: bytes | None = None
    """What its admin port tells of it."""
    finds: bool = True
    """Whether its admin port takes requests for nearest rows."""

    def hold(self) -> None:
        self.app.held = True

    def release(self) -> None:
        """Answer what was held, and what comes."""

        def go_on() -> None:
            self.app.held = False
            for one in self.app.waiting:
                one()
            self.app.waiting = []

        self.loop.call_soon_threadsafe(go_on)

    def lose(self) -> None:
        """It is gone, with every connection."""
        for listener in (self.listener, self.admin):
            asyncio.run_coroutine_threadsafe(listener.close(), self.loop).result(60)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Loop:
    """An event loop on a thread."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(60)
        self.loop.close()


@contextmanager
def pods_of(
    engines: Sequence[Engine],
    replicas: int = 1,
    revision: str = REVISION,
    canaries: Sequence[bytes | None] = (),
    key: str = "",
    secret: Path | None = None,
    scans: Sequence[NearestScans] = (),
) -> Iterator[list[list[Pod]]]:
    """Searchers of each part, in the order of the parts. `canaries`: what each tells its routers; `key`: of their
    revision; `secret`: a folder of tokens that have policies; `scans`: of each part, for live recall."""
    running = Loop()
    pools: list[SearchPool] = []
    found: list[list[Pod]] = []

    async def begin(engine: Engine) -> Pod:
        ring, pool = EvidenceRing(("keyword",)), SearchPool(1, queue_seconds=60)
        pools.append(pool)
        shard = engine.manifest.shard
        task = contract.ServeTask(
            identity=IDENTITY,
            revision=revision,
            digest="d1",
            manifest_sha256="",
            artifacts=contract.Location(folder="/nowhere"),
            segments=("keyword",),
            shard=shard,
        )
        shards = 0 if shard is None else len(engines)
        tokens = Tokens(secret) if secret is not None else None
        policies = Policies(secret / contract.POLICIES_FILE, tokens) if secret is not None and tokens else None
        made = SearchApp(engine, task, pool, ring, Feedback(revision, ring), shards=shards, policies=policies)
        app = App(made, mounted=[one for one in (tokens, policies) if one is not None])
        listener = Listener(app, revision, Limits(), guard=tokens)
        settings = Settings(host="127.0.0.1", pod="shard", internal_key=key)
        probes = AdminApp(
            task, settings, Traffic(), ring, lambda: SearcherMetrics(revision, ring, Gauges()), lambda: "serving",
            canary=lambda: pod.canary,
            nearest=finding(lambda: pod, scans[shard]) if scans and shard is not None else None,
        )  # fmt: skip
        admin = Listener(probes, revision, Limits())
        ports = await listener.open(0, "127.0.0.1"), await admin.open(0, "127.0.0.1")
        pod = Pod(app, listener, ports[0], running.loop, admin, ports[1])
        pod.canary = canaries[shard] if canaries and shard is not None else None
        return pod

    try:
        found = [[running.do(begin(engine)) for _ in range(replicas)] for engine in engines]
        yield found
    finally:
        for pod in (one for some in found for one in some):
            pod.lose()
        for pool in pools:
            pool.close()
        running.close()


class Routing(Server):
    """A router that a test ends, and no signal."""

    ended: asyncio.Future[float]

    def wait(self, traffic: Traffic, grace: float) -> asyncio.Future[float]:
        """In the place of drain.told_to_end, which is for the main thread."""
        self.ended = asyncio.get_running_loop().create_future()
        return self.ended


@dataclass
class Router:
    """Both ports of a running router."""

    server: Routing
    loop: Loop
    admin: int
    users: int = 0

    def request(
        self, method: str, path: str, body: object = None, *, admin: bool = False, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin if admin else self.users, timeout=60)
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        try:
            connection.request(method, path, data, headers or {})
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        found = {name.lower(): value for name, value in response.getheaders()}
        return response.status, found, orjson.loads(text) if "json" in found["content-type"] and text else text

    def search(self, body: object, **more: Any) -> tuple[int, dict[str, str], Any]:
        return self.request("POST", "/v1/search", body, **more)

    def evidence(self) -> dict[str, float]:
        """All buckets of all segments, added up."""
        _, _, document = self.request("GET", "/v1/evidence", admin=True)
        total: dict[str, float] = {}
        for bucket in contract.Evidence.model_validate(document).buckets:
            for name in ("requests", "failed_requests", "queries", "errors", "refused", "zero_results", "top_count",
                         "top_sum", "tracked", "clicked"):  # fmt: skip
                total[name] = total.get(name, 0) + getattr(bucket, name)
        return total

    def columns(self, name: str) -> float:
        """A column of its evidence, as the operator reads it: all counts together."""
        headers = {"Accept": contract.EVIDENCE_COLUMNS_TYPE}
        _, _, document = self.request("GET", "/v1/evidence", headers=headers, admin=True)
        return float(sum(filter(None, document["counts"].get(name, [0]))))

    def ready(self) -> bool:
        return self.request("GET", "/readyz", admin=True)[0] == 200

    def do(self, work: Callable[[], Any]) -> Any:
        """On its event loop."""

        async def call() -> Any:
            return work()

        return self.loop.do(call())


def addresses(of: Sequence[Sequence[Pod]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(pod.address for pod in some) for some in of)


def finding(pod: Callable[[], Pod], scans: NearestScans) -> Callable[[bytes], asyncio.Future[bytes] | None]:
    """What an admin port does with a request for nearest rows."""

    def find(data: bytes) -> asyncio.Future[bytes] | None:
        told: asyncio.Future[bytes] = pod().loop.create_future()
        then = lambda found: pod().loop.call_soon_threadsafe(told.set_result, found)  # noqa: E731 - one line
        return told if pod().finds and scans.ask(data, then) else None

    return find


def admin_ports(of: Sequence[Sequence[Pod]]) -> tuple[int, ...]:
    """Of shards of one pod each."""
    return tuple(some[0].admin_port for some in of)


@contextmanager
def routing(
    shards: Sequence[Sequence[str]],
    *,
    wait: bool = True,
    settings: Settings | None = None,
    told: Told | None = None,
    **more: Any,
) -> Iterator[Router]:
    """A router of these addresses. `wait`: until it is ready; `more`: of its task."""
    task = contract.RouteTask(identity=IDENTITY, shards=tuple(map(tuple, shards)), segments=("keyword",), **more)
    running = Loop()
    settings = replace(
        settings or Settings(), host="127.0.0.1", http_port=0, admin_port=0, grace_seconds=0, pod="router-1"
    )
    server = Routing(task, settings, told or Told())
    with mock.patch.object(route_server, "told_to_end", server.wait):
        ended = asyncio.run_coroutine_threadsafe(server.run(), running.loop)
        until(lambda: server.admin is not None or ended.done())
    try:
        router = Router(server, running, server.admin or 0)
        if wait:
            until(lambda: server.users is not None or ended.done())
            router.users = server.users or 0
        yield router
    finally:
        running.loop.call_soon_threadsafe(lambda: server.ended.done() or server.ended.set_result(0.0))
        try:
            ended.result(60)
        finally:
            running.close()
