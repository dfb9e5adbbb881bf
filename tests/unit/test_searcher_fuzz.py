"""Damaged input of every kind ends in a named refusal: never in another exception, a hang, or memory it claims."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cost import forget_peak, memory
from dataset_files import numbers, write_bin, write_hdf5, write_jsonl, write_parquet, write_vecs
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vectorindex_searcher.artifact.layout import Layout
from vectorindex_searcher.artifact.manifest import Manifest, ManifestFile, describe_file, encode, load_manifest
from vectorindex_searcher.artifact.publish import publish
from vectorindex_searcher.contract import (
    Columns,
    Device,
    Embedding,
    Identity,
    Location,
    Metric,
    OperatingPoint,
    SegmentRecall,
    ServeTask,
)
from vectorindex_searcher.dataset.listing import list_source, load_listing
from vectorindex_searcher.dataset.source import open_source
from vectorindex_searcher.errors import BadData, ChecksumMismatch, RetryableError, SourceChanged, TaskError
from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.proof.report import Report, load_report
from vectorindex_searcher.serve.load import load
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import ObjectInfo, Role

BOUND_BYTES = 256 << 20
"""Resident memory that all damaged files of a format together may add."""


class Memory:
    """A store of a few objects in memory."""

    prefix = ""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects

    def describe(self, key: str) -> str:
        return key

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter([ObjectInfo(key, len(data), "e") for key, data in self.objects.items()])

    def head(self, key: str) -> ObjectInfo | None:
        return next((item for item in self.list("") if item.key == key), None)

    def read(self, key: str, *, etag: str | None = None, offset: int = 0, length: int | None = None) -> bytes:
        assert offset >= 0
        assert length is None or length >= 0
        if key not in self.objects:
            raise SourceChanged(key) if etag else FileNotFoundError(key)
        return self.objects[key][offset : None if length is None else offset + length]

    def stream(self, key: str, *, etag: str | None = None) -> Iterator[bytes]:
        yield self.read(key)

    def put(self, key: str, data: bytes, *, exclusive: bool = False) -> bool:
        self.objects[key] = data
        return True

    def upload(self, key: str, path: Path) -> None:
        self.put(key, path.read_bytes())


EXTREMES = [
    b"\xff\xff\xff\x7f",
    b"\xff" * 4,
    b"\x00" * 4,
    b"\x00\x00\x00\x80",
    b"\xff" * 8,
    b"\x80" * 4,
    b"\x01",
    b"9" * 8,
]


@st.composite
def damage(draw: st.DrawFn, size: int) -> list[tuple[str, int, bytes]]:
    """Edits: (overwrite | insert | cut, position, bytes). Positions favour both ends, where headers and footers are."""
    ends = st.one_of(st.integers(0, min(size, 300)), st.integers(max(0, size - 600), size), st.integers(0, size))
    pieces = st.one_of(st.sampled_from(EXTREMES), st.binary(min_size=1, max_size=6))
    return draw(
        st.lists(st.tuples(st.sampled_from(["over", "over", "over", "insert", "cut"]), ends, pieces), max_size=3)
    )


def damaged(data: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    for kind, at, piece in edits:
        skipped = {"over": len(piece), "insert": 0, "cut": len(data)}[kind]
        data = data[:at] + (b"" if kind == "cut" else piece) + data[at + skipped :]
    return data


def read(key: str, data: bytes) -> Any:
    """All rows of an object, or the refusal."""
    store = Memory({key: data})
    try:
        source = open_source(store, list_source(store), Columns(), Embedding(metric=Metric.COSINE))
        blocks = list(source.blocks())
    except TaskError as refused:
        return refused
    vectors = np.concatenate([block.vectors for block in blocks])
    assert vectors.shape == (source.rows, source.dimension)
    assert np.isfinite(vectors).all()
    for block in blocks:
        if block.ids is not None:
            assert len(block.ids.to_pylist()) == len(block.vectors)  # text is text
    return vectors


FILES = {
    "a.npy": ("<f4", np.save),
    "a.fvecs": ("<f4", write_vecs),
    "a.u8bin": ("u1", write_bin),
    "a.jsonl": ("<f8", write_jsonl),
    "a.jsonl.gz": ("<f8", write_jsonl),
    "a.jsonl.zst": ("<f8", write_jsonl),
    "a.parquet": ("f4", write_parquet),
    "strings.parquet": ("f2", lambda path, rows: write_parquet(path, rows, [f"doc {n}" for n in range(len(rows))])),
    "a.hdf5": ("<f4", write_hdf5),
}


@pytest.mark.parametrize("key", list(FILES))
def test_damaged_files_are_read_or_refused(tmp_path: Path, key: str) -> None:
    dtype, write = FILES[key]
    vectors = numbers(dtype, 90)
    write(tmp_path / key, vectors)
    data = (tmp_path / key).read_bytes()
    np.testing.assert_array_equal(read(key, data), vectors.astype(np.float32))
    refused = 0

    @settings(
        max_examples=5 if key == "a.hdf5" else 80,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(damage(len(data)))
    def check(edits: list[tuple[str, int, bytes]]) -> None:
        nonlocal refused
        refused += isinstance(read(key, damaged(data, edits)), TaskError)

    forget_peak()
    before = memory("VmHWM")
    check()
    assert memory("VmHWM") - before < BOUND_BYTES
    assert refused


# ---------------------------------------------------------------- manifest.json, report.json, listings

IDENTITY = Identity(name="n")
LAYOUT = Layout("", IDENTITY)
FILE = ManifestFile(name="index.faiss", size=7, sha256="a" * 64)
POINT = OperatingPoint(params={"nprobe": 3}, recall=0.97, recall_low=0.95, latency_us=80.5)
MANIFEST = Manifest(
    digest="d",
    attempt="local",
    identity=IDENTITY,
    fingerprint="f",
    embedding=Embedding(dimension=8),
    dimension=8,
    count=100,
    vector_dtype="float32",
    id_type="int64",
    factory="Flat",
    index_type="IndexFlat",
    default_point=POINT,
    faiss_version="1",
    device=Device.CPU,
    duration_seconds=1.5,
    peak_memory_bytes=7,
    files=(FILE,),
)
REPORT = Report(
    gate_hash="g",
    digest="d",
    manifest_sha256="a" * 64,
    k=10,
    confidence=0.95,
    queries="held-out rows",
    overall=SegmentRecall(queries=9, recall=0.9, recall_low=0.8),
    params={},
    p50_ms=1.0,
    p95_ms=1.0,
    batch_query_us=1.0,
    count=100,
    dimension=8,
    embedding=Embedding(),
    factory="Flat",
    index_type="IndexFlat",
    resident_bytes=7,
    canary_queries=9,
    canary_recall=0.9,
    faiss_version="1",
    files=(FILE,),
)
LISTING = b'{"fingerprint": "f", "objects": [{"key": "a.npy", "size": 3, "etag": "e"}]}'
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from([10**400, -1, "../x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


def replaced(document: Any, path: list[int], value: Any) -> Any:
    """The document with something inside replaced."""
    if not path or not isinstance(document, dict | list) or not document:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    key = list(copy)[path[0] % len(copy)] if isinstance(copy, dict) else path[0] % len(copy)
    copy[key] = replaced(copy[key], path[1:], value)
    return copy


def load_document(kind: str, data: bytes) -> object:
    if kind == "manifest":
        return load_manifest(Memory({LAYOUT.manifest("d"): data}), LAYOUT, "d")
    if kind == "report":
        return load_report(Memory({LAYOUT.report("d", "g"): data}), LAYOUT, "d", "g")
    return load_listing(Memory({LAYOUT.listing("f"): data}), LAYOUT, "f")


VALID = {"manifest": encode(MANIFEST), "report": encode(REPORT), "listing": LISTING}


@pytest.mark.parametrize("kind", list(VALID))
def test_damaged_documents_are_refused(kind: str) -> None:
    valid = VALID[kind]
    document = json.loads(valid)
    if kind != "listing":
        load_document(kind, valid)

    def refused(data: bytes) -> None:
        try:
            load_document(kind, data)
        except TaskError as error:
            found = error
        else:
            return
        assert isinstance(found, RetryableError if kind == "listing" else BadData)
        assert len(found.failure.message) < 1000

    @settings(max_examples=100, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(damage(len(valid)))
    def bytes_changed(edits: list[tuple[str, int, bytes]]) -> None:
        refused(damaged(valid, edits))

    @settings(max_examples=100, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.integers(0, 40), max_size=4), JSON)
    @example([], [[[[]]]])
    def values_changed(path: list[int], value: Any) -> None:
        refused(json.dumps(replaced(document, path, value)).encode("utf-8", "surrogatepass"))

    bytes_changed()
    values_changed()
    for odd in (b"", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b'"\\ud800"', b"null", b"NaN"):
        with pytest.raises((BadData, RetryableError)):
            load_document(kind, odd)


# ---------------------------------------------------------------- files of FAISS


def test_faiss_opens_no_file_but_the_one_that_was_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flipped bytes, cuts, additions, and the file of another revision: refused by size or SHA-256."""
    store, tasks = FolderStore(tmp_path / "out", Role.ARTIFACTS), []
    for digest, seed in (("one", 0), ("two", 1)):
        folder = tmp_path / digest
        folder.mkdir()
        index = faiss.IndexFlatL2(8)
        index.add(numbers("<f4", 50, seed=seed))
        faiss.write_index(index, str(folder / "index.faiss"))
        files = (describe_file(folder / "index.faiss"),)
        _, sha256, _ = publish(store, LAYOUT, MANIFEST.model_copy(update={"digest": digest, "files": files}), folder)
        tasks.append(
            ServeTask(
                identity=IDENTITY,
                revision=digest,
                digest=digest,
                manifest_sha256=sha256,
                artifacts=Location(folder=str(tmp_path / "out")),
                cache_dir=str(tmp_path / "cache"),
            )
        )
    key, other = (LAYOUT.file(digest, "local", "index.faiss") for digest in ("one", "two"))
    whole = store.read(key)
    opened: list[Path] = []
    monkeypatch.setattr(Engine, "open", lambda folder, *_args, **_named: opened.append(folder))

    def refused(data: bytes) -> None:
        store.put(key, data)
        with pytest.raises(ChecksumMismatch):
            load(tasks[0], lambda _: None)
        assert not opened

    @settings(max_examples=40, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(damage(len(whole)))
    def check(edits: list[tuple[str, int, bytes]]) -> None:
        changed = damaged(whole, edits)
        if changed != whole:
            refused(changed)

    check()
    refused(store.read(other))
    store.put(LAYOUT.manifest("one"), store.read(LAYOUT.manifest("two")))
    with pytest.raises(ChecksumMismatch):
        load(tasks[0], lambda _: None)
    assert not opened
    load(tasks[1], lambda _: None)
    assert opened
