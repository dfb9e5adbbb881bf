"""A sharded artifact by the command line's verbs: partition, build of each part, publish, validate, serve of a part."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vectorindex_searcher.artifact.collect import collect
from vectorindex_searcher.artifact.inspection import inspect
from vectorindex_searcher.artifact.layout import Kind, Layout
from vectorindex_searcher.artifact.sharded import find_plan, find_rows, find_sharded
from vectorindex_searcher.artifact.whole import publish_whole
from vectorindex_searcher.build import by_plan
from vectorindex_searcher.build import partition as partition_module
from vectorindex_searcher.build import task as build_module
from vectorindex_searcher.build.partition import partition
from vectorindex_searcher.build.task import build
from vectorindex_searcher.cli import commands
from vectorindex_searcher.cli.main import main
from vectorindex_searcher.contract import (
    BuildTask,
    CollectTask,
    Columns,
    Embedding,
    ExitCode,
    Identity,
    IndexSpec,
    Location,
    Metric,
    PartitionTask,
    PublishTask,
    ServeTask,
    Shard,
    ValidateTask,
    shard_of,
)
from vectorindex_searcher.dataset.duplicates import hash_ids
from vectorindex_searcher.errors import TaskError
from vectorindex_searcher.index.vectors import VectorFile, VectorWriter
from vectorindex_searcher.proof import merged as merged_module
from vectorindex_searcher.proof.columns import types_of_all
from vectorindex_searcher.proof.exact import exact_search
from vectorindex_searcher.proof.measure import measure
from vectorindex_searcher.proof.merged import answer_merged, prove_merged
from vectorindex_searcher.proof.merging import Merger, ShardAnswers
from vectorindex_searcher.proof.task import prove
from vectorindex_searcher.serve.load import load
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role

COUNT, DIMENSION, SHARDS = 900, 12, 3
IDENTITY = Identity(namespace="shop", name="products", uid="u-1")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer queries and shorter timing than in earnest; one OpenMP thread."""
    monkeypatch.setattr(build_module, "HELD_OUT", 30)
    monkeypatch.setattr(merged_module, "HELD_OUT", 45)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr("vectorindex_searcher.index.choose.tuning.LATENCY_QUERIES", 3)
    monkeypatch.setattr("vectorindex_searcher.proof.timing.LATENCY_CALLS", 5)
    monkeypatch.setattr("vectorindex_searcher.cli.main.configure_logging", lambda verbose: None)


def vectors_of(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((20, DIMENSION))
    return (centres[rng.integers(0, 20, count)] + 0.6 * rng.standard_normal((count, DIMENSION))).astype(np.float32)


def write(folder: Path, ids: list[Any], vectors: npt.NDArray[np.float32], files: int = 3) -> Path:
    """A source of some Parquet files, with a title."""
    folder.mkdir(parents=True)
    for number, some in enumerate(np.array_split(np.arange(len(ids)), files)):
        lists = pa.array(vectors[some].tolist(), pa.list_(pa.float32()))
        columns = {"id": [ids[row] for row in some], "vector": lists, "title": [f"t{ids[row]}" for row in some]}
        pq.write_table(pa.table(columns), folder / f"{number}.parquet")
    return folder


class Place:
    """Artifacts of one source, and the tasks about them."""

    def __init__(self, root: Path, source: Path, factory: str = "IVF8,SQ8", metric: Metric = Metric.COSINE) -> None:
        self.root, self.digest = root / "artifacts", "d1"
        self.root.mkdir(parents=True, exist_ok=True)
        self.store = FolderStore(self.root, Role.ARTIFACTS)
        self.layout = Layout("", IDENTITY)
        self.common: dict[str, Any] = {
            "identity": IDENTITY,
            "digest": self.digest,
            "artifacts": Location(folder=str(self.root)),
        }
        self.building = {
            **self.common,
            "source": Location(folder=str(source)),
            "columns": Columns(metadata=("title",)),
            "embedding": Embedding(metric=metric),
            "index": IndexSpec(factory=factory),
        }

    def partition(self, shards: int = SHARDS) -> Any:
        return partition(PartitionTask(**self.building, shards=shards))

    def build(self, number: int, shards: int = SHARDS) -> Any:
        return build(BuildTask(**self.building, shard=Shard(number=number, of=shards)))

    def publish(self) -> Any:
        return publish_whole(PublishTask(**self.common))

    def prove(self, **more: Any) -> Any:
        return prove_merged(ValidateTask(**self.common, manifest_sha256="", gate_hash="g1", **more))[0]

    def all(self, shards: int = SHARDS) -> Any:
        self.partition(shards)
        for number in range(shards):
            self.build(number, shards)
        return self.publish()

    def serve(self, **more: Any) -> Any:
        task = ServeTask(**self.common, revision="r", manifest_sha256="", cache_dir=str(self.root.parent / "cache"))
        return load(task.model_copy(update=more), lambda text: None)

    def stored(self) -> list[str]:
        return [item.key for item in self.store.list("")]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, write(tmp_path / "source", list(range(COUNT)), vectors_of(COUNT)))


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(TaskError) as raised:
        call()
    return raised.value.reason


# ------------------------------------------------------------------ which row is where


def test_the_shard_of_an_id_is_for_ever() -> None:
    """Whoever computes it, and whenever: a plan names the hash, and rows stay where they are."""
    numbers = [0, 1, -1, 7, 2**63 - 1, -(2**63)]
    texts = ["", "a", "b", "sku-1", "\u00fc\u4e2d", "x" * 300]
    assert [shard_of(one, 64) for one in (*numbers, *texts)] == GOLDEN
    for ids, kind in ((numbers, pa.int64()), (texts, pa.string())):
        for shards in (2, 3, 64):
            at_once = hash_ids(pa.array(ids, kind)) % np.uint64(shards)
            assert [shard_of(one, shards) for one in ids] == at_once.tolist()


GOLDEN = [47, 1, 32, 23, 39, 27, 47, 21, 35, 59, 63, 18]


def ids_by_shard(place: Place, shards: int) -> list[set[Any]]:
    """The ids of the rows that are laid ready."""
    plan, sha256 = find_plan(place.store, place.layout, place.digest) or pytest.fail("no plan")
    found = []
    for number in range(shards):
        layout = place.layout.of_shard(number)
        rows = find_rows(place.store, layout, place.digest, sha256)
        assert rows is not None
        path = place.root / layout.file(place.digest, rows.attempt, "ids.arrow")
        with pa.memory_map(str(path)) as file:
            found.append(set(pa.ipc.open_file(file).read_all().column("id").to_pylist()))
    assert [len(ids) for ids in found] == list(plan.counts)
    return found


@pytest.mark.parametrize("kind", [int, str])
def test_a_row_is_in_one_shard_whatever_the_order_of_files(tmp_path: Path, kind: type) -> None:
    ids, vectors = [kind(row * 7) for row in range(COUNT)], vectors_of(COUNT)
    order = np.random.default_rng(1).permutation(COUNT)
    one = Place(tmp_path / "one", write(tmp_path / "a", ids, vectors))
    other = Place(tmp_path / "other", write(tmp_path / "b", [ids[row] for row in order], vectors[order], files=5))
    one.partition(), other.partition()
    found = ids_by_shard(one, SHARDS)
    assert found == ids_by_shard(other, SHARDS)
    assert set().union(*found) == set(ids)
    assert all(shard_of(row_id, SHARDS) == number for number, some in enumerate(found) for row_id in some)
    assert min(map(len, found)) > COUNT / SHARDS / 1.3  # they are of about one size


def test_an_id_that_occurs_twice_is_found_and_both_its_rows_are_named(tmp_path: Path) -> None:
    ids = [*range(100), 42]
    place = Place(tmp_path, write(tmp_path / "source", ids, vectors_of(101), files=2))
    with pytest.raises(TaskError, match=r"1\.parquet row 49 has id 42, which 0\.parquet row 42 has too"):
        place.partition(2)
    assert find_plan(place.store, place.layout, place.digest) is None


def test_rows_without_a_known_number_are_a_whole_file(tmp_path: Path) -> None:
    vectors = vectors_of(700)
    with VectorWriter(tmp_path / "v.npy", None, DIMENSION, half=False) as writer:
        writer.write(vectors[:9])
        writer.write(vectors[9:])
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), vectors)


# ------------------------------------------------------------------ partition, build, publish


def test_the_verbs_make_one_artifact_that_is_proven_and_served(place: Place) -> None:
    laid = place.partition()
    assert (laid.shards, laid.count, sum(laid.counts), laid.reused) == (SHARDS, COUNT, COUNT, False)
    assert place.partition().reused
    built = [place.build(number) for number in range(SHARDS)]
    assert [one.count for one in built] == list(laid.counts)
    assert place.build(1).reused
    whole = place.publish()
    assert (whole.count, whole.shards, whole.reused) == (COUNT, SHARDS, False)
    assert (place.publish().reused, place.partition().reused) == (True, True)
    assert not [key for key in place.stored() if key.endswith("rows.json")]  # not needed any more, and gone
    assert all(place.layout.owns(key) for key in place.stored())
    report = place.prove()
    assert report.overall.queries == 45
    assert 0.8 < report.overall.recall_low < report.overall.recall <= 1
    assert [one.count for one in report.shards] == list(laid.counts)
    assert sum(report.queries_by_hits) == 45
    assert len(report.result("sha").shard_recalls) == SHARDS
    assert place.prove() == report  # it is there already
    text = "\n".join(inspect(str(place.root)))
    assert "3 shards" in text
    assert "merged: recall@10" in text
    assert "not readable" not in text
    for number in range(SHARDS):
        served = place.serve(shard=number, manifest_sha256=whole.manifest_sha256)
        ids = served.engine.ids(np.arange(served.engine.count))
        assert {shard_of(one, SHARDS) for one in ids} == {number}
        served.release()


def test_a_searcher_of_a_part_wants_the_whole_that_it_was_told(place: Place) -> None:
    place.all()
    assert refused(lambda: place.serve(shard=1, manifest_sha256="0" * 64)) == "ChecksumMismatch"
    assert refused(lambda: place.serve(shard=SHARDS)) == "NoSuchShard"
    assert refused(place.serve) == "ArtifactIsSharded"
    # A manifest that somebody put in the place of a part's.
    key = place.layout.of_shard(0).manifest(place.digest)
    place.store.put(key, place.store.read(key).replace(b'"dimension": 12', b'"dimension": 13'))
    assert refused(lambda: place.serve(shard=0)) == "ChecksumMismatch"
    assert refused(place.prove) == "ChecksumMismatch"


def test_a_part_is_measured_and_served_by_itself_as_any_artifact(place: Place) -> None:
    whole = place.all()
    task = ValidateTask(**place.common, manifest_sha256=whole.manifest_sha256, gate_hash="g2", shard=2)
    report, sha256 = prove(task)
    assert report.count == place.partition().counts[2]
    served = place.serve(shard=2, gate_hash="g2", report_sha256=sha256, manifest_sha256=whole.manifest_sha256)
    assert served.canary_recall == pytest.approx(report.canary_recall, abs=0.02)
    served.release()
    assert all(place.layout.owns(key) for key in place.stored())


def test_nothing_is_published_while_a_part_is_missing_or_lacks_a_file(place: Place) -> None:
    assert refused(place.publish) == "PlanNotFound"
    place.partition()
    place.build(0), place.build(2)
    assert refused(place.publish) == "ShardMissing"
    place.build(1)
    lost = next(key for key in place.stored() if "/shards/0002/" in key and key.endswith("index.faiss"))
    kept = place.store.read(lost)
    place.store.put(lost, kept[:-1])
    assert refused(place.publish) == "ShardMissing"
    assert find_sharded(place.store, place.layout, place.digest) is None
    place.store.put(lost, kept)
    assert not place.publish().reused


def test_what_another_plan_left_never_completes_this_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts of a plan that was removed in part: they look whole, and may lack files."""
    first = place.partition()
    place.build(0), place.build(1)
    place.store.delete(place.layout.plan(place.digest))
    second = place.partition()
    assert second.plan_sha256 != first.plan_sha256  # the same rows, and another plan all the same
    place.build(2)
    assert refused(place.publish) == "ShardMissing"
    assert not place.build(0).reused
    assert refused(place.publish) == "ShardMissing"
    # A build of the first plan that went on all the time ends between our look and our manifest.
    stale = find_plan_bytes(place)
    real = build_module.publish

    def late(store: Any, layout: Layout, manifest: Any, folder: Path) -> Any:
        real(store, layout, manifest.model_copy(update={"plan_sha256": first.plan_sha256, "attempt": "old"}), folder)
        return real(store, layout, manifest, folder)

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "publish", late)
        assert refused(lambda: place.build(1)) == "LeftoverPart"
    assert refused(place.publish) == "ShardMissing"
    assert not place.build(1).reused
    assert place.publish().plan_sha256 == second.plan_sha256
    assert find_plan_bytes(place) == stale


def test_a_build_of_a_plan_that_was_replaced_removes_no_good_part(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had read its plan; then all was removed, partitioned again, and another build published the part."""
    place.partition()
    real = by_plan.find_manifest

    def replaced(*of: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(by_plan, "find_manifest", real)
            place.store.delete(place.layout.plan(place.digest))
            place.partition()
            place.build(0)
        return real(*of)

    with monkeypatch.context() as patch:
        patch.setattr(by_plan, "find_manifest", replaced)
        assert refused(lambda: place.build(0)) == "LeftoverPart"
    assert place.build(0).reused


def find_plan_bytes(place: Place) -> bytes:
    return place.store.read(place.layout.plan(place.digest))


def test_a_plan_is_of_one_state_of_the_source_and_one_number_of_shards(place: Place, tmp_path: Path) -> None:
    place.partition()
    assert refused(lambda: place.partition(4)) == "AnotherPlan"
    assert refused(lambda: place.build(0, 4)) == "AnotherPlan"
    place.store.delete(place.layout.of_shard(1).rows(place.digest))
    assert refused(lambda: place.build(1)) == "RowsNotFound"
    write(tmp_path / "source" / "more", [COUNT], vectors_of(1), files=1)
    assert refused(place.partition) == "AnotherPlan"
    few = Place(tmp_path / "few", write(tmp_path / "f", [1, 2, 3], vectors_of(3), files=1), "Flat")
    assert refused(lambda: few.partition(8)) == "TooManyShards"


def test_a_job_begins_anew_where_the_plan_is_of_other_rows(place: Place, tmp_path: Path) -> None:
    """Its digest is the same, since a deleted id alone builds nothing, and a shard of the old rows would never do."""
    place.partition()
    place.build(0)
    plan = find_plan_bytes(place)
    place.store.delete(place.layout.of_shard(1).rows(place.digest))
    write(tmp_path / "source" / "more", [COUNT], vectors_of(1), files=1)
    task = PartitionTask(**place.building, shards=SHARDS, replaces=True)
    laid = partition(task)
    assert (laid.reused, laid.count) == (False, COUNT + 1)
    assert find_plan_bytes(place) != plan
    assert not place.build(0).reused
    assert partition(task).reused
    assert refused(lambda: partition(task.model_copy(update={"shards": 4}))) == "AnotherPlan"


def test_a_pod_of_an_indexed_job_builds_the_shard_that_it_is_counted_as(monkeypatch: pytest.MonkeyPatch) -> None:
    common = {"identity": IDENTITY, "digest": "d1", "source": Location(folder="/s"), "artifacts": Location(folder="/a")}
    given = BuildTask(**common, index=IndexSpec(factory="Flat", shards=SHARDS)).model_dump_json(by_alias=True)
    with pytest.raises(TaskError, match="JOB_COMPLETION_INDEX"):
        commands.build_task(Namespace(), given)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
    assert commands.build_task(Namespace(), given).shard == Shard(number=2, of=SHARDS)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    assert refused(lambda: commands.build_task(Namespace(), given)) == "BadFlag"
    whole = BuildTask(**common).model_dump_json(by_alias=True)
    assert commands.build_task(Namespace(), whole).shard is None


def test_a_partition_that_was_cut_off_goes_on_with_its_plan(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    real, done = partition_module._lay_ready, []

    def cut(*given: Any) -> int:
        done.append(given)
        if len(done) == 2:
            raise OSError("the node is gone")
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(partition_module, "_lay_ready", cut)
        with pytest.raises(OSError, match="gone"):
            place.partition()
    plan = find_plan_bytes(place)
    kept = place.store.read(place.layout.of_shard(0).rows(place.digest))
    assert not place.partition().reused
    assert find_plan_bytes(place) == plan
    assert place.store.read(place.layout.of_shard(0).rows(place.digest)) == kept  # not laid again
    assert place.partition().reused


def test_rows_that_were_altered_are_not_opened(place: Place) -> None:
    place.partition()
    key = next(key for key in place.stored() if "/shards/0001/" in key and key.endswith("vectors.npy"))
    data = bytearray(place.store.read(key))
    data[-1] ^= 1
    place.store.put(key, bytes(data))
    assert refused(lambda: place.build(1)) == "ChecksumMismatch"


def test_auto_chooses_once_for_all_shards(place: Place) -> None:
    place.building["index"] = IndexSpec()
    laid = place.partition()
    assert laid.factory != "Auto"
    assert place.build(0).factory == place.build(1).factory == laid.factory
    plan, _ = find_plan(place.store, place.layout, place.digest) or pytest.fail("no plan")
    assert plan.candidates


def test_collect_removes_all_of_it_and_what_makes_a_part_whole_first(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.all()
    place.prove()
    gone: list[str] = []
    real = FolderStore.delete_many
    monkeypatch.setattr(FolderStore, "delete_many", lambda self, keys: (gone.extend(keys), real(self, keys))[1])
    task = CollectTask(identity=IDENTITY, artifacts=place.common["artifacts"], digests=(place.digest,))
    another = IDENTITY.model_copy(update={"uid": "u-2"})
    assert collect(task.model_copy(update={"identity": another})).stays
    result = collect(task)
    assert (result.left, result.unknown, result.artifacts) == (0, 0, 1)
    kinds = [owned.kind for key in gone if (owned := place.layout.parse(key)) is not None]
    parts = kinds.count(Kind.PART)
    assert parts == SHARDS + 1
    assert kinds[:parts] == [Kind.PART] * parts
    assert not [key for key in place.stored() if key.startswith(place.layout.attempts(place.digest))]


# ------------------------------------------------------------------ merged answers


@pytest.mark.parametrize(("metric", "shards"), [(Metric.COSINE, 2), (Metric.INNER_PRODUCT, 5), (Metric.L2, 3)])
def test_merged_answers_of_exact_shards_are_those_of_one_index(tmp_path: Path, metric: Metric, shards: int) -> None:
    """The same scores, and where no two are equal the same ids; rows that occur several times are ties."""
    vectors = vectors_of(COUNT)
    vectors[50:100] = vectors[:50]
    source = write(tmp_path / "source", list(range(COUNT)), vectors)
    whole = Place(tmp_path / "whole", source, "Flat", metric)
    build(BuildTask(**whole.building))
    one = whole.serve()
    sharded = Place(tmp_path / "sharded", source, "Flat", metric)
    sharded.all(shards)
    queries = np.concatenate([vectors_of(40, seed=3), vectors[:20]])
    scores, rows = one.engine.search(queries, 10)
    expected = [sorted(zip((-scores[n]).tolist(), one.engine.ids(rows[n]), strict=True)) for n in range(len(queries))]
    found: list[list[tuple[float, Any]]] = [[] for _ in queries]
    for number in range(shards):
        part = sharded.serve(shard=number)
        theirs, numbers = part.engine.search(queries, 10)
        for n in range(len(queries)):
            there = numbers[n] >= 0
            pairs = zip((-theirs[n][there]).tolist(), part.engine.ids(numbers[n][there]), strict=True)
            found[n] = sorted([*found[n], *pairs])[:10]
        part.release()
    one.release()
    for ours, theirs_too in zip(found, expected, strict=True):
        np.testing.assert_allclose([a for a, _ in ours], [a for a, _ in theirs_too], rtol=1e-5, atol=1e-6)
        last = theirs_too[-1][0] - 1e-5
        assert {i for score, i in ours if score < last} == {i for score, i in theirs_too if score < last}
    report = sharded.prove()
    assert (report.overall.recall, report.overall.recall_low) == (1.0, 1.0)
    np.save(tmp_path / "queries.npy", queries)
    asked = sharded.prove(queries=Location(folder=str(tmp_path / "queries.npy")), floor=0.9)
    assert asked.overall.recall == 1.0


@pytest.mark.parametrize("seed", range(6))
def test_recall_of_merged_answers_is_that_of_the_same_answers_from_one_index(tmp_path: Path, seed: int) -> None:
    """Whatever shards answer: random answers, too few of them, rows that occur twice, queries that are rows."""
    rng = np.random.default_rng(seed)
    metric = list(Metric)[seed % 3]
    count, k, shards = 400, int(rng.integers(1, 20)), int(rng.integers(2, 6))
    vectors = vectors_of(count, seed)
    vectors[200:260] = vectors[:60]
    if metric is Metric.INNER_PRODUCT:
        vectors *= rng.uniform(0.2, 3, (count, 1)).astype(np.float32)
    of = hash_ids(pa.array(np.arange(count))) % np.uint64(shards)
    queries = vectors_of(30, seed + 50)
    merger = Merger(queries, k, metric)
    answered = np.full((len(queries), 0), -1, np.int64)
    said = np.full((len(queries), 0), -np.inf)
    for number in range(shards):
        rows = np.flatnonzero(of == number)
        np.save(tmp_path / "part.npy", vectors[rows])
        with VectorFile(tmp_path / "part.npy", metric) as part:
            truth = exact_search(part, queries, k, metric)
            mine = np.where(
                rng.random((len(queries), k)) < 0.8, truth.rows[:, :k], rng.integers(0, len(rows), (len(queries), k))
            )
            mine = unique(mine)
            scores = np.where(mine >= 0, rng.standard_normal(mine.shape), -np.inf).astype(np.float32)
            merger.add(ShardAnswers(scores, mine, truth), part)
        answered = np.concatenate([answered, np.where(mine >= 0, rows[mine], -1)], axis=1)
        said = np.concatenate([said, scores], axis=1)
    best = np.argsort(-said, axis=1, kind="stable")[:, :k]
    np.save(tmp_path / "all.npy", vectors)
    with VectorFile(tmp_path / "all.npy", metric) as whole:
        truth = exact_search(whole, queries, k, metric)
        expected = measure(truth, np.take_along_axis(answered, best, 1), whole, queries).recall
    np.testing.assert_allclose(merger.recall(), expected)


def unique(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Each line without repetitions: -1 in their place, at the end."""
    out = np.full_like(rows, -1)
    for line, some in enumerate(rows):
        kept = list(dict.fromkeys(one for one in some.tolist() if one >= 0))
        out[line, : len(kept)] = kept
    return out


def test_a_held_out_row_is_asked_of_its_shard_without_it(tmp_path: Path) -> None:
    """Else each query would find itself in the first list that is searched, and recall@1 would say nothing."""
    scattered = np.random.default_rng(4).standard_normal((COUNT, DIMENSION)).astype(np.float32)
    place = Place(tmp_path, write(tmp_path / "source", list(range(COUNT)), scattered), "IVF16,SQ8")
    place.building["index"] = IndexSpec(factory="IVF16,SQ8", search_params={"nprobe": 1})
    place.all()
    report = place.prove(k=1)
    assert report.overall.queries == 45
    assert 0.2 < report.overall.recall < 0.9
    assert [one.params for one in report.shards] == [{"nprobe": 1}] * SHARDS


def test_the_operator_is_told_the_types_of_columns_that_all_shards_have_alike(place: Place) -> None:
    """By them a rule on FiltersLost knows which filters the revision before took."""
    place.all()
    task = ValidateTask(**place.common, manifest_sha256="", gate_hash="g1")
    assert answer_merged(task, *prove_merged(task)).column_types == "s"
    assert types_of_all(["si", "si"]) == "si"
    assert types_of_all(["si", "sn"]) == "so"
    assert types_of_all(["si", None]) is None
    assert types_of_all(["si", "s"]) is None


def test_what_is_not_measured_of_merged_answers_is_said(place: Place) -> None:
    place.all()
    assert refused(lambda: place.prove(segments=("short",))) == "NotOfShards"
    assert refused(lambda: place.prove(k=7)) == "NotAsked"


# ------------------------------------------------------------------ the command line


def test_the_command_line(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = ["--source", str(tmp_path / "source"), "--factory", "Flat"], str(tmp_path / "out")

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        code = main(list(arguments))
        return code, json.loads(capsys.readouterr().out or "{}")

    assert run("partition", *source, "--out", out, "--shards", "1")[1]["field"] == "--shards"
    code, laid = run("partition", *source, "--out", out, "--shards", "2")
    assert (code, laid["kind"], laid["shards"]) == (0, "Partition", 2)
    for shard in ("0/2", "1/2"):
        assert run("build", *source, "--out", out, "--shard", shard)[1]["digest"] == laid["digest"]
    assert run("build", *source, "--out", out, "--shard", "2/2")[1]["field"] == "--shard"
    assert run("build", *source, "--out", out)[1]["digest"] != laid["digest"]
    assert run("publish", "--artifact", out, "--digest", "other")[1]["reason"] == "ArtifactNotFound"
    code, whole = run("publish", "--artifact", out)
    assert (code, whole["kind"], whole["count"], whole["shards"]) == (0, "Build", COUNT, 2)
    named = ["--artifact", out, "--digest", laid["digest"]]
    code, measured = run("validate", *named, "--floor", "0.9")
    assert (code, measured["overall"]["recall"], len(measured["shardRecalls"])) == (0, 1.0, 2)
    code, measured = run("validate", *named, "--shard", "1", "--floor", "0.9")
    assert (code, measured["count"]) == (0, laid["counts"][1])
    assert run("validate", *named, "--shard", "2")[0] == ExitCode.BAD_SPEC
