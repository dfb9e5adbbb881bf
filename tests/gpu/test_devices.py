"""Training, filling and exact search on a GPU give what the CPU gives, by recall: rounding differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from devices import FACTORIES, exact_rows, filled, random, recall_of_itself, truth_of

from vectorindex_searcher.contract import Device, Metric
from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.index.device import OnCPU, OnGPU, pick_device

ONLY_HERE = ("IVF16,PQ8", "IVF16,PQ16", "IVF16,SQfp16")
"""Codes of 8 bits take a CPU 60 to 100 times as long to train as those of 4."""


@pytest.mark.parametrize("factory", [*FACTORIES, *ONLY_HERE])
def test_a_gpu_builds_an_index_that_finds_its_rows(factory: str) -> None:
    data = random(3000, 32)
    full = filled(OnGPU(), factory, data)
    assert (full.ntotal, type(faiss.downcast_index(full))) == (3000, type(faiss.index_factory(32, factory)))
    assert recall_of_itself(full, data) > 0.95


@pytest.mark.parametrize("factory", ["IVF64,SQ8", "IVF64,PQ16x4fs", "IVF64,Flat"])
def test_what_a_gpu_filled_finds_as_much_as_what_a_cpu_filled(factory: str) -> None:
    data, queries = random(20_000, 32, 1), random(200, 32, 2)
    exact = exact_rows(data, queries, 10)

    def recall(backend: Any) -> float:
        full = filled(backend, factory, data, nprobe=8)
        _, rows = full.search(queries, 10)
        return float(np.mean([len(set(one) & set(other)) for one, other in zip(rows, exact, strict=True)])) / 10

    assert recall(OnGPU()) == pytest.approx(recall(OnCPU()), abs=0.03)


@pytest.mark.parametrize("rows", [1, 31, 4097])
def test_blocks_of_any_size_are_sent_whole(rows: int) -> None:
    data = random(5000, 16)
    full = filled(OnGPU(piece_rows=rows), "IVF16,SQ8", data, step=1999)
    assert full.ntotal == 5000
    assert recall_of_itself(full, data) > 0.95


@pytest.mark.parametrize("metric", list(Metric))
def test_a_gpu_finds_the_exact_neighbours(metric: Metric, tmp_path: Path) -> None:
    found, wanted = truth_of(OnGPU, metric, tmp_path)
    np.testing.assert_array_equal(found, wanted)


def test_where_there_is_a_gpu_it_is_taken() -> None:
    assert [pick_device(wanted).device for wanted in Device] == [
        Device.CPU if wanted is Device.CPU else Device.GPU for wanted in Device
    ]


def test_with_less_scratch_memory_it_builds_the_same_index() -> None:
    data = random(3000, 32)
    assert recall_of_itself(filled(OnGPU(64 << 20, 1024), "IVF16,SQ8", data), data) > 0.95
