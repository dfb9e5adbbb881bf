"""A searcher as its own process, under requests that are each allowed or nearly so and meant to fill its memory."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trustme
from cost import memory
from wire import Client, post

from vectorindex_searcher.serve.http.limits import TLS_CONNECTION_BYTES, TLS_CONNECTIONS, Limits, heap_bytes

ROWS, DIMENSION, THREADS = 3000, 32, 2
VECTORS = np.random.default_rng(3).standard_normal((ROWS, DIMENSION)).astype(np.float32)
PROGRAM = [sys.executable, "-m", "vectorindex_searcher"]
CLIENTS = 8
"""Who ask at the same time."""
PROCESSES = [pytest.param(1, id="one process"), pytest.param(2, id="two processes")]


@dataclass(frozen=True)
class Searcher:
    port: int
    pid: int
    processes: int
    """That answer users."""

    def memory(self, what: str) -> list[int]:
        """Of each of its processes, as cost.memory has it."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [memory(what, pid) for pid in (self.pid, *map(int, children))]

    def post(self, body: bytes, query: str = "", content_type: str = "application/json") -> int:
        """The status of the answer, which is read to its end."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            connection.request("POST", f"/v1/search{query}", body, {"Content-Type": content_type})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    source, artifact = folder / "source", folder / "artifact"
    source.mkdir()
    table = {
        "id": pa.array(range(ROWS)),
        "vector": pa.array(VECTORS.tolist(), pa.list_(pa.float32())),
        "text": pa.array([f"{row:06d}" * 30 for row in range(ROWS)]),
    }
    pq.write_table(pa.table(table), source / "a.parquet")
    flags = ["--source", source, "--out", artifact, "--factory", "IVF16,SQ8,RFlat", "--metadata", "text"]
    subprocess.run([*PROGRAM, "build", *map(str, flags)], check=True, capture_output=True)
    return artifact


@pytest.fixture(scope="module", params=PROCESSES)
def searcher(artifact: Path, request: pytest.FixtureRequest) -> Iterator[Searcher]:
    with started(artifact, request.param) as searcher:
        yield searcher


@contextmanager
def started(artifact: Path, processes: int, *flags: str) -> Iterator[Searcher]:
    environment = os.environ | {"VECTORINDEX_SEARCH_THREADS": str(THREADS), "VECTORINDEX_HOST": "127.0.0.1"}
    environment["VECTORINDEX_PROCESSES"] = str(processes)
    ports = ["--http-port", "0", "--admin-port", "0", "--cache-dir", str(artifact.parent / "cache")]
    command = [*PROGRAM, "serve", "--artifact", str(artifact), *ports, *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    said = (json.loads(line) for line in process.stderr)
    try:
        port = next(line["port"] for line in said if line["message"] == "ready")
        draining = threading.Thread(target=deque, args=(said, 0))  # a full pipe would stop it
        draining.start()
        yield Searcher(port, process.pid, processes)
    finally:
        process.kill()
        process.wait()
    draining.join()
    process.stderr.close()


def many(number: int, **fields: Any) -> bytes:
    chosen = VECTORS[np.arange(number) % ROWS].tolist()
    return json.dumps({"vectors": chosen, **fields}).encode()


def widest(searcher: Searcher, turn: int) -> None:
    """The work of a request is bounded: 1.9 GiB were taken by the first of these."""
    fields = {"k": 1000, "params": {"k_factor": 256, "nprobe": 16}}
    assert searcher.post(many(256, **fields)) in (400, 503)
    assert searcher.post(many(16, **fields)) in (200, 400, 503)
    assert searcher.post(many(1 + turn % 15, **fields)) in (200, 503)


def longest(searcher: Searcher, turn: int) -> None:
    """So is the length of an answer: the first of these is 41 MiB for 41 KB."""
    assert searcher.post(many(256, k=1000, include=["metadata"])) in (400, 503)
    assert searcher.post(many(40 + turn, k=1000, include=["metadata"])) in (200, 503)
    assert searcher.post(many(256, k=1000)) in (200, 503)


def filters(searcher: Searcher, turn: int) -> None:
    """Predicates count in the cache of their rows and in that of plans."""
    values = [f"{turn}-{number:010d}" * 6 for number in range(4096)]
    body = json.dumps({"vector": VECTORS[0].tolist(), "filter": {"text": {"in": values}}}).encode()
    assert searcher.post(body) in (200, 503)


def plans(searcher: Searcher, turn: int) -> None:
    """A plan holds nothing of the body that it came with."""
    body = np.tile(VECTORS, (30, 1))[: 256 * 100].tobytes()[: 256 * DIMENSION * 4]
    for number in range(40):
        query = f"?dimension={DIMENSION}&k=1&minScore={turn}.{number:03d}"
        assert searcher.post(body, query, "application/octet-stream") in (200, 503)


def junk(searcher: Searcher, turn: int) -> None:
    """Decoded, each of these bytes would be thirty."""
    size = Limits().body_bytes - 64
    text = [b'{"vectors":[' + b"[]," * (size // 3) + b"[]]}", b'{"k":[' + b"{}," * (size // 3) + b"{}]}"][turn % 2]
    assert searcher.post(text) in (400, 503)
    assert searcher.post(b'{"vector":[' + b"0.5," * (size // 4) + b"0.5]}") in (400, 503)


HOSTILE: list[Callable[[Searcher, int], None]] = [widest, longest, filters, plans, junk]


def test_memory_stays_below_the_bound_that_the_limits_add_up_to(searcher: Searcher) -> None:
    for _ in range(20):
        assert searcher.post(many(3, k=10)) == 200
    before = searcher.memory("VmRSS")
    turns = [(one, turn) for turn in range(16 // searcher.processes) for one in HOSTILE]
    with ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(one, searcher, turn) for one, turn in turns]:
            done.result()
    grown = sum(searcher.memory("VmHWM")) - sum(before)
    assert grown < heap_bytes(THREADS, processes=searcher.processes), f"{grown >> 20} MiB"
    assert searcher.post(many(3, k=10)) == 200


@pytest.mark.parametrize("processes", PROCESSES)
def test_a_connection_by_tls_keeps_no_more_than_is_counted_for_it(
    artifact: Path, tmp_path: Path, processes: int
) -> None:
    """It keeps the buffers of the longest request that it sent, though nothing is asked on it."""
    authority, chain, key = trustme.CA(), tmp_path / "tls.crt", tmp_path / "tls.key"
    issued, trusting = authority.issue_cert("localhost"), ssl.create_default_context()
    issued.private_key_and_cert_chain_pem.write_to_path(key)
    chain.write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
    authority.configure_trust(trusting)
    junk = post(b'{"vector":[' + b" " * (256 << 10) + b'"x"]}', b"/v1/search")
    few, all_of_them = 32, 160
    flags = ("--tls-cert", str(chain), "--tls-key", str(key))
    with started(artifact, processes, *flags) as searcher, ExitStack() as open_ones:
        taken: list[int] = []
        clients: list[Client] = []
        for number in range(all_of_them):
            raw = socket.create_connection(("127.0.0.1", searcher.port), timeout=60)
            wrapped = open_ones.enter_context(closing(trusting.wrap_socket(raw, server_hostname="localhost")))
            clients.append(Client(wrapped))
            assert clients[-1].send(junk).answer()[0] == 400
            if number + 1 in (few, all_of_them):
                taken.append(sum(searcher.memory("VmRSS")))
    each = (taken[1] - taken[0]) // (all_of_them - few)
    assert each < TLS_CONNECTION_BYTES, f"{each >> 10} KiB"
    assert heap_bytes(THREADS, tls=True) == heap_bytes(THREADS) + TLS_CONNECTIONS * TLS_CONNECTION_BYTES
