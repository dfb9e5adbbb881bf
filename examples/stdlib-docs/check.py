# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=1.26", "pyarrow>=15"]
# ///
"""Validates the two files, then prints how well exact search answers, and what a wrong embedding does to it."""

from __future__ import annotations

import itertools
import pathlib
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from spoil import spoil

HERE = pathlib.Path(__file__).parent
K = 10
FLOORS = (0.3, 0.35, 0.38, 0.4, 0.45)


def main() -> None:
    documents = pq.read_table(HERE / "documents.parquet")
    queries = pq.read_table(HERE / "queries.parquet")
    validate(documents, queries)
    classes = np.array(queries.column("query_class").to_pylist())
    asked = vectors(queries)
    scores, rows = exact(vectors(documents), asked)
    ranks = reciprocal_ranks(documents, queries, rows)
    for each in sorted(set(classes)):
        mine = classes == each
        print(f"{each}: {mine.sum()} queries, MRR@{K} {ranks[mine].mean():.3f}, {summary(scores[mine, 0])}")
    print(f"all: MRR@{K} {ranks.mean():.3f}, {summary(scores[:, 0])}")
    with tempfile.TemporaryDirectory() as folder:
        spoiled = pathlib.Path(folder) / "spoiled.parquet"
        for by, fraction in itertools.product(("topic", "document"), (0.3, 0.5, 0.7)):
            rotated, _ = spoil(HERE / "documents.parquet", spoiled, fraction, 7, by)
            scores, found = exact(vectors(pq.read_table(spoiled)), asked)
            ranks = reciprocal_ranks(documents, queries, found)
            same = np.mean([len(set(a) & set(b)) / K for a, b in zip(rows.tolist(), found.tolist(), strict=True)])
            quality = f"MRR@{K} {ranks.mean():.3f}, overlap@{K} {same:.2f}, {summary(scores[:, 0])}"
            print(f"{rotated} rotated by {by}: {quality}")


def validate(documents: pa.Table, queries: pa.Table) -> None:
    for table in (documents, queries):
        lengths = np.linalg.norm(vectors(table), axis=1)
        assert np.isfinite(lengths).all(), "no vector has a NaN"
        assert np.abs(lengths - 1).max() < 1e-2, "vectors have unit length"
        assert all(column.null_count == 0 for column in table.columns), "nothing is null"
    ids = set(documents.column("id").to_pylist())
    assert len(ids) == len(documents), "ids are unique"
    assert len(set(queries.column("query").to_pylist())) == len(queries), "queries are unique"
    for right in queries.column("relevant_ids").to_pylist():
        assert right, "every query has an answer"
        assert ids.issuperset(right), f"the answers {right} exist"
    print(f"valid: {len(documents)} documents, {len(queries)} queries")


def vectors(table: pa.Table) -> np.ndarray:
    column = table.column("vector").combine_chunks()
    return column.values.to_numpy().reshape(len(column), -1).astype(np.float32)


def exact(base: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and rows of the K best, best first."""
    cosines = asked @ base.T
    rows = np.argsort(-cosines, axis=1, kind="stable")[:, :K]
    return np.take_along_axis(cosines, rows, axis=1), rows


def reciprocal_ranks(documents: pa.Table, queries: pa.Table, rows: np.ndarray) -> np.ndarray:
    ids = documents.column("id").to_pylist()
    answers = queries.column("relevant_ids").to_pylist()
    return np.array(
        [
            next((1 / rank for rank, row in enumerate(found, 1) if ids[row] in right), 0.0)
            for found, right in zip(rows.tolist(), map(set, answers), strict=True)
        ]
    )


def summary(top: np.ndarray) -> str:
    low, middle = np.percentile(top, (5, 50))
    below = ", ".join(f"{floor} {np.mean(top < floor):.1%}" for floor in FLOORS)
    return f"first hit {top.mean():.3f} (p5 {low:.3f}, p50 {middle:.3f}), below: {below}"


if __name__ == "__main__":
    main()
