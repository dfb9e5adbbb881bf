"""What is going on with an index, as one value: told from a pass, read back from what the last one wrote.

Conditions and Events both come of it, so they cannot disagree: a condition says the story, an Event says what differs
from the last one. What does not show (a failed listing behind a rollout that goes on) is no news until it shows, so a
story that stays the same sends nothing, however often it is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vectorindex_operator.api.v1alpha1 import RevisionStatus
from vectorindex_operator.core.events import Event, EventReason, reason_of
from vectorindex_operator.core.leftovers import BEING_REMOVED, EARLIER
from vectorindex_operator.core.observation import Observation
from vectorindex_operator.core.phase import FAILED, Phase
from vectorindex_operator.core.state import ReconcileState

STALLED = "Stalled"
"""Nothing goes on without a change by a person."""
RETRYING = "Retrying"
"""What failed is being tried again."""
SUSPENDED = "Suspended"
"""Something waits until spec.suspend is taken out: the phase, its reason, the row in blockedBy and the condition."""
NEW_DATA_WAITS = "NewDataWaits"
"""The row in blockedBy of changed data that source.minInterval holds back, whatever else goes on."""
NOTHING_BEGINS = "spec.suspend is true: nothing new begins"


@dataclass(frozen=True, slots=True)
class Story:
    """`phase`, `reason`, `message`: the headline, about the revision that is wanted. `phases`: of each revision.
    `suspended`: whether nothing new may begin, also where nothing waits to."""

    phase: str
    reason: str
    message: str
    phases: Mapping[str, str]
    suspended: bool = False

    @property
    def stuck(self) -> bool:
        """Whether the headline is that something failed as a whole."""
        return self.phase in (STALLED, RETRYING)

    @property
    def alarming(self) -> bool:
        """Whether a person has to act: kstatus's Stalled."""
        return self.phase == STALLED or self.phase in FAILED


def last(obs: Observation) -> Story:
    """The story that the last pass told."""
    status = obs.index.status
    phases = {name: view.status.phase for name, view in obs.revisions.items()}
    suspended = any(one.type == SUSPENDED for one in status.conditions)
    return Story(status.phase, status.reason, "", phases, suspended)


def tell(state: ReconcileState) -> Story:
    """The story of this pass."""
    phases = {name: status.phase for name, status in state.statuses.items()}
    return Story(*_headline(state), phases, state.suspended)


def news(state: ReconcileState, told: Story) -> tuple[Event, ...]:
    """What differs from the last story, one Event each."""
    return tuple(_differences(state, last(state.obs), told))


def _differences(state: ReconcileState, before: Story, told: Story) -> Iterator[Event]:
    if told.stuck and told.reason != before.reason:
        yield Event(EventReason.STALLED, f"{told.reason}: {told.message}")
    if told.suspended != before.suspended and state.known_spec is not None:
        words = "nothing new begins" if told.suspended else "spec.suspend is taken out: what waited goes on"
        yield Event(EventReason.SUSPENDED if told.suspended else EventReason.RESUMED, words)
    for name, phase in told.phases.items():
        if phase != before.phases.get(name, phase):
            sentence = _of_revision(state.statuses[name])
            yield Event(reason_of(Phase(phase)), f"{name}: {sentence}", revision=name)


def _of_revision(status: RevisionStatus) -> str:
    """What a revision is doing, in a sentence."""
    if status.rejected is not None:
        return f"{status.rejected.reason}: {status.rejected.message}"
    if status.phase == Phase.BUILDING:
        return f"building the index: {status.progress}" if status.progress else "building the index"
    if status.phase == Phase.VALIDATING and status.build is not None and status.report is None:
        build = status.build
        return (
            f"built {build.factory} of {build.count} vectors on {build.device} in {build.duration_seconds:.0f} s; "
            "measuring its recall"
        )
    if status.phase == Phase.SURGING:
        return "loading the searchers"
    if status.phase == Phase.SHADOWING:
        return "answers live queries beside the one that serves, and no user gets its answers"
    if status.phase == Phase.SHIFTING:
        return _of_steps(status)
    if status.phase == Phase.SOAKING:
        return "has the traffic"
    return status.message or status.phase


def _of_steps(status: RevisionStatus) -> str:
    rollout = status.rollout
    if rollout is None or rollout.steps is None or rollout.steps.number >= len(rollout.settings.canary_steps):
        return "gets a share of what comes through the gateway"
    steps = rollout.settings.canary_steps
    at = rollout.steps.number
    return f"step {at + 1} of {len(steps)}: {steps[at].weight} % of what comes through the gateway"


def _headline(state: ReconcileState) -> tuple[str, str, str]:
    """Phase, reason and message: what is going on with the revision that is wanted."""
    stall = state.stall
    if state.obs.earlier:
        return Phase.PENDING, BEING_REMOVED, f"{EARLIER}: {state.obs.earlier}"
    if stall is not None and (stall.everything or (stall.permanent and not state.candidate)):
        return STALLED, stall.reason, stall.message
    if stall is not None and not state.candidate and not state.preparing:
        return RETRYING, stall.reason, stall.message
    for name in (state.candidate, "" if state.suspended else state.preparing):
        if name:
            status = state.statuses[name]
            row = next((one for one in state.blocked if one.rule != NEW_DATA_WAITS), None)  # that holds no revision
            reason, waits = (row.rule, row.message) if row is not None else (status.phase, "")
            return status.phase, reason, f"{name}: {waits or _of_revision(status)}"
    desired = state.statuses.get(state.desired)
    if desired is not None and desired.rejected is not None:
        return desired.phase, desired.rejected.reason, f"{state.desired}: {desired.rejected.message}"
    if desired is not None and state.desired == state.stable:
        return "Stable", "Stable", f"{state.stable} is stable"
    if state.suspended:
        waits = state.preparing or state.desired
        return SUSPENDED, SUSPENDED, f"{NOTHING_BEGINS}; {waits or 'the first listing of the source'} waits"
    if desired is not None:
        return desired.phase, desired.phase, f"{state.desired}: {_of_revision(desired)}"
    if state.source is None or not state.desired:
        return "Resolving", "Resolving", "listing the source"
    return "Pending", "Pending", f"{state.desired} is being prepared"
