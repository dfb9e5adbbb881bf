"""One peer as a process: started by bench/peers.py in the peers' own environment, which has nothing of this project.

Arguments: VECTORS.npy QUERIES.npy TRUTH.npy FOLDER RECALL CONNECTIONS. Vectors and queries are float32 of unit length,
TRUTH holds the exact ten nearest rows of each query. Loads, tunes the one search parameter to the cheapest value that
reaches RECALL, prints a line of JSON about itself, then answers each line of standard input (seconds) with
{"count": queries, "cpu": CPU seconds of the server's processes}.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

K = 10
TUNING_QUERIES = 500
Floats = npt.NDArray[np.float32]


class Peer(Protocol):
    """A vector store under test."""

    version: str
    about: str
    """Index and protocol, in words."""
    parameter: str
    """Name of the search parameter."""
    ladder: Sequence[int]
    """Its values, rising."""

    def load(self, vectors: Floats) -> None:
        """Store and index; row numbers are the ids."""
        ...

    def tune(self, value: int) -> None:
        """Search with this value from now on."""
        ...

    def ask(self, query: Floats) -> Sequence[int]:
        """Ids of the ten nearest."""
        ...

    def closed(self, queries: Floats, seconds: float, connections: int) -> int:
        """Ask on so many connections at once for so long; how many were answered."""
        ...

    def cpu(self) -> float:
        """CPU seconds of the server's processes so far."""
        ...

    def close(self) -> None:
        """End what was started."""
        ...


def main(make: Callable[[Path], Peer]) -> None:
    vectors, queries, truth = (np.load(path) for path in sys.argv[1:4])
    folder, wanted, connections = Path(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6])
    folder.mkdir(parents=True, exist_ok=True)
    peer = make(folder)
    try:
        began = time.perf_counter()
        peer.load(vectors)
        loaded = time.perf_counter() - began
        recall, value = 0.0, 0
        for value in peer.ladder:
            peer.tune(value)
            recall = recall_of(peer, queries, truth)
            print(f"{peer.parameter} {value}: recall@{K} {recall:.4f}", file=sys.stderr, flush=True)
            if recall >= wanted:
                break
        facts = {"version": peer.version, "about": peer.about, "parameter": f"{peer.parameter} {value}"}
        print(json.dumps({**facts, "recall": recall, "load_seconds": loaded}), flush=True)
        for line in sys.stdin:
            before = peer.cpu()
            count = peer.closed(queries, float(line), connections)
            print(json.dumps({"count": count, "cpu": peer.cpu() - before}), flush=True)
    finally:
        peer.close()


def recall_of(peer: Peer, queries: Floats, truth: npt.NDArray[np.int64]) -> float:
    """Share of the exact ten nearest among the answers, over some queries."""
    found = sum(
        len(np.intersect1d(peer.ask(query), right))
        for query, right in zip(queries[:TUNING_QUERIES], truth[:TUNING_QUERIES], strict=True)
    )
    return float(found / (K * TUNING_QUERIES))


def cpu_of_tree(root: int) -> float:
    """CPU seconds of a process and all its descendants that live now, to the nanosecond."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    total, waiting = 0.0, [root]
    while waiting:
        pid = waiting.pop()
        waiting += children.get(pid, [])
        try:
            total += time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3)
        except OSError:
            continue
    return total
