"""Qdrant's engine as a library (qdrant-edge): no server, no network, so its figure is a lower bound of Qdrant's cost.

Qdrant itself has no package for Python and takes longer to build than the bench to run; this wheel holds the same
segments, HNSW and quantisation, by the same people.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path

import qdrant_edge as qdrant
import worker

BATCH = 1000
EXACT_BELOW_KB = 1
"""Always by the graph: exact search for small segments is a choice of Qdrant's that would hide it."""


class Qdrant:
    parameter, ladder = "hnsw_ef", (10, 12, 16, 20, 30, 40, 60, 80, 100, 140, 200)

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "data"
        self.version = f"qdrant-edge {version('qdrant-edge-py')}"
        self.about = "HNSW m 16, ef_construct 128, int8 in memory without rescoring; in-process, one caller"
        self._ef = 10

    def load(self, vectors: worker.Floats) -> None:
        if self._folder.exists():
            self._shard = qdrant.EdgeShard.load(str(self._folder))
            return
        self._folder.mkdir(parents=True)
        quantised = qdrant.ScalarQuantizationConfig(qdrant.ScalarType.Int8, quantile=0.99, always_ram=True)
        graph = qdrant.HnswIndexConfig(16, 128, EXACT_BELOW_KB)
        values = qdrant.EdgeVectorParams(
            vectors.shape[1], qdrant.Distance.Dot, quantization_config=quantised, hnsw_config=graph
        )
        whole = qdrant.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1)
        self._shard = qdrant.EdgeShard.create(
            str(self._folder), qdrant.EdgeConfig(vectors=values, optimizers=whole, hnsw_config=graph)
        )
        for start in range(0, len(vectors), BATCH):
            block = vectors[start : start + BATCH].tolist()
            points = [qdrant.Point(start + number, vector) for number, vector in enumerate(block)]
            self._shard.update(qdrant.UpdateOperation.upsert_points(points))
        self._shard.optimize()
        self._shard.flush()

    def tune(self, value: int) -> None:
        self._ef = value

    def _request(self, query: worker.Floats) -> qdrant.SearchRequest:
        how = qdrant.SearchParams(hnsw_ef=self._ef, quantization=qdrant.QuantizationSearchParams(rescore=False))
        return qdrant.SearchRequest(qdrant.Query.Nearest(query.tolist()), worker.K, params=how)

    def ask(self, query: worker.Floats) -> list[int]:
        return [int(hit.id) for hit in self._shard.search(self._request(query))]

    def closed(self, queries: worker.Floats, seconds: float, connections: int) -> int:  # noqa: ARG002 - one caller
        if self._prepared_for != self._ef:
            self._requests, self._prepared_for = [self._request(query) for query in queries], self._ef
        self._before = time.process_time()
        count, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            assert len(self._shard.search(self._requests[count % len(self._requests)])) == worker.K
            count += 1
        self._total += time.process_time() - self._before
        return count

    _requests: list[qdrant.SearchRequest]
    _prepared_for = 0
    _total = 0.0

    def cpu(self) -> float:
        return self._total

    def close(self) -> None:
        self._shard.close()


if __name__ == "__main__":
    worker.main(Qdrant)
