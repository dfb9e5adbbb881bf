"""What bench/gpu_graph.py does after the GPU: its graph, here made by the CPU, over the codes that we serve."""

from __future__ import annotations

import sys
from pathlib import Path

import faiss
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import gpu_graph

RNG = np.random.default_rng(0)
CENTRES = 2 * RNG.standard_normal((20, 16), np.float32)
ROWS = CENTRES[RNG.integers(0, 20, 4000)] + RNG.standard_normal((4000, 16), np.float32)
ROWS /= np.linalg.norm(ROWS, axis=1, keepdims=True)
QUERIES = ROWS[:200] + 0.05 * RNG.standard_normal((200, 16), np.float32)


def _graph() -> faiss.IndexHNSWCagra:
    graph = faiss.IndexHNSWCagra(16, gpu_graph.LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.base_level_only = False
    graph.add(ROWS)
    return graph


def test_a_graph_over_codes_finds_what_an_index_made_in_one_piece_finds() -> None:
    index = gpu_graph.laid_over_codes(_graph(), ROWS)
    assert (type(index), index.ntotal) == (faiss.IndexHNSWSQ, len(ROWS))
    _, truth = faiss.knn(QUERIES, ROWS, 10, metric=faiss.METRIC_INNER_PRODUCT)
    _, found = index.search(QUERIES, 10)
    _, whole = gpu_graph.by_cpus(ROWS).search(QUERIES, 10)
    assert gpu_graph.recall_of(found, truth) == pytest.approx(gpu_graph.recall_of(whole, truth), abs=0.02)


def test_it_is_written_and_read_like_any_other() -> None:
    index = gpu_graph.laid_over_codes(_graph(), ROWS)
    again = faiss.deserialize_index(faiss.serialize_index(index))
    assert type(again) is faiss.IndexHNSWSQ
    np.testing.assert_array_equal(again.search(QUERIES, 10)[1], index.search(QUERIES, 10)[1])


def test_the_smallest_effort_that_reaches_the_goal_is_what_is_told() -> None:
    _, truth = faiss.knn(QUERIES, ROWS, 10, metric=faiss.METRIC_INNER_PRODUCT)
    told = gpu_graph.measured("CPUs", gpu_graph.by_cpus, ROWS, QUERIES, truth)
    assert told.ef in gpu_graph.EF_SEARCH
    assert told.recall >= gpu_graph.RECALL
    assert "| CPUs |" in gpu_graph.page([told], "rows")


def test_without_cagra_nothing_is_measured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["gpu_graph.py"])
    gpu_graph.main()
    assert "no CAGRA" in capsys.readouterr().out
