"""docs/reference/pod-sizes.md says what the code computes, and that is what builds and searchers are held to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pod_sizes
from vectorindex_searcher.build import budget
from vectorindex_searcher.contract import Metric
from vectorindex_searcher.errors import BadSpec
from vectorindex_searcher.index.factory import make_index, training_rows
from vectorindex_searcher.index.memory import footprint
from vectorindex_searcher.index.selection.subset import restricted_bytes
from vectorindex_searcher.index.threads import limit_threads

MIB = 1 << 20
ROWS, DIMENSION = 3000, 16


def test_the_page_is_what_the_code_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pod_sizes.main(["--check"]) == 0, "run `make generate`"
    monkeypatch.setattr(pod_sizes, "PAGE", tmp_path / "pod-sizes.md")
    assert pod_sizes.main(["--check"]) == 1
    pod_sizes.main(["--write"])
    assert pod_sizes.main(["--check"]) == 0


@pytest.mark.parametrize("factory", pod_sizes.factories(ROWS, DIMENSION))
def test_what_filters_will_take_is_told_by_an_empty_index(factory: str) -> None:
    limit_threads(1)
    index = make_index(factory, ROWS, DIMENSION, Metric.COSINE)
    told = restricted_bytes(index, ROWS)
    vectors = np.random.default_rng(1).standard_normal((ROWS, DIMENSION)).astype(np.float32)
    index.train(vectors)
    index.add(vectors)
    assert told == restricted_bytes(index) > 0


@pytest.mark.parametrize(("rows", "dimension"), [(1_000_000, 768), (10_000_000, 128)])
def test_the_memory_of_a_build_is_where_it_is_refused_and_where_it_has_its_sample(rows: int, dimension: int) -> None:
    for factory in pod_sizes.factories(rows, dimension):
        found, empty = pod_sizes.sizes(factory, rows, dimension), make_index(factory, rows, dimension, Metric.COSINE)
        size = footprint(empty, rows)
        assert size is not None

        def build(limit: int, index: int = size.resident, empty: object = empty) -> None:
            budget.require(limit, index, budget.sample_bytes(training_rows(empty, rows, limit), dimension))

        build(found.least)
        with pytest.raises(BadSpec, match="the build takes up to"):
            build(found.least - 2 * MIB)
        build(found.whole)
        assert training_rows(empty, rows, found.whole) == training_rows(empty, rows)
        if found.whole > found.least:
            assert training_rows(empty, rows, found.whole - MIB) < training_rows(empty, rows)


def test_a_pod_with_more_cores_is_given_more_memory_and_no_more_disk() -> None:
    found = pod_sizes.sizes("HNSW32,SQ8", 1_000_000, 128)
    one, four = found.pod(1), found.pod(4)
    assert one[0] < four[0] < four[1]
    assert one[1] < four[1]
    assert one[2] == four[2] > found.held
    assert one[0] > found.held > found.index + 8_000_000
