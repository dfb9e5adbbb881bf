"""Files of fresh rows become numbered snapshots on which all pods agree, whoever dies and whatever is written there."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from unit.test_searcher_policies import COUNT, DIMENSION, an_engine

from vectorindex_searcher import contract
from vectorindex_searcher.artifact import fresh as snapshots
from vectorindex_searcher.artifact.layout import Layout
from vectorindex_searcher.dataset import fresh as fresh_files
from vectorindex_searcher.dataset.listing import Listing
from vectorindex_searcher.dataset.objects import FreshObject
from vectorindex_searcher.dataset.source import Source
from vectorindex_searcher.errors import BadData, BadSpec, StoreUnavailable
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.index.fresh import FreshFile, FreshRows, Gathered, check_lengths, gathered_from
from vectorindex_searcher.index.selection.rowset import RowSet
from vectorindex_searcher.proof.encoder import check_model
from vectorindex_searcher.serve import fresh as fresh_module
from vectorindex_searcher.serve.fresh import FreshSource, Seen, comparing, fresh_task, model_id
from vectorindex_searcher.serve.fresh_port import FreshPort
from vectorindex_searcher.serve.search.freshness import Freshness
from vectorindex_searcher.serve.server import Server
from vectorindex_searcher.serve.settings import Settings
from vectorindex_searcher.serve.workers.fresh import FrontFresh, PodFresh, WorkerFresh
from vectorindex_searcher.serve.workers.pod import Pod
from vectorindex_searcher.serve.workers.samples import LiveStates
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role, open_store
from vectorindex_searcher.text.encoder import Encoded, Side

IDENTITY = contract.Identity(name="products")
MOST = contract.FEW_FRESH_ROWS
"""The index is so small that its share is less."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return an_engine(tmp_path_factory.mktemp("fresh"), "Flat")


class World:
    """A folder of fresh rows, one of deleted ids, one of artifacts, and pods that look at them."""

    def __init__(self, root: Path, engine: Engine) -> None:
        self.root, self.engine = root, engine
        for name in ("fresh", "deleted", "artifacts"):
            (root / name).mkdir()
        self.store = open_store(self.place("artifacts"), Role.ARTIFACTS)
        self.layout = Layout(self.store.prefix, IDENTITY)
        self._clock = 1000

    def place(self, name: str) -> contract.Location:
        return contract.Location(folder=str(self.root / name))

    def task(self) -> contract.ServeTask:
        return contract.ServeTask(
            identity=IDENTITY, revision="r", digest="d1", manifest_sha256="", artifacts=self.place("artifacts"),
            tombstones=self.place("deleted"),
        )  # fmt: skip

    def pod(self, **told: Any) -> FreshSource:
        given = contract.FreshTask.model_validate({"place": self.place("fresh"), **told})
        return FreshSource(self.engine, self.task(), given, "pod")

    def write(self, name: str, ids: list[int], *, at: int | None = None, **columns: Any) -> Path:
        """Later than what was written before, unless `at` says when."""
        vectors = np.random.default_rng(sum(ids)).standard_normal((len(ids), DIMENSION)).astype(np.float32)
        table: dict[str, Any] = {
            "id": pa.array(ids, pa.int64()), "vector": list(vectors), "tenant": ["a"] * len(ids),
            "size": pa.array([1] * len(ids), pa.int64()), "tags": pa.array([["new"]] * len(ids), pa.list_(pa.string())),
        }  # fmt: skip
        path = self.root / "fresh" / name
        pq.write_table(pa.table({k: v for k, v in {**table, **columns}.items() if v is not None}), path)
        return self.stored(path, at)

    def delete(self, name: str, ids: list[int], *, at: int | None = None) -> Path:
        path = self.root / "deleted" / name
        path.write_text("".join(f"{one}\n" for one in ids))
        return self.stored(path, at)

    def stored(self, path: Path, at: int | None = None) -> Path:
        """The store's clock is the test's."""
        self._clock += 1
        os.utime(path, (at or self._clock,) * 2)
        return path

    @property
    def numbers(self) -> list[int]:
        names = (self.root / "artifacts" / "local" / "products" / "fresh").glob("*.json")
        return sorted(int(path.stem) for path in names)


@pytest.fixture
def world(tmp_path: Path, engine: Engine) -> World:
    return World(tmp_path, engine)


def ids(rows: Gathered | None) -> list[int]:
    assert rows is not None
    found: list[int] = rows.ids.to_pylist()
    return sorted(found)


def test_pods_agree_on_what_one_of_them_has_read(world: World) -> None:
    one, other = world.pod(), world.pod()
    assert one.look() is None, "nothing is there, and nothing is published of it"
    world.write("a.parquet", [COUNT, 3])
    mine = one.look()
    assert mine is not None
    assert (mine.number, ids(mine), ids(other.look())) == (1, [3, COUNT], [3, COUNT])
    assert (one.look(), other.look(), world.numbers) == (None, None, [1])
    (world.root / "fresh" / "b.jsonl").write_text(
        json.dumps({"id": 7, "vector": [1.0] * DIMENSION, "tenant": "b", "size": 2, "tags": ["x"]}) + "\n"
    )
    theirs = other.look()
    assert theirs is not None
    assert (theirs.number, ids(theirs), ids(one.look())) == (2, [3, 7, COUNT], [3, 7, COUNT])
    assert (one.seen.number, one.seen.rows, one.seen.files) == (2, 3, 2)
    assert theirs.metadata.column("tenant").to_pylist().count("b") == 1
    (world.root / "fresh" / "a.parquet").unlink()
    assert ids(one.look()) == [7], "a file that is removed takes its rows with it"


def test_each_file_is_read_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    before = fresh_module.read_fresh
    monkeypatch.setattr(
        fresh_module, "read_fresh", lambda store, item, *rest: read.append(item.key) or before(store, item, *rest)
    )
    pod = world.pod()
    for name in ("a.parquet", "b.parquet", "c.parquet"):
        world.write(name, [1])
        pod.look()
    assert read == ["a.parquet", "b.parquet", "c.parquet"]


def test_who_loses_the_race_takes_what_is_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No number ever means two things."""
    one, other = world.pod(), world.pod()
    world.write("a.parquet", [1])
    before = fresh_module.publish

    def late(*given: Any) -> bool:
        monkeypatch.setattr(fresh_module, "publish", before)
        world.write("b.parquet", [2])
        assert ids(other.look()) == [1, 2]
        return before(*given)

    monkeypatch.setattr(fresh_module, "publish", late)
    assert ids(one.look()) == [1, 2]
    assert (one.seen.number, other.seen.number, world.numbers) == (1, 1, [1])


def test_old_snapshots_go(world: World) -> None:
    pod = world.pod()
    for number in range(snapshots.KEPT + 4):
        world.write("a.parquet", [number])
        pod.look()
    assert world.numbers == list(range(5, snapshots.KEPT + 5))


def test_a_number_does_not_fall_where_somebody_removes_the_snapshots(world: World) -> None:
    pod = world.pod()
    for number in range(3):
        world.write("a.parquet", [number])
        pod.look()
    for path in (world.root / "artifacts" / "local" / "products" / "fresh").iterdir():
        path.unlink()
    assert pod.look() is not None
    assert (pod.seen.number, world.numbers) == (4, [4])
    late = world.pod()
    late.look()
    assert late.seen.number == 4


# ---------------------------------------------------------------- what counts


def test_the_newest_store_time_wins_among_rows_and_deleted_ids(world: World) -> None:
    pod = world.pod()
    world.write("z.parquet", [1, 2], at=100, tenant=["old", "old"])
    world.write("a.parquet", [1], at=200, tenant=["new"])
    rows = pod.look()
    assert rows is not None
    assert dict(zip(rows.ids.to_pylist(), rows.metadata.column("tenant").to_pylist(), strict=True)) == {
        1: "new",
        2: "old",
    }
    world.delete("before.txt", [1, 2], at=99)
    assert pod.look() is None, "it was deleted before it was written again"
    world.delete("gone.txt", [1, 2], at=150)
    assert ids(pod.look()) == [1]
    world.delete("same.txt", [1], at=200)
    last = pod.look()
    assert last is not None
    assert (len(last.ids), sorted(last.named.to_pylist())) == (0, [1, 2])
    assert world.numbers == [1, 2, 3]


def test_what_the_artifact_holds_is_no_fresh_row(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its content: a file that was written again under its name is fresh again."""
    old = world.pod()
    world.write("a.parquet", list(range(50)))
    world.write("b.parquet", [60])
    old.look()
    there = [one for one in FolderStore(world.root / "fresh", Role.FRESH).list("") if one.key == "a.parquet"]
    listed = tuple(FreshObject(key=one.key, size=one.size, etag=one.etag, stored_at=one.modified) for one in there)
    built = Listing(fingerprint="f1", objects=(), fresh=listed)
    monkeypatch.setattr(fresh_module, "load_listing", lambda *_: built)
    young = world.pod(maxRows=2)
    rows = young.look()
    assert rows is not None
    assert (rows.number, ids(rows), young.seen.absorbed, young.seen.limit) == (1, [60], 1, "")
    world.write("a.parquet", [5])
    assert ids(young.look()) == [5, 60]
    assert (young.seen.number, world.numbers) == (2, [1, 2])


def test_a_file_older_than_what_is_built_in_hides_no_row_of_the_artifact(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listing left it out, and took in a later one that names the same id."""
    world.write("left-out.parquet", [1, COUNT], at=100)
    world.write("built-in.parquet", [1], at=200)
    there = [one for one in FolderStore(world.root / "fresh", Role.FRESH).list("") if one.key == "built-in.parquet"]
    listed = tuple(FreshObject(key=one.key, size=one.size, etag=one.etag, stored_at=one.modified) for one in there)
    monkeypatch.setattr(fresh_module, "load_listing", lambda *_: Listing(fingerprint="f1", objects=(), fresh=listed))
    pod = world.pod()
    rows = pod.look()
    assert rows is not None
    assert (ids(rows), rows.named.to_pylist()) == ([COUNT], [COUNT]), "a new id hides nothing"
    world.write("only-old.parquet", [2, 3], at=150)
    assert ids(pod.look()) == [COUNT]
    world.write("left-out.parquet", [1, COUNT], at=201)
    assert ids(pod.look()) == [1, COUNT], "who writes it again means it"


# ---------------------------------------------------------------- what is refused


def test_beyond_the_bounds_the_oldest_files_are_answered_and_a_build_is_due(world: World) -> None:
    pod = world.pod()
    world.write("b.parquet", list(range(MOST)))
    pod.look()
    assert (pod.seen.rows, pod.seen.limit) == (MOST, "")
    world.write("a.parquet", [COUNT])
    assert ids(pod.look()) == list(range(MOST))
    look = pod.seen.told(off=False, now=0.0)
    assert (look.number, look.full, look.reason, look.waiting) == (2, True, "TooManyFreshRows", MOST + 1)
    assert "more than 100 fresh rows" in look.message
    few = world.pod(maxRows=10)
    assert (ids(few.look()), few.seen.number, bool(few.seen.limit)) == ([COUNT], 2, True), "b alone is too many"
    (world.root / "fresh" / "b.parquet").unlink()
    assert ids(pod.look()) == [COUNT]
    assert (pod.seen.limit, pod.seen.told(off=False, now=0.0).reason) == ("", "")


def test_since_there_are_too_many_age_grows(world: World) -> None:
    now = [10.0]
    given = contract.FreshTask(place=world.place("fresh"), max_rows=2)
    pod = FreshSource(world.engine, world.task(), given, "pod", clock=lambda: now[0])
    world.write("a.parquet", [1, 2])
    pod.look()
    world.write("b.parquet", [3])
    for now[0] in (20.0, 30.0):
        pod.look()
    assert pod.seen.told(off=False, now=31.0).age_seconds == 21.0


def test_pods_that_begin_anew_take_of_too_many_what_the_others_of_their_revision_have(world: World) -> None:
    """After a way back: the next revision held some of the files itself, and its pods published beyond these bounds."""
    world.write("z.parquet", [COUNT])
    stayed = world.pod(maxRows=3)
    stayed.look()
    for name, new in (("a", [COUNT + 1]), ("c", [COUNT + 2, COUNT + 3]), ("d", [COUNT + 4])):
        world.write(f"{name}.parquet", new)
        world.pod().look()
    began = world.pod(maxRows=3)
    assert world.numbers == [1, 2, 3, 4]
    assert ids(stayed.look()) == ids(began.look()) == [COUNT, COUNT + 1]
    assert stayed.seen == replace(began.seen, good_at=stayed.seen.good_at)
    assert (began.look(), began.seen.number) == (None, 4)
    (world.root / "fresh" / "c.parquet").unlink()
    assert ids(began.look()) == ids(stayed.look()) == [COUNT, COUNT + 1, COUNT + 4]


def test_a_deleted_id_is_hidden_however_full_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = world.pod(maxRows=2)
    world.write("a.parquet", [1, 2])
    world.write("b.parquet", [3])
    assert (ids(pod.look()), bool(pod.seen.limit)) == ([1, 2], True)
    world.delete("d.txt", [2])
    assert ids(pod.look()) == [1]
    monkeypatch.setattr(fresh_files, "MAX_FILES", 1)
    world.delete("e.txt", [1])
    assert ids(pod.look()) == [], "also where there are more files than are listed"
    assert (pod.seen.reason, pod.look(), pod.seen.reason) == ("TooManyFreshFiles", None, "TooManyFreshFiles")


def test_of_a_file_of_too_many_rows_none_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal vectors take nothing in a file, and all their bytes in memory."""
    pod = world.pod(maxRows=2)
    world.write("a.parquet", [1, 2, 3])
    monkeypatch.setattr(Source, "blocks", lambda _: pytest.fail("it is read"))
    assert (ids(pod.look()), pod.seen.refused) == ([], ())
    assert "a.parquet has 3 rows, at most 2" in pod.seen.limit


def test_a_file_that_is_too_large_has_no_other_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = world.pod()
    large = world.write("a.parquet", [1, 2])
    monkeypatch.setattr(fresh_files, "FRESH_FILE_BYTES", large.stat().st_size - 1)
    (world.root / "fresh" / "b.jsonl").write_text(
        json.dumps({"id": 7, "vector": [1.0] * DIMENSION, "tenant": "b", "size": 2, "tags": ["x"]}) + "\n"
    )
    assert (ids(pod.look()), bool(pod.seen.limit), pod.seen.refused) == ([7], True, ())


def test_what_is_small_in_a_file_is_bounded_in_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectorindex_searcher.contract.fresh.FEW_FRESH_BYTES", 1 << 20)
    pod = world.pod()
    world.write("b.parquet", [1])
    bomb = world.write("a.parquet", list(range(50)), tenant=["a" * 40_000] * 50)
    assert bomb.stat().st_size < 100_000
    assert (ids(pod.look()), pod.seen.limit) == ([1], ""), "no build can be due for it"
    ((name, reason, message),) = pod.seen.refused
    assert (name, reason) == ("a.parquet", "FileTooLarge")
    assert "take more than 1048576 bytes in memory" in message
    bomb.unlink()
    for name, first in (("a.parquet", 0), ("c.parquet", 20)):  # each of them fits
        world.write(name, list(range(first, first + 20)), tenant=["a" * 40_000] * 20)
    assert ids(pod.look()) == list(range(20))
    assert "fresh rows take more than 1048576 bytes" in pod.seen.limit


def test_a_share_of_the_rows_is_the_bound_of_a_large_index(world: World, engine: Engine) -> None:
    engine.count, count = 4000, engine.count  # type: ignore[misc]
    try:
        pod = world.pod()
    finally:
        engine.count = count  # type: ignore[misc]
    assert pod._most == (200, 4 << 20)
    assert contract.most_fresh(50_000, 10**7) == (50_000, 50_000 << 10)


def text(path: Path, content: bytes) -> None:
    path.write_bytes(content)


NAN = [float("nan")] * DIMENSION
MALFORMED: dict[str, tuple[str, Callable[[World], Any]]] = {
    "DimensionMismatch": ("z.parquet", lambda w: w.write("z.parquet", [1], vector=[[1.0, 2.0]])),
    "NonFiniteVector": ("z.parquet", lambda w: w.write("z.parquet", [1], vector=[NAN])),
    "ZeroVector": ("z.parquet", lambda w: w.write("z.parquet", [1], vector=[[0.0] * DIMENSION])),
    "NullVector": ("z.parquet", lambda w: w.write("z.parquet", [1, 2], vector=[[1.0] * DIMENSION, None])),
    "BadIdType": ("z.parquet", lambda w: w.write("z.parquet", [1], id=["1"])),
    "UnknownColumn": ("z.parquet", lambda w: w.write("z.parquet", [1], tenant=None)),
    "MixedTypes": ("z.parquet", lambda w: w.write("z.parquet", [1], size=["large"])),
    "CorruptFile": ("z.parquet", lambda w: text(w.root / "fresh" / "z.parquet", b"PAR1 and no more")),
    "UnknownFormat": ("z.csv", lambda w: text(w.root / "fresh" / "z.csv", b"id,vector\n1,2\n")),
    "CutOff": ("z.jsonl", lambda w: text(w.root / "fresh" / "z.jsonl", b'{"id": 1, "vector": [1')),
}


@pytest.mark.parametrize("reason", MALFORMED)
def test_a_malformed_file_is_named_and_holds_no_other_up(world: World, reason: str) -> None:
    pod, late = world.pod(), world.pod()
    world.write("a.parquet", [1])
    pod.look()
    name, write = MALFORMED[reason]
    write(world)
    world.write("b.parquet", [2])
    assert ids(pod.look()) == ids(late.look()) == [1, 2]
    for one in (pod, late):
        assert (one.seen.number, one.seen.files, one.seen.limit, one.seen.errors) == (2, 2, "", 0)
        look = one.seen.told(off=False, now=0.0)
        assert [(file.object, file.reason) for file in look.refused] == [(name, look.reason)]
        assert look.reason == {"CutOff": "CorruptFile"}.get(reason, reason)
        assert name in look.message
        assert one.look() is None
    (world.root / "fresh" / name).unlink()
    assert ids(pod.look()) == [1, 2]
    assert (pod.seen.reason, pod.seen.refused) == ("", ())


def test_a_table_of_one_writer_holds_no_other_up(world: World) -> None:
    pod, late = world.pod(), world.pod()
    world.write("a.parquet", [1])
    pod.look()
    for folder in ("shop-b/_delta_log", "shop-c/metadata"):
        (world.root / "fresh" / folder).mkdir(parents=True)
        (world.root / "fresh" / folder / "v1.metadata.json").write_text("{}")
    world.write("shop-b/old.parquet", [2])
    world.write("shop-bb.parquet", [3])
    world.delete("gone.txt", [1])
    assert ids(pod.look()) == ids(late.look()) == [3], "what was deleted is hidden, too"
    for one in (pod, late):
        assert (one.seen.reason, one.seen.errors) == ("", 0)
        assert {(name, reason) for name, reason, _ in one.seen.refused} == {
            ("shop-b/_delta_log/v1.metadata.json", "TableFormat"),
            ("shop-b/old.parquet", "TableFormat"),
            ("shop-c/metadata/v1.metadata.json", "TableFormat"),
        }
        assert one.look() is None
    (world.root / "fresh" / "shop-b" / "_delta_log" / "v1.metadata.json").unlink()
    assert ids(pod.look()) == ids(late.look()) == [2, 3], "it is a table no more"


def test_a_prefix_that_is_a_table_leaves_the_last_snapshot(world: World) -> None:
    pod = world.pod()
    world.write("a.parquet", [1])
    assert ids(pod.look()) == [1]
    (world.root / "fresh" / "_delta_log").mkdir()
    (world.root / "fresh" / "_delta_log" / "0.json").write_text("{}")
    assert pod.look() is None
    assert (pod.seen.reason, pod.seen.rows) == ("TableFormat", 1)


def test_a_link_that_leads_nowhere_holds_no_other_up(world: World) -> None:
    pod, late = world.pod(), world.pod()
    (world.root / "fresh" / "z.parquet").symlink_to(world.root / "nothing.parquet")
    world.write("b.parquet", [2])
    assert ids(pod.look()) == ids(late.look()) == [2]
    assert [(name, reason) for name, reason, _ in pod.seen.refused] == [("z.parquet", "BrokenLink")]


def test_what_an_index_cannot_hide_is_refused_by_file(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.engine, "supports_filter", False)
    pod = world.pod()
    world.write("changed.parquet", [1, COUNT])
    world.write("new.parquet", [COUNT + 1])
    assert ids(pod.look()) == [COUNT + 1]
    assert [(name, reason) for name, reason, _ in pod.seen.refused] == [("changed.parquet", "CannotHide")]


@pytest.mark.parametrize("seed", range(25))
def test_no_bytes_end_the_reader_or_change_what_is_searched(world: World, seed: int) -> None:
    """Whatever a good file is cut or changed to: it is read whole, or refused by its name."""
    draw = np.random.default_rng(seed)
    path = world.write("a.parquet", [1, 2, 3])
    data = bytearray(path.read_bytes())
    for _ in range(int(draw.integers(1, 6))):
        data[int(draw.integers(len(data)))] = int(draw.integers(256))
    path.write_bytes(data[: int(draw.integers(len(data)))] if seed % 3 == 0 else data)
    pod = world.pod()
    rows = pod.look()
    assert rows is not None
    if pod.seen.refused:
        assert [name for name, _, _ in pod.seen.refused] == ["a.parquet"]
        assert not len(rows.ids)
    else:
        assert np.isfinite(rows.vectors).all()
        assert len(rows.ids) == len(rows.vectors) == rows.metadata.num_rows


def test_vectors_of_another_length_are_another_models(engine: Engine) -> None:
    """Under InnerProduct long vectors are the first hit of every query."""
    empty = pa.table({})

    def a_file(length: float) -> FreshFile:
        return FreshFile("a.parquet", 1.0, pa.array([1]), np.full((1, 4), length / 2, np.float32), empty)

    check_lengths(a_file(1.0), (0.9, 1.1))
    check_lengths(a_file(2.1), (0.9, 1.1))
    check_lengths(a_file(9.0), None)
    for length in (0.3, 3.0):
        with pytest.raises(Exception, match="length"):
            check_lengths(a_file(length), (0.9, 1.1))
    found = engine.lengths(np.arange(5))
    assert found is not None
    np.testing.assert_allclose(found, 1, atol=1e-5)


class Model:
    """An encoder: a text is the seed of its vector."""

    dimension, max_tokens, nbytes = DIMENSION, 100, 0

    def __init__(self, length: float = 1.0) -> None:
        self.length, self.asked = length, 0

    def encode(self, texts: Sequence[str], side: Side) -> Encoded:
        assert side is Side.DOCUMENT
        self.asked += 1
        vectors = np.stack([np.random.default_rng(len(text)).standard_normal(DIMENSION) for text in texts])
        return Encoded((self.length * vectors).astype(np.float32), (False,) * len(texts))

    def close(self) -> None: ...


class Turned(Model):
    """Makes of each text what the other makes of the next one."""

    def encode(self, texts: Sequence[str], side: Side) -> Encoded:
        return super().encode(["a" * (len(text) % 5 + 1) for text in texts], side)


def with_model(world: World, name: str, model: Model | None) -> FreshSource:
    """A pod that compares by this model."""
    told = contract.FreshTask(place=world.place("fresh"), text_column="tenant")
    encoder = contract.EncoderTask(endpoint=contract.EmbeddingsEndpoint(url=f"http://{name}/v1"))
    task = world.task().model_copy(update={"encoder": encoder})
    return FreshSource(world.engine, task, told, "pod", model)


TEXTS = ["a" * (1 + row % 5) for row in range(30)]


def test_vectors_of_another_model_are_answered_by_no_pod(world: World) -> None:
    model = Model()
    pod, late = with_model(world, "tei", model), world.pod()
    good = list(model.encode(TEXTS, Side.DOCUMENT).vectors)
    world.write("a.parquet", list(range(30)), tenant=TEXTS, vector=good)
    assert len(ids(pod.look())) == 30
    asked = model.asked
    world.write("c.parquet", [50, *range(29)], tenant=TEXTS, vector=good[1:] + good[:1])
    world.write("d.parquet", [60])
    assert ids(pod.look()) == [*range(30), 60]
    assert ([one[:2] for one in pod.seen.refused], model.asked) == ([("c.parquet", "AnotherModel")], asked + 2)
    assert ids(late.look()) == [*range(30), 60], "who has no model takes the word of who has"
    assert late.seen.refused == pod.seen.refused
    world.write("e.parquet", [61])
    assert ids(late.look()) == [*range(30), 60, 61], "also where it publishes itself"
    assert (ids(pod.look()), world.numbers) == ([*range(30), 60, 61], [1, 2, 3])
    world.write("c.parquet", [50])
    assert ids(pod.look()) == [*range(30), 50, 60, 61], "what is written again is another file"


def test_texts_of_rows_are_encoded_as_those_of_the_index_were(world: World) -> None:
    encoder = contract.EncoderTask(endpoint=contract.EmbeddingsEndpoint(url="http://tei/v1"), query_prefix="query: ")
    task = world.task().model_copy(update={"encoder": encoder})
    told = contract.FreshTask(place=world.place("fresh"), text_column="tenant", document_prefix="passage: ")
    compares = comparing(task, told).encoder
    assert compares == encoder.model_copy(update={"document_prefix": "passage: "})
    assert comparing(task, None) is comparing(task, contract.FreshTask(place=world.place("fresh"))) is task
    assert comparing(world.task(), told).encoder is None
    settings = Settings(fresh=told.task_text(first_release=False), http_port=0, admin_port=0)
    pod = Pod(task, settings)
    for channel in (pod._control, pod._fronts):
        channel.close()
    assert Server(task, settings)._task.encoder == pod._task.encoder == compares
    assert model_id(compares, told) != model_id(encoder, told), "what was compared with another prefix is compared anew"


def test_the_word_of_another_model_is_none(world: World) -> None:
    """A prefix that was told wrong is mended: nobody has to write the files again."""
    good = list(Model().encode(TEXTS, Side.DOCUMENT).vectors)
    world.write("a.parquet", list(range(30)), tenant=TEXTS, vector=good[1:] + good[:1])
    assert ids(with_model(world, "tei", Model()).look()) == []
    assert ids(with_model(world, "tei", Model()).look()) == []
    late = with_model(world, "other", Turned())
    late.look()
    assert (late.seen.rows, late.seen.refused, world.numbers) == (30, (), [1, 2])


def test_lengths_and_single_rows_are_judged_as_the_gate_does(engine: Engine) -> None:
    def a_file(count: int, length: float) -> FreshFile:
        texts = ["a" * (row + 1) for row in range(count)]
        vectors = Model(length).encode(texts, Side.DOCUMENT).vectors
        return FreshFile("a.parquet", 1.0, pa.array(range(count)), vectors, pa.table({"text": texts}))

    check_model(Model(), contract.Metric.COSINE, a_file(5, 2.0), "text")
    check_model(Model(), contract.Metric.INNER_PRODUCT, a_file(5, 1.0), "text")
    with pytest.raises(BadData, match=r"2\.000 times|0\.500 times"):
        check_model(Model(), contract.Metric.INNER_PRODUCT, a_file(5, 2.0), "text")
    one = a_file(1, 1.0)
    check_model(Model(), contract.Metric.COSINE, FreshFile("a", 1.0, one.ids, -one.vectors, one.metadata), "text")
    two = a_file(2, 1.0)
    with pytest.raises(BadData, match="2 of 2"):
        check_model(Model(), contract.Metric.COSINE, FreshFile("a", 1.0, two.ids, -two.vectors, two.metadata), "text")


def test_a_file_that_changes_while_it_is_read_is_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = world.pod()
    world.write("a.parquet", [1])
    before = fresh_module.read_fresh

    def changed(*given: Any) -> Any:
        monkeypatch.setattr(fresh_module, "read_fresh", before)
        world.write("a.parquet", [2, 3])
        return before(*given)

    monkeypatch.setattr(fresh_module, "read_fresh", changed)
    assert pod.look() is None
    assert (pod.seen.reason, world.numbers) == ("SourceChanged", [])
    assert ids(pod.look()) == [2, 3]


def test_a_snapshot_whose_files_are_gone_is_followed_by_one_of_those_that_are_there(world: World) -> None:
    world.write("a.parquet", [1])
    world.pod().look()
    (world.root / "fresh" / "a.parquet").unlink()
    world.write("b.parquet", [2])
    late = world.pod()
    assert ids(late.look()) == [2]
    assert world.numbers == [1, 2]


def test_a_store_that_does_not_answer_leaves_the_last_snapshot(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = world.pod()
    world.write("a.parquet", [1])
    pod.look()
    good = pod.seen.good_at

    def broken(*_: Any) -> Any:
        raise StoreUnavailable("StoreUnavailable", "no answer")

    with monkeypatch.context() as patch:
        patch.setattr(fresh_module, "list_fresh", broken)
        assert pod.look() is None
        assert (pod.seen.number, pod.seen.reason, pod.seen.good_at, pod.seen.errors) == (1, "StoreUnavailable", good, 1)
    pod.look()
    assert (pod.seen.reason, pod.seen.errors) == ("", 1)


def test_a_shard_has_no_fresh_rows_and_an_unknown_task_none(engine: Engine, world: World) -> None:
    task = contract.ServeTask(
        identity=IDENTITY, revision="r", digest="d1", manifest_sha256="", artifacts=world.place("artifacts"), shard=1
    )
    with pytest.raises(BadSpec, match="shard"):
        FreshSource(engine, task, contract.FreshTask(place=world.place("fresh")), "pod")
    assert fresh_task("") is None
    assert fresh_task('{"place": {"folder": "x"}, "ofANewerRelease": 1}') is None
    assert fresh_task('{"place": {"folder": "x"}}') is not None


# ---------------------------------------------------------------- what it is passed on as


def test_a_snapshot_goes_to_other_processes_as_it_is(engine: Engine, world: World) -> None:
    world.write("a.parquet", [1, 2, COUNT])
    world.delete("d.txt", [2])
    rows = world.pod().look()
    assert rows is not None
    again = gathered_from(b"".join(bytes(piece) for piece in rows.pieces()))
    assert (again.number, again.ids, again.named, again.metadata) == (rows.number, rows.ids, rows.named, rows.metadata)
    np.testing.assert_array_equal(again.vectors, rows.vectors)
    empty = Gathered(3, rows.ids[:0], rows.vectors[:0], rows.metadata.slice(0, 0), rows.named)
    assert FreshRows(engine, gathered_from(b"".join(bytes(piece) for piece in empty.pieces()))).count == 0


def test_samples_are_judged_without_the_rows_that_fresh_ones_replace(engine: Engine, world: World) -> None:
    world.write("a.parquet", [1, 2, COUNT])
    rows, held = world.pod().look(), Freshness()
    assert rows is not None
    deleted = RowSet.of_rows(np.arange(5, COUNT), COUNT)
    assert held.live(None) is None
    held.take(FreshRows(engine, rows))
    left = held.live(deleted)
    assert left is not None
    assert left.rows().tolist() == list(range(5, COUNT))
    assert held.live(deleted) is left, "or each sample would hold a set of its own"
    everything = held.live(None)
    assert everything is not None
    assert everything.rows().tolist() == [0, *range(3, COUNT)]
    held.switch(off=True)
    assert held.live(deleted) is deleted


def test_all_processes_know_the_rows_that_could_be_answered_by_one_number(engine: Engine, world: World) -> None:
    """Whatever comes while a snapshot is being prepared: samples of one process are judged by another."""
    task = world.task()
    pod = PodFresh(engine, task, contract.FreshTask(place=world.place("fresh")), "pod")
    world.write("a.parquet", [1, COUNT])
    pod.look()
    states = LiveStates(pod.live())

    def learn(live: RowSet | None) -> int:
        number = states.newest + 1
        states.learn(number, live)
        return number

    def rows_of(some: RowSet | None) -> list[int] | None:
        return None if some is None else some.rows().tolist()

    async def scenario() -> None:
        held, lost = Freshness(), []
        assert pod.freshness.now is not None
        held.take(pod.freshness.now)
        worker = WorkerFresh(engine, held, lambda: lost.append(1))
        front = FrontFresh(
            lambda _: None, lambda said, descriptor: worker.hear(said, -1 if descriptor is None else os.dup(descriptor))
        )

        def tell(said: dict[str, object], descriptor: int | None) -> None:
            front.hear(said, -1 if descriptor is None else os.dup(descriptor))

        world.write("b.parquet", [2, 3])
        pod.look_again(tell, learn)
        engine.show_only(RowSet.of_rows(np.arange(COUNT - 9), COUNT))
        worker.learn(learn(pod.live()))
        pod.switch(True, tell, learn)
        assert (held.now.number if held.now else 0) == 1, "the snapshot is still being prepared"
        while worker.states.newest != states.newest:
            await asyncio.sleep(0.01)
        assert held.now is None
        for number in range(states.newest - 2, states.newest + 1):
            assert rows_of(worker.states[number]) == rows_of(states[number])
        pod.switch(False, tell, learn)
        assert (held.now.number if held.now else 0, front.port.look().number) == (2, 2)
        assert rows_of(worker.states[states.newest]) == [0, *range(4, COUNT - 9)]
        worker.hear({"do": "fresh", "what": "rows", "number": 99}, -1)
        assert lost == [1], "it is asked for again"

    try:
        asyncio.run(scenario())
    finally:
        engine.show_only(None)


# ---------------------------------------------------------------- the admin port


def test_an_order_to_do_without_them_runs_out_by_itself() -> None:
    switched: list[bool] = []

    async def scenario() -> None:
        port = FreshPort(lambda: Seen(number=3), switched.append)
        assert port.take(contract.FreshOrder(off=True, ttl_seconds=0.05)).off
        port.take(contract.FreshOrder(off=True, ttl_seconds=0.05))
        await asyncio.sleep(0.2)
        assert (port.look().off, switched) == (False, [True, False])
        port.take(contract.FreshOrder(off=True, ttl_seconds=300.0))
        assert not port.take(contract.FreshOrder(off=False)).off
        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert switched == [True, False, True, False]
