"""What becomes of a deleted VectorIndex's artifacts, with `artifacts.deletionPolicy: Delete`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from goldens import assert_golden
from layers import CHECKOUT
from observations import DATA, HOUR, NOW, SETTINGS, a_revision, actions, after, index, recorded, run, seen, spec
from raw_objects import NAME, NAMESPACE, Silent, Stored, index_raw, job_raw, revision_raw, searcher_pod

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import S3, Pod, Reach, SecretRef, Serving, VectorIndexSpec
from vectorindex_operator.core.events import Event, EventReason
from vectorindex_operator.core.holds import FINALIZER
from vectorindex_operator.core.leftovers import GIVE_UP_SECONDS, OVERDUE_SECONDS, Left, NextStep, next_steps
from vectorindex_operator.core.lifecycle import decide
from vectorindex_operator.core.observation import Hold, JobState, JobView, Observation, RevisionView, Task
from vectorindex_operator.core.plan import CreateRevision, HoldRevision, WriteRevisionStatus
from vectorindex_operator.handlers import told
from vectorindex_operator.manifests import jobs
from vectorindex_operator.manifests.render import render
from vectorindex_operator.reconcile import loop
from vectorindex_operator.reconcile.cache import LiveCluster, ReadCache
from vectorindex_operator.reconcile.claims import finalizer_of
from vectorindex_operator.reconcile.errors import (
    ConflictError,
    NamespaceTerminatingError,
    RefusedError,
    UnreachableError,
)
from vectorindex_operator.reconcile.execute import Executor
from vectorindex_operator.reconcile.leftovers import Leftovers
from vectorindex_operator.reconcile.loop import Reconciler
from vectorindex_operator.reconcile.observe import observe
from vectorindex_operator.reconcile.relist import Relist
from vectorindex_searcher.contract import TASK_ENV, BuildTask, CollectResult, CollectTask, Failure, Identity, Location

Json = dict[str, Any]
DELETES = spec(artifacts={"deletionPolicy": "Delete"})
STABLE = a_revision(DELETES, "Stable")
OLDER = a_revision(DELETES, "Superseded", data=DATA[::-1], created=NOW - 9 * HOUR)
SOON = NOW + 60
QUOTA = RefusedError("403 Forbidden: exceeded quota")
TERMINATES = NamespaceTerminatingError("403 Forbidden: it is being terminated")


# ---------------------------------------------------------------- while the index is there


def hold(view: RevisionView, **changes: Any) -> Hold:
    """Its object with our finalizer."""
    mine = Hold(view.name, view.uid, "uid-docs", frozenset({FINALIZER}), view.created_at, None, view.spec, None)
    return replace(mine, **changes)


def reached(view: RevisionView, of: VectorIndexSpec = DELETES) -> RevisionView:
    """It knows how its artifact is reached."""
    reach = Reach(artifacts=view.spec.artifacts.reached_by(of.artifacts.s3), pod=of.build.pod)
    return replace(view, status=view.status.model_copy(update={"reach": reach}))


def there(of: VectorIndexSpec, *views: RevisionView, holds: tuple[Hold, ...] = ()) -> Observation:
    return seen(of, *views, traffic=views[0], holds=holds)


def holds_planned(obs: Observation, **installed: Any) -> dict[str, str]:
    plan = decide(obs, replace(SETTINGS, **installed), NOW)
    return {one.revision: one.finalizer for one in actions(plan, HoldRevision)}


def test_each_revision_is_held_and_says_how_it_is_reached() -> None:
    plan = run(there(DELETES, STABLE, OLDER))
    assert {one.revision: one.finalizer for one in actions(plan, HoldRevision)} == dict.fromkeys(
        (STABLE.name, OLDER.name), FINALIZER
    )
    assert recorded(plan, STABLE).reach == Reach(artifacts=DELETES.artifacts.s3, pod=Pod())


def test_what_is_held_and_recorded_is_no_news() -> None:
    obs = there(DELETES, reached(STABLE), holds=(hold(STABLE),))
    plan = run(obs)
    assert (actions(plan, HoldRevision), actions(plan, WriteRevisionStatus)) == ([], [])


def test_without_the_policy_nothing_is_written() -> None:
    plan = run(there(spec(), STABLE))
    assert (actions(plan, HoldRevision), actions(plan, WriteRevisionStatus)) == ([], [])


@pytest.mark.parametrize("foreign", [False, True])
def test_a_policy_that_was_changed_to_retain_lets_go_of_all(foreign: bool) -> None:
    view = reached(STABLE)
    if foreign:
        view = replace(view, spec=view.spec.model_copy(update={"requires": ("tomorrow",)}))
    plan = run(there(spec(), view, holds=(hold(view),)))
    assert [(one.revision, one.finalizer) for one in actions(plan, HoldRevision)] == [(view.name, "")]
    if not foreign:
        assert recorded(plan, view).reach is None


def test_a_revision_of_another_release_is_not_held() -> None:
    view = replace(STABLE, spec=STABLE.spec.model_copy(update={"requires": ("tomorrow",)}))
    assert holds_planned(there(DELETES, view)) == {}


@pytest.mark.parametrize("of", [DELETES, spec(), None])
def test_a_revision_that_is_deleted_alone_is_let_go(of: VectorIndexSpec | None) -> None:
    """Also while nobody can read the spec, and also where nobody can read the revision."""
    obs = there(DELETES, reached(STABLE), holds=(hold(STABLE), hold(OLDER, deleted_at=NOW, spec=None)))
    obs = replace(obs, index=replace(obs.index, spec=of), unreadable={OLDER.name: "why"})
    assert holds_planned(obs)[OLDER.name] == ""


def test_access_is_what_the_spec_last_said() -> None:
    edited = spec(
        artifacts={"deletionPolicy": "Delete", "s3": {"secretRef": {"name": "new"}}},
        build={"pod": {"serviceAccountName": "builder"}},
    )
    obs = there(edited, reached(STABLE), holds=(hold(STABLE),))
    reach = recorded(run(obs), STABLE).reach
    assert reach is not None
    assert (reach.artifacts.secret_ref, reach.pod.service_account_name) == (SecretRef(name="new"), "builder")
    assert actions(run(after(obs, run(obs))), WriteRevisionStatus) == []


def test_an_index_that_moved_to_another_operator_is_held_by_that_one() -> None:
    theirs = finalizer_of("next")
    assert (theirs, finalizer_of("default")) == (f"{FINALIZER}.next", FINALIZER)
    assert holds_planned(there(DELETES, STABLE, holds=(hold(STABLE),)), finalizer=theirs) == {STABLE.name: theirs}


@pytest.mark.parametrize(("of", "finalizers"), [(DELETES, [FINALIZER]), (spec(), None)])
def test_a_revision_is_made_with_its_finalizer(of: VectorIndexSpec, finalizers: list[str] | None) -> None:
    made = CreateRevision(STABLE.name, STABLE.spec.digest, DATA, Serving.of(of))
    (manifest,) = render(made, seen(of), of, SETTINGS)
    assert manifest["metadata"].get("finalizers") == finalizers


def test_what_an_earlier_index_left_holds_up_everything_new() -> None:
    obs = replace(seen(DELETES, jobs=()), earlier="Job/docs-collect-1")
    plan = run(obs)
    assert plan.forward == ()
    assert (plan.status.phase, plan.status.reason) == ("Pending", "ArtifactBeingRemoved")
    assert [(row.rule, row.subject) for row in plan.status.blocked_by] == [
        ("ArtifactBeingRemoved", "Job/docs-collect-1")
    ]
    assert run(replace(obs, earlier="")).forward != ()


# ---------------------------------------------------------------- when it is gone: what to do


GONE = hold(STABLE, deleted_at=NOW)


def left(*holds: Hold, live: str = "", **found: Any) -> Left:
    return Left(NAMESPACE, NAME, live, holds or (GONE,), **found)


def only_step(found: Left, now: float = SOON, **installed: Any) -> NextStep:
    (step,) = next_steps(found, replace(SETTINGS, **installed), now)
    return step


def collecting(state: JobState = JobState.RUNNING, found: Left | None = None, **changes: Any) -> Left:
    """The Job that the next step would start, in this state."""
    found = found or left()
    start = only_step(found).start
    assert start is not None
    job = JobView(start.name, "uid-job", Task.COLLECT, "", "", 0, "cpu", state, SOON)
    return replace(found, collecting={start.name: replace(job, **changes)})


def test_one_job_removes_everything_of_that_index_there() -> None:
    start = only_step(left(), cluster_uid="cluster-a").start
    assert start is not None
    assert start.task == CollectTask(
        identity=Identity(namespace=NAMESPACE, name=NAME, uid="uid-docs"),
        artifacts=DELETES.artifacts.s3.location(),
        cluster="cluster-a",
        everything=True,
    )
    assert start.place == DELETES.artifacts.s3


def test_it_reaches_what_it_removes_as_the_spec_last_said() -> None:
    s3 = S3(bucket="indexes", secret_ref=SecretRef(name="rotated"), endpoint="https://s3.example")
    reach = Reach(artifacts=s3, pod=Pod(service_account_name="builder"))
    old = hold(OLDER, deleted_at=NOW, reach=Reach(artifacts=DELETES.artifacts.s3))
    start = only_step(left(old, replace(GONE, reach=reach))).start
    assert start is not None
    assert (start.place.secret_ref, start.place.endpoint) == (SecretRef(name="rotated"), "https://s3.example")
    assert start.pod.service_account_name == "builder"


def test_another_index_of_the_name_and_another_place_get_another_job() -> None:
    moved = replace(GONE, spec=STABLE.spec.model_copy(update={"artifacts": S3(bucket="elsewhere")}))
    steps = list(next_steps(left(GONE, moved, replace(GONE, owner="uid-before")), SETTINGS, SOON))
    names = {step.start.name for step in steps if step.start is not None}
    assert len(names) == 3
    assert all(len(name) <= 63 and name.startswith("docs-collect-") for name in names)


@pytest.mark.parametrize(
    "nothing",
    [
        left(hold(STABLE)),  # nobody deleted it
        left(live="uid-docs"),  # it alone was deleted: lifecycle.py
        left(replace(GONE, finalizers=frozenset({finalizer_of("next")}))),  # another operator's
    ],
)
def test_what_is_no_matter_of_it(nothing: Left) -> None:
    assert list(next_steps(nothing, SETTINGS, SOON)) == []


def test_what_nobody_owns_is_let_go_and_nothing_is_removed() -> None:
    step = only_step(left(replace(GONE, owner="")))
    assert (step.over, step.start, step.event) == (True, None, None)


def test_what_nobody_can_read_is_let_go_with_a_word() -> None:
    step = only_step(left(replace(GONE, spec=None)))
    assert step.over
    assert step.event is not None
    assert step.event.reason is EventReason.ARTIFACT_LEFT


def test_work_is_stopped_and_pods_end_before_anything_is_removed() -> None:
    working = left(working=(("docs-build-1", "uid-1"),), busy={"docs-build-1-x": None})
    assert (only_step(working).stop, only_step(working).start) == ((("docs-build-1", "uid-1"),), None)
    ending = left(busy={"docs-build-1-x": NOW + 30})
    step = only_step(ending)
    assert (step.stop, step.start, step.over) == ((), None, False)


def test_a_pod_that_never_ends_is_waited_for_only_so_long() -> None:
    busy = left(busy={"docs-0": None, "docs-1": NOW + 100})
    assert not only_step(busy, NOW + 100 + GIVE_UP_SECONDS).over
    step = only_step(busy, NOW + 101 + GIVE_UP_SECONDS)
    assert step.over
    assert step.event is not None
    assert "docs-0, docs-1 still run" in step.event.message


def test_an_operator_that_was_away_tries_all_the_same() -> None:
    """The deletion is long ago, and nothing was begun."""
    late = NOW + 10 * HOUR
    assert only_step(left(), late).start is not None
    assert only_step(left(working=(("docs-build-1", "uid-1"),)), late).stop != ()


def test_the_end_of_the_job_is_the_end() -> None:
    result = CollectResult(artifacts=2, objects=19, bytes=4096, uploads=0, left=0, unknown=0)
    step = only_step(collecting(JobState.SUCCEEDED, result=result))
    assert (step.over, step.holds) == (True, (GONE,))
    assert step.event == Event(
        EventReason.ARTIFACTS_REMOVED,
        "2 artifacts, 19 objects, 4096 bytes were removed from bucket indexes, prefix ''",
    )
    assert not only_step(collecting()).over


def test_what_others_use_is_told() -> None:
    result = CollectResult(
        artifacts=1, objects=9, bytes=1, uploads=0, left=9, stays=("d1: used by cluster-b",), unknown=0
    )
    event = only_step(collecting(JobState.SUCCEEDED, result=result)).event
    assert event is not None
    assert (event.reason, "d1: used by cluster-b" in event.message) == (EventReason.ARTIFACT_LEFT, True)


@pytest.mark.parametrize(
    ("job", "now", "why"),
    [
        ({"state": JobState.FAILED, "failure": Failure(reason="NotRemoved", message="no right")}, SOON, "no right"),
        ({"waiting": "Secret/s3: not found"}, SOON + GIVE_UP_SECONDS + OVERDUE_SECONDS + 1, "Secret/s3: not found"),
    ],
)
def test_a_job_that_fails_or_never_ends_lets_go_and_says_what_is_left(job: Json, now: float, why: str) -> None:
    step = only_step(collecting(**job), now)
    assert (step.over, step.holds) == (True, (GONE,))
    assert step.event is not None
    assert step.event.reason is EventReason.ARTIFACT_LEFT
    assert why in step.event.message
    assert "bucket indexes" in step.event.message


def test_the_job_is_owned_by_nobody_and_stays_for_a_while() -> None:
    start = only_step(left(replace(GONE, reach=Reach(artifacts=DELETES.artifacts.s3)))).start
    assert start is not None
    job = jobs.collect_left(start, SETTINGS)
    assert "ownerReferences" not in job["metadata"]
    assert (job["spec"]["ttlSecondsAfterFinished"], job["spec"]["backoffLimit"]) == (600, 2)
    task = json.loads(next(e["value"] for e in _container(job)["env"] if e["name"] == TASK_ENV))
    assert task["everything"] is True
    assert _container(job)["envFrom"] == [{"prefix": "ARTIFACTS_", "secretRef": {"name": "s3"}}]
    assert_golden(CHECKOUT / "tests" / "unit" / "golden" / "collect-left-job.yaml", [job])


def _container(job: Json) -> Json:
    found: Json = job["spec"]["template"]["spec"]["containers"][0]
    return found


# ---------------------------------------------------------------- when it is gone: doing it


def revision(view: RevisionView = STABLE, *, deleted: bool = True, owner: str = "uid-docs") -> Json:
    one = revision_raw(view)
    meta = {**one["metadata"], "finalizers": [FINALIZER, "others.example/keeps"]}
    meta["ownerReferences"] = [{**meta["ownerReferences"][0], "uid": owner}]
    return one | {"metadata": meta | ({"deletionTimestamp": to_text(NOW)} if deleted else {})}


class Told:
    def __init__(self) -> None:
        self.sent: list[tuple[Json, Event]] = []

    def send(self, regarding: Any, event: Event) -> None:
        self.sent.append((regarding, event))


def clear_up(stored: Any, now: float = SOON) -> tuple[float | None, list[tuple[Json, Event]]]:
    events = Told()
    return Leftovers(stored, events, SETTINGS).look(NAMESPACE, NAME, now), events.sent


def finalizers(stored: Stored) -> list[str]:
    (one,) = stored.children("VectorIndexRevision", "", "")
    found: list[str] = one["metadata"]["finalizers"]
    return found


def ended(job: Json) -> Json:
    condition = {"type": "Complete", "status": "True", "lastTransitionTime": to_text(NOW)}
    return job | {"status": {"conditions": [condition]}}


def test_from_the_deletion_to_the_end() -> None:
    build = job_raw(a_build(), STABLE)
    stored: Any = Stored(revision(), build)
    clear_up(stored)
    assert stored.writes == [("delete", f"Job/{build['metadata']['name']}")], "work is stopped first"
    assert clear_up(stored)[0] is not None
    (job,) = stored.children("Job", "", "")
    assert clear_up(stored)[0] is not None
    assert len(stored.writes) == 2, "the Job is made once"
    stored.objects = [ended(one) if one is job else one for one in stored.objects]
    _, told_of = clear_up(stored)
    assert finalizers(stored) == ["others.example/keeps"], "others' finalizers are not ours to take off"
    ((about, event),) = told_of
    assert (about["kind"], about["metadata"]["uid"], event.reason) == (
        "VectorIndex", "uid-docs", EventReason.ARTIFACTS_REMOVED,
    )  # fmt: skip
    assert clear_up(stored) == (None, [])


def a_build() -> BuildTask:
    place = Location(s3=DELETES.artifacts.s3.location().s3)
    return BuildTask(identity=Identity(name=NAME), digest="d", source=place, artifacts=place)


def test_a_searcher_that_was_told_to_end_and_what_has_ended_hold_nothing_up() -> None:
    pod = searcher_pod(STABLE)
    ends = pod | {"metadata": {**pod["metadata"], "deletionTimestamp": to_text(NOW)}}
    done = pod | {"metadata": {**pod["metadata"], "name": "done"}, "status": {"phase": "Succeeded"}}
    waits: Any = Stored(revision(), pod)
    goes: Any = Stored(revision(), ends, done)
    clear_up(waits)
    clear_up(goes)
    assert (waits.writes, [verb for verb, _ in goes.writes]) == ([], ["create"])


@pytest.mark.parametrize(("error", "now", "over"), [(TERMINATES, SOON, True), (QUOTA, SOON, False),
                                                    (QUOTA, NOW + GIVE_UP_SECONDS + 1, True)])  # fmt: skip
def test_a_job_that_is_refused_holds_a_revision_for_a_bounded_time(error: RefusedError, now: float, over: bool) -> None:
    stored: Any = Stored(revision(), refuse={("create", "Job"): error})
    _, told_of = clear_up(stored, now)
    assert (FINALIZER not in finalizers(stored)) is over
    assert [event.reason for _, event in told_of] == ([EventReason.ARTIFACT_LEFT] if over else [])


def test_a_revision_of_the_index_that_is_there_is_not_touched_here() -> None:
    stored: Any = Stored(index_raw(index(DELETES)), revision())
    assert clear_up(stored) == (None, [])
    assert stored.writes == []


def test_one_that_is_deleted_in_the_foreground_is_as_good_as_gone() -> None:
    live = index_raw(index(DELETES))
    going = live | {"metadata": {**live["metadata"], "deletionTimestamp": to_text(NOW)}}
    stored: Any = Stored(going, revision())
    clear_up(stored)
    assert [verb for verb, _ in stored.writes] == ["create"]


# ---------------------------------------------------------------- who gets a look


def test_a_revision_on_its_way_out_gets_a_look_without_its_index() -> None:
    marks: list[tuple[str, str]] = []

    class Marks:
        def mark(self, namespace: str, name: str) -> None:
            marks.append((namespace, name))

    cache = ReadCache()
    gone = revision()
    told(Marks(), cache, {"type": "MODIFIED", "object": revision(deleted=False)})
    assert marks == []
    told(Marks(), cache, {"type": "MODIFIED", "object": gone})
    assert marks == [(NAMESPACE, NAME)]
    assert cache.leaving.has(NAMESPACE, NAME)
    assert cache.size() == (0, 0), "nothing of it is kept"
    told(Marks(), cache, {"type": "DELETED", "object": gone})
    assert not cache.leaving.has(NAMESPACE, NAME)


class Listing(Stored):
    def pages(self, kind: str, namespace: str, selector: str, *, metadata_only: bool) -> Any:
        yield [
            {"kind": kind, "metadata": one["metadata"]} if metadata_only else one for one in self.children(kind, "", "")
        ]


@pytest.mark.parametrize("at_the_start", [True, False])
def test_the_relist_finds_one_whose_event_was_lost(at_the_start: bool) -> None:
    marks: list[tuple[str, str]] = []
    listing: Any = Listing(revision())
    relist = Relist(ReadCache(), listing, lambda namespace, name: marks.append((namespace, name)))
    if at_the_start:
        relist.fill()
    else:
        relist.run_once()
    assert marks == [(NAMESPACE, NAME)]
    listing.objects = []
    relist.run_once()
    assert relist.cache.leaving.indexes() == set()


def reconciler(stored: Any, cache: ReadCache, **about: Any) -> Reconciler:
    return Reconciler(LiveCluster(stored, cache), Silent(), Told(), SETTINGS, cache=cache, clock=lambda: SOON, **about)


@pytest.mark.parametrize("operator_class", ["default", "next"])
def test_a_pass_looks_after_it_whatever_there_is_of_the_name(operator_class: str) -> None:
    """Nothing, or a new VectorIndex, be it another operator's."""
    for others in ((), (index_raw(index(DELETES, uid="uid-new")),)):
        stored, cache = Stored(*others, revision()), ReadCache()
        for one in stored.objects:
            cache.put(one)
        after_that = reconciler(stored, cache, operator_class=operator_class).run(NAMESPACE, NAME).again_after
        assert ("create", "Job/" + next(iter(stored.children("Job", "", "")))["metadata"]["name"]) in stored.writes
        assert after_that is not None


def test_a_pass_that_fails_does_not_keep_what_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A namespace that is being deleted would wait for whatever is wrong with the index that is there."""
    stored, cache = Stored(index_raw(index(DELETES, uid="uid-new")), revision()), ReadCache()
    for one in stored.objects:
        cache.put(one)
    monkeypatch.setattr(loop, "observe", lambda *_: (_ for _ in ()).throw(UnreachableError("no answer")))
    with pytest.raises(UnreachableError):
        reconciler(stored, cache).run(NAMESPACE, NAME)
    assert [kind for verb, name in stored.writes if verb == "create" for kind in [name.partition("/")[0]]] == ["Job"]


def test_a_new_index_of_the_name_waits() -> None:
    new = index_raw(index(DELETES, uid="uid-new"))
    stored: Any = Stored(new, revision(deleted=False))
    obs = observe(stored, NAMESPACE, NAME, NOW)
    assert obs is not None
    assert obs.earlier == f"VectorIndexRevision/{STABLE.name}", "also before the garbage collector came by"
    stored = Stored(new, revision())
    clear_up(stored)
    (job,) = stored.children("Job", "", "")
    assert "Job" in _earlier(new, job)
    pod = {"kind": "Pod", "metadata": {"name": "p", "labels": job["metadata"]["labels"]}, "status": {}}
    assert _earlier(new, ended(job)) == ""
    assert _earlier(new, ended(job), pod) == "Pod/p"
    assert _earlier(new, revision(owner="")) == "", "what was orphaned is nobody's"


def _earlier(*objects: Json) -> str:
    stored: Any = Stored(*objects)
    obs = observe(stored, NAMESPACE, NAME, NOW)
    assert obs is not None
    return obs.earlier


def test_a_revision_is_let_go_only_while_its_index_stays() -> None:
    """The index was deleted after the pass had read it: the revision goes with it, and waits for the Job."""
    stored: Any = Stored(index_raw(index(DELETES)), revision())
    obs = observe(stored, NAMESPACE, NAME, NOW)
    assert obs is not None
    executor = Executor(stored, Silent(), SETTINGS, obs)
    plan = run(obs)
    assert actions(plan, HoldRevision) == [HoldRevision(STABLE.name, "")]
    stored.objects = [one for one in stored.objects if one["kind"] != "VectorIndex"]
    with pytest.raises(ConflictError, match="was deleted"):
        executor._run(HoldRevision(STABLE.name, ""))
    assert stored.writes == []


def test_a_hold_keeps_the_finalizers_of_others_and_follows_a_status() -> None:
    stored: Any = Stored(index_raw(index(DELETES)), revision(deleted=False))
    obs = observe(stored, NAMESPACE, NAME, NOW)
    assert obs is not None
    executor = Executor(stored, Silent(), SETTINGS, obs)
    executor.write_status("VectorIndexRevision", STABLE.name, STABLE.status)
    assert executor._run(HoldRevision(STABLE.name, f"{FINALIZER}.next"))
    assert finalizers(stored) == ["others.example/keeps", f"{FINALIZER}.next"]
    executor.write_status("VectorIndexRevision", STABLE.name, STABLE.status)
