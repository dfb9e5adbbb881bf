"""The order in which a cross-encoder puts a query's rows: in the pods that answer, and in the gate that measures it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..contract import RerankTask
from ..errors import BadSpec
from .reranker import TOKEN_CHARACTERS, Reranker
from .settings import MOST_TOKENS

TEXT_BYTES = 4 << 20
"""Of candidates' metadata that is read at once; what is longer is read row by row, and cut."""
_MOST_CHARACTERS = TOKEN_CHARACTERS * MOST_TOKENS
Order = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int64]


class Source(Protocol):
    """Where the texts of rows are: an Engine, or fresh rows."""

    def metadata(self, rows: Rows, columns: Sequence[str] | None = None) -> list[dict[str, Any]]: ...

    def metadata_bytes(self, rows: Rows) -> int: ...


def order_of(
    model: Reranker, task: RerankTask, source: Source, query: str, rows: Rows, until: float = float("inf")
) -> Order | None:
    """Places of a query's rows, best first; None once the monotonic time `until` has passed.

    Rows without a text come after those with one, in the order that they had, and last those that are no candidates.
    Raises EncoderError.
    """
    texts = list(_texts(source, rows[: task.candidates], task.text_column))
    read = [place for place, text in enumerate(texts) if text]
    logits = model.judge(query, [texts[place] for place in read], until) if read else np.empty(0, np.float32)
    if logits is None:
        return None
    values = np.full(len(rows), -np.inf, np.float32)
    values[read] = logits
    return np.argsort(-values, kind="stable")


def _texts(source: Source, rows: Rows, column: str) -> Iterator[str]:
    """The text of each row, as far as it can be read; empty where there is none."""
    step = len(rows) if source.metadata_bytes(rows) <= TEXT_BYTES else 1
    for at in range(0, len(rows), max(step, 1)):
        for row in source.metadata(rows[at : at + step], [column]):
            value = row[column]
            yield value[:_MOST_CHARACTERS] if isinstance(value, str) else ""


def refuse_column(columns: Sequence[str], task: RerankTask) -> None:
    """Raises BadSpec for a text column that the index has not."""
    if task.text_column not in columns:
        raise BadSpec(
            "RerankColumn",
            f"the texts to rerank by are in the column {task.text_column!r}, which the index has not",
            field="spec.searcher.rerank.textColumn",
            remedy=f"Name one of its metadata columns: {', '.join(columns) or 'it has none'}.",
        )
