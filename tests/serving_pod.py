"""A searcher's two ports over a real index, in this process."""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import orjson
import pyarrow as pa
import pytest
import uvloop

from vectorindex_searcher import contract
from vectorindex_searcher.artifact.layout import SERVED_FILES
from vectorindex_searcher.artifact.manifest import Manifest, describe_file
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.index.parameters import index_type
from vectorindex_searcher.proof.report import Points
from vectorindex_searcher.serve.admin import AdminApp
from vectorindex_searcher.serve.app import SearchApp
from vectorindex_searcher.serve.evidence.feedback import Feedback
from vectorindex_searcher.serve.evidence.metrics import Gauges, SearcherMetrics
from vectorindex_searcher.serve.evidence.ring import EvidenceRing
from vectorindex_searcher.serve.http.auth import Tokens
from vectorindex_searcher.serve.http.limits import Limits
from vectorindex_searcher.serve.http.listener import Listener
from vectorindex_searcher.serve.search.freshness import Freshness
from vectorindex_searcher.serve.search.policies import Policies
from vectorindex_searcher.serve.search.pool import SearchPool
from vectorindex_searcher.serve.settings import Settings
from vectorindex_searcher.serve.traffic import Traffic

COUNT, DIMENSION = 400, 8


def write_rows(path: Path, name: str, values: list[Any]) -> None:
    table = pa.table({name: values})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def make_engine(folder: Path, ids: list[Any]) -> tuple[Engine, np.ndarray]:
    """An HNSW index over unit vectors; ids as given; metadata `title`."""
    vectors = np.random.default_rng(3).standard_normal((COUNT, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = faiss.IndexHNSWFlat(DIMENSION, 16)
    index.add(vectors)
    folder.mkdir(exist_ok=True)
    faiss.write_index(index, str(folder / "index.faiss"))
    write_rows(folder / "ids.arrow", "id", ids)
    write_rows(folder / "metadata.arrow", "title", [f"title {n}" for n in range(COUNT)])
    point = contract.OperatingPoint(params={"efSearch": 200}, recall=1, recall_low=1, latency_us=1)
    manifest = Manifest(
        digest="d1",
        attempt="local",
        identity=contract.Identity(name="products"),
        fingerprint="f1",
        embedding=contract.Embedding(model="mini", version="1", dimension=DIMENSION),
        dimension=DIMENSION,
        count=COUNT,
        vector_dtype="float32",
        id_type="int64" if isinstance(ids[0], int) else "string",
        metadata_columns=("title",),
        factory="HNSW16",
        index_type=index_type(index),
        default_point=point,
        faiss_version=faiss.__version__,
        device=contract.Device.CPU,
        duration_seconds=1,
        peak_memory_bytes=1,
        files=tuple(describe_file(folder / name) for name in SERVED_FILES),
    )
    return Engine.open(folder, manifest), vectors


@dataclass
class Pod:
    """Both ports, in a thread."""

    users: int
    admin: int
    traffic: Traffic
    pool: SearchPool
    loop: asyncio.AbstractEventLoop

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: dict[str, str] | None = None,
        admin: bool = False,
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
        assert found["x-vectorindex-revision"] == "products-d1"
        return response.status, found, orjson.loads(text) if "json" in found["content-type"] and text else text

    def search(self, body: object, **more: Any) -> tuple[int, dict[str, str], Any]:
        return self.request("POST", "/v1/search", body, **more)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The server's loop stands still meanwhile, so that whatever is sent is there at once when it goes on."""
        stands, goes_on = threading.Event(), threading.Event()
        self.loop.call_soon_threadsafe(lambda: (stands.set(), goes_on.wait(60)))
        assert stands.wait(60)
        try:
            yield
        finally:
            goes_on.set()

    def columns(self) -> contract.EvidenceColumns:
        """Everything it counted, as columns."""
        headers = {"Accept": contract.EVIDENCE_COLUMNS_TYPE}
        _, _, document = self.request("GET", "/v1/evidence", headers=headers, admin=True)
        return contract.EvidenceColumns.model_validate(document)

    def evidence(self) -> contract.EvidenceBucket:
        """All buckets of all segments, added up."""
        _, _, document = self.request("GET", "/v1/evidence", admin=True)
        total: dict[str, Any] = {"bucket": 0, "segment": "all"}
        for bucket in contract.Evidence.model_validate(document).buckets:
            for name in (
                "requests", "failed_requests", "queries", "errors", "refused", "zero_results", "top_count", "top_sum",
                "tracked", "tracked_depth_sum", "clicked", "click_gain_sum",
            ):  # fmt: skip
                total[name] = total.get(name, 0) + getattr(bucket, name)
        return contract.EvidenceBucket.model_validate(total)


class Gated:
    """An engine whose searches wait for a gate, so that a test decides how long they take."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.gate = threading.Event()
        self.gate.set()
        self.failing = False
        self.seconds = 0.0
        self.params: list[dict[str, int]] = []
        self.sizes: list[int] = []
        """Vectors of each call."""

    def search(self, *arguments: Any) -> Any:
        self.params.append(dict(arguments[2] or {}))
        self.sizes.append(len(arguments[0]))
        assert self.gate.wait(60)
        time.sleep(self.seconds)
        if self.failing:
            raise RuntimeError("secret detail")
        return self._engine.search(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class Counting:
    """An engine that notes how many vectors each call brings."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.sizes: list[int] = []

    def search(self, vectors: np.ndarray, *arguments: Any) -> Any:
        self.sizes.append(len(vectors))
        time.sleep(0.005)  # so that others come meanwhile
        return self._engine.search(vectors, *arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


@contextmanager
def running(
    engine: Any,
    *,
    min_score: float | None = None,
    threads: int = 2,
    points: Points | None = None,
    limited: contract.ParamLimits | None = None,
    guard: Tokens | None = None,
    policies: Policies | None = None,
    columns_before: dict[str, str] | None = None,
    fresh: Freshness | None = None,
    **pool_options: Any,
) -> Iterator[Pod]:
    task = contract.ServeTask(
        identity=contract.Identity(name="products"),
        revision="products-d1",
        digest="d1",
        manifest_sha256="",
        artifacts=contract.Location(folder="/nowhere"),
        segments=("keyword",),
        min_score=min_score,
    )
    started: list[Pod] = []
    ready, stop = threading.Event(), threading.Event()
    pool_options.setdefault("queue_seconds", 60)  # a busy machine refuses nothing but what a test wants refused

    async def main() -> None:
        traffic, ring = Traffic(), EvidenceRing(task.segments)
        pool = SearchPool(threads, **pool_options)
        metrics = SearcherMetrics(task.revision, ring, Gauges())
        admin = Listener(
            AdminApp(
                task,
                Settings(pod="pod-1", columns_before=columns_before),
                traffic,
                ring,
                lambda: metrics,
                lambda: "opening",
            ),
            task.revision,
            Limits(),
        )
        users = Listener(
            SearchApp(
                engine,
                task,
                pool,
                ring,
                Feedback(task.revision, ring),
                points,
                limited=limited or contract.ParamLimits(),
                tokens=guard is not None,
                policies=policies,
                columns_before=columns_before,
                fresh=fresh,
            ),
            task.revision,
            Limits(body_bytes=100_000),
            traffic.closing,
            guard,
        )
        ports = await users.open(0, "127.0.0.1"), await admin.open(0, "127.0.0.1")
        started.append(Pod(*ports, traffic, pool, asyncio.get_running_loop()))
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.005)
        await users.close()
        await admin.close()
        pool.close()

    thread = threading.Thread(target=uvloop.run, args=(main(),))
    thread.start()
    assert ready.wait(60)
    try:
        yield started[0]
    finally:
        stop.set()
        thread.join(60)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, np.ndarray]:
    return make_engine(tmp_path_factory.mktemp("artifact"), [10_000 + n for n in range(COUNT)])


@pytest.fixture
def pod(engine: tuple[Engine, np.ndarray]) -> Iterator[Pod]:
    with running(engine[0]) as pod:
        yield pod
