"""A mapped index that is moved to huge pages: the same answers, from memory of its own."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import faiss
import numpy as np
import pytest

from vectorindex_searcher.index import huge_pages
from vectorindex_searcher.index.engine import read_index
from vectorindex_searcher.serve.settings import Settings

COUNT, DIMENSION = 12_000, 128


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((COUNT, DIMENSION)).astype(np.float32)


def written(folder: Path, vectors: np.ndarray, factory: str) -> Path:
    index = faiss.index_factory(DIMENSION, factory)
    index.train(vectors[:2000])
    index.add(vectors)
    path = folder / "index.faiss"
    faiss.write_index(index, str(path))
    return path


def test_answers_come_from_memory_of_its_own_and_are_the_same(
    tmp_path: Path, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huge_pages, "possible", lambda: True)
    monkeypatch.setattr(huge_pages, "_READ_BYTES", 1_000_003)
    path = written(tmp_path, vectors, "Flat")
    index = read_index(path)
    before = index.search(vectors[:20], 5)
    assert str(path) in Path("/proc/self/maps").read_text()
    assert 0 <= huge_pages.move(path) - path.stat().st_size < os.sysconf("SC_PAGE_SIZE")
    assert str(path) not in Path("/proc/self/maps").read_text()
    with path.open("r+b") as file:  # as nobody does: a mapping of the file would show it
        file.write(bytes(path.stat().st_size))
    for was, now in zip(before, index.search(vectors[:20], 5), strict=True):
        np.testing.assert_array_equal(now, was)
    assert huge_pages.move(path) == 0, "nothing is mapped any more"


def test_another_file_stays_as_it_is(tmp_path: Path, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages, "possible", lambda: True)
    (tmp_path / "other").mkdir()
    path, other = (written(folder, vectors, "Flat") for folder in (tmp_path, tmp_path / "other"))
    indexes = read_index(path), read_index(other)
    assert huge_pages.move(path)
    maps = Path("/proc/self/maps").read_text()
    assert (str(path) in maps, str(other) in maps) == (False, True)
    first, second = (index.search(vectors[:5], 3)[1] for index in indexes)
    np.testing.assert_array_equal(first, second)


def test_where_there_are_no_huge_pages_an_index_stays_mapped(
    tmp_path: Path, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "enabled"
    monkeypatch.setattr(huge_pages, "_STATE", state)
    path = written(tmp_path, vectors[:100], "Flat")
    index = read_index(path)
    for text in (None, "always madvise [never]\n"):
        if text is not None:
            state.write_text(text)
        with caplog.at_level(logging.WARNING):
            assert huge_pages.move(path) == 0
        assert "no transparent huge pages" in caplog.text
    assert str(path) in Path("/proc/self/maps").read_text()
    state.write_text("always [madvise] never\n")
    assert huge_pages.possible()
    assert index.ntotal == 100


def test_it_is_asked_for_by_the_environment() -> None:
    assert not Settings.from_environment({}).huge_pages
    assert Settings.from_environment({"VECTORINDEX_HUGE_PAGES": "1"}).huge_pages
