"""What a build goes on from: a trained, empty index of the very same training, whole; anything else is trained anew."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vectorindex_searcher.artifact.layout import DESCRIPTION_FILE, TRAINED_FILE, Layout
from vectorindex_searcher.artifact.manifest import describe_file, encode
from vectorindex_searcher.build.checkpoint import Checkpoints, Description, Training
from vectorindex_searcher.build.fill import Order
from vectorindex_searcher.contract import Identity, Metric
from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role

DIMENSION = 8
TRAINING = Training(
    fingerprint="f" * 64,
    tombstones="",
    vector_column="vector",
    metric=Metric.L2,
    dimension=DIMENSION,
    count=1000,
    factory="IVF4,Flat",
    sample_rows=200,
    sample_sha256="0" * 64,
)
OTHER: dict[str, object] = {
    "fingerprint": "e" * 64,
    "tombstones": "d" * 64,
    "vector_column": "embedding",
    "metric": Metric.COSINE,
    "dimension": 16,
    "count": 1001,
    "factory": "IVF8,Flat",
    "sample_rows": 201,
    "sample_sha256": "1" * 64,
    "moved": "2" * 64,
    "faiss_version": "0.0.1",
}
"""Another value of each field."""


def trained(dimension: int = DIMENSION, rows: int = 0) -> Any:
    index = faiss.index_factory(dimension, "IVF4,Flat")
    data = np.random.default_rng(0).standard_normal((200, dimension), dtype=np.float32)
    index.train(data)
    if rows:
        index.add(data[:rows])
    return index


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    store = FolderStore(tmp_path / "store", Role.ARTIFACTS)
    return Checkpoints(store, Layout("", Identity(name="index")), "d", 0)


def kept(checkpoints: Checkpoints, work: Path, index: Any = None) -> dict[str, Path]:
    """Keep an index as that of TRAINING; where its files lie."""
    checkpoints.save(TRAINING, trained() if index is None else index, 1.0, work)
    store = checkpoints.store
    assert isinstance(store, FolderStore)
    names = (TRAINED_FILE, DESCRIPTION_FILE)
    return {name: store.root / checkpoints.layout.checkpoints("d", TRAINING.key, name) for name in names}


def test_what_was_kept_is_gone_on_from(checkpoints: Checkpoints, tmp_path: Path) -> None:
    kept(checkpoints, tmp_path)
    found = checkpoints.load(TRAINING, tmp_path)
    assert (found.is_trained, found.ntotal, found.d) == (True, 0, DIMENSION)
    assert not (tmp_path / TRAINED_FILE).exists()


@pytest.mark.parametrize("name", sorted({*Training.model_fields} - {"format_version"}))
def test_a_checkpoint_of_another_training_is_none(checkpoints: Checkpoints, tmp_path: Path, name: str) -> None:
    """Neither under the other's key, nor where somebody has laid it under this one."""
    other = TRAINING.model_copy(update={name: OTHER[name]})
    assert other.key != TRAINING.key
    description = kept(checkpoints, tmp_path)[DESCRIPTION_FILE]
    assert checkpoints.load(other, tmp_path) is None
    found = Description.model_validate_json(description.read_bytes())
    description.write_bytes(encode(found.model_copy(update={"training": other})))
    assert checkpoints.load(TRAINING, tmp_path) is None


def test_training_names_the_faiss_that_trains() -> None:
    assert TRAINING.faiss_version == faiss.__version__


def rows(*numbers: int) -> npt.NDArray[np.int64]:
    return np.array(numbers, np.int64)


@pytest.mark.parametrize(
    "changed",
    [
        {"factory": "IVF8,Flat"},
        {"metric": Metric.COSINE},
        {"rows": 1001},
        {"dimension": 16},
        {"sample": rows(1, 2, 4)},
        {"sample": rows(1, 2)},
        {"fingerprints": ("e", "t")},
        {"fingerprints": ("f", "u")},
        {"vector_column": "embedding"},
        {"moved": "m"},
    ],
)
def test_another_order_trains_anew(changed: dict[str, Any]) -> None:
    order = Order("IVF4,Flat", Metric.L2, 1000, DIMENSION, rows(1, 2, 3), ("f", "t"), "vector")
    assert order.training.key != replace(order, **changed).training.key


def of_another_name(files: dict[str, Path]) -> None:
    """A file that is there, whole and described, but not the one that is read."""
    description = files[DESCRIPTION_FILE]
    found = Description.model_validate_json(description.read_bytes())
    other = files[TRAINED_FILE].with_name("index.faiss")
    other.write_bytes(files[TRAINED_FILE].read_bytes())
    description.write_bytes(encode(found.model_copy(update={"file": describe_file(other)})))


def flipped(files: dict[str, Path]) -> None:
    data = bytearray(files[TRAINED_FILE].read_bytes())
    data[len(data) // 2] ^= 1
    files[TRAINED_FILE].write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        of_another_name,
        lambda files: files[TRAINED_FILE].write_bytes(files[TRAINED_FILE].read_bytes() + b"x"),
        lambda files: files[TRAINED_FILE].unlink(),
        lambda files: files[DESCRIPTION_FILE].write_bytes(b"{"),
        lambda files: files[DESCRIPTION_FILE].write_bytes(b" " * 70_000 + files[DESCRIPTION_FILE].read_bytes()),
    ],
    ids=["flipped", "another name", "longer", "gone", "no JSON", "a long description"],
)
def test_a_damaged_checkpoint_is_none_and_fails_no_build(
    checkpoints: Checkpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[dict[str, Path]], Any]
) -> None:
    files = kept(checkpoints, tmp_path)
    damage(files)
    with caplog.at_level(logging.WARNING):
        assert checkpoints.load(TRAINING, tmp_path) is None
    assert "training runs anew" in caplog.text


@pytest.mark.parametrize(
    "index",
    [
        lambda: faiss.index_factory(DIMENSION, "IVF4,Flat"),
        lambda: trained(rows=5),
        lambda: trained(dimension=16),
    ],
    ids=["untrained", "with rows", "of another dimension"],
)
def test_what_cannot_be_filled_is_none(checkpoints: Checkpoints, tmp_path: Path, index: Callable[[], Any]) -> None:
    """Rows that are there already would be answered under the numbers of others."""
    kept(checkpoints, tmp_path, index())
    assert checkpoints.load(TRAINING, tmp_path) is None
