"""A search by a person: in words where the index takes them, else with one of the prepared queries."""

from __future__ import annotations

import textwrap
from typing import Any

import pyarrow.parquet as pq

from demo.data import QUERIES
from demo.printer import Printer
from demo.stage import NAME, home
from harness.errors import HarnessError
from harness.kube import Json, Kube

SHOWN = 3
COMMON = {"k": SHOWN, "include": ["metadata"]}


def ask(kube: Kube, printer: Printer, text: str) -> None:
    """Asks `text`; where the index takes vectors alone, the first prepared query that contains it."""
    status, answer = _search(kube, {"text": text})
    if status == 422 and str(answer.get("type", "")).endswith(":NoEncoder"):
        row = _prepared(text)
        text = row["query"]
        status, answer = _search(kube, {"vector": list(row["vector"]), "segment": row["query_class"]})
    if status != 200:
        raise HarnessError(f"{status}: {answer}")
    result = answer["results"][0]
    encoding = f", {answer['encodeMs']:.1f} of them for its vector" if "encodeMs" in answer else ""
    printer.plain(f'  "{text}"   ({answer["revision"]}, {answer["tookMs"]:.1f} ms{encoding})')
    for name, score, fields in zip(result["ids"], result["scores"], result["metadata"], strict=True):
        summary = " ".join(str(fields.get("text", "")).removeprefix(name).lstrip(": ").split())
        printer.plain(f"    {score:.3f}  {name}: {textwrap.shorten(summary, 80, placeholder=' ...')}")


def _search(kube: Kube, query: Json) -> tuple[int, Json]:
    """Through the API server's proxy to the Service."""
    path = f"/api/v1/namespaces/{home(kube.cluster)}/services/{NAME}:http/proxy/v1/search"
    return kube.call("POST", path, body=query | COMMON)


def _prepared(text: str) -> dict[str, Any]:
    """Its row. Raises HarnessError where none contains the text."""
    with pq.ParquetFile(QUERIES) as file:
        rows: list[dict[str, Any]] = file.read().to_pylist()
    found = next((row for row in rows if text.lower() in row["query"].lower()), None)
    if found is None:
        raise HarnessError(
            f"the index takes vectors alone, and none of the {len(rows):,} prepared queries has {text!r}"
        )
    return found
