"""What was stable before a promotion stays loaded for a while (`rollout.keepPrior`): a rollback in the day after it is
then one write to pods that are ready, as in the soak.

Until when stands in the rollout of what was promoted and is written together with its promotion, so that no crash lies
between the two. It is the least of what is loaded: whatever else needs a place or a node takes it, and a prior that had
to go does not come back.
"""

from __future__ import annotations

from collections.abc import Iterator

from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import RolloutStatus
from vectorindex_operator.core.observation import JobState
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.safety.roll_back import is_dead, is_way_back
from vectorindex_operator.core.state import ReconcileState

NO_ROOM_SECONDS = 60.0
"""So long a pod may wait for a node before the prior makes room for it: where nodes are added when they are needed, to
wait is the ordinary course."""


def begin(state: ReconcileState, name: str, prior: str) -> None:
    """`name` was promoted in this pass, and `prior` was stable: note until when that stays loaded, if it does."""
    rollout = state.statuses[name].rollout
    if rollout is None or rollout.prior != prior or not is_way_back(state.statuses[prior]):
        return
    seconds = rollout.settings.keep_prior_seconds
    if seconds and not _is_off(state):
        until = to_text(state.now + seconds)
        state.update(name, rollout=rollout.model_copy(update={"prior_kept_until": until}))
        state.update(prior, message=f"superseded by {name}; its searchers stay loaded until {until}")


def end(state: ReconcileState, why: str) -> None:
    """If a prior is kept, it is from now on like any revision that lost the traffic: unloaded once it has drained."""
    rollout = state.stable_rollout
    if rollout is None or rollout.prior_kept_until is None:
        return
    prior = state.statuses.get(rollout.prior)
    if prior is not None and prior.phase == Phase.SUPERSEDED:
        message = f"superseded by {state.stable}; its searchers stay loaded no longer: {why}"
        state.update(rollout.prior, message=message)
    state.update(state.stable, rollout=rollout.model_copy(update={"prior_kept_until": None}))


def step(state: ReconcileState) -> None:
    """Keep the prior loaded, or end that. After all that says what else is to be loaded."""
    rollout = state.stable_rollout
    if rollout is None or rollout.prior_kept_until is None:
        return
    if rollout.prior in state.foreign or rollout.prior in state.keep_loaded:
        return  # left as it is; or it is loaded for a better reason: a rollback waits for it
    until = _until(state, rollout)
    if why := _over(state, state.kept, until):
        end(state, why)
    else:
        state.keep_loaded.add(state.kept)
        state.requeue_at(until)


def leaving(state: ReconcileState) -> str:
    """A prior that was kept, is not any more, and whose searchers are still there; empty: none."""
    rollout = state.stable_rollout
    if rollout is None or not rollout.settings.keep_prior_seconds or not state.loaded(rollout.prior).exists:
        return ""
    stays = rollout.prior in {*state.keep_loaded, *state.foreign, state.serving}
    return "" if stays else rollout.prior


def _is_off(state: ReconcileState) -> bool:
    """Whether the spec of now keeps nothing, whatever the rollout began with."""
    return state.known_spec is not None and not state.known_spec.rollout.keep_prior_seconds


def _until(state: ReconcileState, rollout: RolloutStatus) -> float:
    """A time further ahead than the whole while was written before the clock was set back: it is counted from now."""
    until, longest = to_unix(rollout.prior_kept_until or ""), state.now + rollout.settings.keep_prior_seconds
    if until <= longest + 1:
        return until
    state.update(state.stable, rollout=rollout.model_copy(update={"prior_kept_until": to_text(longest)}))
    return longest


def _over(state: ReconcileState, name: str, until: float) -> str:
    """Why the prior `name` is not kept any longer; empty: it is."""
    if not name:
        return "it is no revision to go back to any more"
    if state.seen_at >= until:
        return "their time is over"
    if _is_off(state):
        return "rollout.keepPrior is 0s"
    if is_dead(state, name):
        return "none has been ready for rollout.progressDeadline"
    if others := (state.keep_loaded | {state.serving, state.candidate}) - {"", name, state.stable}:
        return f"{min(others)} needs their place"
    return _lack_of_room(state)


def _lack_of_room(state: ReconcileState) -> str:
    """What has had no room for too long: stable's pods, or a Job. The prior's own pods wait for theirs."""
    for since, what in _without_room(state):
        if state.seen_at - since >= NO_ROOM_SECONDS:
            return f"there is no room for {what}"
        state.requeue_at(since + NO_ROOM_SECONDS)
    return ""


def _without_room(state: ReconcileState) -> Iterator[tuple[float, str]]:
    """Since when, and what: pods without a node, or that a quota lets nobody make."""
    stable = state.loaded(state.stable)
    waiting = [pod.unschedulable_since for pod in stable.pods if not pod.deleting]
    for since in (*waiting, stable.refused_since):
        if since is not None:
            yield since, f"pods of {state.stable}"
    for job in state.obs.jobs:
        if job.state is JobState.RUNNING and not job.deleting:
            for since in (job.unschedulable_since, job.podless_since):
                if since is not None:
                    yield since, f"the pod of Job {job.name}"
