"""Fresh rows: what a query costs more for each 1,000 of them, when a file is answered, and whether scores are exact.

    python bench/fresh.py [--quick] [--rounds 7] [--poll 5] [--files 8]

Cost: in this process, one thread, no HTTP: an engine by itself and with snapshots beside it, taking turns; medians of
the thread's CPU time a query. `new`: ids that the index has not; `changed`: all of them are of its own, so that their
old rows are left out of every search. Scores: of a Flat index and a snapshot against faiss over the union of both, for
every metric, to the last bit. Visible: two searchers with a poll of --poll seconds over a real S3 server (a folder
where it cannot be had); a file is written at a random moment, and both are asked until they answer its row. Each waits
for a poll and 5 s at most.
Writes bench/results/fresh.md and summary.json, except with --quick.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import results
from artifacts import Artifact, built, serving
from datasets import clustered
from object_store import BUCKET, KEYS, client, object_store

from vectorindex_searcher.contract import S3, FreshTask, Location, Metric
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.index.fresh import FreshFile, FreshRows, gather
from vectorindex_searcher.index.metric import faiss_metric, normalise, to_scores

K, FACTORY = 10, "HNSW32"
SIZES = (1_000, 5_000, 20_000, 50_000)
SLACK_SECONDS = 5.0
Floats = npt.NDArray[np.float32]


# ---------------------------------------------------------------- what a query costs


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU of one query, microseconds: with the index alone, and with so many fresh rows."""

    rows: int
    changed: bool
    alone: float
    beside: float

    @property
    def per_1000(self) -> float:
        return (self.beside - self.alone) / self.rows * 1e3


def snapshot(engine: Engine, vectors: Floats, *, changed: bool) -> FreshRows:
    first = 0 if changed else engine.count
    ids = pa.array(np.arange(first, first + len(vectors)))
    file = FreshFile("rows.parquet", 1.0, ids, vectors, pa.table({}))
    return FreshRows(engine, gather(engine, 1, [file]))


def timed(run: Callable[[Floats], object], queries: Floats) -> float:
    run(queries[:1])
    began = time.thread_time()
    for number in range(len(queries)):
        run(queries[number : number + 1])
    return (time.thread_time() - began) / len(queries) * 1e6


def costs(engine: Engine, vectors: Floats, queries: Floats, sizes: Sequence[int], rounds: int) -> list[Cost]:
    found = []
    for size in sizes:
        for changed in (False, True):
            beside = snapshot(engine, np.resize(vectors, (size, vectors.shape[1])), changed=changed)
            only = beside.only(None)

            def with_fresh(query: Floats, fresh: FreshRows = beside, only: Any = only) -> object:
                scores, rows = engine.search(query, K, allowed_rows=only)
                return fresh.merged(query, K, scores, rows, None)

            alone, both = [], []
            for _ in range(rounds):
                alone.append(timed(lambda query: engine.search(query, K), queries))
                both.append(timed(with_fresh, queries))
            found.append(Cost(size, changed, statistics.median(alone), statistics.median(both)))
    return found


# ---------------------------------------------------------------- exact


def unequal_scores(engine_of: Callable[[Metric], Engine], seed: int) -> int:
    """Of 50 queries for the first 20 under each metric: scores that differ from those of one index over the union."""
    differing = 0
    for metric in Metric:
        engine = engine_of(metric)
        rng = np.random.default_rng(seed)
        own = np.vstack([rng.standard_normal((40, engine.dimension)), rng.standard_normal((40, engine.dimension))])
        ids = [*range(40), *range(engine.count, engine.count + 40)]
        file = FreshFile("rows.parquet", 1.0, pa.array(ids), own.astype(np.float32), pa.table({}))
        fresh = FreshRows(engine, gather(engine, 1, [file]))
        queries = rng.standard_normal((50, engine.dimension)).astype(np.float32)
        scores, rows = engine.search(queries, 20, allowed_rows=fresh.only(None))
        scores, rows = fresh.merged(queries, 20, scores, rows, None)
        union = stored(engine)
        union[:40] = prepared(own[:40].astype(np.float32), metric)
        reference = faiss.IndexFlat(engine.dimension, faiss_metric(metric))
        reference.add(np.vstack([union, prepared(own[40:].astype(np.float32), metric)]))
        # Few at a time: more are compared by a product of matrices, whose last bits are others.
        parts = [reference.search(prepared(queries[at : at + 10], metric), 20) for at in range(0, 50, 10)]
        raw, lines = (np.concatenate(each) for each in zip(*parts, strict=True))
        differing += int((scores != to_scores(raw, lines, metric)).sum())
    return differing


def stored(engine: Engine) -> Floats:
    found: Floats = engine._index.reconstruct_n(0, engine.count)
    return found


def prepared(vectors: Floats, metric: Metric) -> Floats:
    return normalise(vectors) if metric is Metric.COSINE else np.ascontiguousarray(vectors)


def of_metric(dataset: Any) -> Callable[[Metric], Engine]:
    def made(metric: Metric) -> Engine:
        artifact = built(dataset, "Flat", 0.99, metric.value)
        return Engine.open(artifact.files, artifact.manifest)

    return made


# ---------------------------------------------------------------- visible


@contextlib.contextmanager
def place(folder: Path) -> Iterator[tuple[str, dict[str, str], Location, Callable[[str, bytes], None]]]:
    """Where fresh rows are: its name, environment and location, and who writes a file there."""
    with contextlib.ExitStack() as stack:
        try:
            endpoint = stack.enter_context(object_store(folder / "s3"))
        except Exception as error:
            print(f"no S3 server ({type(error).__name__}): a folder instead")
            (folder / "fresh").mkdir()
            yield "a folder", {}, Location(folder=str(folder / "fresh")), written_below(folder / "fresh")
            return
        s3 = client(endpoint)
        s3.create_bucket(Bucket=BUCKET)
        keys = {"SOURCE_AWS_ACCESS_KEY_ID": KEYS[0], "SOURCE_AWS_SECRET_ACCESS_KEY": KEYS[1]}
        at = Location(s3=S3(bucket=BUCKET, prefix="fresh/", endpoint=endpoint, region="us-east-1"))
        yield (
            "versitygw (S3)",
            keys,
            at,
            lambda name, data: s3.put_object(Bucket=BUCKET, Key=f"fresh/{name}", Body=data),
        )


def written_below(folder: Path) -> Callable[[str, bytes], None]:
    def write(name: str, data: bytes) -> None:
        (folder / f"_{name}").write_bytes(data)
        (folder / f"_{name}").rename(folder / name)

    return write


def asked(port: int, vector: Sequence[float]) -> list[int]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/v1/search", json.dumps({"vector": list(vector), "k": 1}))
    found: list[int] = json.loads(connection.getresponse().read())["results"][0]["ids"]
    connection.close()
    return found


def visible(artifact: Artifact, poll: float, files: int, seed: int) -> tuple[str, list[float]]:
    """Seconds from each file to the answers of both searchers."""
    draw, rng = random.Random(seed), np.random.default_rng(seed)
    with (
        tempfile.TemporaryDirectory(dir=artifact.folder.parent) as folder,
        place(Path(folder)) as (name, keys, at, write),
    ):
        told = FreshTask(place=at, poll_seconds=poll).task_text(first_release=False)
        environment = {"VECTORINDEX_FRESH": told, **keys}
        seconds = []
        with contextlib.ExitStack() as stack:
            pods = [stack.enter_context(serving(artifact, environment=environment | {"VECTORINDEX_POD": pod}))
                    for pod in ("one", "two")]  # fmt: skip
            for number in range(files):
                time.sleep(draw.uniform(0, poll))
                vector = rng.standard_normal(artifact.manifest.dimension).tolist()
                row = artifact.manifest.count + number
                write(f"{number}.jsonl", json.dumps({"id": row, "vector": vector}).encode() + b"\n")
                began = time.monotonic()
                for pod in pods:
                    while asked(pod.port, vector) != [row]:
                        if time.monotonic() - began > poll + 60:
                            raise SystemExit(f"row {row} is not there after {poll + 60:g} s")
                        time.sleep(0.02)
                seconds.append(time.monotonic() - began)
    return name, seconds


# ---------------------------------------------------------------- the page


def page(found: list[Cost], differing: int, where: str, poll: float, seconds: list[float], engine: Engine) -> str:
    rows = [
        (
            f"{one.rows:,}",
            "changed" if one.changed else "new",
            one.alone,
            one.beside,
            one.beside / one.alone,
            one.per_1000,
        )
        for one in found
    ]
    head = ("fresh rows", "their ids", "µs, index alone", "µs, with them", "ratio", "µs per 1,000")
    return f"""# Fresh rows

{results.stamp()}. {results.machine()}

{results.busy()}

An index of {engine.count:,} x {engine.dimension} ({FACTORY}, Cosine, k = {K}); CPU of one thread a query, medians of
rounds that take turns.

{results.table(head, rows)}

Every query is compared with all fresh rows: the cost grows with them and their dimension, not with the index. Changed
rows cost more, because the index leaves their old ones out of its own search as well.

Scores that differ from those of one exact index over the union, of 50 queries for 20 rows under each of {len(Metric)}
metrics: **{differing}**.

From the end of the upload until both of two searchers answered the row, poll {poll:g} s, files in {where}:
{len(seconds)} files, median {statistics.median(seconds):.1f} s, worst **{max(seconds):.1f} s** (bound:
{poll + SLACK_SECONDS:g} s).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small, short; writes no results")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--poll", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--files", type=int, default=8, help="whose way to the answers is timed")
    options = parser.parse_args()
    sizes: Sequence[int] = SIZES
    if options.quick:
        sizes, options.rounds, options.queries, options.poll, options.files = (200, 1_000), 2, 20, 1.0, 2
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    dataset = clustered(10_000 if options.quick else 100_000, 384)
    artifact = built(dataset, FACTORY)
    engine = Engine.open(artifact.files, artifact.manifest)
    vectors = np.random.default_rng(2).standard_normal((max(sizes), engine.dimension)).astype(np.float32)
    found = costs(engine, vectors, dataset.queries(options.queries), sizes, options.rounds)
    differing = unequal_scores(of_metric(clustered(2_000, 64)), 3)
    where, seconds = visible(artifact, options.poll, options.files, 4)
    text = page(found, differing, where, options.poll, seconds, engine)
    print(text)
    if not options.quick:
        results.write_page("fresh", text)
        new = [one for one in found if not one.changed]
        first, last = new[0], new[-1]
        each = (last.beside - last.alone - first.beside + first.alone) / (last.rows - first.rows)
        results.add_to_summary(
            {
                "fresh.us_per_1000_rows": each * 1e3,
                "fresh.ratio_at_1000_rows": first.beside / first.alone,
                "fresh.unequal_scores": differing,
                "fresh.visible_s": max(seconds),
                "fresh.visible_beyond_poll_s": max(0.0, max(seconds) - options.poll),
            }
        )


if __name__ == "__main__":
    main()
