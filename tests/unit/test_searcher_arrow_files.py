"""Arrow files of an artifact: compressed buffers are refused before anything is decompressed."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from vectorindex_searcher.errors import BadData
from vectorindex_searcher.index.arrow_files import open_buffer, open_mapped, read_table
from vectorindex_searcher.index.rows import Ids, RowFile, RowWriter
from vectorindex_searcher.proof.canary import read_canary
from vectorindex_searcher.proof.measured import read_measured
from vectorindex_searcher.proof.queries import read_held_out

SOURCE = Path(__file__).parents[2] / "searcher" / "vectorindex_searcher"
BOMB = 64 << 20
READERS: dict[str, Callable[[Path], Any]] = {
    "ids": Ids,
    "metadata": RowFile,
    "canary": read_canary,
    "held out": read_held_out,
    "measured": read_measured,
}


def written(path: Path, column: pa.Array, codec: str | None, batches: int = 1) -> Path:
    options = pa.ipc.IpcWriteOptions(compression=codec)
    table = pa.table({"id": column})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        for _ in range(batches):
            writer.write_table(table)
    return path


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("name", list(READERS))
def test_a_compressed_file_is_refused_before_it_takes_memory(tmp_path: Path, name: str, codec: str) -> None:
    zeros = pa.array([0]).take(pa.array([0] * (BOMB // 8)))
    path = written(tmp_path / "x.arrow", zeros, codec)
    assert path.stat().st_size < BOMB // 100
    del zeros
    pool = pa.default_memory_pool()
    before = pool.total_bytes_allocated()
    with pytest.raises(BadData, match="compressed") as caught:
        READERS[name](path)
    assert (caught.value.reason, caught.value.failure.object) == ("BadArtifact", "x.arrow")
    assert pool.total_bytes_allocated() - before < 1 << 20


def test_what_arrow_0_17_called_compressed_is_refused_too(tmp_path: Path) -> None:
    """It said so beside a message of an older version, not in it, and Arrow still reads that."""
    packed = struct.pack("<q", BOMB) + pa.Codec("zstd").compress(bytes(BOMB), asbytes=True)
    column = pa.Array.from_buffers(pa.int8(), len(packed), [None, pa.py_buffer(packed)])
    batch = pa.RecordBatch.from_arrays([column], ["id"])
    old = pa.ipc.IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V4)
    path = tmp_path / "x.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema, options=old) as writer:
        writer.write_batch(batch, custom_metadata={"ARROW:experimental_compression": "ZSTD"})
    assert path.stat().st_size < BOMB // 100
    with pytest.raises(pa.ArrowInvalid, match="version"):
        open_mapped(path)


def test_a_compressed_dictionary_is_refused(tmp_path: Path) -> None:
    words = pa.array(["a" * 1000, "b"]).dictionary_encode()
    for codec in ("zstd", None):
        path = written(tmp_path / "x.arrow", words, codec)
        if codec:
            with pytest.raises(pa.ArrowInvalid, match="compressed"):
                open_mapped(path)
        else:
            assert read_table(path).column("id").to_pylist() == words.to_pylist()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 2, 3]),
        pa.array(["a", None, "c"]),
        pa.array([[1], [], None]),
        pa.array([{"x": 1.0, "y": "z"}]),
        pa.nulls(5),
        pa.array(["a long text that is no inline view"], pa.string_view()),
        pa.array([], pa.string()),
    ],
    ids=str,
)
@pytest.mark.parametrize("batches", [0, 1, 3])
def test_what_builds_write_is_opened(tmp_path: Path, column: pa.Array, batches: int) -> None:
    path = written(tmp_path / "x.arrow", column, None, batches)
    assert read_table(path).column("id").to_pylist() == column.to_pylist() * batches


def test_a_file_that_is_cut_or_leads_outside_is_refused(tmp_path: Path) -> None:
    """Wherever one of its bytes is another: no other error than Arrow's own."""
    whole = written(tmp_path / "x.arrow", pa.array(["a", "b"]), None, 2).read_bytes()
    for at in range(len(whole)):
        for value in (0, 127, 255):
            data = whole[:at] + bytes([value]) + whole[at + 1 :]
            try:
                open_buffer(pa.py_buffer(data))
            except (pa.ArrowException, OSError):
                continue
    for length in range(0, len(whole), 7):
        with pytest.raises((pa.ArrowException, OSError)):
            open_buffer(pa.py_buffer(whole[:length]))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[("a", None), ("b", None)]], pa.map_("string", pa.null())),
        pa.array(
            [[{"a": "x", "b": None}, {"a": "y", "b": None}]], pa.list_(pa.struct([("a", "string"), ("b", pa.null())]))
        ),
        pa.array([[None, None, None]], pa.list_(pa.null())),
        pa.array([{"a": "x", "b": [None, None]}], pa.struct([("a", "string"), ("b", pa.list_(pa.null()))])),
    ],
    ids=["map", "structs", "list", "list in a struct"],
)
def test_what_is_null_in_every_row_is_opened(tmp_path: Path, column: pa.Array) -> None:
    """Arrow's view of a nested column loses the length of nulls inside it: what a build had written was refused."""
    with RowWriter(tmp_path / "x.arrow", pa.schema([("x", column.type)]), 10) as writer:
        writer.write(pa.table({"x": column}))
    assert RowFile(tmp_path / "x.arrow").table().column("x").to_pylist() == column.to_pylist()


def test_nobody_opens_arrow_files_by_another_way() -> None:
    """One that does would decompress what is in it. Fresh rows go from one process of a pod to another in memory."""
    opening = re.compile(r"\bipc\.(open_|RecordBatch\w*Reader|read_record_batch)|\bfeather\b")
    found = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if opening.search(path.read_text())}
    assert found == {"index/arrow_files.py", "index/fresh.py"}
