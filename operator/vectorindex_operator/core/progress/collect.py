"""What fell out of the history: a Job removes its artifact, then its object goes.

    forget.py    the revision is marked Removing, in its status
    here         a Job removes its artifact
                 the object is deleted

The mark is written against the version that was read, so whoever wants the revision again at the same moment is either
first, and it stays, or finds it to be nothing any more. A Job has no such guard: a write that comes late, of an
operator that lost the Lease, can only start one for a revision that is marked. Until the object is gone nothing is made
of its artifact, so no Job removes what another one builds. One that is loaded all the same is given up as an object,
with its artifact where it is: then it is made anew, as after a deletion by hand.
"""

from __future__ import annotations

from vectorindex_operator.api.timestamps import to_unix
from vectorindex_operator.core import identity, recipe
from vectorindex_operator.core.attempt import describe
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.observation import JobState, JobView, RevisionView, Task
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.plan import CreateRevision, ForgetRevision, StartCollect
from vectorindex_operator.core.progress import resolve
from vectorindex_operator.core.state import ReconcileState
from vectorindex_searcher.contract import CollectTask

GIVE_UP_SECONDS = 1800.0
"""So long after the mark the object goes all the same. A Job gives up by itself long before."""


def step(state: ReconcileState) -> None:
    for name, view in sorted(state.obs.revisions.items()):
        if view.status.phase == Phase.REMOVING and not view.deleting and name not in state.foreign:
            _remove(state, view)


def forget(state: ReconcileState, name: str) -> None:
    """A revision that nothing is loaded of falls out of the history."""
    view = state.revision(name)
    if not state.settings.collect_history or _is_shared(state, view):
        state.act(ForgetRevision(name, view.uid))
    elif not state.obs.unreadable:  # else one that nobody can read may have the same artifact
        state.update(
            name, phase=Phase.REMOVING, promoted_at=None, build=None, report=None, message="its artifact is removed"
        )
        state.requeue_at(state.now + 1)


def being_removed(state: ReconcileState, digest: str) -> str:
    """The revision with which an artifact is removed; empty: none."""
    leaving = (view for view in state.obs.revisions.values() if view.status.phase == Phase.REMOVING)
    return next((view.name for view in leaving if view.spec.digest == digest), "")


def _is_shared(state: ReconcileState, view: RevisionView) -> bool:
    """Whether another revision has the same artifact, or is about to."""
    mine = view.spec.digest, recipe.place(view.spec.artifacts)
    going = {view.name, *(action.name for action in state.planned if isinstance(action, ForgetRevision))}
    others = (one.spec for name, one in state.obs.revisions.items() if name not in going)
    planned = (action.digest for action in state.planned if isinstance(action, CreateRevision))
    return mine[0] in planned or any((one.digest, recipe.place(one.artifacts)) == mine for one in others)


def _remove(state: ReconcileState, view: RevisionView) -> None:
    job = next(iter(state.jobs(Task.COLLECT, view.name)), None)
    since = _since(view)
    # A mark that came too late:
    in_use = view.name in (state.serving, state.obs.traffic.revision) or state.loaded(view.name).exists
    if in_use or (job is not None and job.state is JobState.SUCCEEDED):
        state.act(ForgetRevision(view.name, view.uid))
    elif state.now - since > GIVE_UP_SECONDS or (job is not None and job.state is JobState.FAILED):
        state.event(EventReason.ARTIFACT_LEFT, _left(view, job), revision=view.name)
        state.delete_jobs([] if job is None else [job])
        state.act(ForgetRevision(view.name, view.uid))
    elif job is None:
        _start(state, view)
    state.requeue_at(max(state.now + 1, since + GIVE_UP_SECONDS + 1))


def _since(view: RevisionView) -> float:
    try:
        return to_unix(view.status.phase_times.get(Phase.REMOVING, ""))
    except ValueError:
        return view.created_at


def _left(view: RevisionView, job: JobView | None) -> str:
    place = view.spec.artifacts
    why = "no Job could be started" if job is None else job.waiting or job.unschedulable or describe(job)
    return f"{view.name}: what artifact {view.spec.digest} has in {place.words()} may still be there: {why}"


def _start(state: ReconcileState, view: RevisionView) -> None:
    others = {one.spec.digest for one in state.obs.revisions.values()} - {view.spec.digest}
    task = CollectTask(
        identity=resolve.artifact_owner(state),
        artifacts=view.spec.artifacts.reached_by(state.spec.artifacts.place).location(),
        cluster=state.settings.cluster_uid,
        digests=(view.spec.digest,),
        building=tuple(sorted(others)),
    )
    key = view.spec.digest[:16]
    state.act(StartCollect(identity.collect_job_name(view.name), view.name, key, task))
