"""The way back. One write moves the traffic to the target; it depends only on the target having a ready pod.

The health of the revision that failed is never asked. A target whose pods are gone is loaded again from its artifact
first (cold rollback), while the bad revision keeps answering: never a Service without endpoints.
"""

from __future__ import annotations

from vectorindex_operator.api.quantities import duration_seconds
from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import RevisionStatus, Trip
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.safety.give_traffic import give_traffic
from vectorindex_operator.core.safety.record_decision import REVERTED
from vectorindex_operator.core.state import ReconcileState
from vectorindex_operator.core.traffic import DecisionKind

MANUAL = "Manual"
"""Rule of a trip that a person asked for."""
DEAD_AFTER_SECONDS = 600.0
"""Default of `rollout.progressDeadline`: so long without a ready pod, and a revision is dead."""


def step(state: ReconcileState) -> None:
    tripped = pending_trip(state, state.serving)
    if tripped is not None:
        execute_rollback(state, tripped)


def pending_trip(state: ReconcileState, name: str) -> Trip | None:
    """The trip of a revision that still has the traffic."""
    status = state.statuses.get(name)
    return status.rollout.trip if status is not None and status.rollout is not None else None


def is_way_back(status: RevisionStatus) -> bool:
    """Whether the traffic may go back to it: it passed a soak, and nothing was found wrong with it since."""
    tripped = status.rollout is not None and status.rollout.trip is not None
    return bool(status.promoted_at) and status.rejected is None and not tripped and status.build is not None


def rollback_target(state: ReconcileState, source: str, wish: str = "") -> str:
    """The other revision that was last found good; `wish` must be such a one. Empty: none."""
    good = [name for name, status in state.statuses.items() if name != source and is_way_back(status)]
    if wish:
        return wish if wish in good else ""
    return max(good, key=lambda name: (name in (state.stable, state.kept), state.good_since(name), name), default="")


def is_dead(state: ReconcileState, name: str) -> bool:
    """Whether a revision has had no ready pod for its progress deadline, or was unloaded for that."""
    status, loaded = state.statuses.get(name), state.loaded(name)
    if status is None or loaded.serving():
        return False
    if status.unloaded_at is not None:
        return True
    patience = _patience(state, status)
    since = loaded.unready_since
    if not loaded.exists:
        # Its searchers cannot even be made: counted from when a rollback began to wait for them.
        tripped = pending_trip(state, state.serving)
        since = to_unix(tripped.at) if tripped is not None else None
    if since is None:
        return False
    state.requeue_at(since + patience)
    return state.seen_at - since >= patience


def _patience(state: ReconcileState, status: RevisionStatus) -> float:
    """The progress deadline of today's spec; while that cannot be read, of the revision's own rollout."""
    if state.known_spec is not None:
        return duration_seconds(state.known_spec.rollout.progress_deadline)
    rollout = status.rollout
    return duration_seconds(rollout.settings.progress_deadline) if rollout is not None else DEAD_AFTER_SECONDS


def trip(state: ReconcileState, name: str, rule: str, reason: str, message: str) -> None:
    """A guardrail said Fail about `name`: remember it and go back in this very pass where that is possible."""
    rollout = state.statuses[name].rollout
    if rollout is None:
        return
    tripped = Trip(rule=rule, reason=reason, message=message, at=to_text(state.now))
    state.update(name, rollout=rollout.model_copy(update={"trip": tripped}))
    state.event(EventReason.GUARDRAIL_TRIPPED, message, revision=name)
    execute_rollback(state, tripped)


def execute_rollback(state: ReconcileState, tripped: Trip) -> None:
    """Move the traffic away from the revision that has it, or say what this waits for."""
    if state.has_moved:
        state.requeue_at(state.now + 1)
        return
    source = state.serving
    rollout = state.statuses[source].rollout
    wish = tripped.target or (rollout.prior if rollout is not None else "")
    target = rollback_target(state, source, wish) or rollback_target(state, source)
    if not target:
        state.block("RollbackImpossible", source, "there is no earlier proven revision to go back to")
        return
    state.keep_loaded.add(target)
    if not state.loaded(target).serving():
        state.block("RollbackTargetNotReady", target, _loading(state, target))
        state.requeue_at(state.now + 5)
        return
    asked = tripped.reason == MANUAL
    give_traffic(
        state,
        DecisionKind.ROLL_BACK,
        target,
        from_revision=source,
        rule=tripped.rule,
        reason=tripped.reason,
        message=tripped.message,
        nonce=next((c.nonce for c in state.obs.index.commands if c.name == "rollback"), "") if asked else "",
    )


def load_time(state: ReconcileState, name: str) -> str:
    """How long a load from its artifact takes, for people: as it took when it was rolled out, else by its size and what
    the revision with the traffic took. Empty: nothing tells. A text that changes only when one of the two does."""
    status, serving = state.statuses[name], state.statuses.get(state.serving)
    if status.load_seconds is not None:
        return f"about {status.load_seconds:.0f} s"
    if serving is None or serving.load_seconds is None or serving.build is None or status.build is None:
        return ""
    if not serving.build.resident_bytes:
        return ""
    share = status.build.resident_bytes / serving.build.resident_bytes
    return f"about {max(1.0, serving.load_seconds * share):.0f} s (by its size)"


def _loading(state: ReconcileState, target: str) -> str:
    gone_at, takes = state.statuses[target].artifact_gone_at, load_time(state, target)
    known = f", which was seen to be gone at {gone_at}" if gone_at else f"; that takes {takes}" if takes else ""
    words = f"its searchers are being loaded from its artifact{known}"
    quicker = state.stable not in ("", target, state.serving) and state.loaded(state.stable).serving()
    return f"{words}; `rollback` without a name goes to {state.stable} at once" if quicker else words


def revert(state: ReconcileState, message: str) -> None:
    """The user went back to the stable revision while the candidate soaks: no fault of the candidate's."""
    if not state.loaded(state.stable).serving():
        state.block("RollbackTargetNotReady", state.stable)
        return
    give_traffic(
        state,
        DecisionKind.ROLL_BACK,
        state.stable,
        from_revision=state.candidate,
        rule=REVERTED,
        reason=REVERTED,
        message=message,
    )
