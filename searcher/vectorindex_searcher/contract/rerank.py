"""What reorders answers to queries in words: what a searcher and the gate are told of an index's cross-encoder."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .encoder import OnnxFolder
from .model import Model

MOST_RERANKED = 200
"""Candidates of a query, at most: their texts and tokens are in memory together."""


class RerankTask(Model):
    """A cross-encoder, and how much of a query's time it may take."""

    onnx: OnnxFolder
    """model.onnx (token ids of a query and a text to one number) and tokenizer.json."""
    text_column: Annotated[str, Field(min_length=1, max_length=128)] = "text"
    """Metadata column that it reads."""
    candidates: Annotated[int, Field(ge=2, le=MOST_RERANKED)] = 100
    """Of a query's vector, which it puts into another order."""
    budget_seconds: Annotated[float, Field(gt=0, le=5)] = 0.05
    """From the candidates to their new order; later than that their own order is answered."""
