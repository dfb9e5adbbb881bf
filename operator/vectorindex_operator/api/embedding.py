"""VectorIndex.spec.embedding as pydantic models: which model made the vectors, and what encodes queries in words.

The model of the vectors never changes within an index. The encoder may: it is proven again, and is of a revision.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from vectorindex_operator.api.fields import CelRule, ObjectName
from vectorindex_operator.api.places import ONE_STORE, S3, HasPlace, Place
from vectorindex_searcher import contract
from vectorindex_searcher.contract import Model

Prefix = Annotated[str, Field(max_length=256)]


class OnnxEncoder(HasPlace):
    """A folder of sentence-transformers with the model as ONNX (model.onnx, or onnx/model.onnx), run by the pods."""

    s3: S3 | None = None
    """Its files: the model, tokenizer.json, modules.json, 1_Pooling/config.json, and where they are there
    sentence_bert_config.json and config_sentence_transformers.json, which say lengths and prefixes."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)]
    """Of these files, as `vectorindex-searcher encoder --model FOLDER` computes it: verified before any is opened."""
    cel: ClassVar[tuple[CelRule, ...]] = (ONE_STORE,)


class EndpointSecret(Model):
    """A Secret of the same namespace, read by the pods, never by the operator. Keys, both optional: TOKEN, CA_PEM."""

    name: ObjectName
    """Name of the Secret."""


class EndpointEncoder(contract.EmbeddingsEndpoint):
    """A server with the embeddings API of OpenAI: TEI, vLLM, Ollama, KServe. While it does not answer, queries in words
    get 503, and those that are vectors go on."""

    token_secret_ref: EndpointSecret | None = None
    """Its TOKEN is sent as a bearer token, CA_PEM is trusted besides the system's authorities. Absent: neither."""


class Encoder(Model):
    """What makes vectors of queries in words. The gate proves that it is the model of the index."""

    onnx: OnnxEncoder | None = None
    """Run in the pods themselves."""
    endpoint: EndpointEncoder | None = None
    """Asked by the pods, over the network."""
    text_column: Annotated[str, Field(min_length=1, max_length=128)]
    """One of source.columns.metadata: the text that each row's vector was made of. The gate encodes 200 of them and
    compares."""
    cel: ClassVar[tuple[CelRule, ...]] = (
        CelRule("has(self.onnx) != has(self.endpoint)", "embedding.encoder needs one of onnx and endpoint", ".onnx"),
    )


class ServedEncoder(Model):
    """What encodes for a revision, besides how it is reached: another one is another revision of the same artifact."""

    bucket: str | None = None
    prefix: str | None = None
    place: str | None = None
    """Where its folder is, as people name it; of S3 bucket and prefix say it, as releases wrote that knew no other."""
    sha256: str | None = None
    url: str | None = None
    model: str | None = None
    query_prefix: str | None = None

    def of_rows(self) -> ServedEncoder:
        """What of it matters to the texts of rows."""
        return self.model_copy(update={"query_prefix": None})


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
        encoder = self.encoder
        if encoder is not None and encoder.onnx is not None:
            store, told = encoder.onnx.place, {"sha256": encoder.onnx.sha256, "query_prefix": self.query_prefix}
            if isinstance(store, S3):
                return ServedEncoder(bucket=store.bucket, prefix=store.prefix, **told)
            return ServedEncoder(place=store.url(store.root), **told)
        if encoder is not None and encoder.endpoint is not None:
            place = encoder.endpoint
            return ServedEncoder(url=place.url, model=place.model, query_prefix=self.query_prefix)
        return None

    def of_texts(self) -> dict[str, object]:
        """What of the encoder changes the vector of a row's text; empty without one."""
        return {name: value for name, value in self.proven().items() if name not in ("textColumn", "queryPrefix")}

    def store(self) -> Place | None:
        """Where the encoder's files are, and how they are reached."""
        return self.encoder.onnx.place if self.encoder is not None and self.encoder.onnx is not None else None

    def url(self) -> str | None:
        """The encoder's endpoint."""
        return self.encoder.endpoint.url if self.encoder is not None and self.encoder.endpoint is not None else None

    def token_secret(self) -> str | None:
        """The Secret of the encoder's endpoint."""
        place = self.encoder.endpoint if self.encoder is not None else None
        return place.token_secret_ref.name if place is not None and place.token_secret_ref is not None else None

    def proven(self) -> dict[str, object]:
        """What the gate's figures of the encoder depend on; empty without one."""
        encoder = self.encoder
        if encoder is None:
            return {}
        given = {
            "sha256": encoder.onnx.sha256 if encoder.onnx is not None else None,
            "url": self.url(),
            "model": encoder.endpoint.model if encoder.endpoint is not None else None,
            "textColumn": encoder.text_column,
            "queryPrefix": self.query_prefix,
            "documentPrefix": self.document_prefix,
        }
        return {name: value for name, value in given.items() if value is not None}
