"""Queries per CPU-second of the whole server process, as a share of FAISS by itself: the limit of any server.

    python bench/serving.py [--quick] [--only real|clustered] [--rounds 5] [--seconds 1.5] [--factory HNSW32,SQ8]

Real vectors (BENCH_DATA, else the demo's) and 200,000 x 768 clustered ones. The searcher runs by flags as its own
process with one search thread, the load comes from another process, and FAISS by itself is a third: the same file, the
same parameters, single queries, one thread. They take turns within each round, since a machine's speed changes by the
minute; shares are medians over rounds. A fourth is the least that a server in Python can be (bare_server.py), so that
what is ours can be told from what sockets and sleeping cost. Closed loop with 1, 8 and 64 connections, JSON and binary,
and with a trace id in each head; then an open loop at 50 % and 90 % of the capacity just measured. With BENCH_DATA also
a cheap search of it, at a low goal of recall: there the server shows most. At last ids and metadata of 100 hits among
1.1 million rows. Writes bench/results/serving.md and summary.json, except with --quick, --only, --connections or
--factory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import results
from artifacts import Artifact, built, serving
from datasets import FOLDER, Dataset, clustered, real
from lookups import ROWS, lookup_us
from processes import Child, connect, per_query

from vectorindex_searcher.index.metric import normalise

HERE = Path(__file__).resolve().parent
CONNECTIONS = (1, 8, 64)
HEADLINE = ("binary", "json")
TRACED = ("binary-traced", "json-traced")
QUERIES = 4000
CHEAP, CHEAP_RECALL = "73us", 0.93
"""What a search of 63,666 x 384 vectors takes FAISS by itself at this goal of recall, about."""


@dataclass
class Measured:
    """CPU microseconds a query, one entry a round. Keys of `server`: (format, connections)."""

    dataset: str
    artifact: Artifact
    faiss: list[float] = field(default_factory=list)
    faiss_batch: list[float] = field(default_factory=list)
    server: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    shares: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    bare: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Of the bare server, by connections."""
    rates: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    """Queries per second of wall time."""
    open_loop: list[tuple[str, float, float, float, float, int]] = field(default_factory=list)
    """Format, share of capacity, queries a second, p50 and p99 in ms, refused."""


def measure(
    dataset: Dataset, factory: str, rounds: int, seconds: float, numbers: Sequence[int], cheap: bool = False
) -> Measured:
    """All of one data set."""
    artifact = built(dataset, factory, CHEAP_RECALL) if cheap else built(dataset, factory)
    raw, unit = FOLDER / f"{dataset.name}-queries.npy", FOLDER / f"{dataset.name}-queries-unit.npy"
    queries = dataset.queries(QUERIES)
    np.save(raw, queries)
    np.save(unit, normalise(queries))
    params = json.dumps(artifact.manifest.default_point.params)
    index = str(artifact.files / "index.faiss")
    cores = sorted(os.sched_getaffinity(0))
    core, other = (cores[0], cores[-1]) if len(cores) > 1 else (None, None)
    single = Child(str(HERE / "inprocess.py"), index, str(unit), params, core=core)
    batch = Child(str(HERE / "inprocess.py"), index, str(unit), params, "64", core=core)
    load = Child(str(HERE / "load_client.py"), str(raw), core=other)
    bare_server = Child(str(HERE / "bare_server.py"), index, params, core=core)
    found = Measured(f"{dataset.name}-{CHEAP}" if cheap else dataset.name, artifact)
    try:
        bare_port = bare_server.hear()["port"]
        for child in (single, batch):
            child.ask(str(4 * seconds))  # the pages of a mapped index come in with the first searches
        with serving(artifact, core=core) as server:
            kinds = [(kind, connections) for connections in numbers for kind in HEADLINE]
            kinds += [(kind, numbers[-1]) for kind in ("json-long", *TRACED)]
            for _ in range(rounds):
                for kind, connections in kinds:
                    connect(load, server.port, connections, kind)
                    bare = per_query(single.ask(str(seconds)))
                    before = server.cpu()
                    answer = load.ask(json.dumps({"do": "closed", "seconds": seconds}))
                    spent = (server.cpu() - before) / answer["count"] * 1e6
                    again = per_query(single.ask(str(seconds)))
                    found.faiss += [bare, again]
                    found.server[kind, connections].append(spent)
                    found.shares[kind, connections].append((bare + again) / 2 / spent)
                    found.rates[kind, connections].append(answer["count"] / answer["seconds"])
                found.faiss_batch.append(per_query(batch.ask(str(seconds))))
                for connections in numbers:
                    connect(load, bare_port, connections, "binary")
                    before = bare_server.cpu()
                    answer = load.ask(json.dumps({"do": "closed", "seconds": seconds}))
                    found.bare[connections].append((bare_server.cpu() - before) / answer["count"] * 1e6)
            for kind in HEADLINE:
                for share in (0.5, 0.9):
                    connect(load, server.port, numbers[-1], kind)
                    rate = share * statistics.median(found.rates[kind, numbers[-1]])
                    answer = load.ask(json.dumps({"do": "open", "seconds": 4 * seconds, "rate": rate}))
                    found.open_loop.append((kind, share, rate, answer["p50"], answer["p99"], int(answer["refused"])))
    finally:
        for child in (load, single, batch, bare_server):
            child.close()
    return found


def page(found: list[Measured], lookups: Mapping[str, float]) -> str:
    """The Markdown page. `lookups`: of lookup_us."""
    parts = [
        "# Serving: queries per CPU-second as a share of FAISS by itself\n",
        f"`python bench/serving.py`, {results.stamp()}. {results.machine()}.\n",
        "CPU microseconds a query of the whole server process (kernel included), medians over rounds in which the "
        "server and FAISS by itself took turns; in brackets the lowest and the highest share of a round. One core, "
        "k = 10. `json-long`: vectors as Python's json module writes them (twice the bytes); `-traced`: a "
        "`traceparent` and an `X-Request-Id` that differ in each request.\n",
    ]
    if warning := results.busy():
        parts.append(warning + "\n")
    for one in found:
        point = one.artifact.manifest.default_point
        parts.append(f"\n## {one.dataset}: {one.artifact.manifest.count:,} x {one.artifact.manifest.dimension}\n")
        bare, batch = statistics.median(one.faiss), statistics.median(one.faiss_batch)
        parts.append(
            f"{one.artifact.manifest.factory}, {point.params}, recall@10 {point.recall:.3f}. "
            f"FAISS by itself: {bare:.0f} us a query, {batch:.0f} us in batches of 64.\n"
        )
        rows = []
        for (kind, connections), spent in sorted(one.server.items(), key=lambda item: (item[0][1], item[0][0])):
            shares = one.shares[kind, connections]
            shown = f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"
            rate = statistics.median(one.rates[kind, connections])
            rows.append((connections, kind, statistics.median(spent), min(spent), shown, rate))
        parts.append(results.table(("connections", "body", "us a query", "least", "share", "queries/s"), rows))
        beside = ", ".join(f"{statistics.median(spent):.0f} us at {n}" for n, spent in one.bare.items())
        parts.append(f"\nThe bare server (one query a call, no checks), connections: {beside}.\n")
        parts.append("\nOpen loop, 64 connections, latency from the moment a query was to be sent:\n")
        loops = [(kind, f"{share:.0%}", *rest) for kind, share, *rest in one.open_loop]
        parts.append(results.table(("body", "of capacity", "queries/s", "p50 ms", "p99 ms", "refused"), loops))
    parts.append(f"\n## Looking up 100 hits among {ROWS:,} rows\n")
    parts.append("CPU microseconds for all hits of a query, one thread; metadata: a text and a number.\n")
    parts.append(results.table(("what", "us a query"), [(name, spent) for name, spent in lookups.items()]))
    return "\n".join(parts)


def headlines(found: list[Measured], lookups: Mapping[str, float]) -> dict[str, float]:
    """Keys of summary.json."""
    shares = {
        f"serving.{one.dataset}.{kind.replace('-', '_')}_{connections}_share": statistics.median(shares)
        for one in found
        for (kind, connections), shares in one.shares.items()
        if kind in (*HEADLINE, *TRACED)
    }
    return shares | {f"serving.k100_1m_{name}_us": spent for name, spent in lookups.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round on small data; writes no results")
    parser.add_argument("--only", choices=("real", "clustered"), help="one of the two data sets")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one measurement")
    parser.add_argument("--connections", type=int, nargs="+", default=CONNECTIONS)
    parser.add_argument("--factory", help="instead of HNSW32,SQ8 (real) and HNSW32 (clustered)")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 0.4
    how = (options.rounds, options.seconds, options.connections)
    found = []
    if options.only != "clustered":
        factory = options.factory or "HNSW32,SQ8"
        found.append(measure(real(), factory, *how))
        if os.environ.get("BENCH_DATA"):
            found.append(measure(real(), factory, *how, cheap=True))
    if options.only != "real":
        data = clustered(20_000, 128) if options.quick else clustered(200_000, 768)
        found.append(measure(data, options.factory or "HNSW32", *how))
    lookups = lookup_us()
    text = page(found, lookups)
    print(text)
    if not (options.quick or options.factory or options.only or options.connections != CONNECTIONS):
        results.write_page("serving", text)
        results.add_to_summary(headlines(found, lookups))


if __name__ == "__main__":
    main()
