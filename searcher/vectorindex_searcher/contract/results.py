"""What a verb answers: a result or a failure, as JSON of a few KiB in the termination message.

The operator copies results into statuses, so what another release wrote is read and kept: see model.Stored.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .model import Stored


class Failure(Stored):
    """Why a verb ended with a non-zero exit code. Names what is wrong, where, and what to do."""

    kind: Literal["Failure"] = "Failure"
    reason: str
    """CamelCase, for conditions: BucketNotFound, AccessDenied, EmptySource, NonFiniteVector, UnknownFactory ..."""
    message: str
    object: str | None = None
    row: int | None = None
    field: str | None = None
    """Path of the spec field to look at, for example spec.source.s3.bucket."""
    remedy: str | None = None


class ResolveResult(Stored):
    kind: Literal["Resolve"] = "Resolve"
    fingerprint: str
    objects: int
    bytes: int
    rows: int | None = None
    dimension: int | None = None
    source: str | None = None
    """Fingerprint of the source without its fresh files; None: there are none of these."""
    fresh: int | None = None
    """Files of fresh rows that the listing has taken in; None: none."""


class OperatingPoint(Stored):
    """Search parameters with what was measured at them. `params`: FAISS names (nprobe, efSearch, k_factor)."""

    params: dict[str, int] = {}
    recall: float
    recall_low: float
    latency_us: float
    """Mean CPU time of one query, one thread, microseconds."""


class EncodedTexts(Stored):
    """Texts of the rows that a build encoded."""

    encoded: int
    """By the encoder."""
    known: int
    """Rows whose text had been encoded before, or stood in another row."""
    cut: int
    """Rows of whose text only the beginning was encoded, as far as that is told: no endpoint tells it."""
    seconds: float
    """That encoding took."""


class BuildResult(Stored):
    kind: Literal["Build"] = "Build"
    digest: str
    attempt: str
    manifest_sha256: str
    fingerprint: str
    count: int
    dimension: int
    factory: str
    device: str
    """CPU or GPU; another release may know more."""
    device_reason: str = ""
    duration_seconds: float
    peak_memory_bytes: int
    index_bytes: int
    resident_bytes: int
    """Memory a searcher needs for this artifact: everything it maps or reads."""
    vectors_bytes: int | None = None
    """Size of vectors.npy, which the gate and live recall read from a pod's disk. None: built before this was told."""
    faiss_version: str
    default_point: OperatingPoint
    conservative_point: OperatingPoint | None = None
    objective_reached: bool | None = None
    """Whether the default point reaches the objective on the rows it was tuned with; None: nothing was tuned."""
    texts: EncodedTexts | None = None
    """None: the rows had vectors."""
    reused: bool = False
    """True when the manifest was there already and nothing was built."""
    shards: Annotated[int, Field(ge=0)] | None = None
    """Of how many parts it is the whole: then sizes in memory are of the largest part, points have the recall of the
    weakest and the time of all together. None: of no parts."""


class PartitionResult(Stored):
    kind: Literal["Partition"] = "Partition"
    digest: str
    plan_sha256: str
    fingerprint: str
    shards: int
    count: int
    counts: Annotated[tuple[int, ...], Field(max_length=64)]
    """Rows of each shard."""
    dimension: int
    factory: str
    """What every shard is built as."""
    bytes: int
    """Of the rows that are laid ready; they go when the whole is published."""
    duration_seconds: float
    reused: bool = False
    """True when it was done already and nothing was read."""


class PublishResult(BuildResult):
    """Of the whole that was published, as of a build of all of it."""

    plan_sha256: str


class SegmentRecall(Stored):
    """What was measured on one class of queries; `segment` is empty for all queries together."""

    segment: str = ""
    queries: int
    recall: float
    recall_low: float
    mrr: float | None = None
    """Mean reciprocal rank of the exact nearest neighbour among the answers."""
    relevance_mrr: float | None = None
    """Mean reciprocal rank of the first labelled right answer; None without labels."""
    judged: bool | None = None
    """False: too small a share of the queries to hold a revision up; reported only. None: as its queries allow."""
    recall_high: float | None = None
    """Of live queries, where each sender is one voice: what they show recall to be at most, without the sender that is
    answered worst. None: no live queries, or an image that counted every query by itself."""
    senders: int | None = None
    """Of live queries: whose they are."""


COLUMN_TYPES = {
    "string": "s", "integer": "i", "float": "f", "boolean": "b",
    "timestamp": "t", "date": "d", "null": "n", "other": "o",
}  # fmt: skip
"""What filters tell apart in metadata columns, by its letter; a list has the upper-case letter of its items."""


class EncoderProof(Stored):
    """Whether an encoder makes the vectors that the index has: rows whose text and vector are known, encoded anew."""

    rows: int
    """Rows that were compared: with a text that the model takes whole."""
    deviating: int
    """Of these, with a cosine below ENCODER_COSINE."""
    deviating_low: float
    """Their share is at least this, with 95 % confidence."""
    cosine: float
    """Median of the cosines between what was encoded and what the index has; 0 without rows."""
    norm_ratio: float | None = None
    """Median of the ratios of lengths, encoded to indexed. None: no matter (Cosine), or no rows."""
    bytes: int
    """Of the encoder's files."""


class Gain(Stored):
    """A mean over the same queries, in the order of their vectors and in that of a cross-encoder."""

    without: float
    reranked: float
    low: float
    """The mean of the differences, reranked less without, is between these two with 95 % confidence."""
    high: float


class RerankProof(Stored):
    """What the order of a cross-encoder gains on labelled queries in words, without its budget."""

    queries: int
    """That were reordered, of those that judge."""
    mrr: Gain
    """Reciprocal rank of the first labelled right answer among the k that are answered."""
    ndcg: Gain
    """nDCG of the first 10 of these; an answer is right or not."""
    p95_ms: float
    """What it took for a query's candidates on the machine of the gate, one thread."""
    bytes: int
    """Of the cross-encoder's files."""

    @property
    def harms(self) -> bool:
        """Whether users are surely answered worse in its order."""
        return min(self.mrr.high, self.ndcg.high) < 0


class ValidateResult(Stored):
    kind: Literal["Validate"] = "Validate"
    gate_hash: str
    k: int
    confidence: float
    overall: SegmentRecall
    segments: tuple[SegmentRecall, ...] = ()
    count: int
    p50_ms: float
    p95_ms: float
    cost_us: float | None = None
    """CPU time of a query on one thread, microseconds: of all classes by their shares, each at its own point."""
    resident_bytes: int
    canary_queries: int
    canary_recall: float
    tombstoned_found: int = 0
    """Deleted ids that were answered; anything but 0 fails the gate."""
    report_sha256: str
    live: Annotated[tuple[SegmentRecall, ...], Field(max_length=2)] | None = None
    """Live queries that judge, and those of them that equal a row; None: there were none to judge by."""
    live_note: Annotated[str, Field(max_length=300)] | None = None
    """How many there were, or why they are not judged; None: nobody asked for them."""
    column_types: Annotated[str, Field(max_length=64)] | None = None
    """A letter for the type of each metadata column, in their order: COLUMN_TYPES. 32 names would not fit in here."""
    truth: Literal["Reconstructions"] | None = None
    """What recall is measured against, where the source has no vectors; None: its vectors."""
    filters: bool | None = None
    """Whether the index can be searched with a filter; None: an image from before, which did not tell."""
    encoder: EncoderProof | None = None
    """None: nobody asked for it."""
    rerank: RerankProof | None = None
    """None: nobody asked for it, or an image that does not know it."""
    shard_recalls: Annotated[tuple[float, ...], Field(max_length=64)] | None = None
    """Recall@k of each part against its own rows; all else is of the merged answers then. None: of no parts."""


class CollectResult(Stored):
    kind: Literal["Collect"] = "Collect"
    dry_run: bool = False
    """True: nothing was removed, and the numbers are of what would have been."""
    artifacts: int
    objects: int
    bytes: int
    uploads: int
    """Unfinished multipart uploads, aborted."""
    left: int
    """Objects of artifacts that were to go and stay: `stays` says why."""
    stays: Annotated[tuple[Annotated[str, Field(max_length=300)], ...], Field(max_length=20)] = ()
    """Digest and reason of such artifacts, the first of them."""
    unknown: int
    """Objects among those of the index that this version does not know; never touched."""
