"""What every store promises, as tests: one class, with a subclass a kind of store, where its server can be had.

Where: a folder and a volume in tests/unit, S3 in tests/apiserver, the others in tests/stores (`make test-stores`).

A subclass has a fixture `opened`: a function that opens the store of a role at one place, the same each time, which is
empty when the test begins and below which only the test writes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vectorindex_searcher.errors import SourceChanged
from vectorindex_searcher.storage.download import Wanted, download, hash_range
from vectorindex_searcher.storage.store import ObjectInfo, Role, Store, join_key, require_exclusive_put

Opened = Callable[[Role], Store]
WRITERS = 8


def below(store: Store) -> dict[str, ObjectInfo]:
    """What lies at its place, by key without the prefix."""
    return {item.key.removeprefix(f"{store.prefix}/"): item for item in store.list(store.prefix)}


class StorePromises:
    """See `vectorindex_searcher.storage.store.Store`."""

    many = 1005
    """More objects than a server tells of in one answer."""

    def test_what_is_written_is_listed_with_its_size_and_found(self, opened: Opened) -> None:
        store, began = opened(Role.ARTIFACTS), time.time()
        keys = [join_key(store.prefix, name) for name in ("a/one", "a/b/two", "three")]
        for number, key in enumerate(keys):
            assert store.put(key, b"x" * number)
        found = below(store)
        assert {name: item.size for name, item in found.items()} == {"a/one": 0, "a/b/two": 1, "three": 2}
        for key in keys:
            head = store.head(key)
            item = found[key.removeprefix(f"{store.prefix}/")]
            assert head is not None
            assert (head.key, head.size, head.etag) == (key, item.size, item.etag)
            assert began - 3 < item.modified < time.time() + 3
        assert store.head(join_key(store.prefix, "a")) is None, "a folder is no object"

    def test_a_neighbour_with_the_same_beginning_is_not_listed(self, opened: Opened) -> None:
        store = opened(Role.ARTIFACTS)
        inside, beside = join_key(store.prefix, "v1/a"), join_key(store.prefix, "v10/b")
        store.put(inside, b"1")
        store.put(beside, b"2")
        place = join_key(store.prefix, "v1")
        assert [item.key for item in store.list(place)] == [inside]
        assert [item.key for item in store.list(inside)] == [inside], "an object is a place, too"
        assert list(store.list(join_key(store.prefix, "v"))) == []

    def test_one_of_many_writers_creates_an_object(self, opened: Opened) -> None:
        store = opened(Role.ARTIFACTS)
        key, barrier, won = join_key(store.prefix, "d/manifest.json"), threading.Barrier(WRITERS), []

        def write(number: int) -> None:
            mine = opened(Role.ARTIFACTS)
            barrier.wait()
            if mine.put(key, b"%d" % number, exclusive=True):
                won.append(number)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert store.read(key) == b"%d" % won[0]
        assert list(below(store)) == ["d/manifest.json"], "and nothing else is left"
        require_exclusive_put(store, join_key(store.prefix, "probe"))

    def test_a_read_is_of_what_was_listed_or_fails(self, opened: Opened) -> None:
        store = opened(Role.ARTIFACTS)
        key = join_key(store.prefix, "a")
        store.put(key, b"first")
        item = below(store)["a"]
        assert store.read(key, etag=item.etag) == b"first"
        time.sleep(0.01)
        store.put(key, b"other")
        with pytest.raises(SourceChanged):
            store.read(key, etag=item.etag)
        with pytest.raises(SourceChanged):
            b"".join(store.stream(key, etag=item.etag))
        store.delete(key)
        with pytest.raises(SourceChanged):
            store.read(key, etag=item.etag)
        with pytest.raises(FileNotFoundError):
            store.read(key)
        with pytest.raises(FileNotFoundError):
            b"".join(store.stream(key))
        assert store.head(key) is None

    def test_ranges(self, opened: Opened) -> None:
        store = opened(Role.ARTIFACTS)
        key, data = join_key(store.prefix, "r"), bytes(range(256))
        store.put(key, data)
        etag = below(store)["r"].etag
        assert store.read(key, etag=etag, offset=10, length=5) == data[10:15]
        assert store.read(key, etag=etag, offset=250) == data[250:]
        assert store.read(key, offset=250, length=100) == data[250:]
        assert store.read(key, offset=0, length=0) == b""
        assert store.read(key, offset=256, length=4) == b""

    def test_files_arrive_whole_and_in_ranges(self, opened: Opened, tmp_path: Path) -> None:
        store, size = opened(Role.ARTIFACTS), (5 << 20) + 7
        path = tmp_path / "index.faiss"
        path.write_bytes((bytes(range(251)) * (size // 251 + 1))[:size])
        key = join_key(store.prefix, "d/index.faiss")
        store.upload(key, path)
        assert b"".join(store.stream(key)) == path.read_bytes()
        target = tmp_path / "fetched"
        sha256 = hash_range(path, 0, size)
        (fetched,) = download(store, [Wanted(key, "index.faiss", size, sha256, target)], range_bytes=1 << 20, window=3)
        assert fetched.target.read_bytes() == path.read_bytes()

    def test_what_is_removed_is_gone_and_may_be_removed_again(self, opened: Opened) -> None:
        store = opened(Role.ARTIFACTS)
        keys = [join_key(store.prefix, f"d/{number}") for number in range(5)]
        for key in keys:
            store.put(key, b"x")
        assert store.delete_many(keys[:4]) == {}
        assert store.delete_many(keys[:1]) == {}
        store.delete(keys[0])
        assert list(below(store)) == ["d/4"]

    def test_more_objects_than_a_page_are_listed_once_each(self, opened: Opened) -> None:
        store = opened(Role.ARTIFACTS)
        names = {f"many/{number:04}" for number in range(self.many)}
        for name in names:
            store.put(join_key(store.prefix, name), b"x")
        listed = [item.key for item in store.list(join_key(store.prefix, "many"))]
        assert len(listed) == len(set(listed)) == len(names)
        assert store.delete_many(listed) == {}
        assert below(store) == {}

    def test_names_of_people(self, opened: Opened) -> None:
        store = opened(Role.ARTIFACTS)
        names = {"mit leer/zeichen.parquet", "ü/日本.parquet", "a+b=c&d.parquet", "100%.parquet", "#1?.parquet"}
        for name in names:
            store.put(join_key(store.prefix, name), name.encode())
        assert set(below(store)) == names
        for item in store.list(store.prefix):
            assert store.read(item.key, etag=item.etag).decode() == item.key.removeprefix(f"{store.prefix}/")
