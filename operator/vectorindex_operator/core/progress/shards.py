"""A build in shards: a Job lays the rows of each ready, an Indexed Job builds them, a Job publishes the whole.

Each goes on from what is stored, and names the plan that it found there. So every try goes through all three, and what
is done already is answered at once: nothing has to be remembered of which of them was how far.
"""

from __future__ import annotations

from vectorindex_operator.core.attempt import is_of, stop
from vectorindex_operator.core.observation import JobState, JobView, Task
from vectorindex_operator.core.state import ReconcileState

ORDER = (Task.PARTITION, Task.BUILD, Task.PUBLISH)


def current(state: ReconcileState, name: str, one_try: str) -> Task:
    """The Job of a try that is to be followed, or to begin. What runs of others is stopped."""
    last = [(task, job) for task in ORDER for job in state.jobs(task, name)[:1] if is_of(job, one_try)]
    task = ORDER[0]
    if last:
        task, job = last[-1]
        if job.state is JobState.SUCCEEDED and task is not ORDER[-1]:
            task = ORDER[ORDER.index(task) + 1]
    for other in ORDER:
        if other is not task:
            stop(state, name, other)
    return task


def progress(state: ReconcileState, name: str, job: JobView) -> str:
    """How far a try is, in words; empty: it is no build in shards."""
    shards = state.revision(name).spec.shards
    if not shards:
        return ""
    if job.task is Task.PARTITION:
        return f"the rows of {shards} shards are laid ready"
    return f"{job.done} of {shards} shards are built" if job.task is Task.BUILD else f"all {shards} shards are built"
