"""A build in shards: a Job lays the rows of each ready, an Indexed Job builds them, a Job publishes the whole.

Each goes on from what is stored, and names the plan that it found there. So every try goes through all three, and what
is done already is answered at once: nothing has to be remembered of which of them was how far. Nor of how many shards
`Auto` comes to: the first one reads it in the plan, and says it again.
"""

from __future__ import annotations

from vectorindex_operator.core.attempt import is_of, stop
from vectorindex_operator.core.observation import JobState, JobView, Task
from vectorindex_operator.core.state import ReconcileState
from vectorindex_searcher.contract import PartitionResult

ORDER = (Task.PARTITION, Task.BUILD, Task.PUBLISH)


def current(state: ReconcileState, name: str, one_try: str) -> Task:
    """The Job of a try that is to be followed, or to begin. What runs of others is stopped. Where nobody heard how many
    shards there are it is the first, whose result cannot be read: the next try begins with it again."""
    last = [(task, job) for task in ORDER for job in state.jobs(task, name)[:1] if is_of(job, one_try)]
    task = ORDER[0]
    if last:
        task, job = last[-1]
        known = task is not ORDER[0] or number(state, name, one_try)
        if job.state is JobState.SUCCEEDED and task is not ORDER[-1] and known:
            task = ORDER[ORDER.index(task) + 1]
    for other in ORDER:
        if other is not task:
            stop(state, name, other)
    return task


def number(state: ReconcileState, name: str, one_try: str) -> int:
    """How many shards a revision is built in, as far as the Jobs of a try tell. 0: none, or (Auto) nobody knows."""
    asked = state.revision(name).spec.index_spec.shards
    if asked is None or isinstance(asked, int):
        return asked or 0
    mine = (job for job in state.obs.jobs if job.revision == name and job.task in ORDER and is_of(job, one_try))
    told = (job.result.shards if isinstance(job.result, PartitionResult) else job.parts for job in mine)
    return next((one for one in told if one), 0)


def progress(state: ReconcileState, name: str, job: JobView) -> str:
    """How far a try is, in words; empty: it is no build in shards."""
    asked = state.revision(name).spec.index_spec.shards
    if asked is None:
        return ""
    if job.task is Task.BUILD:
        return f"{job.done} of {job.parts} shards are built"
    shards = f"{asked} shards" if isinstance(asked, int) else "as many shards as fit"
    return f"the rows of {shards} are laid ready" if job.task is Task.PARTITION else "all shards are built"
