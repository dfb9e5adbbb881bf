"""A VectorIndex that is made begins with what one of its name has left in the bucket, under whichever uid and cluster.

A Job reads it, once, before anything else begins: a rejected revision must not be rolled out again while nobody knows.

    what was promoted last     Stable, where today's image is the one it was proven with: it is loaded and gets the
                               traffic as a Service that was lost does. Else it is proven again, and surges
    what was promoted before   Retired: what a rollback goes to
    what was rejected          rejected, with its reason

What a revision was is frozen into its object, in the one write that makes it: whoever dies before its status is written
leaves nothing that looks like a new revision.
"""

from __future__ import annotations

from vectorindex_operator.api.v1alpha1 import Restored
from vectorindex_operator.core import identity, outcomes, recipe
from vectorindex_operator.core.attempt import UNREADABLE, describe, say_why_it_waits
from vectorindex_operator.core.backoff import resolve_wait
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.observation import JobState, JobView, Task
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.plan import CreateRevision, StartOutcomes
from vectorindex_operator.core.progress import resolve
from vectorindex_operator.core.state import ReconcileState, Stall
from vectorindex_searcher.contract import PROMOTED, REJECTED, Outcome, OutcomesResult, OutcomesTask


def is_done(state: ReconcileState) -> bool:
    """Whether what is to be taken over is here. Until then the way forward is not gone."""
    _become(state)
    if not state.settings.outcomes or state.source is not None or state.known_spec is None:
        return True
    if state.obs.unreadable or any(view.spec.restored is None for view in state.obs.revisions.values()):
        return True  # it has begun without
    key = identity.outcomes_key(recipe.place(state.spec.artifacts.place), {})
    jobs = state.jobs(Task.OUTCOMES)
    job = next((one for one in jobs if one.key == key), None)
    state.delete_jobs(one for one in jobs if one is not job)
    if job is None:
        _start(state, key, failures=0)
        return False
    if job.state is JobState.RUNNING:
        say_why_it_waits(state, job)
        return False
    if job.state is JobState.SUCCEEDED and isinstance(job.result, OutcomesResult):
        return _are_there(state, job.result)
    _failed(state, job, key)
    return False


def _become(state: ReconcileState) -> None:
    """Revisions that were just made become what they had been."""
    fresh = {
        name: restored
        for name, status in state.statuses.items()
        if (restored := state.revision(name).spec.restored) is not None
        and status.phase == Phase.PENDING
        and not status.phase_times
    }
    if not fresh or state.known_spec is None:
        return
    prior = next((name for name, one in fresh.items() if one.phase == Phase.RETIRED), "")
    for name, restored in fresh.items():
        state.statuses[name] = outcomes.status_of(restored, state.spec, prior if prior != name else "")
    state.find_slots()


def _are_there(state: ReconcileState, result: OutcomesResult) -> bool:
    """Whether every revision that is taken over has been made; makes those that were not."""
    begin_as = taken_over(state, result.found)
    missing = [one for one in begin_as if one.outcome.revision not in state.obs.revisions]
    for one in missing:
        outcome = one.outcome
        image = state.settings.searcher_image
        state.act(
            CreateRevision(
                outcome.revision,
                outcome.digest,
                outcome.fingerprint,
                outcomes.serving(state.spec, outcome),
                outcome.proof_salt if outcome.image == image else image,
                outcomes.rebuild(outcome),
                one,
            )
        )
        state.requeue_at(state.now + 1)
    if result.too_many and not state.jobs(Task.RESOLVE):
        state.event(EventReason.OUTCOMES_LOST, _TOO_MANY)
        return True
    lost = len(result.found) - len(begin_as) + result.left_out + result.unusable
    if lost and not state.jobs(Task.RESOLVE):  # hence once, and before anything begins
        state.event(EventReason.OUTCOMES_LOST, _lost(lost, len(begin_as)))
    return not missing


_TOO_MANY = (
    "nothing beside the artifacts is taken over: there are more outcomes than are listed (10,000), which no index has. "
    "Look who writes to the bucket, remove what is not yours, and make the index again"
)


def _lost(lost: int, taken: int) -> str:
    return (
        f"{lost} of {lost + taken} outcomes beside the artifacts are not taken over: of another index, of deleted ids "
        "elsewhere, proven with another image or encoder, of a time to come, unreadable (the log of the Job names "
        "them), or too many"
    )


def taken_over(state: ReconcileState, found: tuple[Outcome, ...]) -> tuple[Restored, ...]:
    """What revisions begin as, one each. What was promoted last is proven again where today's image or encoder is
    another one, or its report is; what it replaced is nothing to go back to then."""
    mine = {one.revision: one for one in found if outcomes.is_of(state, one)}.values()
    promoted = [one for one in mine if one.outcome == PROMOTED and one.build is not None]
    promoted.sort(key=lambda one: (one.at, one.revision), reverse=True)
    begin_as = []
    for one in promoted[:2]:
        proven = one.report is not None and one.image == state.settings.searcher_image
        proven = proven and outcomes.proven_as(state.spec, one)
        if one is promoted[0]:
            begin_as.append(Restored(phase=Phase.STABLE if proven else Phase.VALIDATING, outcome=one))
        elif proven:
            begin_as.append(Restored(phase=Phase.RETIRED, outcome=one))
    for one in mine:
        if one.outcome == REJECTED and outcomes.proven_as(state.spec, one):
            phase = one.phase if one.phase in outcomes.TURNED_DOWN else Phase.REJECTED
            begin_as.append(Restored(phase=phase, outcome=one))
    return tuple(begin_as)


def awaits_proof(state: ReconcileState, name: str) -> bool:
    """Whether a revision served before everything was lost, and is proven again: while nothing else is stable it is
    worth more than what the spec asks for, of which nobody knows anything yet."""
    restored = state.revision(name).spec.restored
    return not state.stable and restored is not None and restored.phase == Phase.VALIDATING


def _start(state: ReconcileState, key: str, failures: int) -> None:
    task = OutcomesTask(
        identity=resolve.artifact_owner(state),
        artifacts=state.spec.artifacts.place.location(),
        restore=True,
        cluster=state.settings.cluster_uid,
    )
    name = identity.outcomes_job_name(state.obs.index.name, state.obs.index.uid, f"{key}/{failures}")
    state.act(StartOutcomes(name, key, failures, task))


def _failed(state: ReconcileState, job: JobView, key: str) -> None:
    """Tried again with growing waits, for ever: a bucket that cannot be read takes no artifact either."""
    lost = job.state is JobState.SUCCEEDED
    reason = UNREADABLE if lost else job.failure.reason if job.failure else "OutcomesFailed"
    message = f"Job {job.name} ended well, but its result cannot be read" if lost else describe(job)
    state.stall = Stall(reason, message, permanent=job.exit_code in resolve.PERMANENT_EXITS)
    failures = job.failures + 1
    due = (job.finished_at or job.created_at) + resolve_wait(failures)
    if lost and failures == 1:
        due = state.now
    if state.now < due:
        state.requeue_at(due)
        return
    state.delete_jobs([job])
    _start(state, key, failures)
