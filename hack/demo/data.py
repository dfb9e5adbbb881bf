"""The data of the five revisions, made from examples/stdlib-docs: right, wrong in part, with a hole, right and more.
And the queries that users ask meanwhile."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness.base import CHECKOUT
from harness.commands import run
from harness.s3 import ObjectStore
from harness.traffic import bodies

SOURCE = CHECKOUT / "examples" / "stdlib-docs"
QUERIES = SOURCE / "queries.parquet"
BUCKET, INDEXES = "demo-pydocs", "demo-indexes"
NEW_MODULES = ("graphlib", "tomllib", "zoneinfo")
"""Left out until revision 5, so that it has more documents than the first."""
WRONG_FRACTION = "0.7"
LOST_MODULE = "sqlite3"
"""Left out of revision 4: nothing else is near what POPULAR asks, and hardly any other query asks for it."""
POPULAR = "sqlite execute many"
POPULAR_EVERY = 10
"""One query of so many is that one."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Keys to local files, and what a person should know about them."""

    files: dict[str, Path]
    rows: int
    new_rows: int
    lost_rows: int
    spoiled: str


def prepare(folder: Path) -> Prepared:
    """Writes the files below `folder`; two seconds."""
    with pq.ParquetFile(SOURCE / "documents.parquet") as file:
        documents: pa.Table = file.read()
    top = pc.list_element(pc.split_pattern(documents["module"], "."), 0)
    new, lost = pc.is_in(top, pa.array(NEW_MODULES)), pc.equal(top, LOST_MODULE)
    first = folder / "docs-v1" / "documents.parquet"
    wrong = folder / "docs-v3-wrong" / "documents.parquet"
    holed = folder / "docs-v4-lost" / "documents.parquet"
    more = folder / "docs-v5" / "new-modules.parquet"
    for path in (first, wrong, holed, more):
        path.parent.mkdir(parents=True, exist_ok=True)
    _write(documents.filter(pc.invert(new)), first)
    _write(documents.filter(pc.invert(pc.or_(new, lost))), holed)
    _write(documents.filter(new), more)
    command = [sys.executable, str(SOURCE / "spoil.py"), str(first), str(wrong), "--fraction", WRONG_FRACTION]
    said = run([*command, "--seed", "7"], timeout=60)
    new_rows = int(pc.sum(new).as_py())
    return Prepared(
        files={
            "docs-v1/documents.parquet": first,
            "docs-v3-wrong/documents.parquet": wrong,
            "docs-v4-lost/documents.parquet": holed,
            "docs-v5/documents.parquet": first,
            "docs-v5/new-modules.parquet": more,
        },
        rows=documents.num_rows - new_rows,
        new_rows=new_rows,
        lost_rows=int(pc.sum(lost).as_py()),
        spoiled=said.strip().partition(": ")[2],
    )


def live_queries(folder: Path) -> list[str]:
    """Search requests: each prepared query once, and one that many users ask between them."""
    with pq.ParquetFile(QUERIES) as file:
        table = file.read()
    path = folder / "popular.parquet"
    _write(table.filter(pc.equal(table["query"], POPULAR)), path)
    (popular,) = bodies(path)
    once, some = bodies(QUERIES), POPULAR_EVERY - 1
    return [one for at in range(0, len(once), some) for one in (popular, *once[at : at + some])]


def upload(store: ObjectStore, prepared: Prepared) -> int:
    """Buckets with these files and nothing else; bytes sent."""
    for bucket in (BUCKET, INDEXES):
        store.make_bucket(bucket)
        store.clear(bucket)
    for key, path in prepared.files.items():
        store.put(BUCKET, key, path)
    return sum(path.stat().st_size for path in prepared.files.values())


def _write(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd", row_group_size=2048)
