"""Each safety device of the searcher package that no other test would miss: taken out, one of these fails."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from unit.test_searcher_live_queries import DIMENSION, EMPTY, answering, source

from vectorindex_searcher.artifact.layout import Layout
from vectorindex_searcher.artifact.manifest import Manifest, encode, find_manifest
from vectorindex_searcher.build import left_out
from vectorindex_searcher.contract import (
    FEWEST_QUERIES,
    SEGMENT_QUERIES,
    Device,
    Embedding,
    Identity,
    Location,
    Metric,
    OperatingPoint,
    QueryColumns,
)
from vectorindex_searcher.dataset import tombstones
from vectorindex_searcher.errors import BadData, SourceChanged
from vectorindex_searcher.index.device import on_cpu
from vectorindex_searcher.index.vectors import VectorFile
from vectorindex_searcher.proof import groundtruth, queries
from vectorindex_searcher.proof.groundtruth import truth_key
from vectorindex_searcher.proof.live import ask as asking
from vectorindex_searcher.proof.points import Halves, split
from vectorindex_searcher.serve.evidence import live_queries
from vectorindex_searcher.serve.http.auth import Tokens
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role, open_store

# ---------------------------------------------------------------- what a request may cost


def test_who_is_known_of_those_that_ask_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address of IPv6 can be made up for every query."""
    monkeypatch.setattr(live_queries, "_KNOWN_SENDERS", 4)
    kept = live_queries.LiveQueries(DIMENSION, (), "key", clock=lambda: 3600.0)
    for number, row in enumerate(np.random.default_rng(0).standard_normal((20, DIMENSION), dtype=np.float32)):
        kept.offer("other", f"2001:db8:{number:x}::1", 10, row[None])
    assert len(kept) == 20
    assert len(kept._known) <= 4


def test_of_a_file_of_tokens_a_bounded_part_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("the-first-of-the-tokens\n" + "# said\n" * 20_000 + "behind-what-is-read\n")
    assert Tokens(path).names == ("tokens",)


# ---------------------------------------------------------------- pods that are slow


@dataclass
class Clock:
    """Time that passes when a pod says so."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return time.time()


def test_a_pod_that_takes_its_time_for_every_hour_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(asking, "time", clock)

    def slowly(path: str) -> bytes:
        clock.now += 0.4 * asking.POD_SECONDS
        return EMPTY

    with answering(slowly) as port:
        pod = asking._Pod(source(port), "127.0.0.1", DIMENSION, Metric.COSINE, "key", time.time)
        with pytest.raises(TimeoutError, match="too long"):
            pod.queries(asking.POD_SECONDS)
    assert clock.now < 2 * asking.POD_SECONDS, "it was not asked for all hours"


# ---------------------------------------------------------------- lists of deleted ids


def listed(folder: Path, text: str) -> tuple[FolderStore, tuple[object, ...]]:
    folder.mkdir(exist_ok=True)
    (folder / "a.txt").write_text(text)
    store = open_store(Location(folder=str(folder)), Role.TOMBSTONES)
    assert isinstance(store, FolderStore)
    return store, tombstones.list_tombstones(store)


def read(store: FolderStore, found: tuple[object, ...]) -> list[object]:
    ids: list[object] = tombstones.read_tombstones(store, found, "id", pa.int64()).ids.to_pylist()  # type: ignore[arg-type]
    return ids


@pytest.mark.parametrize(("limit", "most"), [("MAX_IDS", 3), ("TEXT_BYTES", 7)])
def test_deleted_ids_are_bounded_in_number_and_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    store, found = listed(tmp_path / "deleted", "1\n2\n3\n4\n")
    assert read(store, found) == [1, 2, 3, 4]
    monkeypatch.setattr(tombstones, limit, most)
    with pytest.raises(BadData) as caught:
        read(store, found)
    assert caught.value.reason == "TooManyTombstones"


def test_a_list_of_deleted_ids_that_changed_meanwhile_is_read_again_and_not_mixed(tmp_path: Path) -> None:
    store, found = listed(tmp_path / "deleted", "1\n2\n")
    listed(tmp_path / "deleted", "1\n2\n3\n")
    with pytest.raises(SourceChanged):
        read(store, found)


def test_half_of_a_list_of_deleted_ids_is_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that broke off would answer again what somebody deleted."""
    store, found = listed(tmp_path / "deleted", "1\n2\n")
    whole = FolderStore.read
    monkeypatch.setattr(FolderStore, "read", lambda self, key, **asked: whole(self, key, **asked)[:2])
    with pytest.raises(SourceChanged):
        read(store, found)


# ---------------------------------------------------------------- what measuring may cost


def test_more_queries_than_the_gate_takes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "asked.npy", np.ones((11, 4), np.float32))
    store = open_store(Location(folder=str(tmp_path)), Role.QUERIES)

    @dataclass
    class Of:
        dimension: int = 4
        embedding: Embedding = Embedding(metric=Metric.L2)  # noqa: RUF009 - frozen

    monkeypatch.setattr(queries, "MAX_QUERIES", 11)
    assert len(queries.read_user_queries(store, QueryColumns(), Of()).vectors) == 11  # type: ignore[arg-type]
    monkeypatch.setattr(queries, "MAX_QUERIES", 10)
    with pytest.raises(BadData) as caught:
        queries.read_user_queries(store, QueryColumns(), Of())  # type: ignore[arg-type]
    assert caught.value.reason == "TooManyQueries"


def test_indexes_that_are_measured_hold_a_bounded_number_of_rows_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "vectors.npy"
    np.save(path, np.random.default_rng(0).standard_normal((600, 8), dtype=np.float32))
    with VectorFile(path, Metric.L2) as vectors:
        assert len(left_out.draw_left_out(vectors, 1000, "f", on_cpu()).folds) > 3
        monkeypatch.setattr(left_out, "MAX_FOLD_ROWS", 3 * 600)
        assert len(left_out.draw_left_out(vectors, 1000, "f", on_cpu()).folds) == 3


# ---------------------------------------------------------------- what judges is enough to judge


def halves_of(count: int, name: str = "", *, everything: bool = False) -> Halves:
    marks = np.random.default_rng(0).permutation(count).astype(np.uint64)
    return split([name] * count, marks, {"s": 0.9}, everything=everything)


def test_a_segment_is_tuned_only_where_both_halves_are_large_enough() -> None:
    few, enough = halves_of(2 * SEGMENT_QUERIES - 1, "s"), halves_of(2 * SEGMENT_QUERIES, "s")
    assert (list(few.tuning), len(few.judging["s"])) == ([], 2 * SEGMENT_QUERIES - 1)
    assert (len(enough.tuning["s"]), len(enough.judging["s"])) == (SEGMENT_QUERIES, SEGMENT_QUERIES)


def test_of_few_queries_none_tunes_and_all_judge() -> None:
    few, enough = (halves_of(2 * FEWEST_QUERIES - less, everything=True) for less in (1, 0))
    assert (list(few.tuning), len(few.overall)) == ([], 2 * FEWEST_QUERIES - 1)
    assert (len(enough.tuning[""]), len(enough.overall)) == (FEWEST_QUERIES, FEWEST_QUERIES)


def test_a_truth_that_counts_own_rows_is_another_than_one_that_does_not(tmp_path: Path) -> None:
    data = np.random.default_rng(0).standard_normal((20, 4), dtype=np.float32)
    np.save(tmp_path / "vectors.npy", data)
    with VectorFile(tmp_path / "vectors.npy", Metric.L2) as vectors:
        own = np.arange(5)
        keys = [truth_key(vectors, "0" * 64, data[:5], 3, rows) for rows in (own, own, np.full(5, -1))]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("name", ["SLACK", "RELATIVE_TIE", "PRODUCT_TIE"])
def test_a_truth_by_another_rule_for_ties_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    data = np.random.default_rng(0).standard_normal((20, 4), dtype=np.float32)
    np.save(tmp_path / "vectors.npy", data)
    with VectorFile(tmp_path / "vectors.npy", Metric.L2) as vectors:
        before = truth_key(vectors, "0" * 64, data[:5], 3, np.arange(5))
        monkeypatch.setattr(groundtruth, name, 2 * getattr(groundtruth, name))
        assert truth_key(vectors, "0" * 64, data[:5], 3, np.arange(5)) != before


# ---------------------------------------------------------------- what is beside an artifact


@pytest.mark.parametrize("attempt", ["..", "../../other", "a/b", "", "a" * 64])
def test_an_attempt_leads_to_no_other_place(tmp_path: Path, attempt: str) -> None:
    """It is part of the keys that are read, and of a path in the cache."""
    store, layout = FolderStore(tmp_path, Role.ARTIFACTS), Layout("", Identity(name="n"))
    point = OperatingPoint(recall=1, recall_low=1, latency_us=1)
    manifest = Manifest(
        digest="d", attempt="a", identity=layout.identity, fingerprint="f", embedding=Embedding(), dimension=1, count=1,
        vector_dtype="float32", id_type="int64", factory="Flat", index_type="IndexFlatL2", default_point=point,
        faiss_version="1", device=Device.CPU, duration_seconds=0, peak_memory_bytes=0, files=(),
    )  # fmt: skip
    store.put(layout.manifest("d"), encode(manifest))
    assert find_manifest(store, layout, "d") is not None
    store.put(layout.manifest("d"), encode(manifest.model_copy(update={"attempt": attempt})))
    with pytest.raises(BadData, match="attempt"):
        find_manifest(store, layout, "d")
