"""A published artifact with its report and canary queries, small enough to be served in a test; and who asks it."""

from __future__ import annotations

import hashlib
import http.client
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import orjson
import pyarrow as pa

from vectorindex_searcher import contract
from vectorindex_searcher.artifact.layout import CANARY_FILE, SERVED_FILES, VECTORS_FILE, Layout
from vectorindex_searcher.artifact.manifest import Manifest, describe_file, encode
from vectorindex_searcher.artifact.publish import publish
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.index.parameters import index_type
from vectorindex_searcher.proof.canary import write_canary
from vectorindex_searcher.proof.report import Report
from vectorindex_searcher.storage.store import Role, open_store

COUNT, DIMENSION, K = 3000, 16, 5
IDENTITY = contract.Identity(name="products")


@dataclass(frozen=True)
class Published:
    """A folder store with one artifact, its report and its canary queries."""

    root: Path
    task: contract.ServeTask
    vectors: np.ndarray
    artifact: Path
    reports: Path


def publish_all(
    root: Path, ef_search: int, canary_recall: float | None = None, conservative: int | None = None
) -> Published:
    """Publish an HNSW artifact. `canary_recall`: what the report claims; None: what this machine measures.
    `conservative`: efSearch of the conservative point; None: there is none."""
    vectors = np.random.default_rng(5).standard_normal((COUNT, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = faiss.IndexHNSWFlat(DIMENSION, 4)
    index.add(vectors)
    files = root / "files"
    files.mkdir(parents=True)
    faiss.write_index(index, str(files / "index.faiss"))
    write_rows(files / "ids.arrow", pa.table({"id": np.arange(COUNT)}))
    write_rows(files / "metadata.arrow", pa.table({"title": ["t"] * COUNT}))
    np.save(files / VECTORS_FILE, vectors)
    manifest = Manifest(
        digest="d1",
        attempt="a1",
        identity=IDENTITY,
        fingerprint="f1",
        embedding=contract.Embedding(dimension=DIMENSION),
        dimension=DIMENSION,
        count=COUNT,
        vector_dtype="float32",
        id_type="int64",
        metadata_columns=("title",),
        factory="HNSW4",
        index_type=index_type(index),
        default_point=_point(ef_search),
        conservative_point=_point(conservative) if conservative is not None else None,
        faiss_version=faiss.__version__,
        device=contract.Device.CPU,
        duration_seconds=1,
        peak_memory_bytes=1,
        files=tuple(describe_file(files / name) for name in (*SERVED_FILES, VECTORS_FILE)),
    )
    location = contract.Location(folder=str(root / "store"))
    (root / "store").mkdir()
    store = open_store(location, Role.ARTIFACTS)
    layout = Layout(store.prefix, IDENTITY)
    manifest, manifest_sha256, _ = publish(store, layout, manifest, files)
    report = make_report(Engine.open(files, manifest), vectors, manifest_sha256, files, canary_recall)
    store.put(layout.report("d1", "g1", CANARY_FILE), (files / CANARY_FILE).read_bytes())
    store.put(layout.report("d1", "g1"), encode(report))
    task = contract.ServeTask(
        identity=IDENTITY,
        revision="products-d1",
        digest="d1",
        manifest_sha256=manifest_sha256,
        gate_hash="g1",
        report_sha256=hashlib.sha256(encode(report)).hexdigest(),
        artifacts=location,
        segments=("keyword",),
        cache_dir=str(root / "cache"),
    )
    base = root / "store" / "local" / "products" / "d1"
    return Published(root, task, vectors, base / "a1", base / "reports" / "g1")


def _point(ef_search: int) -> contract.OperatingPoint:
    return contract.OperatingPoint(params={"efSearch": ef_search}, recall=1, recall_low=1, latency_us=1)


def write_rows(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def make_report(
    engine: Engine, vectors: np.ndarray, manifest_sha256: str, files: Path, claimed: float | None
) -> Report:
    queries = vectors[:100] + 0.1
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    exact = np.argsort(-(unit @ vectors.T), axis=1)[:, :K]
    _, rows = engine.search(queries, K)
    hits = np.array([np.isin(mine, right).sum() for mine, right in zip(rows, exact, strict=True)])
    flat = pa.array(np.ascontiguousarray(queries, np.float32).ravel())
    table = pa.table(
        {
            "vector": pa.FixedSizeListArray.from_arrays(flat, DIMENSION),
            "row": pa.array([-1] * 100, pa.int64()),
            "right": pa.array(list(exact), pa.list_(pa.int64())),
            "available": pa.array([K] * 100, pa.int32()),
            "kth_score": pa.array([0.0] * 100, pa.float64()),
            "hits": pa.array(hits, pa.int32()),
        }
    )
    write_canary(table, files / CANARY_FILE)
    recall = float(hits.mean() / K)
    return Report(
        gate_hash="g1",
        digest="d1",
        manifest_sha256=manifest_sha256,
        k=K,
        confidence=0.95,
        queries="held out",
        overall=contract.SegmentRecall(queries=100, recall=recall, recall_low=recall),
        params=engine.default_params,
        p50_ms=1,
        p95_ms=1,
        batch_query_us=1,
        count=COUNT,
        dimension=DIMENSION,
        embedding=engine.manifest.embedding,
        factory="HNSW4",
        index_type=engine.manifest.index_type,
        resident_bytes=1,
        canary_queries=100,
        canary_recall=recall if claimed is None else claimed,
        faiss_version=faiss.__version__,
        files=(describe_file(files / CANARY_FILE),),
    )


def get(port: int, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, orjson.loads(response.read())
    finally:
        connection.close()


@dataclass
class Client:
    """A client with one keep-alive connection, which it opens anew only when told to close it."""

    service: dict[str, int]
    body: bytes
    stop: threading.Event
    answered: dict[int, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def run(self) -> None:
        connection, port = None, 0
        while not self.stop.is_set():
            try:
                if connection is None:
                    port = self.service["port"]
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                    connection.connect()
                    connection.auto_open = 0
                connection.request("POST", "/v1/search", self.body)
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    self.failures.append(str(response.status))
                self.answered[port] = self.answered.get(port, 0) + 1
                if response.getheader("Connection") == "close":
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                return
        if connection is not None:
            connection.close()
