"""A search by a person: one of the prepared queries, because embedding a new text needs the model."""

from __future__ import annotations

import textwrap

import pyarrow.parquet as pq

from demo.data import QUERIES
from demo.printer import Printer
from demo.stage import NAME, home
from harness.errors import HarnessError
from harness.kube import Kube

SHOWN = 3


def ask(kube: Kube, printer: Printer, text: str) -> None:
    """Sends the first prepared query that contains `text`, through the API server's proxy to the Service."""
    with pq.ParquetFile(QUERIES) as file:
        rows = file.read().to_pylist()
    row = next((r for r in rows if text.lower() in r["query"].lower()), None)
    if row is None:
        raise HarnessError(f"none of the {len(rows):,} prepared queries contains {text!r}")
    request = {"vector": list(row["vector"]), "k": SHOWN, "segment": row["query_class"], "include": ["metadata"]}
    path = f"/api/v1/namespaces/{home(kube.cluster)}/services/{NAME}:http/proxy/v1/search"
    status, answer = kube.call("POST", path, body=request)
    if status != 200:
        raise HarnessError(f"{status}: {answer}")
    result = answer["results"][0]
    printer.plain(f'  "{row["query"]}"   ({answer["revision"]}, {answer["tookMs"]:.1f} ms)')
    for name, score, fields in zip(result["ids"], result["scores"], result["metadata"], strict=True):
        summary = " ".join(str(fields.get("text", "")).removeprefix(name).lstrip(": ").split())
        printer.plain(f"    {score:.3f}  {name}: {textwrap.shorten(summary, 80, placeholder=' ...')}")
