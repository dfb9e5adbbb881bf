"""Both statuses and VectorIndexRevision.spec as pydantic models: what only the operator writes.

A field stands here when somebody reads it: a user, a pipeline, or the operator's next pass. No I/O.

Another release of the operator may have written any of it, so all of it is Stored: unknown fields are kept and written
back, and what is an enum in the code is text here, since a value that a release does not know must not hide the rest.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, ValidationError, field_serializer

from vectorindex_operator.api.embedding import ServedEncoder
from vectorindex_operator.api.fresh import LONGEST_FRESH_POLL, SHORTEST_FRESH_POLL
from vectorindex_operator.api.guardrails import Guardrails
from vectorindex_operator.api.places import STORES, StoredPlace
from vectorindex_operator.api.pod import Pod
from vectorindex_operator.api.quantities import duration_seconds
from vectorindex_operator.api.rerank import ServedReranker
from vectorindex_operator.api.rollout import Rollout
from vectorindex_operator.api.spec import Searcher, VectorIndexSpec
from vectorindex_operator.api.timestamps import MOST_UNIX, to_unix
from vectorindex_searcher import contract
from vectorindex_searcher.contract import Columns, Embedding, IndexSpec, MemoryText, Stored


def _is_time(text: str) -> str:
    """Refuses what later arithmetic would raise on: no time at all, or one of another age."""
    try:
        unix = to_unix(text)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is not an RFC 3339 time") from error
    if not 0 <= unix < MOST_UNIX:
        raise ValueError(f"{text!r} is not a time of this age")
    return text


Time = Annotated[str, AfterValidator(_is_time)]
"""RFC 3339, as timestamps.to_text writes it."""

# ---------------------------------------------------------------- VectorIndex.status


class Condition(Stored):
    """metav1.Condition."""

    type: Annotated[str, Field(max_length=316)]
    status: Literal["True", "False", "Unknown"]
    observed_generation: int = 0
    last_transition_time: Time
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    message: Annotated[str, Field(max_length=32768)] = ""


class HistoryRow(Stored):
    """How one revision ended, newest first."""

    revision: str
    digest: str
    outcome: str
    """The phase that it ended in."""
    reason: str
    message: str = ""
    at: Time


class BlockedBy(Stored):
    """What an otherwise possible step waits for."""

    rule: str
    subject: str
    message: str = ""


class VerbResult(Stored):
    """What became of the last verb (annotation `vectorindex.dev/<verb>: [ARGUMENT@]NONCE`)."""

    verb: str
    nonce: str
    result: str
    """Done or Refused."""
    message: str
    at: Time


class SourceStatus(Stored):
    """The last listing that differed from the one before."""

    fingerprint: str
    source_hash: str
    objects: int
    bytes: int
    at: Time
    dimension: int | None = None
    source: str | None = None
    """Fingerprint of the source alone; None: no fresh files were taken in, and it is `fingerprint`."""
    fresh: int | None = None
    """Files of fresh rows that were taken in; None: none."""


class LiveFresh(Stored):
    """Which rows of the source's store are fresh, and how they are looked for."""

    prefix: str
    max_rows: int
    poll_seconds: float
    encoder: ServedEncoder | None = None
    """What some rows of each new file are compared with, whatever stands before queries; None: nothing."""
    text_column: str | None = None
    """Of the texts that it encodes."""
    document_prefix: str | None = None
    """Before each of them."""


class FreshRefusal(Stored):
    """A file of fresh rows that cannot stand beside the index, and why."""

    object: str
    reason: str
    message: str = ""


class FreshStatus(Stored):
    """What a searcher said of the fresh rows when it last said something new."""

    revision: str
    """Whose."""
    number: int = 0
    """Of the snapshot that is answered; 0: none."""
    rows: int = 0
    files: int = 0
    """That it is made of."""
    full: bool = False
    """There are more rows than the bounds allow."""
    full_since: int | None = None
    """Number of the first snapshot of which that was said; None: there are not."""
    off: bool = False
    reason: str = ""
    """Why that searcher does not answer all that lies there; empty: it does."""
    message: str = ""
    refused: tuple[FreshRefusal, ...] = ()


class Live(Stored):
    """What every loaded revision takes from the spec at once, and never freezes: how many pods, and how to reach data.

    Kept in the status, so that a spec which cannot be read later changes nothing about what serves.
    """

    searcher: Searcher
    source: StoredPlace
    artifacts: StoredPlace
    live_queries: bool | None = None
    """Whether searchers keep a sample of what users ask; None: they do not."""
    encoder: StoredPlace | None = None
    """Where the encoder of queries in words is, and how it is reached; None: there is none, or it is an endpoint."""
    encoder_url: str | None = None
    """The endpoint that encodes; None: none does."""
    encoder_secret: str | None = None
    """The Secret of that endpoint, and of no other; None: there is none."""
    reranker: StoredPlace | None = None
    """Where the cross-encoder is, and how it is reached; None: there is none."""
    fresh: LiveFresh | None = None
    """None: there are no fresh rows."""

    @classmethod
    def of(cls, spec: VectorIndexSpec) -> Live:
        """Of a spec that could be read."""
        # Of a revision: see Serving, RevisionSpec.
        frozen = {"pod": Pod(), "min_score": None, "rerank": None, "memory_per_shard": None}
        return cls(
            searcher=spec.searcher.model_copy(update=frozen),
            source=spec.source.place,
            artifacts=spec.artifacts.place,
            live_queries=True if spec.gate.live is not None else None,
            encoder=spec.embedding.store(),
            encoder_url=spec.embedding.url(),
            encoder_secret=spec.embedding.token_secret(),
            reranker=spec.searcher.rerank.onnx.place if spec.searcher.rerank is not None else None,
            fresh=cls._fresh(spec),
        )

    @staticmethod
    def _fresh(spec: VectorIndexSpec) -> LiveFresh | None:
        fresh = spec.source.fresh
        if fresh is None:
            return None
        poll = duration_seconds(spec.source.poll) if spec.source.poll != "0" else 0.0
        seconds = min(max(poll, SHORTEST_FRESH_POLL), LONGEST_FRESH_POLL)
        told = LiveFresh(prefix=fresh.prefix, max_rows=fresh.max_rows, poll_seconds=seconds)
        encoder, served = spec.embedding.encoder, spec.embedding.served()
        if encoder is None or served is None:
            return told
        return told.model_copy(
            update={
                "encoder": served.of_rows(),
                "text_column": encoder.text_column,
                "document_prefix": spec.embedding.document_prefix,
            }
        )


class VectorIndexStatus(Stored):
    """What the operator saw. Written once per pass, only when different."""

    operator: str = ""
    """Class of the operator that looks after it: others leave it alone (annotation vectorindex.dev/operator-class)."""
    observed_generation: int = 0
    phase: str = ""
    reason: str = ""
    stable: str = ""
    candidate: str = ""
    next: str = ""
    recall: str = ""
    ready: str = ""
    replicas: int = 0
    selector: str = ""
    source: SourceStatus | None = None
    conditions: tuple[Condition, ...] = ()
    blocked_by: tuple[BlockedBy, ...] = ()
    history: tuple[HistoryRow, ...] = ()
    verbs: tuple[VerbResult, ...] = ()
    rebuilds: Annotated[int, Field(ge=1)] | None = None
    """The highest build number there has been, also of revisions that are gone. None: nothing was ever rebuilt."""
    route: str | None = None
    """The HTTPRoute that is kept for `rollout.route`. None: there is none."""
    live: Live | None = None
    fresh: FreshStatus | None = None
    """None: there are no fresh rows, or nothing was heard of them yet."""
    notified: tuple[str, ...] | None = None
    """What of the history and of the last decision was told to the installation's webhook, by id. None: it has none."""


class Serving(Stored):
    """What serves an artifact, besides how it is reached: with the artifact's digest it makes a revision."""

    segments: tuple[str, ...] = ()
    min_score: float | None = None
    pod: Pod = Pod()
    refresh: str = ""
    """Nonce of the `refresh` that asked for it; empty: nobody did."""
    encoder: ServedEncoder | None = None
    """None: queries are vectors."""
    reranker: ServedReranker | None = None
    """None: answers are in the order of their vectors."""

    @classmethod
    def of(cls, spec: VectorIndexSpec, refresh: str = "") -> Serving:
        """What the spec asks for."""
        names = tuple(segment.name for segment in spec.segments)
        return cls(
            segments=names,
            min_score=spec.searcher.min_score,
            pod=spec.searcher.pod,
            refresh=refresh,
            encoder=spec.embedding.served(),
            reranker=spec.searcher.rerank.served() if spec.searcher.rerank is not None else None,
        )


class SourcePoll(Stored):
    """That searchers list the source, and what of it is no data of it besides deleted ids and artifacts."""

    queries: StoredPlace | None = None
    """Of the gate, where they lie below the source."""


class Rebuild(Stored):
    """That a revision is of a spec and data that another one was built of before."""

    number: Annotated[int, Field(ge=1)]
    """Part of its digest; 0 is the first build, which has none of this."""
    nonce: str
    """Of the `rebuild` that asked for it."""


class Restored(Stored):
    """That a revision was of an earlier VectorIndex of this name, and begins as what it had become there."""

    phase: str
    """Stable, Retired, Rejected or RolledBack; Validating where it is to be proven again."""
    outcome: contract.Outcome


POD_ENV = "pod.env"
"""Of a revision in whose pod template there are variables: releases of before take them away when they render it."""
ENCODER = "encoder"
"""Of a revision whose pods encode queries: releases of before would render them without."""
RERANKER = "reranker"
"""Of one whose pods reorder the answers, likewise."""
OTHER_STORE = "store"
"""Followed by a dot and its kind: of a revision with a place that is not in S3."""
SHARDS = "shards"
"""Of one in parts, which have pods of their own."""
FEATURES = frozenset(
    {POD_ENV, ENCODER, RERANKER, SHARDS, *(f"{OTHER_STORE}.{kind}" for kind in STORES if kind != "s3")}
)
"""What this release knows of RevisionSpec.requires."""


class RevisionSpec(Stored):
    """What a revision is, and everything needed to build, serve and rebuild its pods. Never changes."""

    index: str
    digest: str
    fingerprint: str
    format_version: int = contract.FORMAT_VERSION
    image: str
    source: StoredPlace
    tombstones: StoredPlace | None = None
    """Where deleted ids are listed; the source's keys read it."""
    tombstone_poll_seconds: float | None = None
    """How often its searchers list them."""
    source_poll: SourcePoll | None = None
    """None: its searchers are told of no source (no poll and no schedule, or an earlier release); Jobs list it."""
    artifacts: StoredPlace
    columns: Columns
    embedding: Embedding
    index_spec: IndexSpec
    memory_per_shard: MemoryText | None = None
    """What a searcher of one shard may ask for; None: how many shards there are was said."""
    segments: tuple[str, ...] = ()
    min_score: float | None = None
    tls: bool = False
    """Whether its searchers spoke TLS to users when it was made."""
    pod_template: dict[str, Any]
    serving: Serving | None = None
    """None: made by a release that froze the fields above only."""
    encoder_store: StoredPlace | None = None
    """How its encoder was reached when it was made: for an index that names another bucket since, or none."""
    encoder_secret: str | None = None
    """The Secret of its endpoint, likewise."""
    reranker_store: StoredPlace | None = None
    """How its cross-encoder was reached, likewise."""
    document_prefix: str | None = None
    """Stands before each text of a row, where rows have texts; None: what the encoder's folder says, or no texts."""
    proof_salt: str = ""
    """Part of its gate hash: its image, where another image serves the same artifact. A report is of one image."""
    rebuild: Rebuild | None = None
    """None: the first build of its spec and data."""
    restored: Restored | None = None
    """None: it was made for this VectorIndex."""
    requires: tuple[str, ...] = ()
    """Features that an operator must know to render, choose or retire it; one that does not leaves it as it is."""

    @property
    def in_shards(self) -> bool:
        """Whether it is in parts, however many."""
        return self.index_spec.shards is not None

    def shards(self, build: contract.BuildResult | None) -> int:
        """How many parts it has. 0: it is one, or (Auto) not built yet, and nobody can tell."""
        asked = self.index_spec.shards
        if asked is None or isinstance(asked, int):
            return asked or 0
        return (build.shards or 0) if build is not None else 0

    @property
    def build_number(self) -> int:
        """What its digest was made with."""
        return self.rebuild.number if self.rebuild is not None else 0

    def served_as(self) -> Serving:
        """What serves it, also of a revision from before `serving` was kept: then its pods' placement tells."""
        if self.serving is not None:
            return self.serving
        frozen = self.pod_template.get("spec")
        placement = {key: frozen[key] for key in _PLACEMENT if key in frozen} if isinstance(frozen, dict) else {}
        try:
            pod = Pod.model_validate(placement)
        except ValidationError:  # whoever wrote that, it is not what a spec asks for
            pod = Pod()
        return Serving(segments=self.segments, min_score=self.min_score, pod=pod)


_PLACEMENT = ("nodeSelector", "tolerations", "serviceAccountName", "priorityClassName")
"""Fields of a pod that `searcher.pod` is rendered to, under the same names."""


class WorkFailure(Stored):
    """Failed Jobs of one stage under one key (hash of `spec.build`, or of the gate): another key is a new try."""

    stage: str
    """Build or Validate."""
    key: str
    count: int
    at: Time
    reason: str
    message: str
    exit_code: int | None = None
    permanent: bool = False
    """True when trying again with the same data and spec cannot help."""


class GateStatus(Stored):
    """The verdict on one report under one `spec.gate`."""

    gate_hash: str
    thresholds_hash: str
    verdict: str
    """Pass, Fail or Inconclusive."""
    reason: str
    message: str
    at: Time
    looks: int | None = None
    """How often this revision's recall was looked at before, by another gate, and did not pass."""


class Rejection(Stored):
    """Why this digest is not tried again until spec or data change or a person says retry."""

    stage: str
    """Gate, Surge, Shadow, Rollout or External."""
    reason: str
    message: str
    at: Time


class RuleVerdict(Stored):
    """A guardrail's verdict as it was when it last changed."""

    rule: str
    metric: str
    segment: str = ""
    verdict: str
    """Pass, Fail, Error or Inconclusive."""
    reason: str
    message: str = ""
    value: float | None = None
    limit: float | None = None
    samples: int = 0
    at: Time


class Trip(Stored):
    """A guardrail said Fail: the traffic goes back, even when the target must be loaded first."""

    rule: str
    reason: str
    message: str
    at: Time
    target: str = ""
    """Where a person asked to go back to; empty: the last one found good."""


class ShadowStatus(Stored):
    """The time in which this revision answered live queries unseen. Written when it begins or ends, or says another
    verdict."""

    id: str
    """What its pairs are counted under; another one begins anew."""
    reference: str
    """The revision whose queries and answers it is compared with."""
    started_at: Time
    looked_at: Time | None = None
    """A look that was not long ago: by it an operator that was away knows for how long."""
    resumed_at: Time | None = None
    """When one that was away went on."""
    paused_seconds: float = 0.0
    """For how long nobody looked, so that pods sent nothing: no part of its time."""
    pauses: int = 0
    """How often that was. After some times it is part of its time all the same."""
    ended_at: Time | None = None
    outcome: str = ""
    """Passed, Inconclusive, NoReference, CannotMirror, Failed, or Switched where it is not known any more; empty: it is
    not over."""
    message: str = ""
    verdicts: tuple[RuleVerdict, ...] = ()


class StepsStatus(Stored):
    """Where a canary's steps are: which share of the gateway's traffic it is to have, and since when it has it."""

    number: Annotated[int, Field(ge=0)]
    """Of the step in `settings.steps`, from 0."""
    asked_at: Time
    """Since when its weight is wanted: guardrails judge from here."""
    started_at: Time | None = None
    """Since when every gateway has said that it routes so: the step's time counts from here. None: not yet."""
    ended_at: Time | None = None
    outcome: str = ""
    """Passed, ByHand, or NoReference where there was nothing to share the traffic with; empty: they go on."""
    message: str = ""


class RolloutStatus(Stored):
    """The rollout of this revision: settings frozen at its start, and its times."""

    settings: Rollout = Rollout()
    guardrails: Guardrails = Guardrails()
    gate_hash: str
    started_at: Time
    progress_since: Time | None = None
    """Since when every searcher has a node and its Secrets: `progressDeadline` runs from here."""
    prior: str = ""
    columns_before: dict[str, str] | None = None
    """Metadata columns of `prior` with the letters of their types, where a rule asks what became of filters on them;
    None: none does, or it is not known."""
    switched_at: Time | None = None
    baseline: dict[str, Any] | None = None
    baseline_at: Time | None = None
    trip: Trip | None = None
    verdicts: tuple[RuleVerdict, ...] = ()
    restarts: dict[str, int] | None = None
    """Restarts of each of its pods when it had just got the traffic; pods without any are left out."""
    shadow: ShadowStatus | None = None
    """None: it has not begun, or there is none."""
    steps: StepsStatus | None = None
    """None: they have not begun, or there are none."""
    prior_kept_until: Time | None = None
    """Until when `prior` stays loaded although this revision was promoted; None: it does not, or does not any more."""

    @field_serializer("settings", mode="wrap")
    def _as_frozen(self, settings: Rollout, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Settings of a release that knew no shadow say nothing of one: that rollout has none, whatever is default."""
        out: dict[str, Any] = handler(settings)
        if "shadow" not in settings.model_fields_set:
            out.pop("shadow", None)
        return out


class ArtifactSeen(Stored):
    """The last look at an artifact that found something else than the one before."""

    found: str
    """Absent, or Present again."""
    at: Time


class Pause(Stored):
    """That a person holds a revision before its next step."""

    nonce: str
    at: Time
    resumed: str = ""
    """Nonce of the `resume` that ended it; empty: it is held."""


class PointStatus(Stored):
    """At which operating point its searchers answer, as was decided last."""

    point: str
    """Default or Conservative."""
    at: Time
    message: str = ""
    """Why, with the numbers."""
    nonce: str = ""
    """Of the `retry` that asked for it; empty: nobody did."""


class FreshOff(Stored):
    """That a guardrail failed while fresh rows were among the answers, so that they are not any more."""

    at: Time
    """Since when, or since when it is over."""
    rule: str
    message: str = ""
    ended: str = ""
    """Nonce of the `retry` that ended it; empty: they are off."""


class Reach(Stored):
    """How a Job reaches a revision's artifact when the VectorIndex is gone, as its last spec said."""

    artifacts: StoredPlace
    pod: Pod = Pod()
    """Where and as whom Jobs of the index ran: `build.pod`."""


class RevisionStatus(Stored):
    """The evidence behind a revision. Phases and their times, results of its Jobs, verdicts, how it ended."""

    phase: str = "Pending"
    phase_times: dict[str, str] = {}
    build: contract.BuildResult | None = None
    failure: WorkFailure | None = None
    progress: str | None = None
    """How far its build is, where it is one in shards or waits in a queue; None: it is none, or does not run."""
    on_cpu: str | None = None
    """The try of its build (key and failures before it) that goes on on a CPU, because no node had a free GPU."""
    report: contract.ValidateResult | None = None
    gate: GateStatus | None = None
    rollout: RolloutStatus | None = None
    rejected: Rejection | None = None
    pause: Pause | None = None
    """None: nobody ever held it, or it was wanted again since."""
    promoted_at: Time | None = None
    lost_traffic_at: Time | None = None
    restored_at: Time | None = None
    """When a rollback made this revision stable again: it is not rolled back automatically from then on."""
    settled_at: Time | None = None
    """Time of the last decision on the Service that this status reflects."""
    settled_serial: int = 0
    """Its serial."""
    unloaded_at: Time | None = None
    """When its searchers were removed although it is what the traffic would go back to: no pod had been ready."""
    artifact_seen: ArtifactSeen | None = None
    """Whether its artifact is in object storage, as a searcher saw while a rollback would go to it; None: nobody has
    missed it yet."""
    load_seconds: Annotated[float, Field(ge=0)] | None = None
    """From a node to ready of the first of its searchers when it was rolled out: what a rollback to it waits for once
    they are gone. None: it had no traffic yet, or got it from an operator that did not note this."""
    point: PointStatus | None = None
    """None: nobody ever decided about it, so they answer at the default one."""
    fresh_off: FreshOff | None = None
    """None: its searchers answer fresh rows, where there are any."""
    reach: Reach | None = None
    """Kept while `artifacts.deletionPolicy` is Delete."""
    recorded: str | None = None
    """Which outcome of it stands beside its artifact, for whoever takes over; None: none does."""
    message: str = ""
    recall: str = ""
    p95: str = ""
    size: str = ""

    @property
    def artifact_gone_at(self) -> str:
        """When its artifact was seen to be gone; empty: it was not."""
        seen = self.artifact_seen
        return seen.at if seen is not None and seen.found == contract.Found.ABSENT else ""
