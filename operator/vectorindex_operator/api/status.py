"""Both statuses and VectorIndexRevision.spec as pydantic models: what only the operator writes.

A field stands here when somebody reads it: a user, a pipeline, or the operator's next pass. No I/O.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from vectorindex_operator.api.guardrails import Guardrails
from vectorindex_operator.api.spec import S3, Pod, Rollout, Searcher, VectorIndexSpec
from vectorindex_searcher import contract
from vectorindex_searcher.contract import Columns, Embedding, IndexSpec, Model

# ---------------------------------------------------------------- VectorIndex.status


class Condition(Model):
    """metav1.Condition."""

    type: Annotated[str, Field(max_length=316)]
    status: Literal["True", "False", "Unknown"]
    observed_generation: int = 0
    last_transition_time: str
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    message: Annotated[str, Field(max_length=32768)] = ""


class HistoryRow(Model):
    """How one revision ended, newest first."""

    revision: str
    digest: str
    outcome: Literal["Stable", "Rejected", "RolledBack", "BuildFailed", "SurgeFailed", "Superseded"]
    reason: str
    message: str = ""
    at: str


class BlockedBy(Model):
    """What an otherwise possible step waits for."""

    rule: str
    subject: str
    message: str = ""


class VerbResult(Model):
    """What became of the last verb (annotation `vectorindex.dev/<verb>: [ARGUMENT@]NONCE`)."""

    verb: str
    nonce: str
    result: Literal["Done", "Refused"]
    message: str
    at: str


class SourceStatus(Model):
    """The last listing that differed from the one before."""

    fingerprint: str
    source_hash: str
    objects: int
    bytes: int
    at: str
    dimension: int | None = None


class Live(Model):
    """What every loaded revision takes from the spec at once, and never freezes: how many pods, and how to reach data.

    Kept in the status, so that a spec which cannot be read later changes nothing about what serves.
    """

    searcher: Searcher
    source: S3
    artifacts: S3

    @classmethod
    def of(cls, spec: VectorIndexSpec) -> Live:
        """Of a spec that could be read."""
        frozen = {"pod": Pod(), "min_score": None}  # of a revision: see Serving
        return cls(searcher=spec.searcher.model_copy(update=frozen), source=spec.source.s3, artifacts=spec.artifacts.s3)


class VectorIndexStatus(Model):
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
    live: Live | None = None


class Serving(Model):
    """What serves an artifact, besides how it is reached: with the artifact's digest it makes a revision."""

    segments: tuple[str, ...] = ()
    min_score: float | None = None
    pod: Pod = Pod()
    refresh: str = ""
    """Nonce of the `refresh` that asked for it; empty: nobody did."""

    @classmethod
    def of(cls, spec: VectorIndexSpec, refresh: str = "") -> Serving:
        """What the spec asks for."""
        names = tuple(segment.name for segment in spec.segments)
        return cls(segments=names, min_score=spec.searcher.min_score, pod=spec.searcher.pod, refresh=refresh)


class RevisionSpec(Model):
    """What a revision is, and everything needed to build, serve and rebuild its pods. Never changes."""

    index: str
    digest: str
    fingerprint: str
    format_version: int = contract.FORMAT_VERSION
    image: str
    source: S3
    tombstones: S3 | None = None
    """Where deleted ids are listed; the source's keys read it."""
    tombstone_poll_seconds: float | None = None
    """How often its searchers list them."""
    artifacts: S3
    columns: Columns
    embedding: Embedding
    index_spec: IndexSpec
    segments: tuple[str, ...] = ()
    min_score: float | None = None
    tls: bool = False
    """Whether its searchers spoke TLS to users when it was made."""
    pod_template: dict[str, Any]
    serving: Serving | None = None
    """None: made by a release that froze the fields above only."""
    proof_salt: str = ""
    """Part of its gate hash: its image, where another image serves the same artifact. A report is of one image."""

    def served_as(self) -> Serving:
        """What serves it, also of a revision from before `serving` was kept: then its pods' placement tells."""
        if self.serving is not None:
            return self.serving
        frozen = self.pod_template.get("spec", {})
        placement = {field: frozen[field] for field in _PLACEMENT if field in frozen}
        return Serving(segments=self.segments, min_score=self.min_score, pod=Pod.model_validate(placement))


_PLACEMENT = ("nodeSelector", "tolerations", "serviceAccountName", "priorityClassName")
"""Fields of a pod that `searcher.pod` is rendered to, under the same names."""


class WorkFailure(Model):
    """Failed Jobs of one stage under one key (hash of `spec.build`, or of the gate): another key is a new try."""

    stage: Literal["Build", "Validate"]
    key: str
    count: int
    at: str
    reason: str
    message: str
    exit_code: int | None = None
    permanent: bool = False
    """True when trying again with the same data and spec cannot help."""


class GateStatus(Model):
    """The verdict on one report under one `spec.gate`."""

    gate_hash: str
    thresholds_hash: str
    verdict: Literal["Pass", "Fail", "Inconclusive"]
    reason: str
    message: str
    at: str


class Rejection(Model):
    """Why this digest is not tried again until spec or data change or a person says retry."""

    stage: Literal["Gate", "Surge", "Rollout", "External"]
    reason: str
    message: str
    at: str


class RuleVerdict(Model):
    """A guardrail's verdict as it was when it last changed."""

    rule: str
    metric: str
    segment: str = ""
    verdict: Literal["Pass", "Fail", "Error", "Inconclusive"]
    reason: str
    message: str = ""
    value: float | None = None
    limit: float | None = None
    samples: int = 0
    at: str


class Trip(Model):
    """A guardrail said Fail: the traffic goes back, even when the target must be loaded first."""

    rule: str
    reason: str
    message: str
    at: str
    target: str = ""
    """Where a person asked to go back to; empty: the last one found good."""


class RolloutStatus(Model):
    """The rollout of this revision: settings frozen at its start, and its times."""

    settings: Rollout
    guardrails: Guardrails
    gate_hash: str
    started_at: str
    progress_since: str | None = None
    """Since when every searcher has a node and its Secrets: `progressDeadline` runs from here."""
    prior: str = ""
    switched_at: str | None = None
    baseline: dict[str, Any] | None = None
    baseline_at: str | None = None
    trip: Trip | None = None
    verdicts: tuple[RuleVerdict, ...] = ()
    restarts: dict[str, int] | None = None
    """Restarts of each of its pods when it had just got the traffic; pods without any are left out."""


class RevisionStatus(Model):
    """The evidence behind a revision. Phases and their times, results of its Jobs, verdicts, how it ended."""

    phase: str = "Pending"
    phase_times: dict[str, str] = {}
    build: contract.BuildResult | None = None
    failure: WorkFailure | None = None
    report: contract.ValidateResult | None = None
    gate: GateStatus | None = None
    rollout: RolloutStatus | None = None
    rejected: Rejection | None = None
    promoted_at: str | None = None
    lost_traffic_at: str | None = None
    restored_at: str | None = None
    """When a rollback made this revision stable again: it is not rolled back automatically from then on."""
    settled_at: str | None = None
    """Time of the last decision on the Service that this status reflects."""
    settled_serial: int = 0
    """Its serial."""
    unloaded_at: str | None = None
    """When its searchers were removed although it is what the traffic would go back to: no pod had been ready."""
    message: str = ""
    recall: str = ""
    p95: str = ""
    size: str = ""
