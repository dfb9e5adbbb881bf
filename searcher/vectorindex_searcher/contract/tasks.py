"""What a verb is asked to do: one task as JSON in the environment."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from .encoder import EncoderTask
from .live_queries import FEWEST_LIVE_QUERIES, LIVE_PODS, LIVE_SAMPLE_QUERIES
from .model import Model
from .places import Location
from .rerank import RerankTask
from .shards import MEMORY_PER_SHARD, Shard, ShardNumber, Shards
from .spec import Columns, Device, Embedding, IndexSpec, MemoryText, QueryColumns
from .terms import ADMIN_PORT, TOMBSTONE_POLL_SECONDS

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$")]
"""A digest or another part of a key that names a folder or file."""
CLUSTER_UID = r"^[A-Za-z0-9-]{0,63}$"
ClusterUid = Annotated[str, Field(pattern=CLUSTER_UID)]
"""Of whoever uses artifacts, the same at every run; empty: it is not told, and nothing is marked as used."""


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
    queries: Location | None = None
    """Of the gate; objects there are no rows, wherever they lie."""
    fresh: Location | None = None
    """New and changed rows beside the source, which the listing takes in; None: there are none."""
    later: ClassVar[frozenset[str]] = frozenset({"queries", "fresh"})


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
    queries: Location | None = None
    """As in ResolveTask, for a listing that is made anew."""
    gate_k: Annotated[int, Field(ge=1, le=1000)] | None = None
    """k of the gate, for which answers are asked too, beside 1, 10 and 100. None: one of these."""
    cluster: ClusterUid = ""
    """Who will use the artifact: `collect` of another cluster leaves it then."""
    encoder: EncoderTask | None = None
    """What encodes the texts of `columns.text`; None: rows have vectors."""
    shard: Shard | None = None
    """Build this part of the rows that `partition` has laid ready. None: build all rows of the source."""
    fresh: Location | None = None
    """Where the listing's files of fresh rows are; None: in the source's own store, as in a bucket."""
    later: ClassVar[frozenset[str]] = frozenset({"gate_k", "queries", "cluster", "shard", "fresh"})


class PartitionTask(BuildTask):
    """Read the source once, plan the parts of the artifact of `digest`, and lay their rows ready for `build`."""

    shards: Shards
    memory_per_shard: MemoryText = MEMORY_PER_SHARD
    """Of Auto: what a searcher of one shard may ask for."""
    searcher_bytes: Annotated[int, Field(ge=0)] = 0
    """Of that: what it takes whatever it holds. 0: all of it is for index, ids and metadata."""
    replaces: bool = False
    """Remove what an earlier `partition` has begun of other rows (deleted ids came since), and begin anew. False: that
    is an error."""

    @model_validator(mode="after")
    def _is_of_all_rows(self) -> PartitionTask:
        if self.shard is not None:
            raise ValueError("a partition is of all rows: it takes no shard")
        return self


class PublishTask(Model):
    """Check that every part of the artifact of `digest` is built by its plan, and publish the whole."""

    identity: Identity
    digest: Name
    artifacts: Location
    cluster: ClusterUid = ""
    """As in BuildTask."""


class LiveSource(Model):
    """Whose users' queries tune and judge besides: the pods of stable. Their key is in the environment."""

    index_uid: str = ""
    revision: Annotated[str, Field(max_length=253)] = ""
    """Empty: there is no stable revision yet."""
    addresses: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=LIVE_PODS)] = ()
    port: Annotated[int, Field(ge=1, le=65535)] = ADMIN_PORT
    min_queries: Annotated[int, Field(ge=FEWEST_LIVE_QUERIES, le=LIVE_SAMPLE_QUERIES)]
    """With fewer they are reported only."""


class ValidateTask(Model):
    """Measure the artifact of `digest` against exact search and publish `reports/<gate_hash>/`."""

    identity: Identity
    digest: str
    manifest_sha256: str
    gate_hash: str
    artifacts: Location
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    confidence: Annotated[float, Field(ge=0.5, le=0.999)] = 0.95
    rejections: Annotated[int, Field(ge=1, le=30)] | None = None
    """How often in a row the gate has rejected this spec: each halves the chance that a worse index passes, since one
    at its floor must not pass by being tried often. None: not once."""
    queries: Location | None = None
    query_columns: QueryColumns = QueryColumns()
    segments: tuple[str, ...] = ()
    segment_targets: dict[str, float] = {}
    """Recall@k that the operating point of a segment is tuned for; one that is not named keeps the default point."""
    objective: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    """Recall@k that the default point is tuned for with half of the queries; None: it stays as it was built."""
    floor: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    """For the report's page only: judged by who asks, and not part of the gate hash."""
    tombstones: Location | None = None
    """Where deleted ids are listed; those still in the index are searched for and must not be found."""
    id_column: str = "id"
    """Column of the ids in files of tombstones."""
    live: LiveSource | None = None
    """None: what users ask is no matter of this gate."""
    cluster: ClusterUid = ""
    """As in BuildTask."""
    encoder: EncoderTask | None = None
    """What must make the vectors of the index; None: queries are vectors."""
    rerank: RerankTask | None = None
    """What reorders the answers to labelled queries in words; None: their order is that of the vectors."""
    shard: ShardNumber | None = None
    """Measure this part of a sharded artifact by itself. None: all there is."""
    later: ClassVar[frozenset[str]] = frozenset(
        {"rejections", "objective", "live", "cluster", "encoder", "rerank", "shard"}
    )

    @property
    def sure(self) -> float:
        """The confidence of the bounds, with what rejections ask for more."""
        halved: float = (1 - self.confidence) / 2 ** (self.rejections or 0)
        return 1 - halved


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
    encoder: EncoderTask | None = None
    """What encodes queries that are texts; None: queries are vectors."""
    rerank: RerankTask | None = None
    """What reorders the answers to these; None: they stay in the order of their vectors."""
    shard: ShardNumber | None = None
    """Serve this part of a sharded artifact. None: the artifact is not sharded."""
    gate_of_whole: bool = False
    """Whether `gate_hash` and `report_sha256` are of all shards together. False: of what is served here."""
    later: ClassVar[frozenset[str]] = frozenset({"encoder", "rerank", "shard", "gate_of_whole"})

    @property
    def judges_live(self) -> bool:
        """Whether this searcher measures live recall itself; a shard's does what its routers ask for it."""
        return self.live_recall and self.shard is None


class CollectTask(Model):
    """Remove what nobody names any more of one index's artifacts.

    Whoever asks makes sure that nothing which uses one of `digests` runs or starts meanwhile.
    """

    identity: Identity
    artifacts: Location
    cluster: ClusterUid = ""
    """Whose mark is ours: an artifact that bears that of another cluster stays, and ours is taken off."""
    digests: tuple[Name, ...] = ()
    """Artifacts to remove, with their reports and checkpoints."""
    everything: bool = False
    """The index is gone: all of its artifacts but those of `keep`, and what is left when no artifact stays."""
    keep: dict[Name, tuple[Name, ...]] = {}
    """Artifacts that stay, with the gate hashes of those of their reports that somebody names; the others go."""
    building: tuple[Name, ...] = ()
    """Digests of which a Job may run: their unfinished uploads are not touched, however old."""
    listings: tuple[Name, ...] | None = None
    """Fingerprints of the listings that somebody names; others go when they are a day old. None: none goes."""
    dry_run: bool = False
    """Say what would go, and remove nothing."""

    @model_validator(mode="after")
    def _names_nothing_twice(self) -> CollectTask:
        if twice := sorted(set(self.digests) & {*self.keep, *self.building}):
            raise ValueError(f"{twice[0]} is to go, and in use")
        return self
