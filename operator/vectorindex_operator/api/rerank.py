"""VectorIndex.spec.searcher.rerank as pydantic models: what reorders answers to queries in words."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vectorindex_operator.api.places import S3
from vectorindex_searcher import contract
from vectorindex_searcher.contract import Model


class OnnxReranker(Model):
    """A folder with a cross-encoder as ONNX (model.onnx, or onnx/model.onnx; one number a pair), run by the pods."""

    s3: S3
    """Its files: the model, tokenizer.json, and where it is there tokenizer_config.json, which says the length."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)]
    """Of these files, as `vectorindex-searcher encoder --cross --model FOLDER` computes it: verified before any is
    opened."""


class Rerank(Model):
    """A cross-encoder that puts the first answers to a query in words into another order, in its budget."""

    onnx: OnnxReranker
    """Run in the pods themselves."""
    text_column: Annotated[str, Field(min_length=1, max_length=128)] = "text"
    """One of source.columns.metadata: what it reads of each row."""
    candidates: Annotated[int, Field(ge=2, le=contract.MOST_RERANKED)] = 100
    """Of a query: the first ones by their vectors."""
    budget: Annotated[str, Field(pattern=r"^([1-9][0-9]{0,2}|[1-4][0-9]{3}|5000)ms$", max_length=8)] = "50ms"
    """Whole milliseconds, up to 5000ms, that a query may wait for the new order. After that the order of the vectors is
    answered, and says so."""

    def served(self) -> ServedReranker:
        """What of it makes a revision."""
        store = self.onnx.s3
        return ServedReranker(
            bucket=store.bucket,
            prefix=store.prefix,
            sha256=self.onnx.sha256,
            text_column=self.text_column,
            candidates=self.candidates,
            budget=self.budget,
        )


class ServedReranker(Model):
    """What reorders for a revision, besides how it is reached: another one is another revision of the same artifact."""

    bucket: str
    prefix: str
    sha256: str
    text_column: str
    candidates: int
    budget: str

    def measured(self) -> dict[str, object]:
        """What the gate's figures depend on: neither its place nor its budget, which no gate meets."""
        return {"sha256": self.sha256, "textColumn": self.text_column, "candidates": self.candidates}

    @property
    def budget_seconds(self) -> float:
        """The budget as a number."""
        return int(self.budget.removesuffix("ms")) / 1e3
