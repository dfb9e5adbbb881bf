"""VectorIndex.spec.embedding as pydantic models: which model made the vectors, and what encodes queries in words.

The model of the vectors never changes within an index. The encoder may: it is proven again, and is of a revision.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from vectorindex_operator.api.fields import CelRule
from vectorindex_operator.api.places import S3
from vectorindex_searcher import contract
from vectorindex_searcher.contract import Model

Prefix = Annotated[str, Field(max_length=256)]


class OnnxEncoder(Model):
    """A folder of sentence-transformers with the model as ONNX (model.onnx, or onnx/model.onnx), run by the pods."""

    s3: S3
    """Its files: the model, tokenizer.json, modules.json, 1_Pooling/config.json, and where they are there
    sentence_bert_config.json and config_sentence_transformers.json, which say lengths and prefixes."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)]
    """Of these files, as `vectorindex-searcher encoder --model FOLDER` computes it: verified before any is opened."""


class Encoder(Model):
    """What makes vectors of queries in words. The gate proves that it is the model of the index."""

    onnx: OnnxEncoder
    """Run in the pods themselves."""
    text_column: Annotated[str, Field(min_length=1, max_length=128)]
    """One of source.columns.metadata: the text that each row's vector was made of. The gate encodes 200 of them and
    compares."""


class ServedEncoder(Model):
    """What encodes for a revision, besides how it is reached: another one is another revision of the same artifact."""

    bucket: str
    prefix: str = ""
    sha256: str
    query_prefix: str | None = None


class Embedding(contract.Embedding):
    """Which model made the vectors, and what encodes queries in words."""

    encoder: Encoder | None = None
    """Absent: queries are vectors."""
    query_prefix: Prefix | None = None
    """Stands before each query in words. Absent: what the encoder's folder says."""
    document_prefix: Prefix | None = None
    """Stood before each text when the vectors were made. Absent: what the encoder's folder says."""
    cel: ClassVar[tuple[CelRule, ...]] = (
        CelRule(
            "has(self.encoder) || !(has(self.queryPrefix) || has(self.documentPrefix))",
            "queryPrefix and documentPrefix are of embedding.encoder: add it, or take them out",
            ".encoder",
        ),
    )

    def of_vectors(self) -> contract.Embedding:
        """What is known of the vectors themselves: all that artifacts and their builds hear of."""
        return contract.Embedding(**{name: getattr(self, name) for name in contract.Embedding.model_fields})

    def served(self) -> ServedEncoder | None:
        """What of the encoder makes a revision."""
        if self.encoder is None:
            return None
        onnx = self.encoder.onnx
        return ServedEncoder(
            bucket=onnx.s3.bucket, prefix=onnx.s3.prefix, sha256=onnx.sha256, query_prefix=self.query_prefix
        )

    def proven(self) -> dict[str, object]:
        """What the gate's figures of the encoder depend on; empty without one."""
        if self.encoder is None:
            return {}
        given = {
            "sha256": self.encoder.onnx.sha256,
            "textColumn": self.encoder.text_column,
            "queryPrefix": self.query_prefix,
            "documentPrefix": self.document_prefix,
        }
        return {name: value for name, value in given.items() if value is not None}
