"""Trials of `Auto` on honest samples: no query, and no row as good as equal to one, is in the index or in its training.

A query that is a row of a graph is found from its own node, so recall measured with rows lies above that of anything
users ask.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from vectorindex_searcher.contract import Metric
from vectorindex_searcher.index import factory as factory_module
from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.index.choose import auto, trial
from vectorindex_searcher.index.choose import sample as drawing
from vectorindex_searcher.index.choose.auto import select
from vectorindex_searcher.index.choose.choice import Goal
from vectorindex_searcher.index.metric import faiss_metric
from vectorindex_searcher.index.parameters import search_parameters
from vectorindex_searcher.index.vectors import VectorFile

COUNT, FRESH, DIMENSION = 12_000, 1_500, 48
Floats = npt.NDArray[np.float32]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})


def low_rank(count: int, seed: int = 0) -> Floats:
    """Vectors that vary in 20 directions, with a little noise in all: hard for a graph."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(9).standard_normal((20, DIMENSION))
    data = rng.standard_normal((count, 20)) @ directions + 0.1 * rng.standard_normal((count, DIMENSION))
    return data.astype(np.float32)


def written(folder: Path, data: Floats, metric: Metric = Metric.L2) -> VectorFile:
    np.save(folder / "vectors.npy", data)
    return VectorFile(folder / "vectors.npy", metric)


def recall(index: object, queries: Floats, rows: Floats, params: dict[str, int]) -> float:
    """Recall@10 of queries that nobody has seen, counted anew."""
    _, truth = faiss.knn(queries, rows, 10)
    _, found = index.search(queries, 10, params=search_parameters(index, params))  # type: ignore[attr-defined]
    return float(np.mean([len({*a} & {*b}) / 10 for a, b in zip(truth.tolist(), found.tolist(), strict=True)]))


@pytest.mark.parametrize(
    ("factory", "params"),
    [
        ("HNSW16", {"efSearch": 16}),
        ("HNSW32,SQ8", {"efSearch": 12}),
        ("IVF64,SQ8", {"nprobe": 6}),
        ("IVF64,PQ24x4fs,Refine(SQ8)", {"nprobe": 8, "k_factor": 4}),
    ],
)
def test_the_recall_of_a_trial_is_that_of_fresh_queries(tmp_path: Path, factory: str, params: dict[str, int]) -> None:
    data = low_rank(COUNT + FRESH)
    with written(tmp_path, data[FRESH:]) as vectors:
        sample = drawing.draw_sample(vectors, COUNT, 1000)
    bench = trial.Bench(sample, threads=1)
    index = bench.build(factory)
    measured = bench.measure(index, params, timed=False)
    fresh = recall(index, data[:FRESH], sample.rows, params)
    # Two means of some 600 and 1,500 queries, each with the spread that was measured, at three standard errors.
    noise = 3 * measured.spread * np.sqrt(1 / len(sample.queries) + 1 / FRESH)
    assert noise < 0.025
    assert abs(measured.recall - fresh) < noise


@pytest.mark.parametrize("metric", list(Metric))
def test_neither_queries_nor_their_near_duplicates_are_trained_on_or_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: Metric
) -> None:
    """What FAISS itself is given, for every family and every sample of one run of `Auto`."""
    originals = low_rank(1500)
    moved = originals + 1e-3 * np.random.default_rng(1).standard_normal(originals.shape).astype(np.float32)
    samples: list[drawing.Sample] = []
    given: list[Floats] = []
    draw, build = auto.draw_sample, trial.make_index
    monkeypatch.setattr(auto, "draw_sample", lambda *some: samples.append(draw(*some)) or samples[-1])
    monkeypatch.setattr(factory_module, "FLAT_FLOATS", 1000)
    monkeypatch.setattr(auto, "SCREEN_ROWS", 600)
    monkeypatch.setattr(auto, "DEEP_ROWS", 1200)
    monkeypatch.setattr(auto, "CLOSE", math.inf)  # somebody is always raced, on the largest sample

    def spied(*some: object) -> object:
        index = build(*some)  # type: ignore[arg-type]
        for name in ("train", "add"):
            known = getattr(index, name)
            setattr(index, name, lambda rows, known=known: (given.append(rows), known(rows)))
        return index

    monkeypatch.setattr(trial, "make_index", spied)
    with written(tmp_path, np.concatenate([originals, moved, originals]), metric) as vectors:
        select(vectors, Goal(0.9), threads=1)
        everything = vectors.gather(np.arange(vectors.count))
    (sample,) = samples
    assert 40 <= len(sample.queries) <= 4500 // 20
    assert len({len(rows) for rows in given}) >= 3, "every sample of the run"
    distances, _ = faiss.knn(np.concatenate([sample.rows, *given]), sample.queries, 1)
    kth = np.median(faiss.knn(sample.queries, everything, 30)[0][:, 29])
    assert distances.min() > 0.01 * kth, "a tenth of the distance"
    # Three of each there were: both others went with the query, which may be a query itself.
    assert len(everything) - len(sample.rows) >= 2.8 * len({row.tobytes() for row in sample.queries})


def test_at_most_a_twentieth_is_left_out_and_never_all_of_anything(tmp_path: Path) -> None:
    def left_out(data: Floats, rows: int = 10**6) -> tuple[drawing.Sample, int]:
        with written(tmp_path, data) as vectors:
            sample = drawing.draw_sample(vectors, rows, 300)
        return sample, min(rows, len(data)) - len(sample.rows)

    sample, gone = left_out(low_rank(20_000))
    assert (len(sample.queries), gone) == (300, 300)
    sample, gone = left_out(low_rank(2000))
    assert len(sample.queries) == gone == 100
    # Some rows come a thousand times: they stay, but for those that are asked.
    sample, gone = left_out(np.concatenate([low_rank(10_000), np.repeat(low_rank(4, seed=3), 1000, axis=0)]))
    assert (len(sample.queries), gone) == (300, 300)
    # All rows come four times: a query costs four rows.
    sample, gone = left_out(np.repeat(low_rank(1500), 4, axis=0))
    assert gone <= 6000 // 20
    assert 60 <= len(sample.queries) <= 75
    sample, gone = left_out(np.ones((3000, DIMENSION), np.float32))
    assert len(sample.rows) >= 2800
    for few in (1, 2, 3, 4, 30):
        sample, _ = left_out(low_rank(few))
        assert len(sample.rows) >= few - few // 4
        assert len(sample.queries) > 0
        assert trial.Bench(sample, threads=1).measure(trial.Bench(sample, 1).build("Flat"), {}).recall == 1
    sample, _ = left_out(low_rank(20_000), rows=5000)
    assert (len(sample.rows), len(sample.queries)) == (5000, 300), "queries of a part of the rows are fresh beside it"


@pytest.mark.parametrize("metric", [Metric.L2, Metric.INNER_PRODUCT])
def test_ties_count_by_the_neighbours_own_length(metric: Metric) -> None:
    """One row as long as a thousand others made every product near 0 a tie."""
    data = low_rank(600)
    data[-1] *= 1e3
    sample = drawing.Sample(data[20:], data[:20], metric)
    bench = trial.Bench(sample, threads=1)
    _, right = faiss.knn(sample.queries, sample.rows, 60, metric=faiss_metric(metric))
    assert bench.recall(right[:, :10]).mean() == 1
    assert bench.recall(right[:, 20:30]).mean() == 0


def test_copies_are_known_where_most_rows_have_more_of_them_than_an_answer_has_places(tmp_path: Path) -> None:
    """Each document lies there 30 times: the tenth neighbour of a row is a copy of it, and so tells no distance."""
    documents = low_rank(200)
    copies = np.tile(documents, (30, 1))
    copies += 1e-2 * np.random.default_rng(1).standard_normal(copies.shape).astype(np.float32)
    with written(tmp_path, copies) as vectors:
        sample = drawing.draw_sample(vectors, 4000, 300)
    distances, _ = faiss.knn(sample.rows, sample.queries, 1)
    between = np.median(faiss.knn(documents, documents, 2)[0][:, 1])
    assert len(sample.queries)
    assert distances.min() > 0.1 * between
