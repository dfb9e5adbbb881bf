"""What becomes of a deleted VectorIndex's artifacts, with `artifacts.deletionPolicy: Delete`. Pure.

    its revisions are being deleted, and finalizers of ours keep them
    its Jobs are stopped, its pods end            whatever still wrote would leave something behind
    a Job removes what was written for it         one for each bucket and prefix; nobody owns it
    the finalizers go                             also when the Job fails, cannot be made, or takes too long

The Job is the memory between looks: its name says of which VectorIndex it is, so nobody starts it twice, and it stays
for a while after its end, so that a creation that comes late finds its name taken. A VectorIndex that is made again
under the name waits until all of this is over (lifecycle.py: go_forward).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from vectorindex_operator.api.v1alpha1 import Place, Pod
from vectorindex_operator.core import identity, recipe
from vectorindex_operator.core.attempt import describe
from vectorindex_operator.core.events import Event, EventReason
from vectorindex_operator.core.observation import Hold, JobState, JobView
from vectorindex_operator.core.state import Installation
from vectorindex_searcher.contract import CollectResult, CollectTask, Identity

BEING_REMOVED = "ArtifactBeingRemoved"
EARLIER = "what an earlier VectorIndex of this name left is removed first"
GIVE_UP_SECONDS = 900.0
"""So long is waited for pods to end, and for a Job to be made; the Job itself gives up after as long."""
OVERDUE_SECONDS = 60.0
"""A Job that nobody ends so long after that is waited for no more."""
LOOK_SECONDS = 5.0
"""What events told of, a Job that ended or a revision that is gone, is looked at before that."""


@dataclass(frozen=True, slots=True)
class Left:
    """What one look found. `live_uid`: of the VectorIndex of this name that is there to stay; empty: there is none."""

    namespace: str
    name: str
    live_uid: str
    holds: tuple[Hold, ...] = ()
    working: tuple[tuple[str, str], ...] = ()
    """Name and uid of Jobs that work for what is gone, and that nobody has deleted yet."""
    busy: Mapping[str, float | None] = field(default_factory=dict)
    """Pods that may still read or write artifacts, and since when they are told to end, unix seconds."""
    collecting: Mapping[str, JobView] = field(default_factory=dict)
    """The Jobs of which this module speaks, by name."""


@dataclass(frozen=True, slots=True)
class CollectLeft:
    """A Job that removes everything of a VectorIndex that is gone. `place`: and how it is reached; `pod`: where and as
    whom it runs."""

    name: str
    namespace: str
    index: str
    place: Place
    task: CollectTask
    pod: Pod


@dataclass(frozen=True, slots=True)
class NextStep:
    """Of the revisions of one VectorIndex in one place. Neither `stop`, `start` nor `over`: it waits."""

    uid: str
    holds: tuple[Hold, ...]
    stop: tuple[tuple[str, str], ...] = ()
    start: CollectLeft | None = None
    over: bool = False
    """The finalizers go, and `event`, if any, is told."""
    event: Event | None = None
    overdue: bool = False
    """Where what is to be written is refused, it is not tried again."""

    def given_up(self, why: str) -> NextStep:
        """It ends here, and something may be left."""
        return replace(self, stop=(), start=None, over=True, event=_left(self.holds, self.uid, why))


def is_over(left: Left, hold: Hold, finalizer: str) -> bool:
    """Whether a revision waits, deleted, for what is done here: its VectorIndex is gone, or goes."""
    stays = bool(hold.owner) and hold.owner == left.live_uid
    return hold.deleted_at is not None and finalizer in hold.finalizers and not stays


def next_steps(left: Left, settings: Installation, now: float) -> Iterator[NextStep]:
    """What to do now, for each VectorIndex that is gone and each place of its artifacts."""
    groups: dict[tuple[str, tuple[str, ...] | None], list[Hold]] = {}
    for hold in sorted(left.holds, key=lambda one: (one.created_at, one.name)):
        if is_over(left, hold, settings.finalizer):
            place = recipe.place(hold.spec.artifacts) if hold.spec is not None else None
            groups.setdefault((hold.owner, place), []).append(hold)
    for (uid, place), holds in groups.items():
        group = NextStep(uid, tuple(holds))
        if not uid:
            yield replace(group, over=True)  # no VectorIndex was deleted: somebody had orphaned this one
        elif place is None:
            yield group.given_up("the spec of its revision cannot be read")
        else:
            yield _step(left, group, settings, now)


def _step(left: Left, group: NextStep, settings: Installation, now: float) -> NextStep:
    job = _job(left, group, settings)
    running = left.collecting.get(job.name)
    if running is not None:
        return _followed(group, running, now)
    since = min(hold.deleted_at or now for hold in group.holds)
    group = replace(group, overdue=now - since > GIVE_UP_SECONDS)
    if left.working:
        return replace(group, stop=left.working)
    told = max((since, *(at for at in left.busy.values() if at is not None)))
    if left.busy and now - told > GIVE_UP_SECONDS:
        return group.given_up(f"{', '.join(sorted(left.busy)[:3])} still run")
    return group if left.busy else replace(group, start=job)


def _followed(group: NextStep, job: JobView, now: float) -> NextStep:
    if job.state is JobState.SUCCEEDED:
        return replace(group, over=True, event=_done(group, job))
    if job.state is JobState.FAILED:
        return group.given_up(describe(job))
    if now - job.created_at > GIVE_UP_SECONDS + OVERDUE_SECONDS:
        return group.given_up(f"Job {job.name} does not end: {job.waiting or job.unschedulable or 'nobody ends it'}")
    return group


def _job(left: Left, group: NextStep, settings: Installation) -> CollectLeft:
    newest = group.holds[-1].spec
    assert newest is not None, "a group with a place has a spec"
    known = next((hold.reach for hold in reversed(group.holds) if hold.reach is not None), None)
    place = newest.artifacts.reached_by(known.artifacts) if known is not None else newest.artifacts
    task = CollectTask(
        identity=Identity(namespace=left.namespace, name=left.name, uid=group.uid),
        artifacts=place.location(),
        cluster=settings.cluster_uid,
        everything=True,
    )
    return CollectLeft(
        name=identity.collect_left_job_name(left.name, group.uid, recipe.place(place)),
        namespace=left.namespace,
        index=left.name,
        place=place,
        task=task,
        pod=known.pod if known is not None else Pod(),
    )


def _done(group: NextStep, job: JobView) -> Event:
    where = _where(group.holds)
    if not isinstance(job.result, CollectResult):  # its pod is gone, and with it what it said
        return Event(EventReason.ARTIFACTS_REMOVED, f"Job {job.name} removed what was in {where}")
    said = job.result
    removed = f"{said.artifacts} artifacts, {said.objects} objects, {said.bytes} bytes were removed from {where}"
    if said.left:
        return Event(EventReason.ARTIFACT_LEFT, f"{said.left} objects stay ({'; '.join(said.stays[:3])}); {removed}")
    return Event(EventReason.ARTIFACTS_REMOVED, removed)


def _left(holds: Iterable[Hold], uid: str, why: str) -> Event:
    message = f"what VectorIndex {uid} has in {_where(holds)} may still be there, and is not removed: {why}"
    return Event(EventReason.ARTIFACT_LEFT, message)


def _where(holds: Iterable[Hold]) -> str:
    places = {recipe.place(hold.spec.artifacts): hold.spec.artifacts for hold in holds if hold.spec is not None}
    return ", ".join(places[one].words() for one in sorted(places)) or "object storage"
