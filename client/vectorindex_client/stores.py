"""What the adapters for other libraries share: hits as texts with metadata, and why nothing is written through them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from .results import Id, Result

REVISION_KEY, QUERY_KEY, MISSING_KEY = "_revision", "_query_id", "_shards_missing"
"""Names beside the columns in a hit's metadata: which revision answered, what `feedback` takes (with `track`), and a
list of the shards that did not answer (of a partial answer)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One hit: its text, and its other columns as metadata. A number that is an id comes as text."""

    id: str
    text: str
    metadata: dict[str, Any]
    score: float
    """Higher is better: the cosine, the inner product, or minus the squared L2 distance."""


def rows_of(found: Result, text_column: str) -> list[Row]:
    """The hits of a search with metadata, best first. Raises ValueError where the index has no such column of text."""
    told: dict[str, Any] = {REVISION_KEY: found.revision}
    if found.query_id is not None:
        told[QUERY_KEY] = found.query_id
    if found.partial:
        told[MISSING_KEY] = list(found.shards_missing)
    hits = zip(found.ids, found.scores, found.metadata or (), strict=True)
    return [_row(number, score, columns, told, text_column) for number, score, columns in hits]


def _row(number: Id, score: float, columns: dict[str, Any], told: dict[str, Any], text_column: str) -> Row:
    if text_column not in columns:
        known = ", ".join(sorted(columns)) or "none"
        raise ValueError(
            f"text_column: {text_column!r} is no metadata column of this index (it has: {known}): "
            "name one of these, or add the column to spec.source.columns.metadata"
        )
    text = columns[text_column]
    if text is not None and not isinstance(text, str):
        raise ValueError(f"text_column: {text_column!r} holds {type(text).__name__}, no text: name a column of texts")
    rest = {name: value for name, value in columns.items() if name != text_column}
    return Row(str(number), text or "", told | rest, score)


def refuse_write(call: str) -> NoReturn:
    """Raises NotImplementedError: an index is built from files and proven before it serves."""
    raise NotImplementedError(
        f"{call}: rows come from object storage, and are built and proven before they are served. "
        "Write a file below spec.source (docs/sources.md); to take rows out, list their ids as tombstones"
    )
