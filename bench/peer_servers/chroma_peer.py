"""Chroma's own server over its HTTP API: HNSW (max_neighbors 16, ef_construction 128), inner product."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import chromadb
import worker

BATCH = 5000


class Chroma:
    parameter, ladder = "ef_search", (10, 20, 30, 40, 60, 80, 100, 140, 200, 300, 400)

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        program = Path(sys.executable).with_name("chroma")
        flags = ["run", "--path", str(folder / "data"), "--host", "127.0.0.1", "--port", str(self._port)]
        with (folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen([program, *flags], stdout=log, stderr=log)
        self.version = f"chroma {chromadb.__version__}"
        self.about = "HNSW max_neighbors 16, ef_construction 128; HTTP, JSON"
        end = time.monotonic() + 60
        while True:
            try:
                self._client = chromadb.HttpClient(host="127.0.0.1", port=self._port)
                self._client.heartbeat()
                break
            except Exception:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def load(self, vectors: worker.Floats) -> None:
        hnsw = {"space": "ip", "max_neighbors": 16, "ef_construction": 128, "ef_search": 100, "sync_threshold": 2000}
        self._items = self._client.get_or_create_collection(
            "items", configuration={"hnsw": hnsw}, embedding_function=None
        )
        for start in range(self._items.count(), len(vectors), BATCH):
            part = vectors[start : start + BATCH]
            self._items.add(ids=[str(start + n) for n in range(len(part))], embeddings=part)
        self._path = f"/api/v2/tenants/default_tenant/databases/default_database/collections/{self._items.id}/query"

    def tune(self, value: int) -> None:
        self._items.modify(configuration={"hnsw": {"ef_search": value}})

    def ask(self, query: worker.Floats) -> list[int]:
        found = self._items.query(query_embeddings=[query], n_results=worker.K, include=[])
        return [int(name) for name in found["ids"][0]]

    def closed(self, queries: worker.Floats, seconds: float, connections: int) -> int:
        bodies = [
            json.dumps({"query_embeddings": [query.tolist()], "n_results": worker.K, "include": []}).encode()
            for query in queries[:1000]
        ]
        counts = [0] * connections
        end = time.perf_counter() + seconds

        def loop(number: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port)
            while time.perf_counter() < end:
                body = bodies[(number * 61 + counts[number]) % len(bodies)]
                connection.request("POST", self._path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 200:
                    raise SystemExit(f"chroma answered {answer.status}: {text[:300]!r}")
                counts[number] += 1
            connection.close()

        threads = [threading.Thread(target=loop, args=(number,)) for number in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts)

    def cpu(self) -> float:
        return worker.cpu_of_tree(self._process.pid)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)


if __name__ == "__main__":
    worker.main(Chroma)
