"""What `Auto` chooses and why: memory formulas against real files, the shortlist, the selection, fixed parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vectorindex_searcher.artifact.inspection import inspect
from vectorindex_searcher.artifact.layout import Layout
from vectorindex_searcher.artifact.manifest import load_manifest
from vectorindex_searcher.build import recipe
from vectorindex_searcher.build import task as build_module
from vectorindex_searcher.build.task import build
from vectorindex_searcher.cli.commands import build_task
from vectorindex_searcher.cli.flags import parser
from vectorindex_searcher.contract import (
    BuildTask,
    ExitCode,
    Identity,
    IndexSpec,
    Location,
    Metric,
    Minimise,
    Objective,
    memory_bytes,
)
from vectorindex_searcher.errors import BadSpec, TaskError
from vectorindex_searcher.index import factory, training
from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.index.choose import auto, trial, tuning
from vectorindex_searcher.index.choose.auto import select
from vectorindex_searcher.index.choose.candidates import Entry, even_out, lightest, new_entry
from vectorindex_searcher.index.choose.choice import Goal
from vectorindex_searcher.index.choose.families import lists_for, parts_for, scaled, shortlist, variants
from vectorindex_searcher.index.choose.sample import Sample, draw_sample
from vectorindex_searcher.index.factory import make_index
from vectorindex_searcher.index.memory import footprint
from vectorindex_searcher.index.metric import faiss_metric
from vectorindex_searcher.index.parameters import faiss_ladders, layers, search_parameters
from vectorindex_searcher.index.sizes import size_text
from vectorindex_searcher.index.vectors import VectorFile
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role

COUNT, DIMENSION = 4000, 32
IDENTITY = Identity(name="n")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """One OpenMP thread, fewer queries, and no data so small that Auto need not measure."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr("vectorindex_searcher.index.choose.tuning.LATENCY_QUERIES", 3)
    monkeypatch.setattr(build_module, "HELD_OUT", 200)
    monkeypatch.setattr(auto, "RACE_QUERIES", 100)
    monkeypatch.setattr(factory, "FLAT_FLOATS", 1000)


def rows(count: int, dimension: int, seed: int = 0) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((30, dimension))
    return (centres[rng.integers(0, 30, count)] + 0.6 * rng.standard_normal((count, dimension))).astype(np.float32)


@pytest.fixture
def vectors(tmp_path: Path) -> VectorFile:
    np.save(tmp_path / "vectors.npy", rows(COUNT, DIMENSION))
    return VectorFile(tmp_path / "vectors.npy", Metric.COSINE)


@pytest.mark.parametrize(("dimension", "metric"), [(24, Metric.L2), (60, Metric.INNER_PRODUCT)])
def test_memory_formula_is_within_5_percent_of_the_real_file(dimension: int, metric: Metric) -> None:
    data = rows(2000, dimension)
    faiss.omp_set_num_threads(1)
    families = set(shortlist(2000, dimension, Minimise.LATENCY)) | set(shortlist(2000, dimension, Minimise.MEMORY))
    families |= {other for one in families for other in variants(one, dimension)}
    families |= {"PCA16,SQ8", "IVF16_HNSW16,SQ8", "IVF32,RaBitQfs,Refine(SQ8)", "RaBitQ", f"PQ{dimension // 4}x4fs"}
    off = {}
    for one in sorted(families):
        index = make_index(one, 2000, dimension, metric)
        expected = footprint(index, 2000)
        assert expected is not None, one
        index.train(data[:1000])
        index.add(data)
        real = len(faiss.serialize_index(index))
        if abs(expected.file / real - 1) > 0.05:
            off[one] = (expected.file, real)
    assert not off


def test_memory_formula_counts_the_tables_made_at_load(tmp_path: Path) -> None:
    index = make_index("IVF16,PQ8x4fsr", 2000, 32, Metric.L2)
    expected = footprint(index, 2000)
    assert expected is not None
    index.train(rows(1000, 32))
    index.add(rows(2000, 32))
    faiss.write_index(index, str(tmp_path / "i"))
    whole = faiss.read_index(str(tmp_path / "i"))
    read = faiss.downcast_index(whole)
    assert expected.tables == 16 * 8 * 16 * 4 == 4 * read.precomputed_table.size()
    assert expected.resident == expected.file + expected.tables
    assert footprint(make_index("NSG16", 2000, 32, Metric.L2), 2000) is None


def test_lists_and_parts() -> None:
    assert [lists_for(count) for count in (1, 10, 5_000, 63_666, 200_000, 1_000_000)] == [1, 1, 128, 1024, 2048, 4096]
    assert all(count / lists_for(count) >= 39 for count in (40, 1000, 12_345, 10**6, 10**8))
    assert (parts_for(384, 4), parts_for(100, 4), parts_for(97, 4), parts_for(1, 4)) == (96, 25, 0, 0)
    assert scaled("IVF1024,SQ8", 64_000, 16_000) == "IVF512,SQ8"
    assert scaled("IVF1024,SQ8", 64_000, 64_000) == "IVF1024,SQ8"
    assert scaled("HNSW32", 10**9, 1000) == "HNSW32"
    assert scaled("IVF256,SQ8", 100_000, 6_000) == "IVF256,SQ8", "with rows for each, as many: clusters are, too"
    assert scaled("IVF512,SQ8", 100_000, 6_000) == "IVF128,SQ8"


@pytest.mark.parametrize("dimension", [1, 3, 97, 384])
def test_every_family_can_be_made(dimension: int) -> None:
    for minimise in Minimise:
        for metric in (Metric.L2, Metric.INNER_PRODUCT):
            found = shortlist(1_000_000, dimension, minimise)
            assert "Flat" in found
            for one in (*found, *(other for base in found for other in variants(base, dimension))):
                assert footprint(make_index(one, 1_000_000, dimension, metric), 1_000_000)


def test_the_fastest_that_reaches_the_recall_wins(vectors: VectorFile) -> None:
    choice = select(vectors, Goal(0.95), threads=1)
    winner, *others = choice.candidates
    assert winner.factory == choice.factory != "Flat"
    assert winner.recall is not None
    assert winner.recall >= 0.95
    assert winner.latency_us is not None
    raced = [one for one in others if one.sample_rows == winner.sample_rows and one.latency_us]
    assert all(one.latency_us * auto.AS_FAST >= winner.latency_us * 0.99 for one in raced if one.latency_us)
    assert winner.verdict.startswith("chosen: the fastest")
    slow = next(one for one in others if one.factory == "Flat")
    assert f"x the latency of {winner.factory}" in slow.verdict
    # Every family was tried, and each variant has a verdict too.
    tried = {one.factory for one in choice.candidates if one.sample_rows}
    assert len({one.name for one in choice.candidates}) == len(choice.candidates), "each once"
    assert tried >= set(shortlist(COUNT, DIMENSION, Minimise.LATENCY))
    assert all(one.verdict for one in choice.candidates)


def test_the_smallest_that_reaches_the_recall_wins(vectors: VectorFile) -> None:
    fast, small = (select(vectors, Goal(0.95, aim), threads=1) for aim in (Minimise.LATENCY, Minimise.MEMORY))
    by_name = {one.factory: one for one in small.candidates}
    assert by_name[small.factory].memory_bytes < fast.candidates[0].memory_bytes
    for one in small.candidates:
        if one.memory_bytes < by_name[small.factory].memory_bytes:
            assert "at most on the sample" in one.verdict or "slower than exact search" in one.verdict


def test_what_does_not_fit_is_not_built(vectors: VectorFile, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    make = trial.Bench.build
    monkeypatch.setattr(trial.Bench, "build", lambda self, one, *ef: built.append(one) or make(self, one, *ef))
    limit = 60 * COUNT
    choice = select(vectors, Goal(0.9, memory_limit=limit), threads=1)
    over = [one for one in choice.candidates if one.verdict.startswith("over memoryLimit: needs ")]
    assert {"Flat", "HNSW32"} <= {one.factory for one in over}
    assert all(one.memory_bytes > limit and one.sample_rows == 0 for one in over)
    assert choice.candidates[0].memory_bytes <= limit
    assert built
    assert not {"Flat", "HNSW32"} & set(built)
    with pytest.raises(BadSpec) as caught:
        select(vectors, Goal(0.9, memory_limit=1000), threads=1)
    failure = caught.value.failure
    assert (failure.reason, failure.field) == ("MemoryLimitTooSmall", "spec.index.objective.memoryLimit")
    least = footprint(make_index("IVF32,SQ4", COUNT, DIMENSION, Metric.L2), COUNT)
    assert least is not None
    assert f"the smallest index, IVF32,SQ4, needs {size_text(least.resident)}" in failure.message
    assert failure.remedy


def test_a_recall_that_nothing_reaches_takes_the_nearest(vectors: VectorFile) -> None:
    choice = select(vectors, Goal(0.999, memory_limit=28 * COUNT), threads=1)
    assert choice.candidates[0].latency_us is None
    assert "none reaches the recall" in choice.reason


def spec_task(folder: Path, **index: object) -> BuildTask:
    (folder / "in").mkdir(exist_ok=True)
    np.save(folder / "in" / "a.npy", rows(COUNT, DIMENSION))
    return BuildTask(
        identity=IDENTITY,
        digest="d",
        source=Location(folder=str(folder / "in")),
        artifacts=Location(folder=str(folder / "out")),
        index=IndexSpec.model_validate(index),
    )


def test_build_keeps_what_auto_weighed_and_inspect_shows_it(tmp_path: Path) -> None:
    built = build(spec_task(tmp_path, objective=Objective(recall=0.9)))
    store = FolderStore(tmp_path / "out", Role.ARTIFACTS)
    manifest, _ = load_manifest(store, Layout(store.prefix, IDENTITY), "d")
    assert manifest.candidates[0].factory == manifest.factory == built.factory
    assert len(manifest.candidates) > 5
    text = "\n".join(inspect(str(tmp_path / "out")))
    for one in manifest.candidates:
        assert one.verdict in text
    size = next(file.size for file in manifest.files if file.name == "index.faiss")
    assert abs(manifest.candidates[0].memory_bytes / size - 1) < 0.05


def test_the_memory_limit_counts_ids_and_metadata_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Goal] = []
    monkeypatch.setattr(recipe, "select", lambda vectors, goal, threads, **_: seen.append(goal) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build(spec_task(tmp_path, objective={"recall": 0.9, "memoryLimit": "1Mi"}))
    assert seen[0].memory_limit is not None
    assert (1 << 20) - 8 * COUNT - 2000 < seen[0].memory_limit <= (1 << 20) - 8 * COUNT


def test_fixed_parameters_are_measured_and_nothing_else(tmp_path: Path) -> None:
    built = build(spec_task(tmp_path, factory="IVF16,Flat", searchParams={"nprobe": 3}))
    assert built.default_point.params == {"nprobe": 3}
    store = FolderStore(tmp_path / "out", Role.ARTIFACTS)
    manifest, _ = load_manifest(store, Layout(store.prefix, IDENTITY), "d")
    assert manifest.frontier == (manifest.default_point,)


@pytest.mark.parametrize(
    ("index", "reason", "field"),
    [
        ({"searchParams": {"nprobe": 8}}, "SearchParamsNeedFactory", ""),
        ({"factory": "HNSW16", "searchParams": {"nprobe": 8}}, "UnknownSearchParam", ".nprobe"),
        ({"factory": "IVF16,Flat", "searchParams": {"nprobe": 17}}, "SearchParamOutOfRange", ".nprobe"),
        ({"factory": "HNSW16", "objective": {"memoryLimit": "1Gi"}}, "MemoryLimitNeedsAuto", "memoryLimit"),
        ({"factory": "HNSW16,Nope"}, "UnknownFactory", "factory"),
    ],
)
def test_a_spec_that_cannot_be_built_is_refused_before_a_row_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: dict[str, object], reason: str, field: str
) -> None:
    monkeypatch.setattr("vectorindex_searcher.build.given.stage", lambda source, folder: pytest.fail("rows were read"))
    with pytest.raises(TaskError) as caught:
        build(spec_task(tmp_path, **index))
    failure = caught.value.failure
    assert (failure.reason, caught.value.exit_code) == (reason, ExitCode.BAD_SPEC)
    assert failure.field is not None
    assert failure.field.startswith("spec.index.")
    assert failure.field.endswith(field)
    assert failure.remedy


def test_flags_make_the_same_spec(tmp_path: Path) -> None:
    flags = ["build", "--source", str(tmp_path), "--out", str(tmp_path), "--digest", "d"]
    options = parser().parse_args([*flags, "--minimise", "Memory", "--memory-limit", "2Gi"])
    objective = build_task(options, None).index.objective
    assert (objective.minimise, objective.memory_limit) == (Minimise.MEMORY, "2Gi")
    options = parser().parse_args([*flags, "--factory", "IVF8,Flat", "--search-params", "nprobe=4", "k_factor=2"])
    assert build_task(options, None).index.search_params == {"nprobe": 4, "k_factor": 2}
    for wrong in ("nprobe", "nprobe=", "=3", "nprobe=x", "nprobe=-1"):
        with pytest.raises(BadSpec, match="NAME=VALUE"):
            build_task(parser().parse_args([*flags, "--search-params", wrong]), None)


def test_memory_quantities() -> None:
    assert [memory_bytes(text) for text in ("1", "4Gi", "500M", "1Ti")] == [1, 4 << 30, 500_000_000, 1 << 40]
    for wrong in ("0", "4 Gi", "1.5Gi", "Gi", "-1", "4gi", "1m"):
        with pytest.raises(ValueError, match="not a memory quantity"):
            memory_bytes(wrong)


def test_centroids_are_trained_once_for_all_families(vectors: VectorFile) -> None:
    bench = trial.Bench(draw_sample(vectors, 2000, 50), threads=1)
    first, second = bench.build("IVF16,Flat"), bench.build("IVF16,SQ8")
    quantizers = [list(layers(index))[-1].quantizer for index in (first, second)]
    np.testing.assert_array_equal(quantizers[0].reconstruct_n(0, 16), quantizers[1].reconstruct_n(0, 16))
    assert second.ntotal == 2000


def test_recall_of_a_trial_counts_ties() -> None:
    data = np.repeat(np.eye(4, dtype=np.float32), 12, axis=0)
    bench = trial.Bench(Sample(data, data[[0, 12]] * 1.001, Metric.L2), threads=1)
    others = np.arange(24, 34)
    assert bench.recall(np.array([np.arange(2, 12), np.arange(14, 24)])).tolist() == [1.0, 1.0], "any ten of the twelve"
    assert bench.recall(np.array([others, [12, 13, 14, *others[:7]]])).tolist() == pytest.approx([0.0, 0.3])
    assert bench.recall(np.full((2, 10), -1)).tolist() == [0.0, 0.0]


def by_script(
    monkeypatch: pytest.MonkeyPatch, times: Callable[[str], tuple[float, float, float]], beam: int = 0, **fields: Any
) -> list[tuple[str, int]]:
    """Samples of 500, 1500 and 4000 rows, on which every index of a factory string takes `times` of it, in us. Returns
    what was built, with the rows, while it is built. beam: efSearch of graphs. fields: more of each trial."""
    sizes = (500, 1500, 4000)
    for name, size in zip(("SCREEN_ROWS", "DEEP_ROWS", "TOP_ROWS"), sizes, strict=True):
        monkeypatch.setattr(auto, name, size)
    built: list[tuple[str, int]] = []

    def run(self: trial.Bench, factory: str, goal: float, *_: object, **__: object) -> trial.Trial:
        count = len(self.sample.rows)
        built.append((factory, count))
        latency = times(factory)[sizes.index(count)]
        best = trial.Measured({"efSearch": beam} if beam and "HNSW" in factory else {}, 0.97, 0.05, latency)
        return trial.Trial(factory, count, best, 0.97, again=lambda: latency, **fields)

    monkeypatch.setattr(trial.Bench, "run", run)
    return built


def test_the_race_goes_to_the_largest_sample_and_stops_when_the_leader_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times by script: what leads on small samples and falls behind on the largest one must not win."""
    np.save(tmp_path / "v.npy", rows(4100, 16))
    times = {"HNSW32,SQ8": (10.0, 11.0, 90.0), "HNSW32": (18.0, 19.0, 20.0)}
    runs = by_script(monkeypatch, lambda factory: times.get(factory, (200.0, 200.0, 200.0)))
    with VectorFile(tmp_path / "v.npy", Metric.L2) as vectors:
        choice = select(vectors, Goal(0.95), threads=1)
    assert choice.factory == "HNSW32"
    assert choice.candidates[0].latency_us == 20
    assert [one for one in runs if one[1] == 4000] == [("HNSW32,SQ8", 4000), ("HNSW32", 4000)]
    screened = [one for one, count in runs if count == 500]
    families = shortlist(4100, 16, Minimise.LATENCY)
    assert len(screened) == len({*families, *variants("HNSW32,SQ8", 16)}), "families, and variants of the best"
    assert len([one for one in runs if one[1] == 1500]) < len(screened)
    assert "4.50x the latency of HNSW32" in {one.factory: one.verdict for one in choice.candidates}["HNSW32,SQ8"]


def test_more_recall_is_asked_for_where_more_rows_take_some_away() -> None:
    assert trial.raised(0.95, (6_000, 0.96), (24_000, 0.96), 100_000) == pytest.approx(0.95)
    assert trial.raised(0.95, (6_000, 0.96), (24_000, 0.98), 100_000) == pytest.approx(0.95), "never less"
    assert trial.raised(0.95, (6_000, 0.98), (24_000, 0.96), 96_000) == pytest.approx(0.975), "twice the loss each time"
    assert trial.raised(0.95, (6_000, 0.98), (24_000, 0.5), 96_000) == pytest.approx(0.975), "two recalls are noisy"
    assert trial.raised(0.95, (6_000, 1.0), (24_000, 0.999), 96_000) == pytest.approx(0.95), "and so are small losses"


def test_a_graphs_effort_is_measured_for_the_recall_it_will_need(vectors: VectorFile) -> None:
    sample = draw_sample(vectors, 4000, 100)
    before = trial.Bench(sample.part(500), threads=1).run("HNSW8", 0.9)
    bench = trial.Bench(sample, threads=1)
    here, later = (bench.run("HNSW8", 0.9, before, count) for count in (4000, 4_000_000))
    assert here.best is not None
    assert later.best is not None
    assert (here.raised, later.raised) == (False, True)
    assert later.best.recall > here.best.recall
    assert later.best.params["efSearch"] > here.best.params["efSearch"]


def test_the_smallest_index_must_keep_its_recall_on_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recalls by script: coarse codes reach the goal on the samples, and lose more the more rows there are."""
    np.save(tmp_path / "v.npy", rows(4000, 16))
    monkeypatch.setattr(auto, "DEEP_ROWS", 500)
    monkeypatch.setattr(auto, "TOP_ROWS", 1000)
    coarse = min(
        shortlist(4000, 16, Minimise.MEMORY), key=lambda one: new_entry(one, 4000, 16, Metric.L2).size.resident
    )

    def run(self: trial.Bench, factory: str, goal: float, *_: object, margin: float, **__: object) -> trial.Trial:
        count, asked = len(self.sample.rows), goal + 0.05 * margin
        assert asked > 0.955, "the goal and its margin"
        falls = scaled(coarse, 4000, count) == factory
        recall = {500: 0.97, 1000: 0.96}[count] if falls else 0.97
        return trial.Trial(factory, count, trial.Measured({}, min(recall, asked), 0.05, 1.0), recall)

    monkeypatch.setattr(trial.Bench, "run", run)
    with VectorFile(tmp_path / "v.npy", Metric.L2) as vectors:
        choice = select(vectors, Goal(0.95, Minimise.MEMORY), threads=1)
    assert choice.factory != coarse
    assert "too little for all rows" in {one.factory: one.verdict for one in choice.candidates}[coarse]


def test_graphs_do_not_take_every_place_on_the_larger_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times by script: each graph is faster than any list on small samples and slower on the largest one."""
    np.save(tmp_path / "v.npy", rows(4100, 16))
    graph, lists, others = (10.0, 11.0, 90.0), (16.0, 17.0, 20.0), (200.0, 200.0, 200.0)

    def times(factory: str) -> tuple[float, float, float]:
        return graph if factory.startswith("HNSW") else {"IVF16,SQ8": lists}.get(factory, others)

    built = by_script(monkeypatch, times)
    with VectorFile(tmp_path / "v.npy", Metric.L2) as vectors:
        choice = select(vectors, Goal(0.95), threads=1)
    assert choice.factory == "IVF16,SQ8"
    raced = [factory for factory, count in built if count == 4000]
    assert raced[:2] == ["IVF16,SQ8", "HNSW32,SQ8"], "lists, which cost little, before graphs"
    assert len(raced) <= auto.MOST_RACERS


def test_lists_of_4_bit_codes_are_compared_with_their_own_and_their_neighbours_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times by script, as of clusters: on a small sample all other lists are faster than 4-bit codes, and which number
    of lists is the best shows on a larger one only."""
    np.save(tmp_path / "v.npy", rows(4100, 16))
    wanted = "IVF16,PQ8x4fs,Refine(SQ8)"

    def times(factory: str) -> tuple[float, float, float]:
        if factory.startswith("HNSW"):
            return 10.0, 18.0, 90.0
        if "x4fs" not in factory:
            return 16.0, 20.0, 40.0
        if "PQ4x4fs" in factory:
            return 20.0, 28.0, 28.0
        if factory == wanted:
            return 20.0, 12.0, 12.0
        return (20.0, 20.0, 20.0) if factory.startswith("IVF16,") else (20.0, 24.0, 24.0)

    built = by_script(monkeypatch, times)
    assert wanted not in shortlist(4100, 16, Minimise.LATENCY)
    with VectorFile(tmp_path / "v.npy", Metric.L2) as vectors:
        choice = select(vectors, Goal(0.95), threads=1)
    assert choice.factory == wanted
    assert (wanted, 1500) in built


def test_the_best_of_each_kind_of_lists_is_raced_and_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times by script: a graph leads by half on small samples, and takes six times as long on the largest one."""
    np.save(tmp_path / "v.npy", rows(4100, 16))

    def times(factory: str) -> tuple[float, float, float]:
        if factory.startswith("HNSW"):
            return 10.0, 10.0, 60.0
        return (14.0, 14.0, 14.0) if "x4fs" in factory else (15.0, 15.0, 15.0)

    built = by_script(monkeypatch, times, beam=40)
    with VectorFile(tmp_path / "v.npy", Metric.L2) as vectors:
        choice = select(vectors, Goal(0.95), threads=1)
    assert "x4fs" in choice.factory
    raced = [factory for factory, count in built if count == 4000]
    assert {"x4fs" in factory for factory in raced[:2]} == {True, False}, "one of each kind at least"
    assert [factory for factory in raced if "HNSW" in factory] == raced[-1:], "one graph speaks for all"


def test_of_those_that_are_as_fast_the_smallest_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "v.npy", rows(4100, 16))
    times = {"HNSW32": (20.0, 20.0, 20.0), "HNSW32,SQ8": (20.5, 20.5, 20.5)}
    by_script(monkeypatch, lambda factory: times.get(factory, (200.0, 200.0, 200.0)), beam=40)
    with VectorFile(tmp_path / "v.npy", Metric.L2) as vectors:
        choice = select(vectors, Goal(0.95), threads=1)
    assert choice.factory == "HNSW32,SQ8"


def test_what_the_largest_sample_made_of_some_lists_is_expected_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times by script: lists take no longer on more rows, which nobody knows before; the second of the small sample is
    the fastest on the largest."""
    np.save(tmp_path / "v.npy", rows(4100, 16))

    def times(factory: str) -> tuple[float, float, float]:
        if factory.startswith("HNSW"):
            return 10.0, 10.0, 60.0
        if "x4fs" in factory:
            return (14.0, 15.0, 10.0) if "SQfp16" in factory else (14.0, 14.0, 14.0)
        return 100.0, 100.0, 100.0

    built = by_script(monkeypatch, times, beam=40)
    with VectorFile(tmp_path / "v.npy", Metric.L2) as vectors:
        choice = select(vectors, Goal(0.95), threads=1)
    assert "SQfp16" in choice.factory
    raced = [factory for factory, count in built if count == 4000 and "IVF" in factory]
    assert "SQfp16" not in raced[0], "by the small sample alone the other one is the best of its kind"
    assert len(raced) <= auto.MOST_LISTS_RACED


def test_a_query_is_timed_once_in_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same few again and again would find in the caches what they read."""
    data = rows(500, 16)
    bench = trial.Bench(Sample(data[:100], data[100:], Metric.L2), threads=1)
    asked: list[bytes] = []

    class Recorded:
        def search(self, query: Any, *_: Any, **__: Any) -> None:
            asked.append(query.tobytes())

    monkeypatch.setattr(trial, "search_parameters", lambda *_: None)
    monkeypatch.setattr(trial, "ROUND_SECONDS", 60)
    bench.latency(Recorded(), {})
    assert len(asked) == 2 * 400
    assert len(set(asked[:400])) == 400


@pytest.mark.parametrize("falls", [False, True])
def test_a_graph_whose_recall_falls_with_the_rows_is_raced_without_a_rival(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, falls: bool
) -> None:
    """More rows take more from it than from lists, so it is not sure of its lead; else they say nothing new of it."""
    np.save(tmp_path / "v.npy", rows(4100, 16))
    graph, others = (10.0, 11.0, 12.0), (200.0, 200.0, 200.0)
    built = by_script(monkeypatch, lambda factory: graph if factory == "HNSW32,SQ8" else others, beam=40, raised=falls)
    with VectorFile(tmp_path / "v.npy", Metric.L2) as vectors:
        choice = select(vectors, Goal(0.95), threads=1)
    assert choice.factory == "HNSW32,SQ8"
    assert [one for one in built if one[1] == 4000] == ([("HNSW32,SQ8", 4000)] if falls else [])


def test_time_is_extrapolated_by_what_was_seen_and_what_is_known() -> None:
    def entry(factory: str, *seen: tuple[int, float]) -> float:
        size = footprint(make_index("Flat", 10, 4, Metric.L2), 10)
        assert size is not None
        trials = {n: trial.Trial(factory, n, trial.Measured({}, 1, 0, us), 1.0) for n, us in seen}
        return Entry(factory, size, trials=trials).at(160_000)

    assert entry("Flat", (10_000, 10.0)) == pytest.approx(160)
    assert entry("IVF64,SQ8", (10_000, 10.0)) == pytest.approx(10 * 16**0.45)
    # Four times the rows took four times as long: half-way between that and what graphs do.
    assert entry("HNSW32,SQ8", (10_000, 10.0), (40_000, 40.0)) == pytest.approx(40 * 4 ** ((1 + 0.15) / 2))
    assert entry("HNSW32", (10_000, 10.0)) == pytest.approx(10 * 16**0.2), "vectors fall out of the caches"
    assert entry("HNSW32", (160_000, 33.0)) == pytest.approx(33)
    assert entry("HNSW32") == float("inf")


def test_a_variant_is_expected_to_be_as_its_parent_until_it_is_measured() -> None:
    parent = new_entry("HNSW32,SQ8", 160_000, 4, Metric.L2)
    for count, us in ((10_000, 10.0), (40_000, 20.0)):
        parent.trials[count] = trial.Trial("", count, trial.Measured({}, 1, 0, us), 1.0)
    child = new_entry("HNSW32", 160_000, 4, Metric.L2, 120, parent)
    child.handicap = 1.5
    assert child.at(160_000) == pytest.approx(1.5 * parent.at(160_000))
    child.trials[40_000] = trial.Trial("", 40_000, trial.Measured({}, 1, 0, 20.0), 1.0)
    assert child.at(160_000) == pytest.approx(parent.at(160_000)), "with the growth that its parent showed"
    broken = new_entry("HNSW32", 160_000, 4, Metric.L2, None, parent)
    broken.verdict = "FAISS cannot build it"
    assert broken.at(160_000) == float("inf")


def test_what_graphs_compute_evens_out_what_the_clock_says_of_them() -> None:
    def graph(factory: str, work: float, us: float) -> Entry:
        one = new_entry(factory, 160_000, 4, Metric.L2)
        one.trials[160_000] = trial.Trial("", 160_000, trial.Measured({}, 1, 0, us, work), 1.0)
        return one

    small, middle, large = (graph(f"HNSW{m},SQ8", w, us) for m, w, us in ((16, 100, 21), (24, 110, 20), (32, 300, 60)))
    other, lists = graph("HNSW32", 100, 70), graph("IVF16,SQ8", 0, 19)
    even_out((small, middle, large, other, lists), 160_000)
    times = [one.at(160_000) for one in (small, middle, large)]
    # A unit takes 0.2 us in the middle; the clock has the smallest one at 0.21 and the next at 0.18.
    assert times == pytest.approx([(21 * 20) ** 0.5, (20 * 22) ** 0.5, 60])
    assert (other.at(160_000), lists.at(160_000)) == (pytest.approx(70), 19), "alone of their kinds"
    assert small.trials[160_000].best == trial.Measured({}, 1, 0, 21, 100), "what was measured stays"


def test_who_computes_more_on_the_same_sample_is_not_raced() -> None:
    def graph(factory: str, effort: int | None = None, parent: Entry | None = None, **work: float) -> Entry:
        one = new_entry(factory, 160_000, 4, Metric.L2, effort, parent)
        for rows, amount in work.items():
            best = trial.Measured({}, 1, 0, 1.0, amount)
            one.trials[int(rows[1:])] = trial.Trial("", int(rows[1:]), best, 1.0)
        return one

    best = graph("HNSW24,SQ8", r6000=130, r24000=100)
    assert graph("HNSW32,SQ8", r6000=100, r24000=105).computes_more(best), "the largest sample of both counts"
    assert not graph("HNSW32,SQ8", r6000=999, r24000=100).computes_more(best), "nor who computes as much"
    assert not best.computes_more(best)
    assert not graph("HNSW32", r24000=200).computes_more(best), "another distance costs another time"
    assert not graph("HNSW32,SQ8", 120, r24000=200).computes_more(best), "built otherwise"
    assert not graph("IVF16,SQ8").computes_more(best)
    heavier = graph("HNSW24,SQ8", 120, best, r64000=300)
    like = graph("HNSW16,SQ8", 120, graph("HNSW16,SQ8", r24000=110))
    assert like.computes_more(heavier), "before its own trial, by what it was before it was built better"


def test_of_graphs_that_compute_as_much_the_one_with_the_fewest_links_is_raced() -> None:
    def graph(links: int, work: float) -> Entry:
        one = new_entry(f"HNSW{links},SQ8", 160_000, 4, Metric.L2)
        one.trials[24_000] = trial.Trial("", 24_000, trial.Measured({}, 1, 0, 1.0, work), 1.0)
        return one

    few, some, many = graph(24, 103), graph(32, 104), graph(48, 100)
    lists = new_entry("IVF64,SQ8", 160_000, 4, Metric.L2)
    assert lightest([many, lists, some, few]) == [few, lists]
    assert lightest([graph(16, 109), some, many]) == [some], "by who computes the least, so never nobody"


def test_the_work_of_a_graph_is_counted(vectors: VectorFile) -> None:
    sample = draw_sample(vectors, 2000, 50)
    bench = trial.Bench(sample, threads=1)
    graph, lists = bench.build("HNSW16"), bench.build("IVF16,Flat")
    few, many = (bench.measure(graph, {"efSearch": ef}, timed=False).work for ef in (10, 80))
    assert 20 < few < many < 2000 * (1 + trial.HOP_DISTANCES)
    assert bench.measure(graph, {"efSearch": 10}, timed=False).work == few, "the same every time"
    assert bench.measure(lists, {"nprobe": 4}, timed=False).work == 0


def test_large_data_has_lists_that_a_graph_finds() -> None:
    few, many = (shortlist(count, 64, Minimise.LATENCY) for count in (400_000, 2_000_000))
    assert not [one for one in few if "_HNSW" in one]
    assert {one for one in many if "_HNSW" in one} == {"IVF16384_HNSW32,SQ8", "IVF16384_HNSW32,PQ16x4fs,Refine(SQ8)"}
    assert not set(variants("IVF16384_HNSW32,SQ8", 64)) & {"HNSW24,SQ8", "HNSW32,SQ8"}
    assert {"IVF8192_HNSW32,SQ8", "IVF32768_HNSW32,SQ8"} <= set(variants("IVF16384_HNSW32,SQ8", 64))
    # On a sample a list holds as many rows as on all of them; where a scan finds the lists, fewer.
    assert scaled("IVF16384_HNSW32,SQ8", 2_000_000, 62_500) == "IVF512_HNSW32,SQ8"
    assert scaled("IVF4096,SQ8", 2_000_000, 62_500) == "IVF1024,SQ8"
    huge = [one for one in shortlist(10**9, 64, Minimise.LATENCY) if "_HNSW" in one]
    assert all(one.startswith("IVF65536_HNSW32") for one in huge)


def test_a_graph_over_centroids_is_measured_as_any_other(vectors: VectorFile) -> None:
    bench = trial.Bench(draw_sample(vectors, 4000, 100), threads=1)
    flat, graph = bench.run("IVF64,SQ8", 0.9), bench.run("IVF64_HNSW8,SQ8", 0.9)
    assert flat.best is not None
    assert graph.best is not None
    assert graph.best.params.keys() == {"nprobe", "quantizer_efSearch"}
    assert graph.best.params["nprobe"] <= 1.5 * flat.best.params["nprobe"] + 1, "the same lists"


@pytest.mark.parametrize(
    ("factory", "names"),
    [
        ("IVF64(PQ8x4fs,RFlat),SQ8", {"nprobe", "quantizer_k_factor"}),
        ("IVF64(IVF8,PQ8x4fs,RFlat),SQ8", {"nprobe", "quantizer_k_factor", "quantizer_nprobe"}),
        ("IMI2x4,SQ8", {"nprobe", "max_codes"}),
        ("PCA16,IVF32_HNSW8,PQ8x4fs,RFlat", {"nprobe", "quantizer_efSearch", "k_factor"}),
        ("NSG16", set()),
        ("PQ8", set()),
    ],
)
def test_any_factory_string_is_tuned_by_parameters_that_travel_with_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str, names: set[str]
) -> None:
    # A step of k_factor costs so little here that a busy machine turns the order round, as this clock does.
    monkeypatch.setattr(tuning, "_latency", lambda engine, queries, params: 1e9 - sum(params.values()))
    built = build(spec_task(tmp_path, factory=factory, objective={"recall": 0.9}))
    assert built.default_point.params.keys() == names
    store = FolderStore(tmp_path / "out", Role.ARTIFACTS)
    manifest, _ = load_manifest(store, Layout(store.prefix, IDENTITY), "d")
    assert {point.params.get("nprobe") for point in manifest.frontier}
    if "quantizer_k_factor" in names:
        # Found by FAISS's own ladder, and less than its most.
        assert built.default_point.recall > 0.9
        assert built.default_point.params["quantizer_k_factor"] < 64


def test_parameters_of_the_coarse_quantizer_reach_it() -> None:
    index = make_index("IVF64(IVF8,PQ8x4fs,RFlat),SQ8", 4000, 32, Metric.L2)
    data = rows(4000, 32)
    index.train(data)
    index.add(data)

    def found(**params: int) -> float:
        _, rows_found = index.search(data[:300], 1, params=search_parameters(index, {"nprobe": 1, **params}))
        return float((rows_found[:, 0] == np.arange(300)).mean())

    # Rows were assigned to lists by the quantizer as it is (1 and 1), so only the same search finds a row's own list.
    assert found(quantizer_nprobe=1, quantizer_k_factor=1) == 1
    assert found(quantizer_nprobe=8, quantizer_k_factor=8) < 0.9
    parameter_grid = faiss_ladders(index)
    assert parameter_grid["quantizer_nprobe"][:2] == (1, 2)
    assert parameter_grid["quantizer_k_factor"][-1] == 64
    assert faiss_ladders(make_index("IMI2x4,SQ8", 4000, 32, Metric.L2))["max_codes"][-1] == 0


@pytest.mark.parametrize("factory", ["IVF256,SQ8", "IVF256_HNSW8,Flat"])
@pytest.mark.parametrize("metric", [Metric.L2, Metric.INNER_PRODUCT])
def test_many_lists_are_trained_in_two_levels(factory: str, metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    data = rows(COUNT, DIMENSION)
    truth = faiss.knn(data[:100], data, 10, metric=faiss_metric(metric))[1]
    made: list[npt.NDArray[np.float32]] = []
    whole = training.two_level_clustering

    def keeping(*given: object, **options: object) -> tuple[npt.NDArray[np.float32], object]:
        centroids, statistics = whole(*given, **options)
        made.append(centroids)
        return centroids, statistics

    monkeypatch.setattr(training, "two_level_clustering", keeping)
    recalls = []
    for least in (10**9, 256):
        monkeypatch.setattr(training, "TWO_LEVEL_LISTS", least)
        index = make_index(factory, COUNT, DIMENSION, metric)
        training.train(index, data)
        index.add(data)
        _, found = index.search(data[:100], 10, params=search_parameters(index, {"nprobe": 24}))
        recalls.append(
            np.mean([len(set(a) & set(b)) / 10 for a, b in zip(truth.tolist(), found.tolist(), strict=True)])
        )
    assert len(made) == 1
    quantizer = faiss.downcast_index(list(layers(index))[-1].quantizer)
    np.testing.assert_array_equal(quantizer.reconstruct_n(0, 256), made[0])
    assert recalls[1] > recalls[0] - 0.05
    assert recalls[0] > 0.6


def test_uneven_rows_are_trained_in_one_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "TWO_LEVEL_LISTS", 64)
    data = np.repeat(rows(4, 8), 1000, axis=0)
    data[:70] = rows(70, 8, seed=3) * 100
    index = make_index("IVF64,Flat", len(data), 8, Metric.L2)
    training.train(index, data)
    assert index.is_trained
    assert index.quantizer.ntotal == 64
