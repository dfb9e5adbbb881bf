"""What the control plane and the data plane agree on: task inputs, results, evidence, exit codes, names.

The only module that both planes import. Standard library and pydantic only; no I/O, no logic beyond parsing.
JSON uses camelCase, so a result can be copied into a Kubernetes status as it is.
"""

from __future__ import annotations

import re
from enum import IntEnum, StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

FORMAT_VERSION = 1
"""Version of the artifact layout and of manifest.json. Part of every revision's digest."""

HTTP_PORT = 8080
ADMIN_PORT = 8081
REVISION_HEADER = "X-VectorIndex-Revision"
TASK_ENV = "VECTORINDEX_TASK"
"""Environment variable that holds a task as JSON (ResolveTask, BuildTask, ValidateTask or ServeTask)."""
METRICS_PORT_ENV = "VECTORINDEX_METRICS_PORT"
"""Environment variable with the port on which `build` serves metrics while it runs; absent or 0: none."""
TERMINATION_LOG_ENV = "VECTORINDEX_TERMINATION_LOG"
"""Where a verb writes its result or failure (at most 4 KiB of JSON); default /dev/termination-log when that exists."""
RESULT_LIMIT_BYTES = 4096
OTHER_SEGMENT = "other"
"""Evidence of queries that name no declared segment. Never a declared segment's name."""
SEGMENT_QUERIES = 300
"""A segment is judged on this many queries at least, and has a point of its own when as many more can tune it."""
BUCKET_SECONDS = 5
RING_SECONDS = 3600
LATENCY_BIN_RATIO = 1.05
"""Latency histogram bin b holds durations in [1.05**b, 1.05**(b+1)) microseconds; durations under 1 us are bin 0."""
DEADLINE_FLOOR_SECONDS = 0.1
"""A request that allowed less than this and was not answered in time (504) is the client's doing, not a fault of the
revision: it counts as refused. Its time still counts as latency, so a revision that is too slow shows there."""
FEEDBACK_SECONDS = 300
"""Clicks count when they come within so long after the query's bucket; click depth of later buckets is not final."""
CANARY_TOLERANCE = 0.005
"""A pod is ready when its canary recall is at least the recall `validate` measured on the same queries, minus this."""
DRAIN_SECONDS = 30
"""Upper bound of the time in-flight queries get after SIGTERM."""
TOMBSTONE_POLL_SECONDS = 300.0
"""How often deleted ids are listed where nobody says it."""
KEEP_ALIVE_SECONDS = 30.0
"""Age at which a connection is closed after its answer (jittered): a Service switch does not move open connections."""


MEMORY_PATTERN = r"^[1-9][0-9]{0,8}(k|M|G|T|Ki|Mi|Gi|Ti)?$"
_MEMORY_UNITS = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip

SearchParamName = Annotated[str, Field(min_length=1, max_length=64)]
SearchParamValue = Annotated[int, Field(ge=0, le=1_000_000_000)]


def memory_bytes(text: str) -> int:
    """Bytes of a quantity that MEMORY_PATTERN admits ("4Gi", "500M"). Raises ValueError for anything else."""
    match = re.fullmatch(r"([0-9]+)([A-Za-z]*)", text)
    if not match or not re.fullmatch(MEMORY_PATTERN, text):
        raise ValueError(f"{text!r} is not a memory quantity: write for example 4Gi or 500M")
    return int(match[1]) * _MEMORY_UNITS[match[2]]


class Model(BaseModel):
    """Base of everything on the wire: camelCase JSON, immutable, unknown fields refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    def wire(self) -> dict[str, object]:
        """The JSON form: camelCase, without fields that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class ExitCode(IntEnum):
    """Exit codes of the verbs; `podFailurePolicy` and the operator read them."""

    OK = 0
    BELOW_FLOOR = 3
    """`validate --floor` on a laptop: measured, and the floor is not proven. In the cluster the operator judges."""
    BAD_SPEC = 64
    BAD_DATA = 65
    SOURCE_MISSING = 66
    STORE_UNAVAILABLE = 69
    BUG = 70
    RETRY = 75
    MEMORY = 137


class Metric(StrEnum):
    """Similarity. Scores shown to users: the cosine, the inner product, or minus the squared L2 distance."""

    COSINE = "Cosine"
    INNER_PRODUCT = "InnerProduct"
    L2 = "L2"


class Device(StrEnum):
    """Where an index is built."""

    CPU = "CPU"
    GPU = "GPU"
    PREFER_GPU = "PreferGPU"


class S3(Model):
    """A bucket and a key prefix. Credentials never travel here: they come as environment variables of the pod."""

    bucket: Annotated[str, Field(min_length=3, max_length=63, pattern=r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$")]
    """Name of the bucket."""
    prefix: Annotated[str, Field(max_length=512)] = ""
    """Keys begin with this; a folder ends in a slash."""
    endpoint: Annotated[str, Field(max_length=256, pattern=r"^(https?://[^@/]+)?$")] = ""
    """Of another server than AWS, without a path; buckets are then addressed by path."""
    region: Annotated[str, Field(max_length=64)] = ""
    """Empty: the client's default."""


class Location(Model):
    """Either an S3 location or a local folder (a laptop, the tests)."""

    s3: S3 | None = None
    folder: str | None = None


class Columns(Model):
    """Columns of the source. `id`: integer or string, unique. `vector`: list of floats of one length."""

    id: Annotated[str, Field(min_length=1, max_length=128)] = "id"
    """Column of the ids that searches answer with."""
    vector: Annotated[str, Field(min_length=1, max_length=128)] = "vector"
    """Column of the vectors."""
    metadata: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=128)], ...], Field(max_length=32)] = ()
    """Columns kept beside the index, for answers and filters."""


class Embedding(Model):
    """Which model made the vectors. Clients must use the same one, so it never changes within a VectorIndex."""

    model: Annotated[str, Field(max_length=256)] = ""
    """Name of the model. A query that names another is refused."""
    version: Annotated[str, Field(max_length=64)] = ""
    """Version of the model."""
    dimension: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Length of a vector. Absent: read from the data."""
    metric: Metric = Metric.COSINE
    """What makes two vectors similar."""


class Minimise(StrEnum):
    """What `Auto` makes as small as it can among the indexes that reach the recall and fit the memory."""

    LATENCY = "Latency"
    MEMORY = "Memory"


class Objective(Model):
    """What to build and tune for. `recall` is recall@10 at the default operating point."""

    recall: Annotated[float, Field(ge=0.5, le=1.0)] = 0.96
    """The cheapest index and parameters that reach it are taken."""
    minimise: Minimise = Minimise.LATENCY
    """What factory Auto looks for: the fastest index, or the smallest one."""
    memory_limit: Annotated[str | None, Field(pattern=MEMORY_PATTERN, max_length=20)] = None
    """Most memory a searcher may need for index, ids and metadata (4Gi). Only with factory Auto."""


class IndexSpec(Model):
    """`factory`: Auto, or a FAISS factory string (without pre-transforms of the id: ids are kept beside the index)."""

    factory: Annotated[str, Field(min_length=1, max_length=128)] = "Auto"
    """Auto measures several kinds of index on a sample; or for example IVF4096,PQ48x4fs,RFlat, HNSW32,SQ8 or Flat."""
    objective: Objective = Objective()
    search_params: Annotated[dict[SearchParamName, SearchParamValue], Field(max_length=8)] = {}
    """Fixed search parameters by FAISS's names (nprobe, efSearch, k_factor). Empty: tuned. Not with factory Auto."""


class RecallGate(Model):
    """The lower confidence bound of recall@k must be at least `min`. Confidence is one-sided."""

    min: Annotated[float, Field(ge=0.0, le=1.0)] = 0.95
    """Above 0.99 only with index.factory Flat."""
    confidence: Annotated[float, Field(ge=0.5, le=0.999)] = 0.95
    """Of the bound: the probability that the true recall is not below it."""


class QueryColumns(Model):
    """Columns of user-given gate queries: vectors, optional class of each query, optional right answers (ids)."""

    vector: Annotated[str, Field(min_length=1, max_length=128)] = "vector"
    segment: Annotated[str, Field(max_length=128)] = ""
    relevant: Annotated[str, Field(max_length=128)] = ""


# ---------------------------------------------------------------- tasks: what a verb is asked to do


class Identity(Model):
    """Whose artifact it is. Artifacts live below `<prefix>/<namespace>/<name>/`."""

    namespace: str = "local"
    name: str
    uid: str = ""


class ResolveTask(Model):
    """List the source, fingerprint the listing, read headers, store the listing below the artifacts."""

    identity: Identity
    source: Location
    columns: Columns = Columns()
    embedding: Embedding = Embedding()
    artifacts: Location
    tombstones: Location | None = None
    """Objects there are no vectors, wherever they lie."""


class BuildTask(Model):
    """Build and publish the artifact of `digest` from the listing that `fingerprint` names.

    `listing`: whether the listing stored by `resolve` is used (True in the cluster); a local build lists by itself.
    """

    identity: Identity
    digest: str
    fingerprint: str = ""
    attempt: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}$")] = "local"
    source: Location
    columns: Columns = Columns()
    embedding: Embedding = Embedding()
    index: IndexSpec = IndexSpec()
    artifacts: Location
    device: Device = Device.CPU
    device_reason: str = ""
    """Why the device differs from what was asked for (the operator fell back after GPU pods stayed unschedulable)."""
    memory_limit_bytes: int = 0
    """The pod's memory limit; 0: unknown."""
    tombstones: Location | None = None
    """Where deleted ids are listed: their rows are left out."""


class ValidateTask(Model):
    """Measure the artifact of `digest` against exact search and publish `reports/<gate_hash>/`."""

    identity: Identity
    digest: str
    manifest_sha256: str
    gate_hash: str
    artifacts: Location
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    confidence: Annotated[float, Field(ge=0.5, le=0.999)] = 0.95
    queries: Location | None = None
    query_columns: QueryColumns = QueryColumns()
    segments: tuple[str, ...] = ()
    segment_targets: dict[str, float] = {}
    """Recall@k that the operating point of a segment is tuned for; one that is not named keeps the default point."""
    floor: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    """For the report's page only: judged by who asks, and not part of the gate hash."""
    tombstones: Location | None = None
    """Where deleted ids are listed; those still in the index are searched for and must not be found."""
    id_column: str = "id"
    """Column of the ids in files of tombstones."""


class ServeTask(Model):
    """Serve the artifact of `digest`; refuse anything whose checksums differ from those named here."""

    identity: Identity
    revision: str
    digest: str
    manifest_sha256: str
    gate_hash: str = ""
    report_sha256: str = ""
    artifacts: Location
    segments: tuple[str, ...] = ()
    min_score: float | None = None
    live_recall: bool = False
    """Answer a sample of the live queries again exactly, in the background; needs the disk for vectors.npy."""
    cache_dir: str = "/var/cache/vectorindex"
    tombstones: Location | None = None
    """Where deleted ids are listed; they are not answered."""
    tombstone_poll_seconds: Annotated[float, Field(ge=0, le=31_536_000)] = TOMBSTONE_POLL_SECONDS
    """How often they are listed again; 0: only at the start."""
    id_column: str = "id"
    """Column of the ids in files of tombstones."""


# ---------------------------------------------------------------- results: what a verb answers


class Failure(Model):
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


class ResolveResult(Model):
    kind: Literal["Resolve"] = "Resolve"
    fingerprint: str
    objects: int
    bytes: int
    rows: int | None = None
    dimension: int | None = None


class OperatingPoint(Model):
    """Search parameters with what was measured at them. `params`: FAISS names (nprobe, efSearch, k_factor)."""

    params: dict[str, int] = {}
    recall: float
    recall_low: float
    latency_us: float
    """Mean time of one query, one thread, microseconds."""


class BuildResult(Model):
    kind: Literal["Build"] = "Build"
    digest: str
    attempt: str
    manifest_sha256: str
    fingerprint: str
    count: int
    dimension: int
    factory: str
    device: Device
    device_reason: str = ""
    duration_seconds: float
    peak_memory_bytes: int
    index_bytes: int
    resident_bytes: int
    """Memory a searcher needs for this artifact: everything it maps or reads."""
    faiss_version: str
    default_point: OperatingPoint
    conservative_point: OperatingPoint | None = None
    reused: bool = False
    """True when the manifest was there already and nothing was built."""


class SegmentRecall(Model):
    """What was measured on one class of queries; `segment` is empty for all queries together."""

    segment: str = ""
    queries: int
    recall: float
    recall_low: float
    mrr: float | None = None
    """Mean reciprocal rank of the exact nearest neighbour among the answers."""
    relevance_mrr: float | None = None
    """Mean reciprocal rank of the first labelled right answer; None without labels."""


class ValidateResult(Model):
    kind: Literal["Validate"] = "Validate"
    gate_hash: str
    k: int
    confidence: float
    overall: SegmentRecall
    segments: tuple[SegmentRecall, ...] = ()
    count: int
    p50_ms: float
    p95_ms: float
    resident_bytes: int
    canary_queries: int
    canary_recall: float
    tombstoned_found: int = 0
    """Deleted ids that were answered; anything but 0 fails the gate."""
    report_sha256: str


# ---------------------------------------------------------------- evidence and leases on the admin port


class EvidenceBucket(Model):
    """Counts of one segment in one 5-second bucket. Additive: the sum over pods is the revision's evidence."""

    bucket: int
    """floor(unix seconds / BUCKET_SECONDS) on the pod's clock."""
    segment: str
    requests: int = 0
    """Answered requests: server's faults included; overload 503 and the client's other faults are not."""
    failed_requests: int = 0
    """Of these: server's faults (5xx but overload, 504 above the floor of DEADLINE_FLOOR_SECONDS), and refusals for a
    wrong dimension or another embedding. The unit of the error rate: a batch fails as a whole, so it fails once."""
    queries: int = 0
    """Queries of these requests; a request may carry several."""
    errors: int = 0
    """Queries of the failed requests."""
    refused: int = 0
    """Requests refused with another 4xx, overload 503, or 504 below the floor: shown, never judged."""
    zero_results: int = 0
    """Queries with no hit at or above minScore."""
    top_count: int = 0
    """Queries that had a first hit (whatever its score)."""
    top_sum: float = 0.0
    top_sum_squares: float = 0.0
    live_queries: int = 0
    """Sampled queries of this bucket that were answered again exactly, later: see Evidence.live_before."""
    live_recall_sum: float = 0.0
    """Sum of their recalls, each in [0, 1]; the query is the unit, since hits of one query correlate."""
    live_wide: int = 0
    """Of these, judged against a much wider search instead: too many vectors to scan. Never too low by that."""
    live_overall_queries: int = 0
    """Of these, the ones that are a uniform sample of all segments together; the others are of this segment only."""
    live_overall_recall_sum: float = 0.0
    tracked: int = 0
    """Queries of this bucket that asked for a query id."""
    tracked_depth_sum: int = 0
    """Their depths as if none were clicked: k + 1 each."""
    clicked: int = 0
    """Of the revision's tracked queries of this bucket, those whose first click came to this pod."""
    click_gain_sum: int = 0
    """What these clicks take from the depths: k + 1 - rank each. Mean depth: (trackedDepthSum - clickGainSum) / tracked
    over all pods of the revision."""
    click_depth_top: int = 0
    """The largest depth there could be: k + 1 of the largest k. The largest over buckets and pods, not the sum."""
    latency: dict[int, int] = {}
    """Latency histogram, bin -> queries (see LATENCY_BIN_RATIO). Also of queries whose own deadline below the floor ran
    out: they took at least that long."""


class Evidence(Model):
    """Answer of GET /v1/evidence?since=UNIX_SECONDS."""

    pod: str
    revision: str
    now: float
    live_before: int | None = None
    """Live recall is final in buckets before this one; None: it is not measured."""
    buckets: tuple[EvidenceBucket, ...]


class LeaseState(StrEnum):
    SERVING = "Serving"
    DRAINING = "Draining"


class TrafficLease(Model):
    """Body of POST /v1/lease. Draining: close each connection after its answer. Runs out by itself."""

    state: LeaseState
    ttl_seconds: Annotated[float, Field(gt=0, le=300)] = 30.0
