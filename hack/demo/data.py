"""The data of the four revisions, made from examples/stdlib-docs: right, wrong in part, right and more."""

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

SOURCE = CHECKOUT / "examples" / "stdlib-docs"
QUERIES = SOURCE / "queries.parquet"
BUCKET, INDEXES = "demo-pydocs", "demo-indexes"
NEW_MODULES = ("graphlib", "tomllib", "zoneinfo")
"""Left out until revision 4, so that it has more documents than the first."""
WRONG_FRACTION = "0.7"


@dataclass(frozen=True, slots=True)
class Prepared:
    """Keys to local files, and what a person should know about them."""

    files: dict[str, Path]
    rows: int
    new_rows: int
    spoiled: str


def prepare(folder: Path) -> Prepared:
    """Writes the files below `folder`; two seconds."""
    with pq.ParquetFile(SOURCE / "documents.parquet") as file:
        documents: pa.Table = file.read()
    top = pc.list_element(pc.split_pattern(documents["module"], "."), 0)
    new = pc.is_in(top, pa.array(NEW_MODULES))
    first = folder / "docs-v1" / "documents.parquet"
    wrong = folder / "docs-v3-wrong" / "documents.parquet"
    more = folder / "docs-v4" / "new-modules.parquet"
    for path in (first, wrong, more):
        path.parent.mkdir(parents=True, exist_ok=True)
    _write(documents.filter(pc.invert(new)), first)
    _write(documents.filter(new), more)
    command = [sys.executable, str(SOURCE / "spoil.py"), str(first), str(wrong), "--fraction", WRONG_FRACTION]
    said = run([*command, "--seed", "7"], timeout=60)
    new_rows = int(pc.sum(new).as_py())
    return Prepared(
        files={
            "docs-v1/documents.parquet": first,
            "docs-v3-wrong/documents.parquet": wrong,
            "docs-v4/documents.parquet": first,
            "docs-v4/new-modules.parquet": more,
        },
        rows=documents.num_rows - new_rows,
        new_rows=new_rows,
        spoiled=said.strip().partition(": ")[2],
    )


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
