"""Recall maths against brute force. The lower bound has its own tests: test_searcher_recall_bound.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from vectorindex_searcher.contract import Metric
from vectorindex_searcher.index import vectors as vectors_module
from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.index.vectors import VectorFile, VectorWriter
from vectorindex_searcher.proof.exact import exact_search
from vectorindex_searcher.proof.measure import measure, reciprocal_rank, without_own

Rows = npt.NDArray[np.float32]


def stored(path: Path, vectors: Rows, metric: Metric, *, half: bool = False) -> VectorFile:
    with VectorWriter(path / "vectors.npy", *vectors.shape, half=half) as writer:
        writer.write(vectors)
    return VectorFile(path / "vectors.npy", metric)


def brute_scores(queries: Rows, vectors: Rows, metric: Metric) -> npt.NDArray[np.float64]:
    """User-order scores [n, N] in float64, straight from the definitions."""
    a, b = queries.astype(np.float64), vectors.astype(np.float64)
    if metric is Metric.INNER_PRODUCT:
        return a @ b.T
    if metric is Metric.COSINE:
        return (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T
    return -((a[:, None] - b[None]) ** 2).sum(axis=2)


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("offset", [0.0, 3000.0])
def test_exact_search_is_brute_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: Metric, offset: float
) -> None:
    """In blocks, with row numbers offset rightly, and also far from the origin, where BLAS loses the distances."""
    monkeypatch.setattr(vectors_module, "SCAN_BYTES", 64 * 4 * 16)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(faiss.cvar, "distance_compute_blas_threshold", 1)
    rng = np.random.default_rng(1)
    vectors = (rng.standard_normal((700, 16)) + offset).astype(np.float32)
    queries = (rng.standard_normal((40, 16)) + offset).astype(np.float32)
    with stored(tmp_path, vectors, metric) as file:
        truth = exact_search(file, queries, 10, metric)
    scores = brute_scores(queries, vectors, metric)
    expected = np.argsort(-scores, axis=1)[:, :10]
    kth = np.take_along_axis(scores, expected[:, -1:], 1)[:, 0]
    if metric is Metric.COSINE and offset:
        # Cosines of such data differ by less than float32 unit vectors can tell apart; what was found must be as good.
        worst = np.take_along_axis(scores, truth.rows[:, :10], 1).min(axis=1)
        np.testing.assert_allclose(worst, kth, rtol=0, atol=1e-6)
    else:
        np.testing.assert_array_equal(np.sort(truth.rows[:, :10]), np.sort(expected))
    assert (truth.available == 10).all()


def test_own_row_does_not_count_and_few_rows_are_all_there_are(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    own = np.arange(6)
    with stored(tmp_path, vectors, Metric.L2) as file:
        truth = exact_search(file, vectors, 10, Metric.L2, own)
        assert not (truth.rows == own[:, None]).any()
        assert (truth.available == 5).all()
        everything = np.tile(np.arange(6), (6, 1))
        answers = np.pad(without_own(everything, own, 10), ((0, 0), (0, 4)), constant_values=-1)
        assert (measure(truth, answers, file, vectors).recall == 1).all()
        assert np.allclose(measure(truth, answers[:, :2], file, vectors).recall, 2 / 5)


def test_a_single_row_has_no_neighbours_to_miss(tmp_path: Path) -> None:
    vectors = np.ones((1, 4), np.float32)
    with stored(tmp_path, vectors, Metric.COSINE) as file:
        truth = exact_search(file, vectors, 10, Metric.COSINE, np.array([0]))
        outcome = measure(truth, np.full((1, 10), -1), file, vectors)
    assert outcome.recall.tolist() == [1.0]
    assert truth.available.tolist() == [0]


@pytest.mark.parametrize("metric", list(Metric))
def test_ties_count_by_distance_and_misses_do_not(tmp_path: Path, metric: Metric) -> None:
    """Every row is there three times, so which copy is answered must not matter; worse rows must not count."""
    rng = np.random.default_rng(2)
    base = rng.standard_normal((50, 8)).astype(np.float32)
    vectors = np.concatenate([base, base, base])
    queries = rng.standard_normal((20, 8)).astype(np.float32)
    order = np.argsort(-brute_scores(queries, base, metric), axis=1)
    with stored(tmp_path, vectors, metric) as file:
        truth = exact_search(file, queries, 4, metric)
        # Two best rows, each in two of its three copies: the fourth neighbour is a copy of the second row.
        copies = np.concatenate([order[:, :2] + 50, order[:, :2] + 100], axis=1)
        outcome = measure(truth, copies, file, queries)
        assert (outcome.recall == 1).all()
        assert (outcome.reciprocal_rank == 1).all()
        worse = np.concatenate([order[:, 5:6], order[:, :1], order[:, 6:8]], axis=1)
        outcome = measure(truth, worse, file, queries)
        assert np.allclose(outcome.recall, 1 / 4)
        assert np.allclose(outcome.reciprocal_rank, 1 / 2)


def test_recall_equals_brute_force_intersection(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((400, 12)).astype(np.float32)
    queries = vectors[:60]
    own = np.arange(60)
    given = np.argsort(rng.random((60, 400)), axis=1)[:, :10]
    given = np.where(given == own[:, None], 399, given)
    scores = brute_scores(queries, vectors, Metric.L2)
    scores[np.arange(60), own] = -np.inf
    exact = np.argsort(-scores, axis=1)[:, :10]
    expected = [len(set(a) & set(b)) / 10 for a, b in zip(given.tolist(), exact.tolist(), strict=True)]
    with stored(tmp_path, vectors, Metric.L2) as file:
        truth = exact_search(file, queries, 10, Metric.L2, own)
        np.testing.assert_allclose(measure(truth, given, file, queries).recall, expected)


def test_half_precision_file_gives_back_what_was_given(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float16).astype(np.float32)
    with stored(tmp_path, vectors, Metric.L2, half=True) as file:
        np.testing.assert_array_equal(file.gather(np.array([299, 0, 5])), vectors[[299, 0, 5]])
    assert (tmp_path / "vectors.npy").stat().st_size < vectors.nbytes


def test_own_row_is_taken_out_wherever_it_is() -> None:
    rows = np.array([[7, 1, 2], [1, 8, 2], [1, 2, 3], [9, -1, -1]])
    own = np.array([7, 8, 9, -1])
    assert without_own(rows, own, 2).tolist() == [[1, 2], [1, 2], [1, 2], [9, -1]]
    assert reciprocal_rank(np.array([[False, True], [False, False]])).tolist() == [0.5, 0]


def test_ties_within_float_error_count(tmp_path: Path) -> None:
    """Two rows at one distance whose float32 coordinates differ: rounding must not decide which of them is right."""
    rng = np.random.default_rng(4)
    query = rng.standard_normal((1, 24)).astype(np.float32)
    step = rng.standard_normal(24)
    near = [query[0] + sign * step for sign in (1, -1)]  # one distance but for the rounding of the coordinates
    far = query[0] + 5 * rng.standard_normal((30, 24))
    vectors = np.concatenate([near, far]).astype(np.float32)
    with stored(tmp_path, vectors, Metric.L2) as file:
        truth = exact_search(file, query, 1, Metric.L2)
        scores = truth.scores[0, :2]
        assert scores[0] != scores[1]  # else this shows nothing
        for row in (0, 1):
            outcome = measure(truth, np.array([[row]]), file, query)
            assert (outcome.recall[0], outcome.reciprocal_rank[0]) == (1, 1), row
        assert measure(truth, np.array([[2]]), file, query).recall[0] == 0


def test_a_few_huge_rows_make_no_ties_of_the_others(tmp_path: Path) -> None:
    """Under the inner product 12 rows of huge norm lifted recall from .29 to .99: a tie is as wide as its own rows."""
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((2000, 16)).astype(np.float32)
    vectors[:12] *= 3e6
    queries = rng.standard_normal((40, 16)).astype(np.float32)
    order = np.argsort(-brute_scores(queries, vectors, Metric.INNER_PRODUCT), axis=1)
    with stored(tmp_path, vectors, Metric.INNER_PRODUCT) as file:
        truth = exact_search(file, queries, 10, Metric.INNER_PRODUCT)
        assert measure(truth, order[:, :10], file, queries).recall.tolist() == [1.0] * 40
        # The huge rows that are right, and for the rest rows far behind.
        answered = np.concatenate([order[:, :3], order[:, 300:307]], axis=1)
        outcome = measure(truth, answered, file, queries)
        np.testing.assert_allclose(outcome.recall, 0.3)
        # And what is nearest is not widened by the others either.
        assert measure(truth, order[:, 1:11], file, queries).reciprocal_rank.tolist() == [0.0] * 40


def test_a_hit_in_a_later_block_keeps_its_row_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of a row in several blocks and its own row in another one: numbers are of the file, not of the block."""
    monkeypatch.setattr(vectors_module, "SCAN_BYTES", 1)  # the least there is: blocks of 64 rows
    rng = np.random.default_rng(6)
    vectors = rng.standard_normal((64 * 4 + 7, 8)).astype(np.float32)
    places = np.array([3, 64 + 3, 2 * 64 + 3, 4 * 64 + 3])
    vectors[places] = vectors[3]
    with stored(tmp_path, vectors, Metric.L2) as file:
        assert len(list(file.blocks())) == 5
        truth = exact_search(file, vectors[places], 3, Metric.L2, places)
    for own, rows in zip(places, truth.rows, strict=True):
        assert sorted(rows[:3]) == sorted(set(places) - {own})
