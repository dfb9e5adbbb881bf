"""Server CPU a query against other vector stores, on the same data, at recall@10 of at least 0.95, 64 connections.

    python bench/peers.py [--quick] [--only pgvector|chroma|lancedb|qdrant] [--rounds 3] [--seconds 4]

Peers live in an environment of their own (build/bench/peers, made at the first run from peer_servers/requirements.txt)
and each is a process with a client of its own, one at a time. Within each round FAISS by itself, our searcher (binary
and JSON) and the peer take turns, each at its cheapest parameters that reach the recall on the same queries, so that a
ratio holds both sides under the same conditions. Counted is the CPU time of the server's processes, kernel included,
never the client's. Writes bench/results/peers.md and the keys peers.* of summary.json, except with --quick or --only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import results
from artifacts import Artifact, built, serving
from datasets import FOLDER, Dataset, clustered, real
from processes import Child, connect, per_query

from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.index.engine import read_index
from vectorindex_searcher.index.metric import normalise
from vectorindex_searcher.index.parameters import search_parameters
from vectorindex_searcher.index.vectors import VectorFile

HERE = Path(__file__).resolve().parent
SERVERS = HERE / "peer_servers"
ENVIRONMENT = FOLDER / "peers"
PEERS = ("pgvector", "chroma", "lancedb", "qdrant")
CONNECTIONS = 64
QUERIES = 4000
TUNING_QUERIES = 500
LADDER = (10, 12, 16, 20, 30, 40, 60, 80, 100)
RECALL = 0.95
K = 10


@dataclass(frozen=True, slots=True)
class Row:
    """Medians over rounds, CPU microseconds a query."""

    name: str
    facts: dict[str, Any]
    spent: float
    binary: float
    """Ours, in the same rounds."""
    json: float
    faiss: float


def environment() -> Path:
    """The peers' Python, installed at the first run."""
    python = ENVIRONMENT / "bin" / "python"
    wanted = (SERVERS / "requirements.txt").read_text()
    mark = ENVIRONMENT / "requirements.txt"
    if not mark.exists() or mark.read_text() != wanted:
        uv = shutil.which("uv") or str(HERE.parent / "build" / "tools" / "bin" / "uv")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", "3.11", str(ENVIRONMENT)], check=True)
        flags = ["--python", str(python), "-r", str(SERVERS / "requirements.txt")]
        subprocess.run([uv, "pip", "install", "--quiet", *flags], check=True)
        mark.write_text(wanted)
    return python


def prepare(dataset: Dataset) -> tuple[Path, Path, Path, Path]:
    """Files: unit vectors, queries as given, unit queries, exact rows."""
    folder = FOLDER / f"peers-{dataset.name}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("vectors.npy", "queries.npy", "queries-unit.npy", "truth.npy")]
    artifact = built(dataset, "HNSW32,SQ8", RECALL)
    with VectorFile(artifact.files / "vectors.npy", artifact.manifest.embedding.metric) as file:
        vectors = np.concatenate([block for _, block in file.blocks()])
    queries = dataset.queries(QUERIES)
    unit = normalise(queries)
    _, truth = faiss.knn(unit, vectors, K, metric=faiss.METRIC_INNER_PRODUCT)
    for path, values in zip(paths, (vectors, queries, unit, truth), strict=True):
        np.save(path, values)
    return paths[0], paths[1], paths[2], paths[3]


def tuned(artifact: Artifact, unit: Path, truth: Path) -> tuple[int, float]:
    """efSearch and recall@10 of ours by the peers' own rule: the cheapest that reaches RECALL on the first queries."""
    index = read_index(artifact.files / "index.faiss")
    queries, right = np.load(unit)[:TUNING_QUERIES], np.load(truth)[:TUNING_QUERIES]
    value, recall = 0, 0.0
    for value in LADDER:
        _, found = index.search(queries, K, params=search_parameters(index, {"efSearch": value}))
        recall = float(np.mean((found[:, :, None] == right[:, None, :]).any(axis=1)))
        if recall >= RECALL:
            break
    return value, recall


def measure(dataset: Dataset, names: list[str], rounds: int, seconds: float) -> list[Row]:
    """Each peer against ours."""
    python = environment()
    artifact = built(dataset, "HNSW32,SQ8", RECALL)
    vectors, raw, unit, truth = prepare(dataset)
    cores = sorted(os.sched_getaffinity(0))
    core, other = (cores[0], cores[-1]) if len(cores) > 1 else (None, None)
    params = {"efSearch": tuned(artifact, unit, truth)[0]}
    index = str(artifact.files / "index.faiss")
    bare = Child(str(HERE / "inprocess.py"), index, str(unit), json.dumps(params), core=core)
    load = Child(str(HERE / "load_client.py"), str(raw), core=other)
    rows = []
    try:
        with serving(artifact, core=core) as ours:
            for name in names:
                arguments = [str(vectors), str(unit), str(truth), str(FOLDER / f"peers-{dataset.name}" / name)]
                script = str(SERVERS / f"{name}_peer.py")
                # Not pinned: a peer may use both cores, as its client does; CPU time is what counts.
                peer = Child(script, *arguments, str(RECALL), str(CONNECTIONS), core=None, python=python)
                try:
                    facts = peer.hear()
                    spent: dict[str, list[float]] = {"peer": [], "binary": [], "json": [], "faiss": []}
                    peer.ask(str(seconds / 4))
                    for _ in range(rounds):
                        spent["faiss"].append(per_query(bare.ask(str(seconds / 2))))
                        for kind in ("binary", "json"):
                            connect(load, ours.port, CONNECTIONS, kind, params)
                            before = ours.cpu()
                            answer = load.ask(json.dumps({"do": "closed", "seconds": seconds / 2}))
                            spent[kind].append((ours.cpu() - before) / answer["count"] * 1e6)
                        spent["peer"].append(per_query(peer.ask(str(seconds))))
                finally:
                    peer.close()
                middle = {key: statistics.median(values) for key, values in spent.items()}
                rows.append(Row(name, facts, middle["peer"], middle["binary"], middle["json"], middle["faiss"]))
                print(f"{name}: {middle}", flush=True)
    finally:
        bare.close()
        load.close()
    return rows


def page(dataset: Dataset, rows: list[Row]) -> str:
    """The Markdown page."""
    artifact = built(dataset, "HNSW32,SQ8", RECALL)
    folder = FOLDER / f"peers-{dataset.name}"
    value, recall = tuned(artifact, folder / "queries-unit.npy", folder / "truth.npy")
    head = ("peer", "version", "index and protocol", "recall@10", "us a query", "ours binary", "ours JSON", "ratio")
    lines = [
        (
            row.name,
            row.facts["version"],
            f"{row.facts['about']}; {row.facts['parameter']}",
            row.facts["recall"],
            row.spent,
            row.binary,
            row.json,
            f"{row.spent / row.binary:.1f} / {row.spent / row.json:.1f}",
        )
        for row in rows
    ]
    return "\n".join(
        [
            f"# Peers: server CPU a query at recall@10 of at least {RECALL:g}, {CONNECTIONS} connections\n",
            f"`python bench/peers.py`, {results.stamp()}. {results.machine()}.\n",
            f"{dataset.name}, {artifact.manifest.count:,} x {artifact.manifest.dimension}, cosine. Ours: "
            f"{artifact.manifest.factory}, efSearch {value}, recall@10 {recall:.3f}. FAISS by itself in the same "
            f"rounds: {statistics.median(row.faiss for row in rows):.0f} us. CPU microseconds of the server's "
            "processes, kernel included, medians over rounds in which all took turns; ratio: peer over ours, binary / "
            "JSON.\n",
            results.table(head, lines),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round on small data; writes no results")
    parser.add_argument("--only", choices=PEERS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement of a peer")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
    dataset = clustered(5_000, 64) if options.quick else real()
    rows = measure(dataset, [options.only] if options.only else list(PEERS), options.rounds, options.seconds)
    text = page(dataset, rows)
    print(text)
    if not (options.quick or options.only):
        results.write_page("peers", text)
        ratios = {f"peers.{row.name}_ratio": row.spent / row.binary for row in rows}
        json_ratio = min(row.spent / row.json for row in rows)
        results.add_to_summary(
            {**ratios, "peers.best_peer_ratio": min(ratios.values()), "peers.best_peer_ratio_json": json_ratio}
        )


if __name__ == "__main__":
    main()
