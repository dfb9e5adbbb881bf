"""Parquet's pages are followed while pyarrow reads them, whatever wrote them, and refused before they take memory."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cost import in_a_process_of_its_own

from vectorindex_searcher.contract import Columns, Embedding, Metric
from vectorindex_searcher.dataset import page_headers, parquet, parquet_file
from vectorindex_searcher.dataset.listing import list_source
from vectorindex_searcher.dataset.source import open_source
from vectorindex_searcher.dataset.tombstones import list_tombstones, read_tombstones
from vectorindex_searcher.errors import TaskError
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role

COUNT = 3000


def read(folder: Path, *metadata: str) -> int:
    """Rows read, by the way of a build."""
    store = FolderStore(folder, Role.SOURCE)
    source = open_source(store, list_source(store), Columns(metadata=metadata), Embedding(metric=Metric.L2))
    return sum(len(block.vectors) for block in source.blocks())


WRITERS: dict[str, dict[str, Any]] = {
    "small pages": {"data_page_size": 1000},
    "version 2": {"data_page_version": "2.0", "data_page_size": 5000},
    "no dictionary": {"use_dictionary": False, "data_page_size": 700},
    "row groups": {"row_group_size": 100},
    "zstd": {"compression": "zstd"},
    "plain": {"compression": "none", "write_statistics": False},
    "checksums": {"write_page_checksum": True, "data_page_size": 3000},
    "page index": {"write_page_index": True, "data_page_size": 3000},
    "bloom": {"bloom_filter_options": {"text": True}},
}


@pytest.mark.parametrize("buffer", [1 << 20, 1000, 64])
@pytest.mark.parametrize("name", list(WRITERS))
def test_every_page_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, buffer: int) -> None:
    """The values of a column's data pages are all its values: none was missed, nothing else taken for one."""
    seen: list[int] = []
    lost: list[object] = []
    check, take = page_headers._check, page_headers.Stream.take

    def note(position: int, found: page_headers.Found, refuse: Any) -> int:
        seen.append(found.get((5, 1), 0) + found.get((8, 1), 0))
        return check(position, found, refuse)

    def follow(self: page_headers.Stream, *arguments: Any) -> None:
        take(self, *arguments)
        lost.extend([arguments[0]] if self._lost else [])

    monkeypatch.setattr(page_headers, "_check", note)
    monkeypatch.setattr(page_headers.Stream, "take", follow)
    monkeypatch.setattr(parquet_file, "BUFFER_BYTES", buffer)
    text = [f"text {number % 50} " * (number % 7) for number in range(COUNT)]
    table = pa.table({"id": range(COUNT), "vector": np.random.default_rng(0).random((COUNT, 4)).tolist(), "text": text})
    options = dict(WRITERS[name])
    if "bloom_filter_options" in options and "bloom_filter_options" not in pq.write_table.__doc__:
        pytest.skip("this pyarrow writes none")
    pq.write_table(table, tmp_path / "a.parquet", **options)
    assert read(tmp_path, "text") == COUNT
    # (The first vector is read once more, for its length: the pages up to it.)
    first = sum(seen) - 6 * COUNT
    assert 0 <= first <= 4 * COUNT
    assert not lost


BOMBS: dict[str, dict[str, Any]] = {
    "data page": {"use_dictionary": False},
    "dictionary page": {"use_dictionary": ["x"]},
    "version 2": {"use_dictionary": False, "data_page_version": "2.0"},
}


@pytest.mark.parametrize("name", list(BOMBS))
def test_a_page_that_decompresses_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(page_headers, "LARGEST_CONTENT_BYTES", 1 << 20)
    table = pa.table({"id": [1, 2], "vector": [[1.0], [2.0]], "x": ["a" * (2 << 20), "b"]})
    options = {"compression": "zstd", "write_statistics": False, "dictionary_pagesize_limit": 8 << 20}
    pq.write_table(table, tmp_path / "a.parquet", **options, **BOMBS[name])
    assert (tmp_path / "a.parquet").stat().st_size < 10_000
    with pytest.raises(TaskError) as caught:
        read(tmp_path, "x")
    assert (caught.value.reason, caught.value.failure.object) == ("PageTooLarge", "a.parquet")
    assert "data_page_size" in str(caught.value.failure.remedy)
    assert read(tmp_path) == 2  # nobody asked for that column


def test_a_page_of_more_values_than_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_headers, "LARGEST_VALUES", 100_000)
    table = pa.table({"id": [1, 2], "vector": [[1.0], [2.0]], "x": [[0] * 200_000, []]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 10_000
    with pytest.raises(TaskError) as caught:
        read(tmp_path, "x")
    assert caught.value.reason == "PageTooLarge"


def test_pages_of_repetitions_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is small enough."""
    table = pa.table({"id": range(20), "vector": [[1.0]] * 20, "x": [[0] * 20_000] * 20})
    options: dict[str, Any] = {"data_page_size": 64, "write_batch_size": 20_000, "use_dictionary": False}
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", **options)
    assert read(tmp_path, "x") == 20
    monkeypatch.setattr(page_headers, "LARGEST_VALUES", 50_000)
    monkeypatch.setattr(page_headers, "VALUES_PER_BYTE", 1)
    with pytest.raises(TaskError, match="goes on with more values") as caught:
        read(tmp_path, "x")
    assert caught.value.reason == "PageTooLarge"


def test_a_list_of_deleted_ids_takes_no_more_memory_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A searcher reads it."""
    monkeypatch.setattr(page_headers, "LARGEST_CONTENT_BYTES", 1 << 20)
    pq.write_table(
        pa.table({"id": ["a" * (2 << 20)]}), tmp_path / "a.parquet", compression="zstd", use_dictionary=False
    )
    store = FolderStore(tmp_path, Role.TOMBSTONES)
    with pytest.raises(TaskError) as caught:
        read_tombstones(store, list_tombstones(store), "id", pa.string())
    assert caught.value.reason == "PageTooLarge"


def test_a_footer_of_a_million_columns_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {f"c{number}": pa.array([1], pa.int8()) for number in range(3000)}
    pq.write_table(pa.table({"id": [1], "vector": [[1.0]], **columns}), tmp_path / "a.parquet")
    assert read(tmp_path, "c7") == 1
    monkeypatch.setattr(parquet_file, "FOOTER_BYTES", 100_000)
    with pytest.raises(TaskError) as caught:
        read(tmp_path)
    assert caught.value.reason == "PageTooLarge"
    assert "footer" in caught.value.failure.message


def test_what_a_bomb_takes(tmp_path: Path) -> None:
    """13 kB that decompress to 400 MiB: measured in a process of its own."""
    table = pa.table({"id": [1], "vector": [[1.0]], "x": ["a" * (400 << 20)]})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False, write_statistics=False)
    program = (
        "import sys\nimport test_searcher_page_headers as test\nfrom cost import memory\n"
        "before = memory('VmHWM')\n"
        "try:\n    test.read(test.Path(sys.argv[1]), 'x')\n"
        "except test.TaskError as error:\n    assert error.reason == 'PageTooLarge'\n"
        "print(memory('VmHWM') - before)"
    )
    assert int(in_a_process_of_its_own(program, tmp_path)) < 100 << 20


def repeated(folder: Path, size: int, rows: int, groups: int = 1) -> None:
    """One long text that every row of a group refers to."""
    folder.mkdir(exist_ok=True)
    options: dict[str, Any] = {"compression": "zstd", "dictionary_pagesize_limit": 1 << 30, "store_schema": False}
    vectors = pa.array([[1.0, 2.0]] * rows)
    texts = [pa.array([letter * size]) for letter in "abcdef"[:groups]]
    columns = [pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), text) for text in texts]
    schema = pa.table({"id": [1], "vector": vectors[:1], "title": columns[0][:1]}).schema
    with pq.ParquetWriter(folder / "a.parquet", schema, use_dictionary=["title"], **options) as writer:
        for number, column in enumerate(columns):
            moved = pa.array(range(number * rows, (number + 1) * rows))
            writer.write_table(pa.table({"id": moved, "vector": vectors, "title": column}))


def test_a_long_text_that_all_rows_share_is_read_in_batches_of_fewer_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is honest: nothing is refused, nothing is read twice or left out."""
    repeated(tmp_path, 1000, 300, groups=4)
    monkeypatch.setattr(parquet_file, "LARGEST_BATCH_BYTES", 70_000)
    store = FolderStore(tmp_path, Role.SOURCE)
    source = open_source(store, list_source(store), Columns(metadata=("title",)), Embedding(metric=Metric.L2))
    blocks = list(source.blocks())
    assert {len(block.vectors) for block in blocks} == {70, 20}
    titles = [title for block in blocks for title in block.metadata.column("title").to_pylist()]
    assert titles == [letter * 1000 for letter in "abcd" for _ in range(300)]
    assert [number for block in blocks for number in block.ids.to_pylist()] == list(range(1200))


@pytest.mark.parametrize("ids", [False, True])
def test_what_a_dictionary_of_one_long_text_takes(tmp_path: Path, ids: bool) -> None:
    """Some kilobytes, and 2 GiB when each row has its text: read in a process of its own that may take 1.5 GiB."""
    repeated(tmp_path, 1 << 19, 4096)
    program = (
        "import resource, sys\nimport test_searcher_page_headers as test\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (3 << 29, 3 << 29))\n"
        + ("test.ids(test.Path(sys.argv[1]))" if ids else "assert test.read(test.Path(sys.argv[1]), 'title') == 4096")
    )
    in_a_process_of_its_own(program, tmp_path)


def ids(folder: Path) -> None:
    """The titles as ids, as duplicates and lists of the deleted read them."""
    store = FolderStore(folder, Role.SOURCE)
    assert sum(map(len, parquet.read_ids(store, list_source(store).objects[0], "title"))) == 4096


def metadata_of(folder: Path, *names: str) -> list[dict[str, Any]]:
    """All rows of the columns."""
    store = FolderStore(folder, Role.SOURCE)
    source = open_source(store, list_source(store), Columns(metadata=names), Embedding(metric=Metric.L2))
    return [row for block in source.blocks() for row in block.metadata.to_pylist()]


TAGS = [[f"tag {number % 7}"] * (number % 5) for number in range(500)]
NESTED: dict[str, pa.Array] = {
    "list": pa.array(TAGS),
    "with nulls": pa.array([tags if len(tags) % 3 else None for tags in TAGS]),
    "null texts": pa.array([[*tags, None] for tags in TAGS]),
    "lists of lists": pa.array([[tags, [], tags] for tags in TAGS]),
    "structs": pa.array([[{"a": tag, "b": 1.0} for tag in tags] for tags in TAGS]),
    "maps": pa.array(
        [[(tag + str(place), tag) for place, tag in enumerate(tags)] for tags in TAGS], pa.map_("string", "string")
    ),
    "bytes": pa.array([[tag.encode() for tag in tags] for tags in TAGS]),
    "a list in a struct": pa.array([{"tags": tags, "n": len(tags)} for tags in TAGS]),
}


@pytest.mark.parametrize("bound", [200, 4000])
@pytest.mark.parametrize("name", list(NESTED))
def test_lists_of_repeated_texts_are_read_whole_in_parts_of_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, bound: int
) -> None:
    """Whatever of them is read otherwise than usual: nothing is left out, twice, or another row's."""
    column = NESTED[name]
    vectors = np.random.default_rng(0).random((500, 4)).tolist()
    plain = [f"text {number}" for number in range(500)]
    table = pa.table({"id": range(500), "vector": vectors, "x": column, "plain": plain})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=300, data_page_size=2000)
    usual = metadata_of(tmp_path, "x", "plain")
    assert [row["plain"] for row in usual] == plain
    monkeypatch.setattr(parquet_file, "LARGEST_BATCH_BYTES", bound)
    assert metadata_of(tmp_path, "x", "plain") == usual


def longest_row(folder: Path, size: int, entries: int, rows: int = 3) -> None:
    """Rows of a list whose entries are all the one text of the dictionary."""
    folder.mkdir(exist_ok=True)
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * entries * rows, pa.int32()), pa.array(["a" * size]))
    lists = pa.ListArray.from_arrays(pa.array(range(0, entries * rows + 1, entries), pa.int32()), texts)
    table = pa.table({"id": range(rows), "vector": [[1.0, 2.0]] * rows, "title": lists})
    pq.write_table(
        table, folder / "a.parquet", compression="zstd", dictionary_pagesize_limit=1 << 30, store_schema=False
    )


@pytest.mark.parametrize("encoding", ["dictionary", "prefix"])
def test_one_row_that_repeats_a_long_text_is_refused_before_it_takes_memory(tmp_path: Path, encoding: str) -> None:
    """Some kilobytes, and 4 GiB in one row: read in a process of its own that may take 1.5 GiB."""
    size, entries = 1 << 20, 4096
    if encoding == "dictionary":
        longest_row(tmp_path, size, entries)
    else:
        lists = pa.array([["a" * size] * 256])
        options: dict[str, Any] = {
            "use_dictionary": False,
            "column_encoding": {"title.list.element": "DELTA_BYTE_ARRAY"},
        }
        table = pa.table({"id": [1], "vector": [[1.0, 2.0]], "title": pa.concat_arrays([lists])})
        pq.write_table(table, tmp_path / "a.parquet", compression="zstd", data_page_size=1 << 30, **options)
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    program = (
        "import resource, sys\nimport test_searcher_page_headers as test\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (3 << 29, 3 << 29))\n"
        "try:\n    test.read(test.Path(sys.argv[1]), 'title')\n"
        "except test.TaskError as error:\n    print(error.reason, error.failure.row, error.failure.object)\n"
    )
    assert in_a_process_of_its_own(program, tmp_path).split() in (
        ["RowTooLarge", "0", "a.parquet"],
        ["PageTooLarge", "None", "a.parquet"],
    )


def test_rows_that_each_repeat_a_text_are_read_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one row takes is allowed, what all take together is not held at once."""
    longest_row(tmp_path, 1000, 50, rows=20)
    monkeypatch.setattr(parquet_file, "LARGEST_BATCH_BYTES", 60_000)
    store = FolderStore(tmp_path, Role.SOURCE)
    source = open_source(store, list_source(store), Columns(metadata=("title",)), Embedding(metric=Metric.L2))
    assert [len(block.vectors) for block in source.blocks()] == [1] * 20
    assert metadata_of(tmp_path, "title") == [{"title": ["a" * 1000] * 50}] * 20
    monkeypatch.setattr(parquet_file, "LARGEST_BATCH_BYTES", 40_000)
    with pytest.raises(TaskError, match="title") as caught:
        metadata_of(tmp_path, "title")
    assert (caught.value.reason, caught.value.failure.row) == ("RowTooLarge", 0)
    assert read(tmp_path) == 20  # nobody asked for that column


@pytest.mark.parametrize("repeated", ["values", "pages"])
def test_one_row_of_numbers_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repeated: str
) -> None:
    """A list may be as long as its pages say, in few bytes."""
    monkeypatch.setattr(parquet_file, "LARGEST_PAGES_BYTES", 1 << 20)
    table = pa.table({"id": [1, 2], "vector": [[1.0], [2.0]], "x": [[0] * 300_000, []]})
    pages: dict[str, Any] = {"data_page_size": 64, "write_batch_size": 10_000} if repeated == "pages" else {}
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", **pages)
    with pytest.raises(TaskError) as caught:
        read(tmp_path, "x")
    assert caught.value.reason == "PageTooLarge"


def test_long_texts_that_are_compressed_are_read_in_batches_of_fewer_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page is small enough; 4,096 of them are not."""
    texts = [random.Random(number).randbytes(100).hex() * 100 for number in range(400)]
    table = pa.table({"id": range(400), "vector": [[1.0, 2.0]] * 400, "text": texts})
    options: dict[str, Any] = {"use_dictionary": False, "data_page_size": 20_000, "write_batch_size": 1}
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", **options)
    monkeypatch.setattr(parquet_file, "LARGEST_PAGES_BYTES", 3 << 20)
    monkeypatch.setattr(parquet_file, "BUFFER_BYTES", 1000)
    store = FolderStore(tmp_path, Role.SOURCE)
    source = open_source(store, list_source(store), Columns(metadata=("text",)), Embedding(metric=Metric.L2))
    blocks = list(source.blocks())
    assert max(block.metadata.nbytes for block in blocks) <= 3 << 20
    assert [text for block in blocks for text in block.metadata.column("text").to_pylist()] == texts
    assert [number for block in blocks for number in block.ids.to_pylist()] == list(range(400))
