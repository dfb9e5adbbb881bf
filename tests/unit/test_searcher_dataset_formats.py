"""Formats of a source: the same rows out of each of them, and every way each of them can be bad."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from dataset_files import lines, numbers, write_bin, write_hdf5, write_jsonl, write_parquet, write_vecs

from vectorindex_searcher.contract import Columns, Embedding, ExitCode, Identity, Location, Metric, ResolveTask
from vectorindex_searcher.dataset import blocks as blocks_module
from vectorindex_searcher.dataset import hdf5, jsonl
from vectorindex_searcher.dataset.formats import FORMATS, SUFFIXES
from vectorindex_searcher.dataset.listing import list_source
from vectorindex_searcher.dataset.resolve import resolve
from vectorindex_searcher.dataset.source import Source, open_source
from vectorindex_searcher.dataset.stage import stage
from vectorindex_searcher.errors import BadData, SourceChanged, TaskError
from vectorindex_searcher.index.rows import Ids
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role

Rows = npt.NDArray[Any]
Writer = Callable[[Path, Rows], None]
NPY_HEADER = b"\x93NUMPY\x01\x00"


def opened(folder: Path, *, metric: Metric = Metric.L2, **columns: Any) -> Source:
    store = FolderStore(folder, Role.SOURCE)
    return open_source(store, list_source(store), Columns(**columns), Embedding(metric=metric))


def drain(source: Source) -> tuple[Rows, list[object]]:
    found = list(source.blocks())
    ids = [value for block in found if block.ids is not None for value in block.ids.to_pylist()]
    return np.concatenate([block.vectors for block in found]), ids


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks an object."""
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 64 * 4 * 8)


WRITERS: list[tuple[str, str, Writer]] = [
    *((name, "<f4", write_vecs) for name in ("a.fvecs",)),
    ("a.bvecs", "u1", write_vecs),
    ("a.ivecs", "<i4", write_vecs),
    ("a.fbin", "<f4", write_bin),
    ("a.u8bin", "u1", write_bin),
    ("a.i8bin", "i1", write_bin),
    *(
        (name, dtype, write_hdf5)
        for name, dtype in (
            ("a.hdf5", "<f4"),
            ("a.h5", "<f8"),
            ("b.h5", ">f4"),
            ("c.h5", "u1"),
            ("d.h5", "<i4"),
            ("e.h5", ">u2"),
        )
    ),
    *((f"{dtype}.npy", dtype, np.save) for dtype in ("f2", "<f4", ">f8", "i1", "u1", "<i2", ">u4", "<i8")),
    *((name, "<f8", write_jsonl) for name in ("a.jsonl", "a.ndjson", "a.jsonl.gz", "a.jsonl.zst", "a.ndjson.gz")),
    *((f"{dtype}.parquet", dtype, write_parquet) for dtype in ("f2", "f4", "f8", "i1", "u1", "i2", "u8")),
]


@pytest.mark.parametrize(("name", "dtype", "write"), WRITERS, ids=[f"{name}-{dtype}" for name, dtype, _ in WRITERS])
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str, dtype: str, write: Writer) -> None:
    vectors = numbers(dtype)
    (tmp_path / "part=1").mkdir()
    write(tmp_path / "part=1" / name, vectors)
    write(tmp_path / ("z" + name), vectors[:7] + np.ones(8, dtype))
    source = opened(tmp_path)
    found, ids = drain(source)
    np.testing.assert_array_equal(found[:100], vectors.astype(np.float32))
    assert found.dtype == np.float32
    assert source.rows == len(found)
    assert source.half == (dtype in {"f2", "i1", "u1"})
    assert ids in ([], [*range(100), *range(7)])


def test_every_suffix_is_written_by_a_test() -> None:
    assert {suffix for suffix in SUFFIXES if any(name.endswith(suffix) for name, _, _ in WRITERS)} >= (
        set(SUFFIXES) - {".ndjson.zst"}
    )
    assert len(FORMATS) == 6


def test_row_numbers_are_the_ids_of_formats_without_ids(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_vecs(folder / "a.fvecs", numbers("<f4", 7))
    write_vecs(folder / "b.fvecs", numbers("<f4", 5, seed=1))
    source = opened(folder)
    stage(source, tmp_path)
    assert Ids(tmp_path / "ids.arrow")(np.arange(12)) == list(range(12))


@pytest.mark.parametrize("codec", ["snappy", "zstd", "gzip", "lz4", "brotli"])
def test_compressed_parquet(tmp_path: Path, codec: str) -> None:
    vectors = numbers("f4")
    write_parquet(tmp_path / "a.parquet", vectors, compression=codec)
    np.testing.assert_array_equal(drain(opened(tmp_path))[0], vectors)


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()]
)
def test_parquet_ids_of_any_integer_type(tmp_path: Path, kind: pa.DataType) -> None:
    write_parquet(tmp_path / "a.parquet", numbers("f4"), pa.array(range(100), kind))
    assert drain(opened(tmp_path))[1] == list(range(100))


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int16(), pa.string())]
)
def test_parquet_ids_of_any_string_type(tmp_path: Path, kind: pa.DataType) -> None:
    ids = [f"doc {number}" for number in range(100)]
    write_parquet(tmp_path / "a.parquet", numbers("f4"), pa.array(ids).cast(kind))
    assert drain(opened(tmp_path))[1] == ids


def test_json_lines_with_strings_metadata_and_foreign_fields(tmp_path: Path) -> None:
    vectors = numbers("<f8")
    columns = {
        "title": [f"t {number}" for number in range(100)],
        "stars": [1, *[2.5] * 99],
        "tags": [["a", "b"]] * 100,
        "late": [None] * 50 + ["x"] * 50,
        "other": [{"nested": [1, "2"]}] * 50 + [3] * 50,
    }
    ids = [f"é{number}" for number in range(100)]
    (tmp_path / "a.jsonl").write_bytes(lines(vectors, ids, **columns).replace(b"\n", b"\r\n") + b"\n  \n")
    source = opened(tmp_path, metadata=("title", "stars", "tags", "late"))
    found, read_ids = drain(source)
    np.testing.assert_array_equal(found, vectors)
    assert read_ids == ids
    table = pa.concat_tables(block.metadata for block in source.blocks())
    assert [str(field.type) for field in table.schema] == [
        "string",
        "double",
        "list<item: string>",
        "string",
    ]
    assert table.column("late").to_pylist() == columns["late"]


def test_json_lines_are_read_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = numbers("<f8", 500)
    write_jsonl(tmp_path / "a.jsonl", vectors)
    for size in (300, 1000, 7777):
        monkeypatch.setattr(jsonl, "CHUNK_BYTES", size)
        found, ids = drain(opened(tmp_path))
        np.testing.assert_array_equal(found, vectors)
        assert ids == list(range(500))


def test_rows_of_json_lines_are_counted_once_for_a_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", numbers("<f8"))
    (folder / "empty.jsonl").write_bytes(b"\n")
    counts: list[str] = []
    count = jsonl._count
    monkeypatch.setattr(
        jsonl, "_count", lambda store, item, types: counts.append(item.key) or count(store, item, types)
    )
    task = ResolveTask(
        identity=Identity(name="n"), source=Location(folder=str(folder)), artifacts=Location(folder=str(out))
    )
    assert [resolve(task).rows for _ in range(3)] == [100, 100, 100]
    assert counts == ["a.jsonl"]
    listing = next(out.rglob("*.json"))
    listing.write_bytes(listing.read_bytes()[:-20])
    assert resolve(task).rows == 100
    assert counts == ["a.jsonl", "a.jsonl"]
    assert json.loads(listing.read_bytes())["objects"][0]["rows"] == 100


def test_hdf5_reads_another_dataset_by_name(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.hdf5", numbers("<f4"))
    assert opened(tmp_path, vector="test").rows == 5
    with pytest.raises(TaskError, match="distances, neighbors, test, train"):
        opened(tmp_path, vector="base")


def test_hdf5_library_sees_no_environment_and_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = tmp_path / "spy.py"
    spy.write_text("import json, os\nprint(json.dumps({'error': ' '.join(sorted(os.environ))}))\n")
    monkeypatch.setenv("SOURCE_AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setattr(hdf5, "_PROBE", spy)
    write_hdf5(tmp_path / "a.hdf5", numbers("<f4"))
    with pytest.raises(BadData) as caught:
        opened(tmp_path)
    assert "OPENBLAS" in str(caught.value)
    assert "SECRET" not in str(caught.value)


PROGRAMS = {
    "silent": "",
    "crash": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
    "nonsense": "print('[1]')",
    "negative": "print('{\"read\": [0, -1]}')",
    "endless": "import sys\nwhile True: print('{\"read\": [0, 1000000]}', flush=True), sys.stdin.buffer.read(1000000)",
    "hangs": "import time\nprint('{\"read\": [0, 1000000]}', flush=True)\ntime.sleep(99)",
}


@pytest.mark.parametrize("program", list(PROGRAMS))
def test_hdf5_library_may_crash_or_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    (tmp_path / "probe.py").write_text(PROGRAMS[program])
    monkeypatch.setattr(hdf5, "_PROBE", tmp_path / "probe.py")
    monkeypatch.setattr(hdf5, "PROBE_SECONDS", 1.0 if program == "hangs" else 60.0)
    write_hdf5(tmp_path / "a.hdf5", numbers("<f4"))
    with pytest.raises(BadData) as caught:
        opened(tmp_path)
    assert caught.value.reason == "CorruptFile"


def test_hidden_and_foreign_objects_are_no_data(tmp_path: Path) -> None:
    for name in ("_staging/1.parquet", "_temporary/0/a.parquet", ".hidden/a.parquet", "_a.parquet", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"junk")
    (tmp_path / "_date=2026" / "deep").mkdir(parents=True)
    write_parquet(tmp_path / "_date=2026" / "deep" / "a.parquet", numbers("f4"))
    assert [item.key for item in list_source(FolderStore(tmp_path, Role.SOURCE)).objects] == [
        "_date=2026/deep/a.parquet"
    ]
    one = list_source(FolderStore(tmp_path / "_date=2026" / "deep" / "a.parquet", Role.SOURCE))
    assert [item.key for item in one.objects] == ["a.parquet"]


# ---------------------------------------------------------------- bad data


def damaged(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def with_value(name: str, write: Writer, row: int, value: float) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        vectors = numbers("<f4")
        vectors[row, slice(None) if value == 0 else 3] = value
        write(folder / name, vectors)

    return make


def trailing(name: str, write: Writer, dtype: str = "<f4", cut: int = 0) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        write(folder / name, numbers(dtype))
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:-cut] if cut else data + b"more")

    return make


def vecs_of_two_lengths(folder: Path) -> None:
    write_vecs(folder / "a.fvecs", numbers("<f4"))
    data = bytearray((folder / "a.fvecs").read_bytes())
    data[80 * 36 : 80 * 36 + 4] = struct.pack("<i", 7)
    (folder / "a.fvecs").write_bytes(data)


def large_id(folder: Path) -> None:
    write_parquet(folder / "a.parquet", numbers("f4"), pa.array([*range(80), 2**63, *range(81, 100)], pa.uint64()))


def id_not_utf8(folder: Path) -> None:
    ids = pa.array([b"%d" % n if n != 70 else b"\xff" for n in range(100)], pa.binary())
    write_parquet(folder / "a.parquet", numbers("f4"), ids.view(pa.string()))


def fortran_npy(folder: Path) -> None:
    np.save(folder / "a.npy", np.asfortranarray(numbers("<f4")))


def npy_header(text: str) -> bytes:
    return NPY_HEADER + struct.pack("<H", len(text)) + text.encode()


def hdf5_with(**options: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        with h5py.File(folder / "a.hdf5", "w") as file:
            file.create_dataset("train", **options)

    return make


def hdf5_external(folder: Path) -> None:
    write_hdf5(folder / "target.bin", numbers("<f4"))
    with h5py.File(folder / "a.hdf5", "w") as file:
        file["train"] = h5py.ExternalLink(str(folder / "target.bin"), "train")


def json_with(row: int, line: bytes) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        found = lines(numbers("<f8")).split(b"\n")
        found[row] = line
        (folder / "a.jsonl").write_bytes(b"\n".join(found))

    return make


HUGE = 2**31 - 1


@pytest.mark.parametrize(
    ("make", "metric", "reason", "where"),
    [
        (with_value("a.fvecs", write_vecs, 85, np.nan), Metric.L2, "NonFiniteVector", ("a.fvecs", 85)),
        (with_value("a.fbin", write_bin, 85, np.inf), Metric.L2, "NonFiniteVector", ("a.fbin", 85)),
        (with_value("a.hdf5", write_hdf5, 85, np.nan), Metric.L2, "NonFiniteVector", ("a.hdf5", 85)),
        (with_value("a.jsonl", write_jsonl, 85, np.nan), Metric.L2, "NonFiniteVector", ("a.jsonl", 85)),
        (with_value("a.fvecs", write_vecs, 85, 0), Metric.COSINE, "ZeroVector", ("a.fvecs", 85)),
        (with_value("a.jsonl", write_jsonl, 85, 0), Metric.COSINE, "ZeroVector", ("a.jsonl", 85)),
        (vecs_of_two_lengths, Metric.L2, "MixedDimensions", ("a.fvecs", 80)),
        (trailing("a.fvecs", write_vecs), Metric.L2, "CorruptFile", ("a.fvecs", 100)),
        (trailing("a.bvecs", write_vecs, "u1", cut=3), Metric.L2, "CorruptFile", ("a.bvecs", 99)),
        (trailing("a.fbin", write_bin), Metric.L2, "CorruptFile", ("a.fbin", None)),
        (trailing("a.u8bin", write_bin, "u1", cut=3), Metric.L2, "CorruptFile", ("a.u8bin", None)),
        (trailing("a.hdf5", write_hdf5, cut=4000), Metric.L2, "CorruptFile", ("a.hdf5", None)),
        (trailing("a.jsonl.gz", write_jsonl, cut=40), Metric.L2, "CorruptFile", ("a.jsonl.gz", None)),
        (trailing("a.jsonl.zst", write_jsonl, cut=40), Metric.L2, "CorruptFile", ("a.jsonl.zst", None)),
        (damaged("a.fvecs", struct.pack("<i", HUGE) * 40), Metric.L2, "BadVectorType", ("a.fvecs", None)),
        (damaged("a.fvecs", struct.pack("<i", -1) * 40), Metric.L2, "BadVectorType", ("a.fvecs", None)),
        (damaged("a.fvecs", b"\1"), Metric.L2, "BadVectorType", ("a.fvecs", None)),
        (damaged("a.fbin", b"\1\1"), Metric.L2, "CorruptFile", ("a.fbin", None)),
        (damaged("a.fbin", struct.pack("<II", HUGE, HUGE) + b"x" * 80), Metric.L2, "CorruptFile", ("a.fbin", None)),
        (
            damaged("a.fbin", struct.pack("<II", 1, 70_000) + b"x" * 280_000),
            Metric.L2,
            "BadVectorType",
            ("a.fbin", None),
        ),
        (damaged("a.fbin", struct.pack("<II", HUGE, 0)), Metric.L2, "BadVectorType", ("a.fbin", None)),
        (damaged("a.npy", npy_header("(" * 300)), Metric.L2, "CorruptFile", ("a.npy", None)),
        (
            damaged("a.npy", npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -4)}") + b"x" * 32),
            Metric.L2,
            "BadVectorType",
            ("a.npy", None),
        ),
        (
            damaged("a.npy", npy_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({HUGE}, {HUGE})}}")),
            Metric.L2,
            "CorruptFile",
            ("a.npy", None),
        ),
        (
            damaged("a.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1)),
            Metric.L2,
            "CorruptFile",
            ("a.npy", None),
        ),
        (fortran_npy, Metric.L2, "BadVectorType", ("a.npy", None)),
        (large_id, Metric.L2, "BadIdType", ("a.parquet", 80)),
        (id_not_utf8, Metric.L2, "NotText", ("a.parquet", 70)),
        (hdf5_with(data=np.ones((9, 4)), chunks=(3, 4)), Metric.L2, "ChunkedDataset", ("a.hdf5", None)),
        (hdf5_with(shape=(HUGE, 8), chunks=(10**6, 8), dtype="f4"), Metric.L2, "ChunkedDataset", ("a.hdf5", None)),
        (hdf5_with(shape=(HUGE, 8), dtype="f4"), Metric.L2, "CorruptFile", ("a.hdf5", None)),
        (hdf5_with(data=np.ones(9)), Metric.L2, "BadVectorType", ("a.hdf5", None)),
        (hdf5_with(data=np.ones((9, 4), np.complex64)), Metric.L2, "BadVectorType", ("a.hdf5", None)),
        (hdf5_with(data=[["a"]], dtype=h5py.string_dtype()), Metric.L2, "BadVectorType", ("a.hdf5", None)),
        (hdf5_external, Metric.L2, "UnknownColumn", ("a.hdf5", None)),
        (damaged("a.hdf5", b"\x89HDF\r\n\x1a\n" + b"\xff" * 500), Metric.L2, "CorruptFile", ("a.hdf5", None)),
        (json_with(0, b"nonsense"), Metric.L2, "CorruptFile", ("a.jsonl", 0)),
        (json_with(0, b"[1, 2]"), Metric.L2, "CorruptFile", ("a.jsonl", 0)),
        (json_with(0, b'{"id": 1.5, "vector": [1]}'), Metric.L2, "BadIdType", ("a.jsonl", 0)),
        (json_with(0, b'{"id": 1, "vector": ["a"]}'), Metric.L2, "BadVectorType", ("a.jsonl", 0)),
        (json_with(0, b'{"id": 1, "vector": []}'), Metric.L2, "BadVectorType", ("a.jsonl", None)),
        (json_with(61, b"nonsense"), Metric.L2, "BadLine", ("a.jsonl", 61)),
        (json_with(61, b""), Metric.L2, "BadLine", ("a.jsonl", 61)),
        (json_with(61, b'{"id": 1, "vector": [1]} {"id": 2}'), Metric.L2, "BadLine", ("a.jsonl", 61)),
        (json_with(61, b'{"id": "a", "vector": [1]}'), Metric.L2, "BadLine", ("a.jsonl", 61)),
        (json_with(61, b'{"id": 9223372036854775808, "vector": [1]}'), Metric.L2, "BadLine", ("a.jsonl", 61)),
        (json_with(61, b'{"id": 1, "vector": [1, "2"]}'), Metric.L2, "BadLine", ("a.jsonl", 61)),
        (json_with(61, b'{"id": 61, "vector": [1]}'), Metric.L2, "MixedDimensions", ("a.jsonl", 61)),
        (json_with(61, b'{"id": 61, "vector": [1,2,3,4,5,6,7,null]}'), Metric.L2, "NullVector", ("a.jsonl", 61)),
        (json_with(61, b'{"id": 61}'), Metric.L2, "NullVector", ("a.jsonl", 61)),
        (json_with(61, b'{"vector": [1,2,3,4,5,6,7,8]}'), Metric.L2, "NullId", ("a.jsonl", 61)),
        (json_with(61, b'{"id": 7, "vector": [1,2,3,4,5,6,7,8]}'), Metric.L2, "DuplicateId", ("a.jsonl", 61)),
        (json_with(61, b'{"id": 61, "vector": [1e39,2,3,4,5,6,7,8]}'), Metric.L2, "NonFiniteVector", ("a.jsonl", 61)),
        (damaged("a.jsonl.gz", gzip.compress(b" " * (20 << 20))), Metric.L2, "CorruptFile", ("a.jsonl.gz", 0)),
        (
            damaged("a.jsonl.zst", pa.compress(b'{"id": 1, "vector": [1]}\n' * 400_000, "zstd", asbytes=True)),
            Metric.L2,
            "CorruptFile",
            ("a.jsonl.zst", None),
        ),
    ],
)
def test_bad_data_is_named(
    tmp_path: Path, make: Callable[[Path], None], metric: Metric, reason: str, where: tuple[str, int | None]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    make(folder)
    with pytest.raises(TaskError) as caught:
        stage(opened(folder, metric=metric), out)
    failure = caught.value.failure
    assert (failure.reason, failure.object) == (reason, where[0])
    if reason != "CorruptFile" or where[1] is not None:
        assert failure.row == where[1]
    assert caught.value.exit_code == (ExitCode.BAD_SPEC if reason == "UnknownColumn" else ExitCode.BAD_DATA)
    assert failure.message
    assert failure.remedy


@pytest.mark.parametrize(("name", "dtype", "write"), WRITERS[:8], ids=[name for name, _, _ in WRITERS[:8]])
def test_object_changed_after_the_listing(tmp_path: Path, name: str, dtype: str, write: Writer) -> None:
    write(tmp_path / name, numbers(dtype))
    source = opened(tmp_path)
    (tmp_path / name).unlink()
    write(tmp_path / name, numbers(dtype, seed=1))
    with pytest.raises(SourceChanged):
        drain(source)
