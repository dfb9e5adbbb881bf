"""A million rows: what do a build, its proof, a start and a query take?

    python bench/rows.py [--quick] [--dimensions 128 768] [--factories IVF HNSW]

Clustered vectors, 1,000,000 x 128 and x 768 (half a gigabyte and three, written in blocks), IVF4096,SQ8 and HNSW32,SQ8.
Each step in a process of its own, whose CPU time and peak memory are read off it:

    build   beside a plain FAISS script on the same data with the same factory string, sample size and threads: the CPU
            time of the script over that of our reading, training, adding and writing. What measuring takes (rows left
            out, exact neighbours, tuning) and publishing stand apart. Peak memory over the formula of docs/building.md
    prove   `validate`; its peak over the same formula, as its Job has the build's memory limit
    start   `serve` until it is ready, with the canary queries of the gate: empty cache, then a filled one
    serve   64 connections that ask without a pause, at the default operating point: CPU of the whole searcher a query.
            Peak memory over the request that the operator computes (manifests/sizing.py)
    search  mean CPU of one query at the default operating point, one thread, without HTTP: over what it is with a tenth
            of the rows, the two taking turns

summary.json: rows_1m_768.{build_rate_share, peak_memory_share, search_per_10x}, and of 128; each the worst of the two
factories, memory the worse of build and searcher. They and bench/results/rows.md are written by a whole run alone, not
with --quick nor for a part of the cases. Takes 15 GB of disk and 7 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import results
from artifacts import CACHE, Artifact, Serving, serving
from datasets import FOLDER, Dataset, clustered
from processes import Child, connect

from vectorindex_operator.manifests import sizing
from vectorindex_searcher.artifact.manifest import Manifest
from vectorindex_searcher.artifact.publish import cache_name
from vectorindex_searcher.build.task import peak_memory
from vectorindex_searcher.index.choose.families import lists_for
from vectorindex_searcher.index.engine import Engine

HERE = Path(__file__).resolve().parent
ROWS, QUICK_ROWS = 1_000_000, 50_000
DIMENSIONS, QUICK_DIMENSIONS = (128, 768), (32,)
FACTORIES = {"IVF": "IVF{lists},SQ8", "HNSW": "HNSW32,SQ8"}
QUERIES = 300
CONNECTIONS = 64
TURNS = 3
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Spent:
    """Of one process. `cpu`: seconds; `peak`: bytes; `wall`: seconds, 0 where it says nothing."""

    cpu: float
    peak: float = 0.0
    wall: float = 0.0


@dataclass(frozen=True, slots=True)
class Case:
    """One factory string over one data set."""

    rows: int
    dimension: int
    factory: str
    plain: Spent
    """The FAISS script."""
    build: Spent
    """As much of ours; its peak is of the whole build."""
    rest: float
    """CPU seconds of what else a build does: measuring and publishing."""
    prove: Spent
    cold: Spent
    warm: Spent
    serve: Spent
    """`cpu`: of a query."""
    formula: float
    """Bytes that a build may take."""
    request: float
    """Bytes that a searcher asks for."""
    recall: float
    searches: tuple[tuple[float, float], ...]
    """CPU microseconds of a query with a tenth of the rows and with all, by turn."""

    @property
    def build_rate_share(self) -> float:
        return self.plain.cpu / self.build.cpu

    @property
    def peak_memory_share(self) -> float:
        return max(self.build.peak / self.formula, self.serve.peak / self.request)

    @property
    def search_per_10x(self) -> float:
        return statistics.median(large / small for small, large in self.searches)


# ---------------------------------------------------------------- steps


def measure(pattern: str, rows: int, dimension: int, seconds: float) -> Case:
    """All steps of one case. seconds: of the load."""
    factory, dataset = _factory(pattern, rows), clustered(rows, dimension)
    _tell(dataset.name, factory)
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="rows-") as name:
        folder = Path(name)
        (folder / "plain").mkdir()
        plain = _child(HERE / "build_once.py", "plain", dataset.path, factory, folder / "plain")
        shutil.rmtree(folder / "plain")
        _tell("plain", plain)
        small, _ = _built(clustered(rows // 10, dimension), _factory(pattern, rows // 10), folder / "tenth")
        large, ours = _built(dataset, factory, folder / "all")
        proof = _child(Path(__file__), "--prove", large.folder)
        _tell("proof", proof)
        cold, warm, serve = _served(large, dataset, folder / "queries.npy", seconds)
        _tell("start and service", cold, warm, serve)
        queries = [folder / f"{one.name}.npy" for one in (small.folder, large.folder)]
        np.save(queries[0], clustered(rows // 10, dimension).queries(QUERIES))
        np.save(queries[1], dataset.queries(QUERIES))
        pairs = list(zip((small, large), queries, strict=True))
        turns = [
            {one.folder.name: _child(Path(__file__), "--search", one.folder, given)["us"] for one, given in order}
            for order in (pairs if number % 2 else pairs[::-1] for number in range(TURNS))
        ]
    request, _ = sizing.Need(held=large.manifest.resident_bytes).memory()
    return Case(
        rows=rows,
        dimension=dimension,
        factory=factory,
        plain=Spent(plain["cpu_index"], plain["peak"]),
        build=Spent(ours["cpu_index"], ours["peak"]),
        rest=ours["cpu_all"] - ours["cpu_index"],
        prove=Spent(proof["cpu"], proof["peak"]),
        cold=cold,
        warm=warm,
        serve=serve,
        formula=ours["formula"],
        request=request * _MIB,
        recall=ours["recall"],
        searches=tuple((turn["tenth"], turn["all"]) for turn in turns),
    )


def _factory(pattern: str, rows: int) -> str:
    return pattern.format(lists=lists_for(rows))


def _tell(*words: object) -> None:
    print(time.strftime("%H:%M:%S"), *words, file=sys.stderr, flush=True)


def _child(script: Path, *arguments: object) -> dict[str, float]:
    """The last line that the script says."""
    command = [sys.executable, str(script), *map(str, arguments)]
    environment = os.environ | {"TMPDIR": str(FOLDER)}  # where a build keeps its files: three gigabytes and more
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _built(dataset: Dataset, factory: str, folder: Path) -> tuple[Artifact, dict[str, float]]:
    folder.mkdir()
    figures = _child(HERE / "build_once.py", "ours", dataset.path, factory, folder)
    _tell("built", factory, figures)
    (found,) = folder.rglob("manifest.json")
    return Artifact(folder, Manifest.model_validate_json(found.read_text())), figures


def _served(artifact: Artifact, dataset: Dataset, queries: Path, seconds: float) -> tuple[Spent, Spent, Spent]:
    """A start with an empty cache, one with a filled one, and what a query costs then."""
    (report,) = artifact.folder.rglob("report.json")
    np.save(queries, dataset.queries(4 * CONNECTIONS))
    shutil.rmtree(cached := CACHE / cache_name(artifact.manifest), ignore_errors=True)
    try:
        with _started(artifact, report.parent.name) as (_, cold):
            pass
        with _started(artifact, report.parent.name) as (server, warm):
            load = Child(str(HERE / "load_client.py"), str(queries), core=None)
            try:
                connect(load, server.port, CONNECTIONS, "binary")
                before = server.cpu()
                answer = load.ask(json.dumps({"do": "closed", "seconds": seconds}))
                serve = Spent((server.cpu() - before) / answer["count"], _peak_of(server))
            finally:
                load.close()
    finally:
        shutil.rmtree(cached, ignore_errors=True)
    return cold, warm, serve


@contextmanager
def _started(artifact: Artifact, gate: str) -> Iterator[tuple[Serving, Spent]]:
    began = time.monotonic()
    with serving(artifact, gate=gate) as server:
        yield server, Spent(server.cpu(), _peak_of(server), time.monotonic() - began)


def _peak_of(server: Serving) -> float:
    """Bytes that it had in memory at most, with what it has mapped and looked at."""
    status = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM:"))


# ---------------------------------------------------------------- in the child


def prove_here(folder: str) -> dict[str, float]:
    """`validate` as a person runs it."""
    from vectorindex_searcher.cli.main import main as command

    before = time.process_time()
    code = command(["validate", "--artifact", folder])
    if code:
        raise SystemExit(f"validate ended with {code}")
    return {"cpu": time.process_time() - before, "peak": peak_memory()}


def search_here(folder: str, queries: str) -> dict[str, float]:
    """Microseconds of CPU of a query."""
    (found,) = Path(folder).rglob("manifest.json")
    artifact = Artifact(Path(folder), Manifest.model_validate_json(found.read_text()))
    engine, asked = Engine.open(artifact.files, artifact.manifest), np.load(queries)
    engine.search(asked, 10)  # the pages are in memory
    before = time.process_time()
    for number in range(len(asked)):
        engine.search(asked[number : number + 1], 10)
    return {"us": (time.process_time() - before) / len(asked) * 1e6}


# ---------------------------------------------------------------- what is told


def headline(cases: Sequence[Case]) -> dict[str, float]:
    """Keys of summary.json."""
    found: dict[str, float] = {}
    for dimension in dict.fromkeys(case.dimension for case in cases):
        some = [case for case in cases if case.dimension == dimension]
        found[f"rows_1m_{dimension}.build_rate_share"] = min(case.build_rate_share for case in some)
        found[f"rows_1m_{dimension}.peak_memory_share"] = max(case.peak_memory_share for case in some)
        found[f"rows_1m_{dimension}.search_per_10x"] = max(case.search_per_10x for case in some)
    return found


def page(cases: Sequence[Case]) -> str:
    """The Markdown page."""
    names = [[f"{case.rows:,} x {case.dimension}", case.factory] for case in cases]
    parts = [
        "# A million rows",
        f"`python bench/rows.py`, {results.stamp()}. {results.machine()}.",
        "Clustered vectors. CPU seconds and microseconds, of whole processes; only starts are wall time. Plain: a "
        "FAISS script with the same factory string, sample size and threads, right before ours. Memory: the kernel's "
        "peak, with what is mapped, over the formula of docs/building.md, and of searchers over the request that the "
        "operator computes.",
        "## Build",
        results.table(
            ["data", "factory", "plain rows/CPU-s", "ours rows/CPU-s", "share", "measuring and publishing, CPU-s",
             "formula MiB", "peak MiB", "share", "plain script's peak MiB"],
            [[*name, case.rows / case.plain.cpu, case.rows / case.build.cpu, case.build_rate_share, case.rest,
              round(case.formula / _MIB), round(case.build.peak / _MIB), case.build.peak / case.formula,
              round(case.plain.peak / _MIB)] for name, case in zip(names, cases, strict=True)],
        ),
        "## Proof, start, queries",
        results.table(
            ["data", "factory", "recall@10", "proof, CPU-s", "its peak / build formula", "start, empty cache s (CPU-s)",
             "filled cache s (CPU-s)", "searcher's peak MiB", "peak / request", "query by HTTP us", "search us",
             "of a tenth of the rows us", "growth"],
            [[*name, case.recall, case.prove.cpu, case.prove.peak / case.formula,
              f"{case.cold.wall:.1f} ({case.cold.cpu:.1f})", f"{case.warm.wall:.1f} ({case.warm.cpu:.1f})",
              round(case.serve.peak / _MIB), case.serve.peak / case.request, case.serve.cpu * 1e6,
              statistics.median(large for _, large in case.searches),
              statistics.median(small for small, _ in case.searches), f"x{case.search_per_10x:.2f}"]
             for name, case in zip(names, cases, strict=True)],
        ),
    ]  # fmt: skip
    return "\n\n".join(part for part in (*parts, results.busy()) if part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="see that it runs; writes no results")
    parser.add_argument("--dimensions", nargs="+", type=int, default=list(DIMENSIONS))
    parser.add_argument("--factories", nargs="+", choices=FACTORIES, default=list(FACTORIES))
    parser.add_argument("--prove", help=argparse.SUPPRESS)
    parser.add_argument("--search", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prove or options.search:
        print(json.dumps(prove_here(options.prove) if options.prove else search_here(*options.search)))
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows, dimensions, names = ROWS, options.dimensions, options.factories
    if options.quick:
        rows, dimensions, names = QUICK_ROWS, QUICK_DIMENSIONS, names[:1]
    whole = not options.quick and (tuple(dimensions), tuple(names)) == (DIMENSIONS, tuple(FACTORIES))
    cases: list[Case] = []
    for dimension in dimensions:
        for name in names:
            cases.append(measure(FACTORIES[name], rows, dimension, 0.5 if options.quick else 5.0))
            print(page(cases), flush=True)  # of what there is: a whole run takes more than an hour
    if whole:
        results.write_page("rows", page(cases))
        results.add_to_summary(headline(cases))


if __name__ == "__main__":
    main()
