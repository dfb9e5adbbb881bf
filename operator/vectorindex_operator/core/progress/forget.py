"""What falls out of the history, and work that nobody wants any more."""

from __future__ import annotations

from collections.abc import Iterable

from vectorindex_operator.core.observation import JobState, Task
from vectorindex_operator.core.phase import IN_PREPARATION, UNDER_WAY
from vectorindex_operator.core.progress import collect, validate
from vectorindex_operator.core.safety.roll_back import rollback_target
from vectorindex_operator.core.state import ReconcileState

REJECTIONS = 50
"""Rejected revisions that are remembered, so that a manifest that comes back is not rolled out again; and held ones,
so that the gate knows how often it has looked in vain."""
WORK = (Task.PARTITION, Task.BUILD, Task.PUBLISH, Task.VALIDATE)


def step(state: ReconcileState) -> None:
    stop_unwanted_work(state)
    _forget(state)


def stop_unwanted_work(state: ReconcileState) -> None:
    """Jobs of revisions that nobody prepares any more, whenever that was decided."""
    for task in WORK:
        for name in {j.revision for j in state.obs.jobs if j.task is task}:
            status = state.statuses.get(name)
            if name not in state.foreign and (status is None or status.phase not in IN_PREPARATION):
                state.delete_jobs(j for j in state.jobs(task, name) if j.state is JobState.RUNNING)


def _forget(state: ReconcileState) -> None:
    """Keep `spec.history` proven revisions to go back to, as many failed ones to read, and what was rejected
    or held by the gate's queries.

    By when they were last good, not by when they were made: what a rollback restored is the newest of all.
    """
    slots = {state.stable, state.candidate, state.preparing, state.desired, state.serving} | state.keep_loaded
    slots.add(state.kept)
    target = rollback_target(state, state.serving)
    rest = [n for n, s in state.statuses.items() if n not in slots and s.phase not in UNDER_WAY]
    proven = [n for n in rest if state.statuses[n].promoted_at and state.statuses[n].rejected is None]
    failed = [n for n in rest if n not in proven]
    rejected = [n for n in failed if state.statuses[n].rejected is not None or validate.looks_at(state, n)]
    others = [n for n in failed if n not in rejected]
    _keep_newest(state, sorted(proven, key=lambda n: (n == target, state.good_since(n), n)), state.spec.history)
    _keep_newest(state, sorted(rejected, key=lambda n: _reach(state, n)), REJECTIONS)
    _keep_newest(state, sorted(others, key=lambda n: (state.revision(n).created_at, n)), state.spec.history)


def _reach(state: ReconcileState, name: str) -> tuple[bool, float, str]:
    """The order in which rejections are forgotten: those of data that is gone first, then the oldest."""
    frozen = state.revision(name)
    of_this_data = state.source is not None and frozen.spec.fingerprint == state.source.fingerprint
    return of_this_data, frozen.created_at, name


def _keep_newest(state: ReconcileState, oldest_first: Iterable[str], count: int) -> None:
    names = list(oldest_first)
    for name in names[: max(0, len(names) - count)]:
        if not state.loaded(name).exists:
            state.delete_jobs([job for task in WORK for job in state.jobs(task, name)])
            collect.forget(state, name)
