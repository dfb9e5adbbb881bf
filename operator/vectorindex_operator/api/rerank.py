"""VectorIndex.spec.searcher.rerank as pydantic models: what reorders answers to queries in words."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from vectorindex_operator.api.fields import CelRule
from vectorindex_operator.api.places import ONE_STORE, S3, HasPlace
from vectorindex_searcher import contract
from vectorindex_searcher.contract import Model


class OnnxReranker(HasPlace):
    """A folder with a cross-encoder as ONNX (model.onnx, or onnx/model.onnx; one number a pair), run by the pods."""

    s3: S3 | None = None
    """Its files: the model, tokenizer.json, and where it is there tokenizer_config.json, which says the length."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)]
    """Of these files, as `vectorindex-searcher encoder --cross --model FOLDER` computes it: verified before any is
    opened."""
    cel: ClassVar[tuple[CelRule, ...]] = (ONE_STORE,)


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
        place = self.onnx.place
        flat = {"bucket": place.bucket, "prefix": place.prefix} if isinstance(place, S3) else {}
        return ServedReranker(
            **flat,
            place=None if flat else place.url(place.root),
            sha256=self.onnx.sha256,
            text_column=self.text_column,
            candidates=self.candidates,
            budget=self.budget,
        )


class ServedReranker(Model):
    """What reorders for a revision, besides how it is reached: another one is another revision of the same artifact."""

    bucket: str | None = None
    prefix: str | None = None
    place: str | None = None
    """Where its folder is, as people name it; of S3 bucket and prefix say it."""
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
