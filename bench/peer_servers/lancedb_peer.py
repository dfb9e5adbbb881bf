"""LanceDB as the library it is, in one process: no server, no network, so its figure is a lower bound of one's cost."""

from __future__ import annotations

import time
from pathlib import Path

import lancedb
import pyarrow as pa
import worker


class LanceDB:
    parameter, ladder = "ef", (20, 30, 40, 60, 80, 100, 140, 200, 300, 400, 600)

    def __init__(self, folder: Path) -> None:
        self._database = lancedb.connect(str(folder / "data"))
        self.version = f"lancedb {lancedb.__version__}"
        self.about = "IVF_HNSW_SQ, one partition, m 16, ef_construction 128; in-process, one caller"
        self._ef = 20

    def load(self, vectors: worker.Floats) -> None:
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        table = pa.table({"id": pa.array(range(len(vectors)), pa.int64()), "vector": flat})
        self._items = self._database.create_table("items", table, mode="overwrite")
        self._items.create_index(
            metric="dot", index_type="IVF_HNSW_SQ", num_partitions=1, m=16, ef_construction=128, replace=True
        )

    def tune(self, value: int) -> None:
        self._ef = value

    def _search(self, query: worker.Floats) -> pa.Table:
        chosen = self._items.search(query).distance_type("dot").nprobes(1).ef(self._ef).limit(worker.K)
        return chosen.select(["id", "_distance"]).to_arrow()

    def ask(self, query: worker.Floats) -> list[int]:
        ids: list[int] = self._search(query).column("id").to_pylist()
        return ids

    def closed(self, queries: worker.Floats, seconds: float, connections: int) -> int:  # noqa: ARG002 - one caller
        count, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            self._search(queries[count % len(queries)])
            count += 1
        return count

    def cpu(self) -> float:
        return time.process_time()

    def close(self) -> None:
        pass


if __name__ == "__main__":
    worker.main(LanceDB)
