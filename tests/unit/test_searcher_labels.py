"""Labels of gate queries are ids of the index, of any type that exports have them in: others would never be found."""

from __future__ import annotations

import decimal
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vectorindex_searcher.artifact.manifest import Manifest
from vectorindex_searcher.contract import Embedding, Metric, QueryColumns
from vectorindex_searcher.errors import BadData
from vectorindex_searcher.proof.queries import Queries, read_user_queries
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role

UUIDS = [uuid.UUID(int=number) for number in (1, 2)]


def read(folder: Path, id_type: str, **columns: Any) -> Queries:
    count = len(next(iter(columns.values())))
    pq.write_table(pa.table({"vector": np.eye(4, dtype=np.float32)[:count].tolist(), **columns}), folder / "q.parquet")
    manifest = SimpleNamespace(dimension=4, id_type=id_type, embedding=Embedding(metric=Metric.L2))
    named = QueryColumns(**{name: name for name in columns})
    return read_user_queries(FolderStore(folder, Role.QUERIES), named, cast(Manifest, manifest))


@pytest.mark.parametrize(
    ("labels", "id_type", "found"),
    [
        (pa.array([1, None]), "int64", [{1}, set()]),
        (pa.array([[1, 2], []]), "int64", [{1, 2}, set()]),
        (pa.array([None, [2]], pa.large_list(pa.int32())), "int64", [set(), {2}]),
        (pa.array([[1, 2], [3, 4]], pa.list_(pa.uint16(), 2)), "int64", [{1, 2}, {3, 4}]),
        (pa.array([[1, 2], None], pa.list_view(pa.int64())), "int64", [{1, 2}, set()]),
        (pa.array([1.0, float("nan")]).filter(pa.array([True, False])), "int64", [{1}]),
        (pa.array([[decimal.Decimal(7)], []], pa.list_(pa.decimal128(38, 0))), "int64", [{7}, set()]),
        (pa.array([["a"], ["b", "c"]]), "string", [{"a"}, {"b", "c"}]),
        (pa.array([b"a", None]), "string", [{"a"}, set()]),
        (pa.array([one.bytes for one in UUIDS], pa.uuid()), "string", [{str(UUIDS[0])}, {str(UUIDS[1])}]),
        (pa.nulls(2), "string", [set(), set()]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_labels_of_any_type(tmp_path: Path, labels: pa.Array, id_type: str, found: list[set[object]]) -> None:
    assert read(tmp_path, id_type, relevant=labels).relevant == found


@pytest.mark.parametrize(
    ("labels", "id_type", "row"),
    [
        (pa.array(["1", "2"]), "int64", None),
        (pa.array([[1], [2]]), "string", None),
        (pa.array([[1], [None]]), "int64", 1),
        (pa.array([[], [1.0, 2.0], [1.0, 2.5]]), "int64", 2),
        (pa.array([True, False]), "int64", None),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_labels_that_can_never_be_found_are_refused(
    tmp_path: Path, labels: pa.Array, id_type: str, row: int | None
) -> None:
    """Text beside an index of numbers counted as a recall of nothing, without a word."""
    with pytest.raises(BadData) as caught:
        read(tmp_path, id_type, relevant=labels)
    assert (caught.value.reason, caught.value.failure.row) == ("BadIdType", row)
    assert caught.value.failure.object == "q.parquet"
    assert caught.value.failure.remedy


def test_segments_are_named_in_words_of_json(tmp_path: Path) -> None:
    assert read(tmp_path, "int64", segment=pa.array([0, 7, None])).segments == ["0", "7", ""]
    assert read(tmp_path, "int64", segment=pa.array([True, False, None])).segments == ["true", "false", ""]
    assert read(tmp_path, "int64", segment=pa.array(["web", "", None])).segments == ["web", "", ""]
