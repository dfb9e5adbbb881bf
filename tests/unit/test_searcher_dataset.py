"""Sources: listing, readers, and every way data can be bad, each named by object and row."""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vectorindex_searcher.contract import Columns, Embedding, ExitCode, Identity, Metric, ResolveTask
from vectorindex_searcher.dataset import blocks as blocks_module
from vectorindex_searcher.dataset import duplicates, parquet_file
from vectorindex_searcher.dataset.listing import fingerprint, list_source
from vectorindex_searcher.dataset.resolve import resolve
from vectorindex_searcher.dataset.source import Source, open_source
from vectorindex_searcher.dataset.stage import stage
from vectorindex_searcher.errors import BadData, SourceChanged, TaskError
from vectorindex_searcher.index.rows import Ids
from vectorindex_searcher.index.vectors import VectorFile, VectorWriter
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.prefetch import prefetch
from vectorindex_searcher.storage.store import Role

Rows = npt.NDArray[np.float32]


def rows(count: int, dimension: int = 8, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


def fixed(vectors: Rows, kind: pa.DataType | None = None) -> pa.Array:
    flat = pa.array(vectors.ravel()).cast(kind) if kind else pa.array(vectors.ravel())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def write(path: Path, vectors: pa.Array | Rows, ids: object = None, **columns: object) -> None:
    vector = fixed(vectors) if isinstance(vectors, np.ndarray) else vectors
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = range(len(vector)) if ids is None else ids
    pq.write_table(pa.table({"id": ids, "vector": vector, **columns}), path, row_group_size=40)


def opened(folder: Path, *, metric: Metric = Metric.COSINE, dimension: int | None = None, **columns: object) -> Source:
    store = FolderStore(folder, Role.SOURCE)
    embedding = Embedding(metric=metric, dimension=dimension)
    return open_source(store, list_source(store), Columns(**columns), embedding)


def drain(source: Source) -> tuple[Rows, list[object]]:
    found = list(source.blocks())
    ids = [value for block in found if block.ids is not None for value in block.ids.to_pylist()]
    return np.concatenate([block.vectors for block in found]), ids


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
@pytest.mark.parametrize("shape", ["fixed", "list", "large"])
def test_parquet_of_any_float_width_and_list_type(tmp_path: Path, kind: pa.DataType, shape: str) -> None:
    vectors = rows(100).astype(np.float16).astype(np.float32)
    column = fixed(vectors, kind)
    if shape != "fixed":
        column = column.cast(pa.list_(kind) if shape == "list" else pa.large_list(kind))
    write(tmp_path / "a.parquet", column)
    source = opened(tmp_path)
    assert (source.rows, source.dimension, source.half) == (100, 8, kind == pa.float16())
    found, ids = drain(source)
    np.testing.assert_array_equal(found, vectors)
    assert ids == list(range(100))


def test_parquet_string_ids_dictionaries_metadata_and_several_objects(tmp_path: Path) -> None:
    write(tmp_path / "b.parquet", rows(5, seed=1), ["x", "y", "z", "u", "v"], lang=pa.array(["de"] * 5))
    write(
        tmp_path / "a.parquet",
        rows(4),
        pa.array(["a", "b", "c", "d"], pa.large_string()),
        lang=pa.array(["en"] * 4).dictionary_encode(),
    )
    source = opened(tmp_path, metadata=("lang",))
    assert str(source.id_type) == "string"
    found, ids = drain(source)
    assert ids == list("abcdxyzuv")
    assert len(found) == 9
    assert source.locate(4) == ("b.parquet", 0)
    langs = [value for block in source.blocks() for value in block.metadata.column("lang").to_pylist()]
    assert langs == ["en"] * 4 + ["de"] * 5


def test_npy_ids_are_row_numbers_of_the_whole_source(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", rows(7).astype(np.float64))
    np.save(tmp_path / "b.npy", rows(3, seed=1))
    source = opened(tmp_path)
    stage(source, tmp_path)
    assert Ids(tmp_path / "ids.arrow")(np.arange(10)) == list(range(10))
    with VectorFile(tmp_path / "vectors.npy", Metric.L2) as vectors:
        np.testing.assert_array_equal(
            vectors.gather(np.array([8, 2, 8])), np.stack([rows(3, seed=1)[1], rows(7)[2]])[[0, 1, 0]]
        )


def corrupt(change: Callable[[Rows], object]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        write(folder / "a.parquet", rows(10))
        vectors = rows(90, seed=1)
        change(vectors)
        write(folder / "b.parquet", vectors, range(10, 100))

    return make


def set_row(row: int, value: float) -> Callable[[Rows], None]:
    def change(vectors: Rows) -> None:
        vectors[row, 3 if value else slice(None)] = value

    return change


def mixed_between_files(folder: Path) -> None:
    write(folder / "a.parquet", rows(10))
    write(folder / "b.parquet", rows(10, 9), range(10, 20))


def mixed_within_a_file(folder: Path) -> None:
    write(folder / "a.parquet", pa.array([[1.0, 2.0]] * 70 + [[1.0]], pa.list_(pa.float32())))


def null_vector(folder: Path) -> None:
    write(folder / "a.parquet", pa.array([[1.0, 2.0]] * 5 + [None], pa.list_(pa.float32())))


def empty_vector(folder: Path) -> None:
    write(folder / "a.parquet", pa.array([[]] * 5, pa.list_(pa.float32())))


def null_element(folder: Path) -> None:
    write(folder / "a.parquet", pa.array([[1.0, 2.0]] * 5 + [[1.0, None]], pa.list_(pa.float32(), 2)))


def null_id(folder: Path) -> None:
    write(folder / "a.parquet", rows(50), [*range(45), None, *range(46, 50)])


def duplicate_numbers(folder: Path) -> None:
    write(folder / "a.parquet", rows(50))
    write(folder / "b.parquet", rows(9, seed=1), [100, 101, 102, 17, 104, 105, 106, 107, 108])


def duplicate_strings(folder: Path) -> None:
    write(folder / "a.parquet", rows(4), ["a", "", "é", "b" * 50])
    write(folder / "b.parquet", rows(4, seed=1), ["aa", "e", "b", "b" * 50])


def truncated_parquet(folder: Path) -> None:
    write(folder / "a.parquet", rows(500))
    data = (folder / "a.parquet").read_bytes()
    (folder / "a.parquet").write_bytes(data[: len(data) // 2])


def damaged_parquet(folder: Path) -> None:
    write(folder / "a.parquet", rows(500))
    data = bytearray((folder / "a.parquet").read_bytes())
    data[4:200] = b"\xff" * 196
    (folder / "a.parquet").write_bytes(data)


def truncated_npy(folder: Path) -> None:
    np.save(folder / "a.npy", rows(500))
    data = (folder / "a.npy").read_bytes()
    (folder / "a.npy").write_bytes(data[:-8])


def overlong_npy(folder: Path) -> None:
    np.save(folder / "a.npy", rows(500))
    (folder / "a.npy").write_bytes((folder / "a.npy").read_bytes() + b"more")


def pickled_npy(folder: Path) -> None:
    np.save(folder / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def text_vectors(folder: Path) -> None:
    write(folder / "a.parquet", pa.array(["[1, 2]"] * 3))


def time_ids(folder: Path) -> None:
    write(folder / "a.parquet", rows(3), pa.array([1, 2, 3], pa.timestamp("s")))


def two_id_types(folder: Path) -> None:
    write(folder / "a.parquet", rows(3))
    write(folder / "b.parquet", rows(3), ["a", "b", "c"])


def both_formats(folder: Path) -> None:
    write(folder / "a.parquet", rows(3))
    np.save(folder / "b.npy", rows(3))


def no_objects(folder: Path) -> None:
    (folder / "README.md").write_text("no data here")
    (folder / "_SUCCESS").write_text("")


def no_rows(folder: Path) -> None:
    write(folder / "a.parquet", pa.array([], pa.list_(pa.float32(), 8)), pa.array([], pa.int64()))


@pytest.mark.parametrize(
    ("make", "metric", "reason", "where"),
    [
        (corrupt(set_row(85, np.nan)), Metric.L2, "NonFiniteVector", ("b.parquet", 85)),
        (corrupt(set_row(5, np.inf)), Metric.COSINE, "NonFiniteVector", ("b.parquet", 5)),
        (corrupt(set_row(41, 0)), Metric.COSINE, "ZeroVector", ("b.parquet", 41)),
        (corrupt(set_row(3, 1e30)), Metric.L2, "VectorTooLarge", ("b.parquet", 3)),
        (mixed_between_files, Metric.L2, "MixedDimensions", ("b.parquet", None)),
        (mixed_within_a_file, Metric.L2, "MixedDimensions", ("a.parquet", 70)),
        (null_vector, Metric.L2, "NullVector", ("a.parquet", 5)),
        (empty_vector, Metric.L2, "EmptyVector", ("a.parquet", 0)),
        (null_element, Metric.L2, "NullVector", ("a.parquet", 5)),
        (null_id, Metric.L2, "NullId", ("a.parquet", 45)),
        (duplicate_numbers, Metric.L2, "DuplicateId", ("b.parquet", 3)),
        (duplicate_strings, Metric.L2, "DuplicateId", ("b.parquet", 3)),
        (truncated_parquet, Metric.L2, "CorruptFile", ("a.parquet", None)),
        (damaged_parquet, Metric.L2, "CorruptFile", ("a.parquet", None)),
        (truncated_npy, Metric.L2, "CorruptFile", ("a.npy", None)),
        (overlong_npy, Metric.L2, "CorruptFile", ("a.npy", None)),
        (pickled_npy, Metric.L2, "BadVectorType", ("a.npy", None)),
        (text_vectors, Metric.L2, "BadVectorType", ("a.parquet", None)),
        (time_ids, Metric.L2, "BadIdType", ("a.parquet", None)),
        (two_id_types, Metric.L2, "MixedTypes", ("b.parquet", None)),
        (both_formats, Metric.L2, "MixedFormats", ("b.npy", None)),
        (no_objects, Metric.L2, "EmptySource", (None, None)),
        (no_rows, Metric.L2, "EmptySource", (None, None)),
    ],
)
def test_bad_data_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], None],
    metric: Metric,
    reason: str,
    where: tuple[str | None, int | None],
) -> None:
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 32 * 4 * 8)  # several blocks a file
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    make(folder)
    with pytest.raises(TaskError) as caught:
        stage(opened(folder, metric=metric), out)
    failure = caught.value.failure
    assert (failure.reason, failure.object, failure.row) == (reason, *where)
    missing = reason == "EmptySource"
    assert caught.value.exit_code == (ExitCode.SOURCE_MISSING if missing else ExitCode.BAD_DATA)
    assert failure.message


def test_zero_vector_is_fine_without_cosine_and_tiny_ones_are_fine_with_it(tmp_path: Path) -> None:
    vectors = rows(5)
    vectors[2] = 0
    write(tmp_path / "l2" / "a.parquet", vectors)
    drain(opened(tmp_path / "l2", metric=Metric.L2))
    vectors[2] = 1e-30
    write(tmp_path / "cosine" / "a.parquet", vectors)
    drain(opened(tmp_path / "cosine"))


def test_a_large_page_is_refused_and_a_large_row_group_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is read whole, the row group is not: what is refused is what would take the memory."""
    monkeypatch.setattr(parquet_file, "BUFFER_BYTES", 1 << 12)
    monkeypatch.setattr(parquet_file, "LARGEST_PAGE_BYTES", 1 << 16)
    vectors = rows(5000, 16)  # 320 kB in one row group
    table = pa.table({"id": range(5000), "vector": fixed(vectors)})
    for name, page in (("small", 1 << 14), ("large", 1 << 20)):
        (tmp_path / name).mkdir()
        where = tmp_path / name / "a.parquet"
        pq.write_table(table, where, data_page_size=page, write_batch_size=256, use_dictionary=False)
        assert pq.ParquetFile(where).num_row_groups == 1
    np.testing.assert_array_equal(drain(opened(tmp_path / "small"))[0], vectors)
    with pytest.raises(BadData) as caught:
        drain(opened(tmp_path / "large"))
    failure = caught.value.failure
    assert (failure.reason, failure.object) == ("PageTooLarge", "a.parquet")
    assert " at byte " in failure.message
    assert "data_page_size" in (failure.remedy or "")


def test_unknown_column_lists_the_columns_there_are(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", rows(3), title=["a", "b", "c"])
    for name, columns in (("vector", {"vector": "emb"}), ("id", {"id": "key"}), ("metadata", {"metadata": ("lang",)})):
        with pytest.raises(TaskError) as caught:
            opened(tmp_path, **columns)
        failure = caught.value.failure
        assert (failure.reason, failure.field) == ("UnknownColumn", f"spec.source.columns.{name}")
        assert "id, vector, title" in failure.message
        assert caught.value.exit_code == ExitCode.BAD_SPEC


def test_declared_dimension_is_held_against_the_data(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", rows(3))
    with pytest.raises(BadData) as caught:
        opened(tmp_path, dimension=384)
    assert caught.value.reason == "DimensionMismatch"
    assert "8" in str(caught.value)
    assert "384" in str(caught.value)


def test_fingerprint_changes_with_key_size_and_content(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, Role.SOURCE)
    store.put("a.parquet", b"1")
    store.put("b.parquet", b"2")
    first = list_source(store)
    assert list_source(store) == first
    assert fingerprint(first.objects[::-1]) == first.fingerprint
    store.put("b.parquet", b"3")
    second = list_source(store)
    store.put("_log", b"ignored")
    assert list_source(store) == second
    assert second.fingerprint != first.fingerprint


def test_object_changed_after_the_listing(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", rows(300))
    source = opened(tmp_path)
    write(tmp_path / "a.parquet", rows(300, seed=1))
    with pytest.raises(SourceChanged) as caught:
        drain(source)
    assert (caught.value.exit_code, caught.value.failure.object) == (ExitCode.RETRY, "a.parquet")


def test_resolve_counts_without_reading_rows(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.parquet", rows(30))
    write(tmp_path / "in" / "b.parquet", rows(12), range(30, 42))
    source, artifacts = {"folder": str(tmp_path / "in")}, {"folder": str(tmp_path / "out")}
    task = ResolveTask(identity=Identity(name="n"), source=source, artifacts=artifacts)
    result = resolve(task)
    assert (result.objects, result.rows, result.dimension) == (2, 42, 8)
    assert (tmp_path / "out" / "local" / "n" / "listings" / f"{result.fingerprint}.json").is_file()
    assert resolve(task) == result


@pytest.mark.parametrize("count", [0, 1, 3000])
def test_duplicates_are_found_in_every_slice_of_the_hash_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(duplicates, "SLICE_HASHES", 100)
    texts = [f"doc-{number}" for number in range(count)]
    hashes = duplicates.hash_ids(pa.array(texts, pa.string()))
    assert len(np.unique(hashes)) == count
    path = tmp_path / "hashes"
    for position in range(1, count, 277):
        texts[position] = texts[0]
        duplicates.hash_ids(pa.array(texts, pa.string())).tofile(path)
        found = duplicates.find_duplicate(path, count, lambda numbers: [texts[number] for number in numbers])
        assert found == (0, position)
        texts[position] = f"doc-{position}"
    duplicates.hash_ids(pa.array(texts, pa.string())).tofile(path)
    assert duplicates.find_duplicate(path, count, lambda numbers: [texts[number] for number in numbers]) is None


def test_equal_hashes_of_different_ids_are_no_duplicates(tmp_path: Path) -> None:
    np.array([7, 7, 8], np.uint64).tofile(tmp_path / "hashes")
    assert duplicates.find_duplicate(tmp_path / "hashes", 3, lambda numbers: [f"{n}" for n in numbers]) is None


def test_string_hash_does_not_depend_on_slicing() -> None:
    texts = pa.array(["", "a", "ab", "ba", "b", "", "aé"], pa.string())
    whole = duplicates.hash_ids(texts)
    np.testing.assert_array_equal(duplicates.hash_ids(texts.slice(2, 4)), whole[2:6])
    assert len(np.unique(whole)) == 6


def test_prefetch_is_one_block_ahead_and_never_more() -> None:
    made: list[int] = []

    def blocks() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            yield number

    ahead = 0
    for number in prefetch(blocks()):
        end = time.monotonic() + 60
        while len(made) < number + 2:
            assert time.monotonic() < end, "no block is read ahead"
            time.sleep(0.001)
        time.sleep(0.005)
        ahead = max(ahead, len(made) - number - 1)
        if number == 6:
            break
    assert ahead == 1

    def failing() -> Iterator[int]:
        yield 1
        raise SourceChanged("a")

    with pytest.raises(SourceChanged):
        list(prefetch(failing()))


def test_nothing_is_read_ahead_of_a_large_block() -> None:
    """Two of 256 MiB and a third that is made took what the budget of a build has not."""
    alive: list[int] = []
    most = 0

    class Item:
        def __init__(self, size: int) -> None:
            nonlocal most
            alive.append(size)
            most = max(most, sum(alive))
            self.size = size

        def __del__(self) -> None:
            alive.remove(self.size)

    sizes = [1, 100, 1, 1, 100, 100, 1] * 20
    seen = []
    for item in prefetch(map(Item, sizes), lambda item: item.size, 1):
        seen.append(item.size)
        if item.size == 1 and len(seen) < len(sizes):
            end = time.monotonic() + 60
            while len(alive) < 2:
                assert time.monotonic() < end, "no block is read ahead of a small one"
                time.sleep(0.001)
        del item
    assert seen == sizes
    assert most <= 101, "a large one, and a small one beside it"


def test_streaming_needs_a_few_blocks_of_memory_whatever_the_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 256 << 10)
    np.save(tmp_path / "a.npy", rows(60_000, 64))  # 15 MiB, 60 blocks
    (tmp_path / "out").mkdir()
    source = opened(tmp_path)
    tracemalloc.start()
    try:
        stage(source, tmp_path / "out")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Two blocks, their masks, and 8 bytes for each id of a pending batch.
    assert peak < 4 << 20, f"{peak / 2**20:.1f} MiB"


def test_rows_gathered_from_a_large_file_do_not_stay_in_memory(tmp_path: Path) -> None:
    count, dimension = 60_000, 128
    data = rows(count, dimension)  # 29 MiB
    with VectorWriter(tmp_path / "vectors.npy", count, dimension, half=False) as writer:
        writer.write(data)
    chosen = np.random.default_rng(1).integers(0, count, 3000)
    with VectorFile(tmp_path / "vectors.npy", Metric.L2) as vectors:
        np.testing.assert_array_equal(vectors.gather(chosen), data[chosen])
        np.testing.assert_array_equal(vectors.gather(np.array([5, 1, 5])), data[[5, 1, 5]])
        np.testing.assert_array_equal(np.concatenate([block for _, block in vectors.blocks()]), data)
        mapped = _mapped_bytes(tmp_path / "vectors.npy")
    assert mapped < 1 << 20, f"{mapped / 2**20:.1f} MiB of the file are still mapped into this process"


def test_a_file_that_became_shorter_is_no_end_of_the_process(tmp_path: Path) -> None:
    """Of a mapped one it would be: a bus error."""
    path = tmp_path / "vectors.npy"
    with VectorWriter(path, 3000, 128, half=False) as writer:
        writer.write(rows(3000, 128))
    with VectorFile(path, Metric.L2) as vectors:
        os.truncate(path, path.stat().st_size - 100)
        assert len(vectors.gather(np.array([7, 2998]))) == 2
        with pytest.raises(BadData, match="ended before"):
            vectors.gather(np.array([7, 2999]))


def _mapped_bytes(path: Path) -> int:
    """Resident bytes of a file's mappings in this process."""
    maps = Path("/proc/self/smaps").read_text().split(str(path))[1:]
    return sum(int(part.split("Rss:")[1].split()[0]) * 1024 for part in maps)
