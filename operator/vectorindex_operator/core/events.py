"""The Events that the operator sends: every reason there is, whether it alarms, and what it says.

Reasons are few and fixed, since `kubectl`, dashboards and the metric `vectorindex_events_total{reason}` count by them;
what is particular (BucketNotFound, LatencyP95) stands in the message.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vectorindex_operator.core.phase import FAILED, Phase


class EventReason(StrEnum):
    """Why an Event is sent."""

    PENDING = "Pending"
    """A revision is wanted, or wanted again."""
    BUILDING = "Building"
    """A Job builds its artifact."""
    VALIDATING = "Validating"
    """A Job measures its recall."""
    GATE_PASSED = "GatePassed"
    """The gate passed, with its numbers."""
    FILTERS_DROPPED = "FiltersDropped"
    """It passed, and will refuse filters that stable takes: a column is gone, or the index takes no filter."""
    VALIDATED = "Validated"
    """It is proven and waits for its turn."""
    SURGING = "Surging"
    """Its searchers are being loaded."""
    SHADOWING = "Shadowing"
    """It answers live queries unseen."""
    SHADOW_PASSED = "ShadowPassed"
    """Its answers are as good as stable's, with the numbers."""
    SHADOW_SKIPPED = "ShadowSkipped"
    """There is nothing to compare it with, or nobody who could send queries: it is switched to without a shadow."""
    SHADOW_INCONCLUSIVE = "ShadowInconclusive"
    """Too little evidence in shadow: what was not compared."""
    SHIFTING = "Shifting"
    """It gets a share of what comes through a gateway."""
    STEP_STARTED = "StepStarted"
    """Every gateway sends it the share of this step."""
    STEPS_SKIPPED = "StepsSkipped"
    """There is nothing to share the traffic with: it is switched to without steps."""
    GATEWAY_LOST = "GatewayLost"
    """A gateway has not seen for long that a revision lost its share: it is taken for gone, and waited for no more."""
    TRAFFIC_SWITCHED = "TrafficSwitched"
    """The traffic went to a new revision."""
    SOAKING = "Soaking"
    """A revision is being watched with the traffic."""
    OUTGOING = "Outgoing"
    """A revision keeps the traffic only until the next one takes it."""
    PROMOTED = "Promoted"
    """It passed its soak, or there was nothing to wait for."""
    STABLE = "Stable"
    """It is what serves and what is gone back to."""
    SUPERSEDED = "Superseded"
    """A later revision took its place."""
    RETIRED = "Retired"
    """Its searchers are gone."""
    REJECTED = "Rejected"
    """The gate, its own pods, or live queries in shadow found it too bad."""
    BUILD_FAILED = "BuildFailed"
    """Its build failed."""
    SURGE_FAILED = "SurgeFailed"
    """Its searchers did not become ready."""
    GUARDRAIL_FAILED = "GuardrailFailed"
    """A guardrail says Fail; Observe rules too."""
    GUARDRAIL_ERROR = "GuardrailError"
    """A guardrail cannot be judged: evidence does not come, or is not what it should be."""
    GUARDRAIL_RECOVERED = "GuardrailRecovered"
    """A guardrail that said Fail does so no longer."""
    GUARDRAIL_TRIPPED = "GuardrailTripped"
    """A guardrail decided that the traffic goes back."""
    CONSERVATIVE_POINT = "ConservativePoint"
    """Live recall is too low and nothing can be gone back to: the same searchers answer at their conservative point."""
    DEFAULT_POINT = "DefaultPoint"
    """They answer at the default one again: a person asked for it."""
    ROLLED_BACK = "RolledBack"
    """A revision lost the traffic to an earlier one."""
    EXTERNAL = "External"
    """The revision gone back to breaches the same rule: the cause lies outside the index."""
    TRAFFIC_RESTORED = "TrafficRestored"
    """The front Service was changed or deleted by somebody else, and put back."""
    WAY_BACK_LOST = "WayBackLost"
    """The stable revision has had no ready pod for so long that it was unloaded."""
    WAY_BACK_ARTIFACT_GONE = "WayBackArtifactGone"
    """The artifact that a rollback would be loaded from is not in object storage any more."""
    WAY_BACK_ARTIFACT_BACK = "WayBackArtifactBack"
    """It is there again."""
    REMOVING = "Removing"
    """A revision fell out of the history, and its artifact is being removed."""
    ARTIFACT_LEFT = "ArtifactLeft"
    """The artifact of such a revision, or what a deleted VectorIndex left, could not be removed: it stays in object
    storage."""
    ARTIFACTS_REMOVED = "ArtifactsRemoved"
    """What a deleted VectorIndex left in object storage is gone."""
    OUTCOME_NOT_RECORDED = "OutcomeNotRecorded"
    """What was decided about a revision could not be written beside its artifact; it is tried again."""
    OUTCOMES_LOST = "OutcomesLost"
    """Of what an earlier VectorIndex of this name left beside its artifacts, something could not be taken over."""
    FRESH_FILE_REFUSED = "FreshFileRefused"
    """A file of fresh rows cannot stand beside the index: its rows are not answered, and no build takes it in."""
    FRESH_ROWS_FULL = "FreshRowsFull"
    """There are more fresh rows than the bounds allow: the next revision is built at once."""
    FRESH_ROWS_OFF = "FreshRowsOff"
    """A guardrail failed while fresh rows were among the answers: they are not any more."""
    BUILD_FELL_BACK = "BuildFellBackToCPU"
    """GPU pods stayed unschedulable; the build goes on without one."""
    OBJECTIVE_MISSED = "ObjectiveMissed"
    """What was built does not reach index.objective.recall with any search parameters."""
    STALLED = "Stalled"
    """Nothing goes on without a change by a person, or a failed listing is being tried again."""
    SUSPENDED = "Suspended"
    """spec.suspend is set: nothing new begins."""
    RESUMED = "Resumed"
    """It is no longer set: what waited goes on."""
    WRITE_REFUSED = "WriteRefused"
    """The API server would not take a write: quota, admission, RBAC, a name that is taken."""
    DRIFT_REPAIRED = "DriftRepaired"
    """An object of ours was changed by somebody else, and put back."""
    COMMAND_DONE = "CommandDone"
    """What a person asked for by annotation was done."""
    COMMAND_REFUSED = "CommandRefused"
    """What a person asked for by annotation does not apply."""
    INTERNAL_ERROR = "InternalError"
    """A fault of the operator's own in this pass; what keeps the index safe was done all the same."""

    @property
    def warns(self) -> bool:
        """Whether the Event is of type Warning."""
        return self in _WARNINGS


_WARNINGS = frozenset(
    {
        EventReason.OUTGOING,
        EventReason.SHADOW_INCONCLUSIVE,
        EventReason.GUARDRAIL_FAILED,
        EventReason.GUARDRAIL_ERROR,
        EventReason.GUARDRAIL_TRIPPED,
        EventReason.CONSERVATIVE_POINT,
        EventReason.EXTERNAL,
        EventReason.TRAFFIC_RESTORED,
        EventReason.WAY_BACK_LOST,
        EventReason.WAY_BACK_ARTIFACT_GONE,
        EventReason.ARTIFACT_LEFT,
        EventReason.OUTCOME_NOT_RECORDED,
        EventReason.OUTCOMES_LOST,
        EventReason.FRESH_FILE_REFUSED,
        EventReason.FRESH_ROWS_OFF,
        EventReason.BUILD_FELL_BACK,
        EventReason.OBJECTIVE_MISSED,
        EventReason.FILTERS_DROPPED,
        EventReason.GATEWAY_LOST,
        EventReason.STALLED,
        EventReason.WRITE_REFUSED,
        EventReason.DRIFT_REPAIRED,
        EventReason.COMMAND_REFUSED,
        EventReason.INTERNAL_ERROR,
        *(EventReason(phase.value) for phase in FAILED),
    }
)


def reason_of(phase: Phase) -> EventReason:
    """The reason of the Event that tells of a phase: it has the phase's name."""
    return EventReason(phase.value)


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event, sent after the status write succeeded. `message` without the reason in front of it."""

    reason: EventReason
    message: str
    revision: str = ""
    command: str = ""
    """Whose answer it tells."""

    @property
    def warning(self) -> bool:
        return self.reason.warns
