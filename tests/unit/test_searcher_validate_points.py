"""Operating points of segments: tuned and judged on different halves, published, and applied by a searcher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vectorindex_searcher import contract
from vectorindex_searcher.artifact.layout import Layout
from vectorindex_searcher.artifact.manifest import describe_bytes, encode
from vectorindex_searcher.build.task import build
from vectorindex_searcher.contract import Identity, IndexSpec, Location, Metric, Objective, QueryColumns, ValidateTask
from vectorindex_searcher.errors import TaskError
from vectorindex_searcher.proof import points as points_module
from vectorindex_searcher.proof.canary import canary_recall, read_canary
from vectorindex_searcher.proof.points import split
from vectorindex_searcher.proof.report import Points, Report, load_report
from vectorindex_searcher.proof.same import marks
from vectorindex_searcher.proof.task import validate
from vectorindex_searcher.serve.app import index_document
from vectorindex_searcher.serve.load import load
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role

COUNT, DIMENSION = 2500, 24
IDENTITY = Identity(namespace="shop", name="products", uid="u-1")
TARGET = 0.97
"""Of the gate: what `build` made for 0.9 is far from it for hard queries, on whatever machine k-means ran."""
SIZES = {"easy": 600, "hard": 701, "few": 100, "": 40}


def data(count: int, seed: int, spread: float) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((40, DIMENSION))
    return (centres[rng.integers(0, 40, count)] + spread * rng.standard_normal((count, DIMENSION))).astype(np.float32)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source, queries sorted by segment (as files often are), and an artifact tuned for easy queries."""
    root = tmp_path_factory.mktemp("points")
    (root / "in").mkdir()
    np.save(root / "in" / "a.npy", data(COUNT, 0, 0.35))
    spreads = {"easy": 0.3, "hard": 3.0, "few": 0.3, "": 0.3}
    vectors = np.concatenate([data(SIZES[name], 5, spread) for name, spread in spreads.items()])
    kinds = [name or None for name, size in SIZES.items() for _ in range(size)]
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSION)
    pq.write_table(pa.table({"vector": column, "kind": kinds}), root / "queries.parquet")
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        for digest, factory in (("digest1", "IVF64,Flat"), ("flat", "Flat")):
            build(
                contract.BuildTask(
                    identity=IDENTITY,
                    digest=digest,
                    source=Location(folder=str(root / "in")),
                    artifacts=Location(folder=str(root / "out")),
                    index=IndexSpec(factory=factory, objective=Objective(recall=0.9)),
                )
            )
    return root


def quick(patch: pytest.MonkeyPatch) -> None:
    """Shorter timing than in earnest, and the cheapest point is the one with the fewest lists: wall time is noise."""
    patch.setattr("os.sched_getaffinity", lambda pid: {0})
    patch.setattr(
        "vectorindex_searcher.index.choose.tuning._latency", lambda engine, queries, params: params.get("nprobe", 1)
    )
    patch.setattr("vectorindex_searcher.proof.timing.LATENCY_CALLS", 3)
    patch.setattr("vectorindex_searcher.build.task.HELD_OUT", 200)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)


def stored(root: Path) -> tuple[FolderStore, Layout]:
    store = FolderStore(root / "out", Role.ARTIFACTS)
    return store, Layout(store.prefix, IDENTITY)


def gate(root: Path, gate_hash: str, digest: str = "digest1", **changes: Any) -> tuple[Report, str]:
    fields: dict[str, Any] = {
        "identity": IDENTITY,
        "digest": digest,
        "manifest_sha256": "",
        "gate_hash": gate_hash,
        "artifacts": Location(folder=str(root / "out")),
        "queries": Location(folder=str(root / "queries.parquet")),
        "query_columns": QueryColumns(segment="kind"),
        "segments": ("hard", "easy", "few", "none"),
        "segment_targets": dict.fromkeys(("hard", "easy", "few", "none"), TARGET),
    }
    result = validate(ValidateTask(**(fields | changes)))
    report, sha256 = load_report(*stored(root), digest, gate_hash)
    assert report.result(sha256) == result
    return report, sha256


def test_each_segment_is_tuned_on_one_half_and_judged_on_the_other(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned_on: dict[int, npt.NDArray[np.int64]] = {}
    real = points_module.Tuner.point

    def spied(tuner: Any, chosen: Any, target: float) -> Any:
        tuned_on[len(chosen)] = chosen
        return real(tuner, chosen, target)

    monkeypatch.setattr(points_module.Tuner, "point", spied)
    report, _ = gate(place, "both")
    rows = {row.segment: row for row in report.points}
    assert [(name, rows[name].tuned, rows[name].queries) for name in rows] == [
        ("hard", True, 350), ("easy", True, 300), ("few", False, 0), ("none", False, 0)
    ]  # fmt: skip
    judged = {row.segment: row for row in report.segments}
    assert {name: row.queries for name, row in judged.items()} == {"hard": 351, "easy": 300, "few": 100}
    # Half of every class, whether it could be tuned or not: all together keep the shares that were given.
    assert report.overall.queries == 351 + 300 + 50 + 20
    assert sum(report.queries_by_hits) == report.overall.queries
    # The hard segment needs more lists than the default point, and gets them; both reach the target on fresh queries.
    nprobe = {name: row.point.params["nprobe"] for name, row in rows.items()}
    assert nprobe["hard"] > nprobe["few"] == report.params["nprobe"]
    assert all(judged[name].recall_low >= TARGET for name in ("hard", "easy"))
    assert "100 queries; 600 are needed" in rows["few"].reason
    default, _ = gate(place, "default", segment_targets={})
    assert next(row for row in default.segments if row.segment == "hard").recall < judged["hard"].recall - 0.02
    assert [(row.queries, row.tuned) for row in default.points] == [(0, False)] * 4
    assert default.overall.queries == sum(SIZES.values())
    # What tuned never judges.
    given = pq.read_table(place / "queries.parquet").slice(0, 1301)
    vectors = given.column("vector").combine_chunks().flatten().to_numpy().reshape(-1, DIMENSION)
    halves = split(given.column("kind").to_pylist(), marks(vectors, Metric.COSINE), {"easy": 0.9, "hard": 0.9})
    assert not set(tuned_on[300]) & set(halves.judging["easy"])
    assert sorted([*tuned_on[350], *halves.judging["hard"]]) == list(range(600, 1301))


def asking(root: Path, name: str, **parts: npt.NDArray[np.float32]) -> Location:
    """A file of queries, each of the class that it is named by; `none`: of no class."""
    vectors = np.concatenate(list(parts.values()))
    kinds = [None if kind == "none" else kind for kind, rows in parts.items() for _ in rows]
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSION)
    pq.write_table(pa.table({"vector": column, "kind": kinds}), root / f"{name}.parquet")
    return Location(folder=str(root / f"{name}.parquet"))


def test_the_default_point_is_tuned_by_the_users_queries_and_served(place: Path) -> None:
    queries = asking(place, "mine", none=data(900, 7, 3.0))
    built, _ = gate(place, "asbuilt", queries=queries, segments=(), segment_targets={})
    report, sha256 = gate(place, "mine", queries=queries, segments=(), segment_targets={}, objective=TARGET)
    assert built.overall.recall < TARGET - 0.02
    assert report.overall.recall_low >= TARGET
    assert report.overall.queries == 450  # the other half of them tuned
    assert report.params["nprobe"] > built.params["nprobe"]
    assert report.default_point is not None
    assert report.default_point.recall >= TARGET
    # A searcher serves it: what names no segment gets it, and so does the canary.
    loaded = load(serving(place, "mine", sha256), lambda text: None)
    assert loaded.engine.default_params == report.params
    assert loaded.canary_recall == report.canary_recall
    shown = index_document(loaded.engine, serving(place, "mine", sha256), loaded.points)
    assert shown["operatingPoints"]["default"]["params"] == report.params  # type: ignore[index]
    assert {row["params"]["nprobe"] for row in shown["segmentPoints"].values()} == {report.params["nprobe"]}  # type: ignore[attr-defined]


def test_a_segment_too_small_for_a_point_of_its_own_raises_the_default_by_its_mean(place: Path) -> None:
    """429 questions among easy keywords were served with a point tuned on rows: recall .93, and nothing was tried."""
    easy, hard = data(1400, 8, 0.3), data(429, 9, 3.0)
    options: dict[str, Any] = {"segments": ("easy", "hard"), "objective": TARGET}
    options["segment_targets"] = {"easy": TARGET, "hard": TARGET}
    alone, _ = gate(place, "alone", queries=asking(place, "alone", none=easy), objective=TARGET, segments=())
    both, _ = gate(
        place, "small", queries=asking(place, "small", easy=easy[:300], none=easy[300:], hard=hard), **options
    )
    judged = {row.segment: row for row in both.segments}
    assert judged["hard"].queries == 215
    assert judged["hard"].recall >= TARGET - 0.02
    assert both.params["nprobe"] > alone.params["nprobe"]
    reason = next(row.reason for row in both.points if row.segment == "hard")
    assert "its mean was asked for" in reason
    # Of fewer than 60 to tune with nothing is asked: they are reported.
    few, _ = gate(place, "few", queries=asking(place, "few", none=easy, hard=hard[:100]), **options)
    assert few.params["nprobe"] < both.params["nprobe"]
    assert next(row.queries for row in few.segments if row.segment == "hard") == 50


def test_few_queries_only_ever_raise_the_default_point(place: Path) -> None:
    easy, hard = data(200, 8, 0.05), data(200, 9, 3.0)
    built, _ = gate(place, "200built", queries=asking(place, "e", none=easy), segments=(), segment_targets={})
    kept, _ = gate(place, "200easy", queries=asking(place, "e", none=easy), segments=(), objective=TARGET)
    raised, _ = gate(place, "200hard", queries=asking(place, "h", none=hard), segments=(), objective=TARGET)
    assert kept.params == built.params
    assert raised.params["nprobe"] > built.params["nprobe"]


@pytest.mark.parametrize("metric", list(contract.Metric))
def test_queries_that_equal_a_row_are_a_class_of_their_own(tmp_path: Path, metric: contract.Metric) -> None:
    rows, fresh = data(COUNT, 0, 0.35), data(500, 6, 2.0)
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", rows)
    build(
        contract.BuildTask(
            identity=IDENTITY,
            digest="digest1",
            source=Location(folder=str(tmp_path / "in")),
            artifacts=Location(folder=str(tmp_path / "out")),
            index=IndexSpec(factory="IVF64,Flat", objective=Objective(recall=0.9)),
            embedding=contract.Embedding(metric=metric),
        )
    )
    mixed = asking(tmp_path, "mixed", none=np.concatenate([fresh, rows[100:500]]))
    only = asking(tmp_path, "only", none=fresh)
    report, _ = gate(tmp_path, "mixed", queries=mixed, segments=(), segment_targets={})
    alone, _ = gate(tmp_path, "only", queries=only, segments=(), segment_targets={})
    assert (report.overall, alone.segments) == (alone.overall, ())
    (same,) = report.segments
    assert (same.segment, same.queries) == (contract.SAME_AS_A_ROW, 400)
    assert same.recall > report.overall.recall


def test_halves_are_random_and_the_same_every_time() -> None:
    classes, drawn = ["a"] * 1000 + ["b"] * 50, marks(data(1050, 3, 1.0), Metric.L2)
    halves = split(classes, drawn, {"a": 0.9})
    assert split(classes, drawn, {"a": 0.9}).tuning["a"].tolist() == halves.tuning["a"].tolist()
    assert 400 < halves.tuning["a"].mean() < 600  # of 0..999: neither the first half nor the second
    assert (len(halves.judging["a"]), len(halves.judging["b"]), len(halves.overall)) == (500, 50, 525)
    untuned = split(classes, drawn, {"b": 0.9})
    assert (dict(untuned.tuning), len(untuned.overall)) == ({}, 1050)
    assert len(split(None, drawn[:7], {"a": 0.9}).overall) == 7


@pytest.mark.parametrize("metric", list(Metric))
def test_what_two_segments_ask_tunes_in_both_or_judges_in_both(metric: Metric) -> None:
    """In whatever length, where that changes no answer."""
    scale = 1.0 if metric is Metric.L2 else 3.7
    shared, mine, theirs = data(701, 1, 1.0), data(500, 2, 1.0), data(600, 3, 1.0)
    vectors = np.concatenate([shared, mine, theirs, shared[::-1] * np.float32(scale)])
    classes = ["a"] * 1201 + ["b"] * 1301
    halves = split(classes, marks(vectors, metric), {"a": 0.9, "b": 0.9}, everything=True)
    tuned = {name: {vectors[number].tobytes() for number in halves.tuning[name]} for name in "ab"}
    for number, vector in enumerate(shared):
        copy = vectors[len(vectors) - 1 - number]
        assert (vector.tobytes() in tuned["a"]) == (copy.tobytes() in tuned["b"]), number
    assert {name: len(halves.tuning[name]) for name in "ab"} == {"a": 600, "b": 650}
    assert not set(halves.overall) & {*halves.tuning["a"], *halves.tuning["b"]}
    assert len(halves.overall) == 601 + 651


def test_a_target_out_of_reach_gets_the_best_there_is_and_an_index_without_parameters_none(place: Path) -> None:
    report, _ = gate(place, "high", segment_targets={"hard": 0.9999})
    (point,) = (row.point for row in report.points if row.segment == "hard")
    assert point.recall == 1  # every list
    report, _ = gate(place, "flat", digest="flat")
    assert {row.reason for row in report.points} == {"this kind of index has no search parameters"}
    assert report.overall.queries == sum(SIZES.values())


def serving(root: Path, gate_hash: str, sha256: str) -> contract.ServeTask:
    manifest = stored(root)[0].read(stored(root)[1].manifest("digest1"))
    return contract.ServeTask(
        identity=IDENTITY,
        revision="products-1",
        digest="digest1",
        manifest_sha256=describe_bytes("manifest.json", manifest).sha256,
        gate_hash=gate_hash,
        report_sha256=sha256,
        artifacts=Location(folder=str(root / "out")),
        segments=("hard", "easy"),
        cache_dir=str(root / f"cache-{gate_hash}-{sha256[:8]}"),
    )


def test_a_searcher_takes_the_points_that_the_gate_judged(place: Path) -> None:
    report, sha256 = gate(place, "served")
    loaded = load(serving(place, "served", sha256), lambda text: None)
    assert loaded.points is not None
    assert loaded.points.params["hard"] == report.points[0].point.params
    assert loaded.canary_recall == report.canary_recall
    # The canary is answered at these points: at the default one it is another figure.
    folder = place / "out" / "shop" / "products" / "digest1" / "reports" / "served"
    canary = read_canary(folder / "canary.arrow")
    assert {*canary.column("segment").to_pylist()} == {"easy", "hard", "few", ""}
    assert canary_recall(loaded.engine, canary, 10) < report.canary_recall - 0.005
    assert canary_recall(loaded.engine, canary, 10, loaded.points.params) == report.canary_recall


def spoil(root: Path, gate_hash: str, segments: Sequence[Any]) -> str:
    """Publish other points under this gate, with a report that vouches for them; the report's SHA-256."""
    store, layout = stored(root)
    report, _ = load_report(store, layout, "digest1", gate_hash)
    points = Points(digest="digest1", gate_hash=gate_hash, k=10, default=report.points[2].point, segments=segments)
    store.put(layout.report("digest1", gate_hash, "points.json"), encode(points))
    described = describe_bytes("points.json", encode(points))
    files = tuple(described if file.name == "points.json" else file for file in report.files)
    store.put(layout.report("digest1", gate_hash), encode(report.model_copy(update={"files": files})))
    return load_report(store, layout, "digest1", gate_hash)[1]


def test_points_that_are_not_the_gates_are_refused(place: Path) -> None:
    report, sha256 = gate(place, "spoilt")
    path = place / "out" / "shop" / "products" / "digest1" / "reports" / "spoilt" / "points.json"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"nprobe": ', b'"nprobe":7'))
    with pytest.raises(TaskError) as caught:
        load(serving(place, "spoilt", sha256), lambda text: None)
    assert (caught.value.reason, caught.value.failure.object) == ("ChecksumMismatch", "points.json")
    # Vouched for, but worse than what the gate measured: the canary finds out.
    hard = report.points[0]
    worse = hard.model_copy(update={"point": hard.point.model_copy(update={"params": {"nprobe": 1}})})
    with pytest.raises(TaskError) as caught:
        load(serving(place, "spoilt", spoil(place, "spoilt", [worse])), lambda text: None)
    assert caught.value.reason == "CanaryRecall"
    other = hard.model_copy(update={"point": hard.point.model_copy(update={"params": {"efSearch": 9}})})
    with pytest.raises(TaskError, match="efSearch=9 is not of this index"):
        load(serving(place, "spoilt", spoil(place, "spoilt", [other])), lambda text: None)


def test_points_of_a_try_that_died_before_its_report_are_kept(place: Path) -> None:
    """A searcher may never serve other points than those measured; the second try measures those that are there."""
    report, _ = gate(place, "died")
    folder = place / "out" / "shop" / "products" / "digest1" / "reports" / "died"
    (folder / "report.json").unlink()
    points = Points.model_validate_json((folder / "points.json").read_bytes())
    hard = points.segments[0]
    worse = hard.model_copy(update={"point": hard.point.model_copy(update={"params": {"nprobe": 1}})})
    (folder / "points.json").write_bytes(encode(points.model_copy(update={"segments": (worse, *points.segments[1:])})))
    again, sha256 = gate(place, "died")
    assert again.points[0].point.params == {"nprobe": 1}
    assert again.segments[0].recall < report.segments[0].recall - 0.02
    loaded = load(serving(place, "died", sha256), lambda text: None)
    assert loaded.canary_recall == again.canary_recall
