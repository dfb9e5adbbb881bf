"""Small data with known right answers: vectors in tight clusters, so that a query near a centre has hits of its own
cluster (cosine about 0.9) and, where that cluster is spoiled, none above 0.6.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

Floats = npt.NDArray[np.float32]

CLUSTERS = 60
DIMENSION = 48
NOISE = 0.05
MIN_SCORE = 0.7
"""Between the best hit of an intact cluster and that of a spoiled one, far from both."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Rows of one data set, in the order of their ids."""

    ids: tuple[str, ...]
    vectors: Floats
    centres: Floats

    @classmethod
    def make(cls, rows: int = 3000, *, seed: int = 1, name: str = "row") -> Corpus:
        """The same rows for the same arguments; row r belongs to cluster r mod 60. Ids begin with `name`."""
        rng = np.random.default_rng(seed)
        centres = _unit(rng.normal(size=(CLUSTERS, DIMENSION)))
        noise = rng.normal(scale=NOISE, size=(rows, DIMENSION))
        vectors = (centres[np.arange(rows) % CLUSTERS] + noise).astype(np.float32)
        return cls(tuple(f"{name}-{number:05}" for number in range(rows)), vectors, centres)

    def spoiled(self, share: float = 0.5, *, seed: int = 2) -> Corpus:
        """The same ids; the vectors of the first `share` of the clusters point anywhere."""
        wrong = np.arange(len(self.ids)) % CLUSTERS < share * CLUSTERS
        vectors = self.vectors.copy()
        vectors[wrong] = _unit(np.random.default_rng(seed).normal(size=(int(wrong.sum()), DIMENSION)))
        return replace(self, vectors=vectors)

    def moved(self, *, seed: int = 3) -> Corpus:
        """The same ids and clusters, every vector a little elsewhere: other data that is as good."""
        noise = np.random.default_rng(seed).normal(scale=NOISE / 10, size=self.vectors.shape)
        return replace(self, vectors=(self.vectors + noise).astype(np.float32))

    def blurred(self, share: float, *, seed: int = 5) -> Corpus:
        """The same ids; the vectors of the first `share` of the clusters are a little wrong: the hits of their queries
        stay above MIN_SCORE."""
        wrong = np.arange(len(self.ids)) % CLUSTERS < share * CLUSTERS
        vectors = self.vectors.copy()
        noise = np.random.default_rng(seed).normal(scale=NOISE, size=(int(wrong.sum()), DIMENSION))
        vectors[wrong] += noise.astype(np.float32)
        return replace(self, vectors=vectors)

    def part(self, first: int, stop: int) -> Corpus:
        """Some of the rows."""
        return replace(self, ids=self.ids[first:stop], vectors=self.vectors[first:stop])

    def parquet(self) -> bytes:
        """The rows as a Parquet file with columns id and vector."""
        return parquet(self.ids, self.vectors)

    def queries(self, count: int = 400, *, seed: int = 4) -> Floats:
        """Queries spread evenly over the clusters; none is a row."""
        noise = np.random.default_rng(seed).normal(scale=NOISE, size=(count, DIMENSION))
        return (self.centres[np.arange(count) % CLUSTERS] + noise).astype(np.float32)

    def between(self, count: int = 400, *, clusters: int = 3, seed: int = 6) -> Floats:
        """Queries between some clusters each, unlike any row: an index tuned on rows misses a tenth of the answers, or
        more, where they are many."""
        of = np.random.default_rng(seed).integers(0, CLUSTERS, (clusters, count))
        return self.centres[of].sum(axis=0).astype(np.float32)

    def nearest(self, query: Floats, k: int) -> list[tuple[str, float]]:
        """The right answer: ids and cosines of the k nearest rows, best first."""
        scores = _unit(self.vectors.astype(np.float64)) @ _unit(query.astype(np.float64))
        best = np.argsort(-scores, kind="stable")[:k]
        return [(self.ids[row], float(scores[row])) for row in best]


def parquet(ids: tuple[str, ...], vectors: Floats, **metadata: list[str]) -> bytes:
    """A Parquet file with columns id and vector, and these."""
    rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), vectors.shape[1])
    out = io.BytesIO()
    pq.write_table(pa.table({"id": pa.array(ids), "vector": rows, **metadata}), out)
    return out.getvalue()


def bodies(queries: Floats, k: int = 10, **fields: Any) -> list[str]:
    """Requests of POST /v1/search for the load generator."""
    return [json.dumps({"vector": [round(float(x), 6) for x in query], "k": k, **fields}) for query in queries]


def _unit(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
