"""Two revisions in one process, each with both its ports, small enough to shadow one another in a test."""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import orjson
import pyarrow as pa
import uvloop

from vectorindex_searcher import contract
from vectorindex_searcher.artifact.layout import SERVED_FILES, VECTORS_FILE
from vectorindex_searcher.artifact.manifest import Manifest, describe_file
from vectorindex_searcher.contract import InternalRequest, Metric, Target
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.index.metric import faiss_metric, normalise
from vectorindex_searcher.index.parameters import index_type
from vectorindex_searcher.serve.admin import AdminApp
from vectorindex_searcher.serve.app import SearchApp
from vectorindex_searcher.serve.evidence.feedback import Feedback
from vectorindex_searcher.serve.evidence.metrics import Gauges, SearcherMetrics
from vectorindex_searcher.serve.evidence.ring import EvidenceRing
from vectorindex_searcher.serve.http.limits import ADMIN, Limits
from vectorindex_searcher.serve.http.listener import Listener
from vectorindex_searcher.serve.search.pool import SearchPool
from vectorindex_searcher.serve.settings import Settings
from vectorindex_searcher.serve.shadow.port import Shadowing
from vectorindex_searcher.serve.traffic import Traffic

UID = "uid-docs"
MASTER = "0123456789abcdef0123456789abcdef"
SHADOW = "docs-new@1"


@dataclass(frozen=True)
class Data:
    """What an index is of. `vectors`: float32 [n, d]."""

    ids: Sequence[int] | Sequence[str]
    vectors: np.ndarray
    colours: Sequence[str] | None = None


def engine_of(folder: Path, data: Data, metric: Metric = Metric.COSINE, factory: str = "Flat") -> Engine:
    """An engine over files as an artifact has them, vectors.npy among them."""
    vectors = np.ascontiguousarray(data.vectors, np.float32)
    count, dimension = vectors.shape
    index = faiss.index_factory(dimension, factory, faiss_metric(metric))
    indexed = normalise(vectors) if metric is Metric.COSINE else vectors
    index.train(indexed)
    index.add(indexed)
    folder.mkdir(parents=True)
    faiss.write_index(index, str(folder / "index.faiss"))
    index = faiss.read_index(str(folder / "index.faiss"))  # a flat index has another class then
    np.save(folder / VECTORS_FILE, vectors)
    _write(folder / "ids.arrow", "id", data.ids)
    _write(folder / "metadata.arrow", "colour", data.colours or ["red"] * count)
    manifest = Manifest(
        digest="d1",
        attempt="a1",
        identity=contract.Identity(name="docs"),
        fingerprint="f1",
        embedding=contract.Embedding(dimension=dimension, metric=metric),
        dimension=dimension,
        count=count,
        vector_dtype="float32",
        id_type="int64" if isinstance(data.ids[0], int) else "string",
        metadata_columns=("colour",),
        factory=factory,
        index_type=index_type(index),
        default_point=contract.OperatingPoint(params={}, recall=1, recall_low=1, latency_us=1),
        faiss_version=faiss.__version__,
        device=contract.Device.CPU,
        duration_seconds=1,
        peak_memory_bytes=1,
        files=tuple(describe_file(folder / name) for name in (*SERVED_FILES, VECTORS_FILE)),
    )
    return Engine.open(folder, manifest)


def _write(path: Path, name: str, values: Sequence[Any]) -> None:
    table = pa.table({name: list(values)})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


@dataclass
class Pod:
    """One revision's pod, in a thread. `deleted`: the fingerprint that it says of its deleted ids."""

    revision: str
    key: str
    engine: Any
    users: int = 0
    admin: int = 0
    deleted: str = ""
    looked_again: int = 0
    """How often it was told that the other side has another list of deleted ids."""
    shadowing: Shadowing | None = None
    pool: SearchPool | None = None
    metrics: SearcherMetrics | None = None

    def search(self, **fields: Any) -> tuple[int, Any]:
        return self._ask(self.users, "POST", "/v1/search", orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY), {})

    def ask(
        self, method: str, path: str, body: bytes = b"", *, key: str | None = None, at: float = 0.0, to: str = ""
    ) -> tuple[int, Any]:
        """Ask the admin port, signed with this pod's key or another one."""
        target = Target(UID, to or self.revision)
        with_key = self.key if key is None else key
        headers = contract.sign(with_key, InternalRequest(method, path, body), target, at or time.time())
        return self._ask(self.admin, method, path, body, headers)

    def mirror(
        self, to: Sequence[Pod] | int, rate: float = 1e5, shadow: str = SHADOW, at: float = 0.0, **more: Any
    ) -> int:
        """A lease to send there; a port instead of a pod is whoever listens on it. The status of the answer."""
        pods = [] if isinstance(to, int) else list(to)
        key = contract.shadow_key(pods[0].key if pods else "0")
        lease = {
            "revision": pods[0].revision if pods else "docs-new",
            "addresses": ["127.0.0.1"],
            "port": pods[0].admin if pods else to,
            "sealedKey": contract.seal_shadow_key(key, self.key, b"0123456789abcdef"),
            "maxPerSecond": rate,
            "shadow": shadow,
        }
        return self.ask("POST", contract.MIRROR_PATH, orjson.dumps(lease | more), at=at)[0]

    def pairs(self, shadow: str = SHADOW) -> contract.PairEvidence:
        status, document = self.ask("GET", f"{contract.PAIRS_PATH}?shadow={shadow}")
        assert status == 200, document
        return contract.PairEvidence.model_validate(document)

    def row(self, segment: str = "") -> dict[str, float]:
        """Everything that it counted for a segment, added up."""
        rows = [one for one in self.pairs().rows if one.segment == segment]
        return {name: sum(getattr(one, name) for one in rows) for name in contract.PAIR_COUNTERS}

    def _ask(self, port: int, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request(method, path, body or None, headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        return response.status, orjson.loads(text) if "json" in (response.getheader("content-type") or "") else text


@contextmanager
def pod(
    revision: str,
    engine: Any,
    vectors: Path | None,
    *,
    keys: bool = True,
    min_score: float | None = None,
    threads: int = 1,
) -> Iterator[Pod]:
    """A pod that serves `engine`. `vectors`: its vectors.npy; None: it is not there."""
    key = contract.revision_key(MASTER, revision) if keys else ""
    task = contract.ServeTask(
        identity=contract.Identity(name="docs", uid=UID),
        revision=revision,
        digest="d1",
        manifest_sha256="",
        artifacts=contract.Location(folder="/nowhere"),
        segments=("rare",),
        min_score=min_score,
    )
    made = Pod(revision, key, engine)
    ready, stop = threading.Event(), threading.Event()

    def look_again() -> None:
        made.looked_again += 1

    async def main() -> None:
        traffic, ring, gauges = Traffic(), EvidenceRing(task.segments), Gauges()
        made.pool = pool = SearchPool(threads, queue_seconds=60)
        made.metrics = SearcherMetrics(revision, ring, gauges)
        made.shadowing = shadowing = Shadowing(task, "pod-1", ring.incarnation, key, look_again)
        mirror = shadowing.send(engine, lambda: made.deleted, lambda: vectors)
        app = SearchApp(engine, task, pool, ring, Feedback(revision, ring), mirror=mirror)
        shadowing.receive(app, engine, pool, lambda: made.deleted, lambda: vectors, threads)
        for name, results in shadowing.results.items():
            setattr(gauges, name, results)
        metrics, settings = made.metrics, Settings(pod="pod-1", internal_key=key)
        port = AdminApp(task, settings, traffic, ring, lambda: metrics, str, shadowing=shadowing)
        admin, users = Listener(port, revision, ADMIN), Listener(app, revision, Limits(), traffic.closing)
        made.users, made.admin = await users.open(0, "127.0.0.1"), await admin.open(0, "127.0.0.1")
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.005)
        await users.close()
        await admin.close()
        shadowing.stop()
        pool.close()

    thread = threading.Thread(target=uvloop.run, args=(main(),))
    thread.start()
    assert ready.wait(60)
    try:
        yield made
    finally:
        stop.set()
        thread.join(60)
