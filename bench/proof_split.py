"""One split of proof.py: build and validate, then ask the hidden queries. Prints one line of JSON.

    python bench/proof_split.py FOLDER FACTORY METRIC OBJECTIVE

FOLDER holds source/rows.npy and fresh.npy. The hidden queries' true neighbours come from a scan in NumPy.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from artifacts import PROGRAM, Artifact

from vectorindex_searcher.artifact.layout import IDS_FILE
from vectorindex_searcher.artifact.manifest import Manifest
from vectorindex_searcher.index.engine import Engine

K = 10
_BLOCK = 500


def scores(queries: npt.NDArray[np.float32], rows: npt.NDArray[np.float32], metric: str) -> npt.NDArray[np.float64]:
    """The higher the nearer, float64 [n, rows]."""
    if metric == "Cosine":
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    inner = (queries @ rows.T).astype(np.float64)
    if metric != "L2":
        return inner
    squares = np.einsum("ij,ij->i", rows.astype(np.float64), rows.astype(np.float64))
    return 2 * inner - squares  # less the query's own square, which is the same for every row


def recalls(
    answered: npt.NDArray[np.int64], queries: npt.NDArray[np.float32], rows: npt.NDArray[np.float32], metric: str
) -> npt.NDArray[np.float64]:
    """Recall@K of each query; answers as near as the K-th neighbour count, whichever of equals they are."""
    if metric == "Cosine":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found = []
    for first in range(0, len(queries), _BLOCK):
        near = scores(queries[first : first + _BLOCK], rows, metric)
        last = -np.partition(-near, K - 1, axis=1)[:, K - 1 : K]
        mine = answered[first : first + _BLOCK]
        hit = np.take_along_axis(near, np.maximum(mine, 0), axis=1) >= last - 1e-6 * np.abs(last)
        found.append((hit & (mine >= 0)).sum(axis=1) / K)
    return np.concatenate(found)


def main(name: str, factory: str, metric: str, objective: str) -> None:
    folder = Path(name)
    out = folder / "out"
    flags = ["--source", str(folder / "source"), "--out", str(out), "--factory", factory, "--metric", metric]
    for command in (["build", *flags, "--recall", objective], ["validate", "--artifact", str(out)]):
        subprocess.run([*PROGRAM, *command], check=True, stdout=subprocess.DEVNULL)
    (report,) = out.rglob("report.json")
    stated = json.loads(report.read_text())["overall"]
    manifest = Manifest.model_validate_json(next(out.rglob("manifest.json")).read_text())
    files = Artifact(out, manifest).files
    queries, rows = np.load(folder / "fresh.npy"), np.load(folder / "source" / "rows.npy")
    engine = Engine.open(files, manifest)
    _, found = engine.search(queries, K)
    # By ids, which of an NPY file are its row numbers: the index may hold the rows in another order.
    ids = pa.ipc.open_file(files / IDS_FILE).read_all().column(0).to_numpy()
    recall = recalls(np.where(found < 0, -1, ids[found]), queries, rows, metric)
    figures = {
        "stated": stated["recall"],
        "bound": stated["recallLow"],
        "queries": stated["queries"],
        "fresh": float(recall.mean()),
        "fresh_error": float(recall.std(ddof=1) / len(recall) ** 0.5),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
