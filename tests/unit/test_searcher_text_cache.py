"""Vectors that are found in the cache of texts: the right ones, in few reads."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vectorindex_searcher.artifact.layout import Layout
from vectorindex_searcher.build.text_cache import Keys, TextCache, keys_of
from vectorindex_searcher.contract import Identity
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role

COUNT, DIMENSION = 20_000, 64
KEYS = keys_of([f"text {number}" for number in range(COUNT)])
VECTORS = np.random.default_rng(0).standard_normal((COUNT, DIMENSION)).astype(np.float32)
CUT = np.arange(COUNT) % 3 == 0


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[TextCache]:
    found = TextCache(FolderStore(tmp_path / "out", Role.ARTIFACTS), Layout("", Identity(name="n")), "m", 64, tmp_path)
    for start in range(0, COUNT, 4096):
        found.add(*(column[start : start + 4096] for column in (KEYS, VECTORS, CUT)))
    yield found
    found.close()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each."""
    sizes: list[int] = []
    plain = os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        sizes.append(size)
        return plain(fd, size, offset)

    monkeypatch.setattr(os, "pread", counted)
    return sizes


@pytest.mark.parametrize(
    "asked",
    [
        np.arange(COUNT),
        np.random.default_rng(1).permutation(COUNT),
        np.random.default_rng(2).choice(COUNT, 700, replace=False),
        np.array([7, COUNT - 1, 0, 7]),
        np.arange(0),
    ],
    ids=["all", "in another order", "some", "the ends", "none"],
)
def test_each_key_has_its_vector(cache: TextCache, asked: np.ndarray) -> None:
    keys = np.concatenate([KEYS[asked], keys_of(["nobody knows this"])])
    known, vectors, cut = cache.find(keys)
    assert known.tolist() == [True] * len(asked) + [False]
    np.testing.assert_array_equal(vectors, VECTORS[asked])
    np.testing.assert_array_equal(cut, CUT[asked])


def test_what_lies_side_by_side_is_read_at_once_and_nothing_else(cache: TextCache, reads: list[int]) -> None:
    row = 4 * DIMENSION + 1
    cache.find(KEYS[np.random.default_rng(1).permutation(COUNT)])
    assert reads == [COUNT * row]
    reads.clear()
    cache.find(KEYS[[9, 3, 12, 10, 4]])
    assert reads == [2 * row, 2 * row, row]


def test_a_pack_that_is_known_is_not_read_back(cache: TextCache, tmp_path: Path, reads: list[int]) -> None:
    """Another build wrote the same texts: their keys say so."""
    store = FolderStore(tmp_path / "out", Role.ARTIFACTS)
    cache.flush()
    other = TextCache(store, Layout("", Identity(name="n")), "m", DIMENSION, tmp_path / "out")
    reads.clear()
    (pack,) = [item for item in store.list("") if item.key.endswith(".parquet")]
    other._take(pack.key, Path(pack.key).stem)
    other.close()
    assert (len(other), reads) == (COUNT, [pack.size]), "the pack itself, and no vector of ours"


def by_one(cache: TextCache, keys: Keys) -> np.ndarray:
    """As it was: a read for each key."""
    places = cache._places.find(keys)
    data = b"".join(cache._read_rows(place, 1) for place in places.tolist())
    return np.frombuffer(data, np.uint8).reshape(len(keys), -1)


def cpu(work: object) -> float:
    began = time.process_time()
    work()  # type: ignore[operator]
    return time.process_time() - began


def test_it_takes_less_cpu_than_a_read_for_each(cache: TextCache) -> None:
    keys = KEYS[np.random.default_rng(1).permutation(COUNT)]
    ours = min(cpu(lambda: cache.find(keys)) for _ in range(5))
    theirs = min(cpu(lambda: by_one(cache, keys)) for _ in range(5))
    assert ours < theirs, (ours, theirs)
