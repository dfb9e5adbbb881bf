"""What was decided about revisions is written beside their artifacts, for whoever takes over when all objects are lost.

The operator holds no key to a bucket, so a short Job writes it, once for all that is not written yet. Nothing waits for
it: a decision is made, and acted upon, long before. A Job that fails is tried again a few times, each is told, and the
last one stays as the mark that it was given up; the next decision begins anew.
"""

from __future__ import annotations

from vectorindex_operator.core import identity, outcomes, recipe
from vectorindex_operator.core.attempt import describe, say_why_it_waits
from vectorindex_operator.core.backoff import resolve_wait
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.observation import JobState, JobView, Task
from vectorindex_operator.core.plan import StartOutcomes
from vectorindex_operator.core.progress import resolve
from vectorindex_operator.core.state import ReconcileState
from vectorindex_searcher.contract import OUTCOMES_WRITTEN, Outcome, OutcomesTask

MOST_TRIES = 5
"""Under one key."""


def step(state: ReconcileState) -> None:
    if state.source is None:
        return  # the Job that there may be is the one that reads (restore.py)
    jobs = state.jobs(Task.OUTCOMES)
    newest = jobs[0] if jobs else None
    state.delete_jobs(jobs[1:])
    if newest is not None and newest.state is JobState.RUNNING:
        say_why_it_waits(state, newest)
        return
    said = _unwritten(state) if state.settings.outcomes else {}
    written = {name: outcomes.token(one) for name, one in said.items()}
    key = identity.outcomes_key(recipe.place(state.spec.artifacts.place), written)
    if newest is not None and newest.key == key and said:
        _ended(state, newest, said)
        return
    state.delete_jobs([] if newest is None else [newest])
    if said:
        _start(state, said, key, failures=0)


def _unwritten(state: ReconcileState) -> dict[str, Outcome]:
    """By revision, as many as one Job takes, the newest first."""
    decided_at = {name: at for name in state.statuses if (at := outcomes.unwritten_at(state, name))}
    newest = sorted(decided_at, key=lambda name: (decided_at[name], name), reverse=True)
    said = ((name, outcomes.of_revision(state, name)) for name in newest[:OUTCOMES_WRITTEN])
    return {name: one for name, one in said if one is not None}


def _start(state: ReconcileState, said: dict[str, Outcome], key: str, failures: int) -> None:
    task = OutcomesTask(
        identity=resolve.artifact_owner(state),
        artifacts=state.spec.artifacts.place.location(),
        write=tuple(said.values()),
    )
    name = identity.outcomes_job_name(state.obs.index.name, state.obs.index.uid, f"{key}/{failures}")
    state.act(StartOutcomes(name, key, failures, task))


def _ended(state: ReconcileState, job: JobView, said: dict[str, Outcome]) -> None:
    if job.state is JobState.SUCCEEDED:  # whether its pod is still there or not: it had nothing else to say
        for name, one in said.items():
            state.update(name, recorded=outcomes.token(one))
        state.delete_jobs([job])
        return
    failures = job.failures + 1
    if failures >= MOST_TRIES:
        return
    due = (job.finished_at or job.created_at) + resolve_wait(failures)
    if state.now < due:
        state.requeue_at(due)
        return
    words = f"what was decided about {', '.join(sorted(said))} is not written beside the artifacts: {describe(job)}"
    state.event(EventReason.OUTCOME_NOT_RECORDED, words)
    state.delete_jobs([job])
    _start(state, said, job.key, failures)
