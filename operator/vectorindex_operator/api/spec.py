"""VectorIndex.spec as pydantic models: what users write.

A field stands here only when its behaviour is built and tested. `cel` holds what needs more than one field to judge;
`crd.py` turns these models into structural schemas. No I/O and no Kubernetes client.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vectorindex_operator.api import shards
from vectorindex_operator.api.cache import Cache
from vectorindex_operator.api.embedding import Embedding
from vectorindex_operator.api.fields import (
    CelRule,
    Duration,
    ObjectName,
    ObjectNameOrNone,
    Percent,
    PercentIncrease,
    Poll,
    PositiveDuration,
    Quantities,
    QueueName,
    SegmentName,
)
from vectorindex_operator.api.fresh import RULES_OF_SOURCE, RULES_OF_SPEC, Fresh
from vectorindex_operator.api.guardrails import Guardrails
from vectorindex_operator.api.network import FrontService, NetworkPolicy
from vectorindex_operator.api.places import (
    ANY_STORE,
    GIVEN,
    NOT_TWO_STORES,
    ONE_STORE,
    PREFIX_OF,
    S3,
    STORE_NAMES,
    AnyStore,
    HasPlace,
    Place,
    any_store,
)
from vectorindex_operator.api.pod import Pod
from vectorindex_operator.api.quantities import duration_seconds
from vectorindex_operator.api.rerank import Rerank
from vectorindex_operator.api.rollout import Rollout
from vectorindex_operator.api.schedule import Schedule
from vectorindex_searcher.contract import (
    AUTO_SHARDS,
    FEWEST_LIVE_QUERIES,
    LIVE_SAMPLE_QUERIES,
    MEMORY_PER_SHARD,
    Columns,
    Device,
    IndexSpec,
    MemoryText,
    Model,
    ParamLimits,
    Partial,
    RecallGate,
)


class Tombstones(Model):
    """Lists of the ids of deleted rows: Parquet, JSON lines, .csv or .tsv with the id column, or .txt, an id a line."""

    prefix: Annotated[str, Field(min_length=2, max_length=512, pattern=r"^[^/].*/$")]
    """A folder of the source's bucket or volume, ending in a slash; below the source's own prefix, too."""


class Source(HasPlace):
    """Where the vectors are. A change of the listing (keys, sizes, ETags) is a new revision."""

    s3: S3 | None = None
    """Files below a prefix, of one format: Parquet, JSON lines, NPY, fvecs/bvecs/ivecs, fbin/u8bin/i8bin or HDF5."""
    columns: Columns = Columns()
    """Which columns are read."""
    poll: Poll = "5m"
    """How often the source is listed; 0 turns polling off. With `schedule`: how often deleted ids and fresh rows are
    looked for."""
    schedule: Schedule | None = None
    min_interval: Duration = "10m"
    """At most one new revision per this time comes from changed data."""
    tombstones: Tombstones | None = None
    """Deleted ids: hidden by searchers within a `poll` (5m where that is 0), left out of the next build."""
    fresh: Fresh | None = None
    """Absent: new rows are answered once they are built in. An edit holds at once."""
    cel: ClassVar[tuple[CelRule, ...]] = (
        ONE_STORE,
        CelRule(
            f"!has(self.tombstones) || !({GIVEN}) || !({PREFIX_OF} + '/').startsWith(self.tombstones.prefix)",
            "tombstones.prefix must not be, or contain, the prefix of the vectors",
            ".tombstones.prefix",
        ),
        CelRule(
            "!has(self.schedule) || has(self.tombstones) || has(self.fresh)"
            " || self.poll in ['0', '5m'] || self.poll == 0",
            "with schedule the source is not polled, and there is nothing else to poll for: remove poll or schedule",
            ".poll",
        ),
        *RULES_OF_SOURCE,
    )

    @property
    def looked_at(self) -> bool:
        """Whether somebody looks at it again without being asked to."""
        return self.schedule is not None or (self.poll != "0" and duration_seconds(self.poll) > 0)

    def deleted(self) -> Place | None:
        """The place of the tombstones: the source's, with another prefix."""
        return self.place.at(self.tombstones.prefix) if self.tombstones else None

    def fresh_place(self) -> Place | None:
        """The place of the fresh rows, likewise."""
        return self.place.at(self.fresh.prefix) if self.fresh else None


class Artifacts(HasPlace):
    """Where built indexes are kept."""

    s3: S3 | None = None
    """Indexes are written below PREFIX/NAMESPACE/NAME/."""
    deletion_policy: Literal["Retain", "Delete"] = "Retain"
    """What happens to the artifacts when the VectorIndex is deleted. Delete: a Job removes them, and all else below
    PREFIX/NAMESPACE/NAME/ that was written for it; an edit holds at once."""
    cel: ClassVar[tuple[CelRule, ...]] = (ONE_STORE,)


class Segment(Model):
    """A named class of queries; a query names its own, undeclared ones count as `other`."""

    name: SegmentName
    """What queries call it."""
    cel: ClassVar[tuple[CelRule, ...]] = (
        CelRule("self.name != 'other'", "'other' is the segment of undeclared queries"),
    )


class Resources(Model):
    """Compute resources of the container, as in Kubernetes (cpu, memory, ephemeral-storage)."""

    requests: Quantities = {}
    """What the scheduler sets aside."""
    limits: Quantities = {}
    """What the container may use at most."""


class Gpu(Model):
    """The extended resource that a GPU build asks for."""

    resource: Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[a-zA-Z0-9._-]+$", max_length=128)] = "nvidia.com/gpu"
    """Name under which nodes offer GPUs."""
    count: Annotated[int, Field(ge=1, le=16)] = 1
    """How many."""


class Build(Model):
    """How an index is built. Nothing here changes what is built, so nothing here makes a new revision."""

    device: Device = Device.CPU
    """PreferGPU: on CPU after 5 min unschedulable or out of GPU memory; the revision says which it was."""
    gpu: Gpu = Gpu()
    resources: Resources = Resources(requests={"cpu": "1", "memory": "2Gi"})
    """Of the build and validate Jobs."""
    timeout: PositiveDuration = "2h"
    """After this the Job is ended, whichever attempt it is at, and counts as failed."""
    retries: Annotated[int, Field(ge=0, le=10)] = 3
    """Further attempts after one that ran out of memory, was preempted, or lost its node. With shards: of each."""
    parallelism: Annotated[int | None, Field(ge=1, le=64)] = None
    """How many shards are built at a time. Absent: 4. `timeout` is then of each round of so many."""
    pod: Pod = Pod()
    """Of the resolve, build and validate Jobs."""
    queue_name: QueueName | None = None
    """Kueue's LocalQueue, in this namespace, that says when the partition, build and validate Jobs run: they are made
    suspended, and wait for it. Another name takes what waits or runs out of its queue and begins it anew."""


class LiveQueries(Model):
    """What the users of the stable revision ask. Its searchers keep a sample of it in memory for 24 hours (vector,
    segment and k; searches with a filter are left out, and counted), and the gate of the next revision tunes with half
    of it and judges by the other half. See docs/security.md for what is kept, for how long, and who can read it.
    """

    min_queries: Annotated[int, Field(ge=FEWEST_LIVE_QUERIES, le=LIVE_SAMPLE_QUERIES)] = 1000
    """With fewer different ones in the sample, live queries are reported and not judged. One token or address has at
    most 1 % of the places of the sample, and is one voice in the verdict, which takes six senders."""


class Queries(AnyStore):
    """What the gate asks: queries that you give, what the users of stable ask, or both."""

    s3: S3 | None = None
    """Files of queries below a prefix, in a format of sources; segments, relevant ids and filters need Parquet or
    JSON lines. Absent: rows of the source are asked, held out."""
    column: Annotated[str, Field(min_length=1, max_length=128)] = "vector"
    """Column of vectors, of the source's dimension."""
    segment_column: Annotated[str, Field(max_length=128)] = ""
    """Column that names each query's segment; empty: all are `other`. Half of each class tunes search parameters and
    the other half judges; a declared segment with 600 queries or more gets parameters of its own."""
    filter_column: Annotated[str | None, Field(min_length=1, max_length=128)] = None
    """Column of each query's filter, in the language of searches: JSON text, null for none. Filtered queries are a
    class of their own, judged by `gate.recall` where they are more than 5 % of the queries. Absent: none has one."""
    text_column: Annotated[str | None, Field(min_length=1, max_length=128)] = None
    """Column of each query in words, null for none; its vector is in `column` all the same. With `gate.relevance` the
    gate measures what the order of `searcher.rerank` gains on them (RerankHarms). Absent: nobody measures it."""
    live: LiveQueries | None = None
    """Ask what the users of stable ask, too. A revision below `recall.min` on it holds (LiveRecallBelowMin)."""
    cel: ClassVar[tuple[CelRule, ...]] = (
        NOT_TWO_STORES,
        CelRule(f"{ANY_STORE} || has(self.live)", f"gate.queries needs files ({STORE_NAMES}), live, or both", ""),
        CelRule(
            f"{ANY_STORE} || !has(self.segmentColumn) || self.segmentColumn == ''",
            f"gate.queries.segmentColumn is a column of the files in gate.queries: name {STORE_NAMES}",
            ".segmentColumn",
        ),
        CelRule(
            f"{ANY_STORE} || !has(self.filterColumn)",
            f"gate.queries.filterColumn is a column of the files in gate.queries: name {STORE_NAMES}",
            ".filterColumn",
        ),
        CelRule(
            f"{ANY_STORE} || !has(self.textColumn)",
            f"gate.queries.textColumn is a column of the files in gate.queries: name {STORE_NAMES}",
            ".textColumn",
        ),
    )


class SegmentFloor(Model):
    """A recall floor of its own for one segment."""

    name: SegmentName
    """One of spec.segments."""
    min: Annotated[float, Field(ge=0.0, le=1.0)]
    """The segment's lower confidence bound must be at least this. Above `index.objective.recall` it is also what the
    segment's own search parameters are tuned for."""


class Relevance(Model):
    """Right answers in the queries: sees a wrong embedding, which recall cannot.

    Without `minMRR` and `maxDropVsStable` it is reported only.
    """

    relevant_column: Annotated[str, Field(min_length=1, max_length=128)] = "relevant_ids"
    """Column of lists of right ids."""
    min_mrr: Annotated[float | None, Field(ge=0.0, le=1.0, alias="minMRR")] = None
    """Lowest mean reciprocal rank of the first right answer."""
    max_drop_vs_stable: Percent | None = None
    """How much lower than stable's the mean reciprocal rank may be, of all queries and of each segment with 60 or more.
    Compared when stable was measured by the same queries. Absent: not compared."""


class Gate(Model):
    """The offline proof: what a revision must show before it gets traffic."""

    k: Annotated[int, Field(ge=1, le=1000)] = 10
    """Recall is measured over this many answers."""
    recall: RecallGate = RecallGate()
    queries: Queries | None = None
    """Absent: a random sample of the source's own rows, held out."""
    segments: Annotated[tuple[SegmentFloor, ...], Field(max_length=32)] = ()
    """Floors for single segments, on top of `recall`, which holds for all queries together."""
    relevance: Relevance | None = None
    max_count_drop: Percent = "10%"
    """A revision that lost more of stable's rows than this is rejected: a listing may be incomplete."""
    max_count_rise: PercentIncrease = "50%"
    """A revision that grew by more than this against stable is rejected."""
    max_cost_rise: PercentIncrease = "100%"
    """The user's queries may ask for a wider search than was built, up to this much more CPU a query than stable takes;
    beyond it the gate is inconclusive (CostRose)."""
    allow_column_changes: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=128)], ...], Field(max_length=32)
    ] = ()
    """Metadata columns that may have another type than stable's. Others reject: filters on them would be refused."""
    on_inconclusive: Literal["Hold", "Reject"] = "Hold"
    """Hold waits for another gate or new data; Reject remembers the revision as bad."""
    cel: ClassVar[tuple[CelRule, ...]] = (
        CelRule(
            "!has(self.segments) || size(self.segments) == 0"
            " || (has(self.queries) && self.queries.segmentColumn != '')",
            "gate.segments needs gate.queries with segmentColumn: say where the queries of each segment are",
            ".segments",
        ),
        CelRule(
            f"!has(self.relevance) || (has(self.queries) && {any_store('self.queries')})",
            f"gate.relevance needs gate.queries with files: {STORE_NAMES}",
            ".relevance",
        ),
        CelRule(
            "!has(self.queries) || !has(self.queries.textColumn) || has(self.relevance)",
            "gate.queries.textColumn needs gate.relevance: which answers are right tells what an order gains",
            ".queries.textColumn",
        ),
    )

    @property
    def measures_rerank(self) -> bool:
        """Whether it tells what the order of a cross-encoder gains: by labelled queries in words."""
        return self.relevance is not None and self.given is not None and self.given.text_column is not None

    @property
    def given(self) -> Queries | None:
        """The queries of files, where there are any."""
        return self.queries if self.queries is not None and self.queries.where is not None else None

    @property
    def live(self) -> LiveQueries | None:
        """What is asked of live queries."""
        return self.queries.live if self.queries is not None else None


class TokenSecret(Model):
    """A Secret of the same namespace, mounted into the searchers, never read by the operator.

    Each value is one bearer token, or one a line; its key is the token's name in logs and metrics.
    """

    name: ObjectName
    """Name of the Secret."""


class Auth(Model):
    """Who may query: whoever sends one of these bearer tokens."""

    secret_ref: TokenSecret
    """Where the tokens are. Changed tokens hold within about a minute, without a restart."""
    policies: Literal["Required"] | None = None
    """Required: each token sees only the rows that its policy allows, and one without a policy sees none. The policies
    are JSON in the Secret's key policies.json, and changes hold like those of tokens."""


class CertificateSecret(Model):
    """A Secret of the same namespace (type kubernetes.io/tls), mounted into the searchers, never read by the operator.

    Keys: tls.crt, tls.key.
    """

    name: ObjectName
    """Name of the Secret."""


class Tls(Model):
    """TLS on the port that users query. The Service's port stays 80 and says appProtocol https."""

    secret_ref: CertificateSecret
    """Where certificate and key are. A renewed certificate is shown within about a minute, without a restart."""


class QueryParams(ParamLimits):
    """What queries may choose for themselves: who asks for much makes the others wait."""

    cel: ClassVar[tuple[CelRule, ...]] = (
        CelRule(
            "!has(self.allow) || !has(self.max) || self.max.all(name, name in self.allow)",
            "params.max names a parameter that params.allow does not",
            ".max",
        ),
    )


class Searcher(Model):
    """The pods that answer queries. `minScore`, `pod`, `rerank` and `memoryPerShard` are of a revision; an edit of the
    others applies at once."""

    replicas: Annotated[int, Field(ge=1, le=1000)] = 2
    """Where there are shards: of each, and of routers. An HPA may write it: target the VectorIndex itself, and leave it
    out of the manifest."""
    resources: Resources = Resources(requests={"cpu": "1"})
    """Memory and ephemeral-storage are computed from the artifact when absent. One process answers for each whole core
    of limits.cpu, else of requests.cpu, as many as have room in limits.memory where that is given."""
    router_resources: Resources | None = None
    """Of routers, which an index in shards has. Absent: 500m of CPU and 640Mi of memory."""
    partial: Partial | None = None
    """What becomes of a query that not every shard answers. Absent: Refuse (503); Allow: the answer of the others, with
    `partial: true`. It counts as an error either way. Applies at once; needs index.shards."""
    memory_per_shard: MemoryText | None = None
    """What a searcher of one shard may ask for, where `index.shards` is Auto. Absent: 16Gi. Another one is another
    revision."""
    min_score: float | None = None
    """Hits below are no hits: what ZeroResultRate counts. Cosine, inner product, or minus the squared L2 distance."""
    auth: Auth | None = None
    """Absent: whoever reaches the Service may query. Applies at once, to every loaded revision."""
    tls: Tls | None = None
    """Absent: in clear. Applies at once, to every loaded revision."""
    cache: Cache | None = None
    params: QueryParams | None = None
    """Limits on the search parameters that queries name. Absent: the index's own. Applies to every loaded revision, as
    fast as its pods are replaced one by one."""
    network_policy: NetworkPolicy = NetworkPolicy()
    """Holds at once, for every pod of this index."""
    service: FrontService | None = None
    """Holds at once."""
    pod: Pod = Pod()
    rerank: Rerank | None = None
    """Absent: answers are in the order of their vectors. Of a revision; needs embedding.encoder."""


def _claim(field: str, where: str = "") -> str:
    """CEL: the claim that a field of the spec names; an empty text where there is none. where: what must be so as
    well."""
    path = ["self", *field.split(".")]
    given = [f"has({'.'.join(path[:end])})" for end in range(3, len(path))] + [f"has({'.'.join(path)})"]
    return f"({' && '.join([*given, *([where] if where else [])])} ? {'.'.join(path)} : '')"


def _mounted_once(whose: str, *claims: str) -> CelRule:
    """Before Kubernetes 1.35 a pod with two volumes of one claim never starts."""
    field = f"self.{whose}.pod"
    return CelRule(
        f"!has({field}) || !has({field}.volumes) || {field}.volumes.all(v, !has(v.persistentVolumeClaim) || "
        f"!(v.persistentVolumeClaim.claimName in [{', '.join(claims)}]))",
        f"{whose}.pod.volumes has a claim that these pods have already, by a place or a cache: a pod mounts each once",
        f".{whose}.pod.volumes",
    )


_CLAIMS_OF_ALL = tuple(
    _claim(f"{place}.volume.claimName") for place in ("artifacts", "embedding.encoder.onnx", "searcher.rerank.onnx")
)


class VectorIndexSpec(Model):
    """What a user asks for. The operator never writes it."""

    source: Source
    artifacts: Artifacts
    embedding: Embedding = Embedding()
    segments: Annotated[tuple[Segment, ...], Field(max_length=32)] = ()
    """Classes of queries that gate and guardrails may tell apart."""
    index: IndexSpec = IndexSpec()
    build: Build = Build()
    gate: Gate = Gate()
    searcher: Searcher = Searcher()
    rollout: Rollout = Rollout()
    guardrails: Guardrails = Guardrails()
    history: Annotated[int, Field(ge=1, le=20)] = 3
    """How many earlier revisions are kept to go back to."""
    pin_revision: Annotated[ObjectNameOrNone, Field(max_length=49)] = ""
    """The revision of that name serves, which has passed the gate before; nothing is listed or built. Empty: what spec
    and data ask for."""
    suspend: bool = False
    """Nothing new begins: no listing, build, proof or rollout. What serves, soaks and goes back is looked after."""
    cel: ClassVar[tuple[CelRule, ...]] = (
        _mounted_once(
            "build", *_CLAIMS_OF_ALL, _claim("source.volume.claimName"), _claim("gate.queries.volume.claimName")
        ),
        _mounted_once(
            "searcher",
            *_CLAIMS_OF_ALL,
            _claim("source.volume.claimName", "has(self.source.tombstones)"),
            _claim("searcher.cache.claimName"),
        ),
        CelRule(
            "!(has(self.searcher.cache) && has(self.searcher.cache.claimName)) || !(self.searcher.cache.claimName in"
            f" [{', '.join([*_CLAIMS_OF_ALL, _claim('source.volume.claimName')])}])",
            "searcher.cache needs a claim of its own: a pod mounts each once",
            ".searcher.cache.claimName",
        ),
        *(
            CelRule(
                f"!has(oldSelf.embedding.{field}) || {empty}"
                f"(has(self.embedding.{field}) && self.embedding.{field} == oldSelf.embedding.{field})",
                f"embedding.{field} cannot be changed: another embedding is another VectorIndex",
                f".embedding.{field}",
            )
            for field, empty in (
                ("model", "oldSelf.embedding.model == '' || "),
                ("version", "oldSelf.embedding.version == '' || "),
                ("dimension", ""),
                ("metric", ""),
            )
        ),
        CelRule(
            "!has(self.searcher) || !has(self.searcher.rerank) || (has(self.embedding) && has(self.embedding.encoder)"
            " && has(self.source.columns.metadata)"
            " && self.searcher.rerank.textColumn in self.source.columns.metadata)",
            "searcher.rerank needs embedding.encoder, and its textColumn must be one of source.columns.metadata",
            ".searcher.rerank",
        ),
        CelRule(
            "self.index.factory == 'Flat' || self.index.objective.recall >= self.gate.recall.min",
            "index.objective.recall must be at least gate.recall.min: what is built for less cannot pass",
            ".index.objective.recall",
        ),
        CelRule(
            "self.index.factory == 'Auto' || !has(self.index.objective.memoryLimit)",
            "index.objective.memoryLimit needs index.factory Auto: another factory takes the memory it takes",
            ".index.objective.memoryLimit",
        ),
        CelRule(
            "self.index.factory != 'Auto' || !has(self.index.searchParams) || size(self.index.searchParams) == 0",
            "index.searchParams needs an index.factory: which names there are depends on the kind of index",
            ".index.searchParams",
        ),
        CelRule(
            "!has(self.index.__import__) || (self.index.factory == 'Auto' && !has(self.index.effort)"
            " && !has(self.index.objective.memoryLimit)"
            " && (!has(self.index.searchParams) || size(self.index.searchParams) == 0))",
            "index.import names an index that is built: leave factory, effort, objective.memoryLimit and"
            " searchParams out",
            ".index.import",
        ),
        CelRule(
            "!has(self.index.__import__) || has(self.index.__import__.ids) == has(self.index.__import__.idsSHA256)",
            "index.import.ids and index.import.idsSHA256 go together",
            ".index.import",
        ),
        CelRule(
            "!has(self.source.columns) || self.source.columns.vector != '' || has(self.source.columns.text)"
            " || (has(self.index.__import__) && has(self.embedding.dimension) && !has(self.embedding.encoder))",
            "source.columns.vector may be empty only with index.import, which gives vectors back; that needs"
            " embedding.dimension, and no embedding.encoder, which the gate would compare with them",
            ".source.columns.vector",
        ),
        CelRule(
            "!has(self.index.__import__) || has(self.gate.queries)",
            "index.import needs gate.queries: nothing can be left out of an index that is built, and rows that are in"
            " it prove nothing",
            ".index.import",
        ),
        *shards.RULES,
        CelRule(
            "self.gate.recall.min <= 0.99 || self.index.factory == 'Flat'",
            "gate.recall.min above 0.99 can only be proven for factory Flat",
            ".gate.recall.min",
        ),
        CelRule(
            "!has(self.guardrails.rules) || self.guardrails.rules.all(r, !has(r.segment) || r.segment == ''"
            " || r.segment == 'other' || (has(self.segments) && self.segments.exists(s, s.name == r.segment)))",
            "a guardrail rule names a segment that spec.segments does not declare",
            ".guardrails.rules",
        ),
        CelRule(
            "!has(self.guardrails.rules) || (has(self.searcher) && has(self.searcher.auth))"
            " || self.guardrails.rules.all(r,"
            " !(r.metric in ['ClickDepth', 'RefusalRate', 'FilteredZeroResultRate'])"
            " || (has(r.mode) && r.mode == 'Observe'))",
            "a ClickDepth, RefusalRate or FilteredZeroResultRate rule needs mode Observe until searcher.auth is set:"
            " anyone could send clicks, bad requests, or filters that match nothing, and trip it",
            ".guardrails.rules",
        ),
        CelRule(
            "!has(self.guardrails.rules) || !has(self.rollout) || !has(self.rollout.shadow)"
            " || !has(self.rollout.shadow.maxPerSecond) || self.rollout.shadow.maxPerSecond > 0"
            " || self.guardrails.rules.all(r, !(r.metric in ['AnswersMissed', 'AnswersChanged']))",
            "an AnswersMissed or AnswersChanged rule needs a rollout.shadow.maxPerSecond above 0: what became of"
            " stable's answers is known in shadow only",
            ".guardrails.rules",
        ),
        CelRule(
            "!has(self.rollout) || !has(self.rollout.route) || !has(self.searcher) || !has(self.searcher.tls)",
            "rollout.route and searcher.tls do not go together: the gateway would have to speak TLS to a Service that"
            " is another one in each rollout; have the gateway end TLS",
            ".rollout.route",
        ),
        CelRule(
            "!has(self.embedding.encoder) || (has(self.source.columns.metadata)"
            " && self.embedding.encoder.textColumn in self.source.columns.metadata)",
            "embedding.encoder.textColumn must be one of source.columns.metadata: the gate reads the texts there",
            ".embedding.encoder.textColumn",
        ),
        CelRule(
            "!has(self.source.columns) || !has(self.source.columns.text)"
            " || (has(self.embedding.encoder) && has(self.embedding.dimension))",
            "source.columns.text needs embedding.encoder, which makes vectors of the texts, and embedding.dimension",
            ".source.columns.text",
        ),
        CelRule(
            "!has(self.source.columns) || !has(self.source.columns.text) || !has(self.embedding.encoder)"
            " || self.embedding.encoder.textColumn == self.source.columns.text",
            "embedding.encoder.textColumn must be source.columns.text: the gate compares what was encoded",
            ".embedding.encoder.textColumn",
        ),
        CelRule(
            "!has(self.gate.segments) || self.gate.segments.all(g, has(self.segments)"
            " && self.segments.exists(s, s.name == g.name))",
            "gate.segments names a segment that spec.segments does not declare",
            ".gate.segments",
        ),
        *RULES_OF_SPEC,
    )

    @property
    def memory_per_shard(self) -> str | None:
        """What a searcher of one shard may ask for, where that says how many there are."""
        return (self.searcher.memory_per_shard or MEMORY_PER_SHARD) if self.index.shards == AUTO_SHARDS else None
