"""What the user port answers with, as models that the OpenAPI document is made of.

Answers are written where they arise, without the time that models take; a test holds real ones to these.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from .. import contract
from ..contract import Model
from .http.limits import MAX_K, MAX_VECTORS

Count = Annotated[int, Field(ge=0)]
Rank = Annotated[int, Field(ge=1, le=MAX_K)]
IdType = Literal["int64", "string"]


class Document(Model):
    """With the docstrings of attributes as descriptions. Open: a client must bear what a later release adds."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="ignore")


class Hits(Document):
    """Of one query."""

    ids: Annotated[list[int | str], Field(max_length=MAX_K)]
    """Best first."""
    scores: list[float]
    """Best first; higher is better."""
    metadata: list[dict[str, object]] | None = None
    """With `include`: the metadata columns of each hit."""
    query_id: str | None = None
    """With `track`: what /v1/feedback asks for."""


class Filtered(Document):
    """With a filter: how many rows it left, and how they were searched."""

    rows: Count
    search: str


class Warned(Document):
    """What was asked and not done; the hits are good."""

    kind: Literal["IgnoredParam", "TextTruncated"]
    """More may come. Branch on this."""
    field: str
    """The part of the request."""
    detail: str


class Answer(Document):
    """Of a search."""

    revision: str
    k: Rank
    results: Annotated[list[Hits], Field(min_length=1, max_length=MAX_VECTORS)]
    """One for each query, in order."""
    zero_results: Count
    """Queries without a hit."""
    took_ms: Annotated[float, Field(ge=0)]
    """From the request to its answer."""
    encode_ms: Annotated[float, Field(ge=0)] | None = None
    """Of that, until the vectors of the texts were there; the rest is the search. Of queries in words only."""
    reranked: bool | None = None
    """Whether the hits are in the order of the cross-encoder, and not in that of their scores. Of queries in words,
    where the index has one."""
    rerank_ms: Annotated[float, Field(ge=0)] | None = None
    """Of tookMs, from the candidates to their order: neither encoding nor search."""
    filter: Filtered | None = None
    partial: bool | None = None
    """True where shards are missing, and the router was told to answer all the same."""
    shards_missing: list[contract.ShardNumber] | None = None
    """Which ones."""
    warnings: list[Warned] | None = None
    """When there are some: search parameters of another kind of index, which were ignored, and texts of which only the
    beginning was encoded."""


class Range(Document):
    """Least and greatest value."""

    min: Count
    max: Count


class Limits(Document):
    """Of one request."""

    k: Count
    vectors: Count
    candidates: Count
    """Most of vectors x k x refine factor (params.k_factor, or that of the operating point)."""
    answer_bytes: Count


class Encodes(Document):
    """How texts become vectors here."""

    max_tokens: Count
    """Of a text; what is longer is cut, and told. 0: nobody here knows, an endpoint encodes."""
    texts: Count
    """In one request."""
    text_characters: Count
    """Of one text."""


class Reranks(Document):
    """How answers to queries in words are reordered."""

    candidates: Count
    """Of each query."""
    budget_ms: Annotated[float, Field(gt=0)]
    """After that the order of their vectors is answered."""


class Part(Document):
    """Of a sharded index, what is served by this pod alone."""

    number: contract.ShardNumber
    of: contract.ShardCount
    plan: str
    """SHA-256 of what all parts were built by."""


class Index(Document):
    """What is served here, and how it may be asked."""

    revision: str
    namespace: str
    name: str
    digest: str
    fingerprint: str
    count: Count
    dimension: Count
    metric: contract.Metric
    embedding: contract.Embedding
    id_type: IdType
    metadata_columns: tuple[str, ...]
    filter_columns: dict[str, str]
    factory: str
    index_type: str
    operating_points: dict[str, contract.OperatingPoint]
    segment_points: dict[str, contract.OperatingPoint]
    params: dict[str, Range]
    segments: tuple[str, ...]
    min_score: float | None
    limits: Limits
    index_bytes: Count | None = None
    """Not told to a token whose policy allows some rows only."""
    faiss_version: str
    builder_version: str
    created: str
    shard: Part | None = None
    """Where this is one part of an index: ask a router for all of it."""
    shards: Count | None = None
    """Where this is a router: how many parts it asks."""
    encoder: Encodes | None = None
    """Where queries may be texts."""
    reranker: Reranks | None = None
    """Where answers to these are reordered."""


class Feedback(Document):
    """Which answer was clicked first: `rank`, or `clicks`, not both."""

    model_config = ConfigDict(extra="forbid")

    query_id: str
    """Of an answer to a search with `track`."""
    rank: Rank | None = None
    """1 is the first answer."""
    clicks: Annotated[list[Rank], Field(min_length=1, max_length=1000)] | None = None
    """In the order of the clicks; the first one counts."""


class Taken(Document):
    """Whether a click counts."""

    counted: bool
    reason: Literal["Duplicate", "Early", "Late", "OtherRevision"] | None = None
    """Why it does not count."""


class Problem(Document):
    """RFC 9457. Branch on `type`."""

    type: Annotated[str, Field(json_schema_extra={"format": "uri"})]
    title: str
    status: int
    detail: str
    field: str | None = None
    """The part of the request that is wrong."""
    value: object = None
    """What was found there, shortened."""
    expected: object = None
    """What the index has instead."""
    shards: list[contract.ShardNumber] | None = None
    """Of a sharded index, which did not answer."""
    remedy: str | None = None
    revision: str
