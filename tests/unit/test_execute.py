"""What becomes of a plan: writes, what is refused, what is put back, and what is said about it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from observations import NEW_DATA, NOW, SETTINGS, a_revision, index, source, spec
from raw_objects import (
    NAME,
    NAMESPACE,
    Raw,
    Silent,
    Stored,
    deployment_raw,
    ended,
    front_raw,
    index_raw,
    job_raw,
    revision_raw,
    searcher_pod,
    slice_raw,
)

from vectorindex_operator.api.v1alpha1 import GROUP, Condition, Rejection, VectorIndexStatus
from vectorindex_operator.core.events import Event, EventReason
from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile import raw
from vectorindex_operator.reconcile.drift import marked
from vectorindex_operator.reconcile.errors import ConflictError, RefusedError, ReportedError, UnreachableError
from vectorindex_operator.reconcile.loop import Reconciler
from vectorindex_searcher.contract import ExitCode, Failure, Identity, ResolveTask

OF = spec()
STABLE = a_revision(OF, "Stable")
SOAKING = a_revision(spec(index={"factory": "Flat"}), "Soaking")
QUOTA = RefusedError("403 Forbidden: exceeded quota: count, used: 7, limited: 7")
SAID = (Condition(type="Ready", status="True", reason="Serving", last_transition_time="2026-11-20T12:00:00Z"),)
FOREIGN = [{"kind": "Deployment", "name": "x", "uid": "uid-other", "controller": True}]


class Told:
    """An Event sink."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def send(self, regarding: Raw, event: Event) -> None:
        self.events.append(event)

    def of(self, reason: EventReason) -> list[str]:
        return [event.message for event in self.events if event.reason is reason]


class World:
    """A cluster with a Reconciler on it."""

    def __init__(self, *objects: Raw, **refuse: Any) -> None:
        self.cluster, self.told, self.now = Stored(*deepcopy(list(objects)), **refuse), Told(), NOW
        port: Any = self.cluster
        self.reconciler = Reconciler(port, Silent(), self.told, SETTINGS, clock=lambda: self.now)

    def run(self) -> None:
        self.cluster.writes.clear()
        self.told.events.clear()
        self.reconciler.run(NAMESPACE, NAME)

    def settle(self) -> World:
        """Passes until nothing is written any more."""
        for _ in range(8):
            self.run()
            if not self.cluster.writes:
                return self
        raise AssertionError(f"no rest: {self.cluster.writes}")

    def object(self, kind: str, name: str) -> Raw:
        found = self.cluster.get(kind, NAMESPACE, name)
        assert found is not None
        return found

    def change(self, kind: str, name: str, **fields: Any) -> None:
        self.object(kind, name).update(fields)

    @property
    def blocked(self) -> list[tuple[str, str]]:
        return [(row["rule"], row["subject"]) for row in self.object("VectorIndex", NAME)["status"]["blockedBy"]]

    @property
    def phases(self) -> dict[str, str]:
        revisions = self.cluster.children("VectorIndexRevision", NAMESPACE, "")
        return {raw.name(one): one.get("status", {}).get("phase", "") for one in revisions}

    @property
    def answers(self) -> list[tuple[str, str]]:
        """Verb and result of what was asked for."""
        return [(row["verb"], row["result"]) for row in self.object("VectorIndex", NAME)["status"].get("verbs", ())]

    def ready(self) -> tuple[str, str]:
        conditions = self.object("VectorIndex", NAME)["status"]["conditions"]
        return next((one["status"], one["reason"]) for one in conditions if one["type"] == "Ready")

    def serving(self) -> str:
        return str(self.object("Service", NAME)["spec"]["selector"][labels.REVISION])


def quiet(**refuse: Any) -> World:
    """Stable serves, and is what the spec and the data ask for."""
    view = index(OF, VectorIndexStatus(source=source(OF), conditions=SAID))
    mine = [searcher_pod(STABLE, number) for number in range(2)]
    front = front_raw(STABLE)
    return World(
        index_raw(view), front, revision_raw(STABLE), deployment_raw(STABLE), *mine, slice_raw(STABLE), **refuse
    )


def tripped(*more: Raw, **refuse: Any) -> World:
    """The soaking revision has tripped, and stable is ready: the traffic goes back."""
    bad = revision_raw(SOAKING)
    trip = {"rule": "errors", "reason": "ErrorRate", "message": "9 %", "at": "2026-11-20T12:00:00Z"}
    bad["status"]["rollout"] |= {"trip": trip, "prior": STABLE.name}
    view = index(OF, VectorIndexStatus(source=source(OF, NEW_DATA), conditions=SAID))
    pods = [searcher_pod(one, number) for one in (STABLE, SOAKING) for number in range(2)]
    pods.append(slice_raw(SOAKING))
    deployments = [deployment_raw(one) for one in (STABLE, SOAKING)]
    return World(index_raw(view), front_raw(SOAKING), revision_raw(STABLE), bad, *deployments, *pods, *more, **refuse)


# ---------------------------------------------------------------- refused writes


@pytest.mark.parametrize("kind", ["Deployment", "PodDisruptionBudget"])
def test_a_refused_write_is_said_and_stops_no_rollback(kind: str) -> None:
    world = tripped(refuse={(verb, kind): QUOTA for verb in ("apply", "create")})
    with pytest.raises(ReportedError, match="exceeded quota"):
        world.run()
    assert (world.serving(), world.phases[SOAKING.name]) == (STABLE.name, "RolledBack")
    assert ("WriteRefused", f"{kind}/{STABLE.name}") in world.blocked
    (row, *_) = world.object("VectorIndex", NAME)["status"]["blockedBy"]
    assert row["message"] == str(QUOTA)
    assert f"{kind}/{STABLE.name}: {QUOTA}" in world.told.of(EventReason.WRITE_REFUSED)


def test_it_is_told_once_and_written_once_whatever_numbers_the_server_names() -> None:
    world = quiet(refuse={("apply", "PodDisruptionBudget"): QUOTA})
    with pytest.raises(ReportedError) as first:
        world.run()
    assert world.told.of(EventReason.WRITE_REFUSED)
    assert first.value.look_after > 0
    world.cluster.refuse["apply", "PodDisruptionBudget"] = RefusedError("403 Forbidden: exceeded quota: used: 8")
    with pytest.raises(ReportedError):
        world.run()
    assert (world.told.of(EventReason.WRITE_REFUSED), world.cluster.writes) == ([], [])
    world.cluster.refuse.clear()
    world.run()
    assert ("WriteRefused", f"PodDisruptionBudget/{STABLE.name}") not in world.blocked


def test_the_traffic_that_cannot_be_moved_is_not_recorded_as_moved() -> None:
    world = tripped(refuse={("merge", "Service"): QUOTA})
    with pytest.raises(ReportedError):
        world.run()
    assert (world.serving(), world.phases[SOAKING.name]) == (SOAKING.name, "Soaking")
    assert world.blocked == [("WriteRefused", f"Service/{NAME}")]
    assert not [write for write in world.cluster.writes if write[0] == "delete"]
    world.cluster.refuse.clear()
    world.run()
    assert (world.serving(), world.phases[SOAKING.name]) == (STABLE.name, "RolledBack")


def test_a_revision_that_cannot_be_rendered_stops_no_rollback() -> None:
    world = tripped()
    for name in (STABLE.name, SOAKING.name):
        world.object("VectorIndexRevision", name)["spec"]["podTemplate"] = {"spec": None}
    with pytest.raises(ReportedError, match="cannot be rendered"):
        world.run()
    assert (world.serving(), world.phases[SOAKING.name]) == (STABLE.name, "RolledBack")
    assert ("InternalError", f"VectorIndex/{NAME}") in world.blocked


@pytest.mark.parametrize("hidden", [True, False], ids=["without our labels", "with our labels"])
def test_a_name_that_somebody_else_has_is_said_and_stops_no_rollback(hidden: bool) -> None:
    world = tripped()
    live = world.object("Deployment", STABLE.name)
    live["metadata"]["ownerReferences"] = FOREIGN
    before = deepcopy(live)
    if hidden:
        world.cluster.children = lambda kind, namespace, selector: [  # type: ignore[method-assign]
            one for one in world.cluster.objects if one["kind"] == kind and one is not live
        ]
    with pytest.raises(ReportedError, match="belongs to somebody else"):
        world.run()
    assert ("NameConflict", f"Deployment/{STABLE.name}") in world.blocked
    assert world.object("Deployment", STABLE.name) == before


def test_a_refused_status_keeps_nothing_from_being_done() -> None:
    world = tripped(refuse={("status", "VectorIndex"): QUOTA})
    with pytest.raises(RefusedError):
        world.run()
    assert (world.serving(), world.phases[SOAKING.name], world.told.events) == (STABLE.name, "RolledBack", [])


def test_what_could_not_be_recorded_is_no_ground_to_work_on() -> None:
    world = tripped(refuse={("status", "VectorIndexRevision"): QUOTA})
    with pytest.raises(ReportedError):
        world.run()
    assert world.serving() == STABLE.name
    assert [write for write in world.cluster.writes if write[0] in ("create", "delete")] == []


def cold(request: str) -> World:
    """A person asks for `request` while one revision serves; the one before it has no pods, another was rejected, or
    is on its way."""
    before, flat = a_revision(OF, "Superseded", data=NEW_DATA), spec(index={"factory": "Flat"})
    why = Rejection(stage="Rollout", reason="ErrorRate", message="30 %", at="2026-11-20T12:00:00Z")
    failed = a_revision(flat, "Validated") if request == "abort" else a_revision(flat, "RolledBack", rejected=why)
    of, serves = (OF, STABLE) if request == "rollback" else (flat, STABLE)
    view = index(of, VectorIndexStatus(source=source(of), conditions=SAID))
    asked = index_raw(view)
    asked["metadata"]["annotations"] = {f"{GROUP}/{request}": "n1"}
    objects = [front_raw(serves), deployment_raw(serves), slice_raw(serves), revision_raw(serves), revision_raw(before)]
    return World(asked, *objects, revision_raw(failed), *(searcher_pod(serves, number) for number in range(2)))


@pytest.mark.parametrize("request_", ["rollback", "retry", "abort"])
def test_a_request_that_could_not_be_recorded_is_not_answered(request_: str) -> None:
    """The answer consumes it: it was said to be done, and forgotten."""
    world = cold(request_)
    world.cluster.refuse["status", "VectorIndexRevision"] = QUOTA
    with pytest.raises(ReportedError):
        world.run()
    assert (world.answers, world.told.of(EventReason.COMMAND_DONE)) == ([], [])
    del world.cluster.refuse["status", "VectorIndexRevision"]
    world.run()
    assert world.answers == [(request_, "Done")]
    assert len(world.told.of(EventReason.COMMAND_DONE)) == 1


def test_a_listing_that_a_person_asked_for_is_not_answered_before_it_is_made() -> None:
    world = quiet(refuse={("create", "Job"): QUOTA})
    task = ResolveTask(
        identity=Identity(namespace=NAMESPACE, name=NAME), source=OF.source.s3.location(),
        artifacts=OF.artifacts.s3.location(),
    )  # fmt: skip
    nothing = Failure(reason="EmptySource", message="no object").model_dump_json(by_alias=True)
    world.cluster.objects += ended(job_raw(task), nothing, code=int(ExitCode.SOURCE_MISSING))
    world.run()
    world.object("VectorIndex", NAME)["metadata"]["annotations"] = {f"{GROUP}/retry": "n1"}
    with pytest.raises(ReportedError):
        world.run()
    assert world.answers == []
    world.cluster.refuse.clear()
    world.run()
    assert world.answers == [("retry", "Done")]


def test_a_quota_on_jobs_holds_up_no_answer_to_a_rollback() -> None:
    world = cold("rollback")
    world.cluster.refuse["create", "Job"] = QUOTA
    with pytest.raises(ReportedError):
        world.run()
    assert world.answers == [("rollback", "Done")]


def test_the_first_word_answers_nothing() -> None:
    """It is written before anything is done; whoever dies then has forgotten what it said was done."""
    world = cold("rollback")
    status = world.object("VectorIndex", NAME)["status"]
    world.change("VectorIndex", NAME, status={**status, "conditions": []})
    world.cluster.refuse["status", "VectorIndexRevision"] = UnreachableError("died")
    with pytest.raises(UnreachableError):
        world.run()
    assert (bool(world.object("VectorIndex", NAME)["status"]["conditions"]), world.answers) == (True, [])


def test_what_could_not_be_recorded_is_not_told() -> None:
    """It is decided and told again; while a webhook refused a promotion, each look told of one."""
    world = tripped(refuse={("status", "VectorIndexRevision"): QUOTA})
    with pytest.raises(ReportedError):
        world.run()
    assert (world.serving(), world.told.of(EventReason.ROLLED_BACK)) == (STABLE.name, [])
    world.cluster.refuse.clear()
    world.run()
    assert len(world.told.of(EventReason.ROLLED_BACK)) == 1


@pytest.mark.parametrize("error", [ConflictError("x"), UnreachableError("x")])
def test_a_conflict_or_silence_ends_the_pass(error: Exception) -> None:
    world = tripped(refuse={("merge", "Service"): error})
    with pytest.raises(type(error)):
        world.run()
    assert world.cluster.writes == []


def test_searchers_are_not_retired_when_the_traffic_came_to_them_meanwhile() -> None:
    old = a_revision(OF, "Superseded", data=NEW_DATA, lost_traffic_at="2026-11-20T12:00:00Z")
    world = quiet()
    world.cluster.objects += [revision_raw(old), deployment_raw(old)]
    get = world.cluster.get

    def moved(kind: str, namespace: str, name: str) -> Raw | None:
        found = get(kind, namespace, name)
        reads.append(kind)
        return front_raw(old) if kind == "Service" and reads.count("Service") > 1 else found

    reads: list[str] = []
    world.cluster.get = moved  # type: ignore[method-assign]
    with pytest.raises(ConflictError, match="about to be retired"):
        world.run()
    assert world.cluster.get("Deployment", NAMESPACE, old.name) is not None


# ---------------------------------------------------------------- what somebody else changed


def test_a_hand_made_change_is_undone_and_told_once_in_an_hour() -> None:
    world = quiet().settle()
    for number in range(3):
        live = world.object("Deployment", STABLE.name)
        live["spec"] = live["spec"] | {"replicas": 7 + number}
        world.run()
        assert world.object("Deployment", STABLE.name)["spec"]["replicas"] == 2
        told = world.told.of(EventReason.DRIFT_REPAIRED)
        if number == 0:
            (message,) = told
            assert f"Deployment/{STABLE.name}: spec.replicas" in message
        else:
            assert told == []
    world.now += 3601
    world.object("Deployment", STABLE.name)["spec"] |= {"replicas": 9}
    world.run()
    assert world.told.of(EventReason.DRIFT_REPAIRED)


def test_a_repair_is_of_the_very_object_that_was_looked_at() -> None:
    """It may be carried out late: what has the name by then, or nothing at all, is not to be ours again."""
    world = quiet().settle()
    sent: list[Raw] = []
    apply = world.cluster.apply

    def noted(manifest: Raw, *, force: bool = True) -> Raw:
        sent.append(manifest)
        return apply(manifest, force=force)

    world.cluster.apply = noted  # type: ignore[method-assign]
    live = world.object("Deployment", STABLE.name)
    live["spec"] = live["spec"] | {"replicas": 7}
    world.run()
    assert [one["metadata"].get("uid") for one in sent] == [live["metadata"]["uid"]]
    assert world.object("Deployment", STABLE.name)["metadata"]["uid"] == live["metadata"]["uid"]


def test_what_the_user_or_a_new_release_changes_is_no_hand_made_change() -> None:
    world = quiet().settle()
    live = world.object("VectorIndex", NAME)
    live["spec"] = spec(searcher={"replicas": 3}).wire()
    world.run()
    assert world.object("Deployment", STABLE.name)["spec"]["replicas"] == 3
    assert world.told.of(EventReason.DRIFT_REPAIRED) == []


def test_a_field_that_is_no_longer_rendered_is_applied_away() -> None:
    world = quiet()
    world.object("VectorIndex", NAME)["spec"] = spec(searcher={"resources": {"limits": {"cpu": "1"}}}).wire()
    world.settle()
    assert "cpu" in str(world.object("Deployment", STABLE.name)["spec"]["template"]["spec"]["containers"][0])
    world.object("VectorIndex", NAME)["spec"] = spec(searcher={"resources": {"limits": {}}}).wire()
    world.run()
    assert ("apply", f"Deployment/{STABLE.name}") in world.cluster.writes


def test_what_an_earlier_release_created_is_taken_over_before_it_is_applied() -> None:
    world = quiet()
    live = world.object("Deployment", STABLE.name)
    live["metadata"]["managedFields"] = [{"manager": "vectorindex-operator", "operation": "Update"}]
    world.run()
    subject = f"Deployment/{STABLE.name}"
    assert [verb for verb, of in world.cluster.writes if of == subject] == ["take over", "apply"]
    assert world.told.of(EventReason.DRIFT_REPAIRED) == []
    world.run()
    assert world.cluster.writes == []


FRONT: dict[str, Raw] = {
    "a foreign key": {"selector": {labels.COMPONENT: labels.SEARCHER, labels.REVISION: STABLE.name, "app": "web"}},
    "a missing key": {"selector": {labels.REVISION: STABLE.name}},
    "another port": {"ports": [{"name": "http", "port": 8080, "targetPort": "http", "protocol": "TCP"}]},
    "one port more": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]},
    "no ports": {"ports": []},
    "pods that are not ready": {"publishNotReadyAddresses": True},
}


@pytest.mark.parametrize("edit", FRONT.values(), ids=FRONT)
def test_selector_and_ports_of_the_front_service_are_exactly_ours(edit: Raw) -> None:
    world = quiet().settle()
    right = deepcopy(world.object("Service", NAME)["spec"])
    world.object("Service", NAME)["spec"] |= deepcopy(edit)
    world.run()
    assert world.object("Service", NAME)["spec"] == right
    (message,) = world.told.of(EventReason.DRIFT_REPAIRED)
    assert f"Service/{NAME}: spec." in message
    world.run()
    assert world.cluster.writes == []


def test_labels_of_the_front_service_are_put_back() -> None:
    """Without them nobody hears of its changes, nor of its endpoints."""
    world = quiet().settle()
    right = deepcopy(world.object("Service", NAME)["metadata"]["labels"])
    world.object("Service", NAME)["metadata"]["labels"] = {}
    world.run()
    assert world.object("Service", NAME)["metadata"]["labels"] == right


def test_a_port_of_somebody_else_with_our_name_does_not_stop_a_rollback() -> None:
    """Applied, ours would be added beside it, and two ports of one name are refused."""
    world = tripped()
    world.object("Service", NAME)["spec"]["ports"] = [{"name": "http", "port": 8080}]
    world.run()
    assert [port["port"] for port in world.object("Service", NAME)["spec"]["ports"]] == [80]
    assert world.serving() == STABLE.name


def test_a_job_that_lost_its_labels_is_said_and_not_made_again_and_again() -> None:
    """Without its label nobody can tell what it is for, and its result would be waited for in silence."""
    world = World(index_raw(index(OF, VectorIndexStatus()))).settle()
    (job,) = world.cluster.children("Job", NAMESPACE, "")
    del job["metadata"]["labels"][labels.VERB]
    with pytest.raises(ReportedError, match="delete it"):
        world.run()
    assert ("NameConflict", f"Job/{job['metadata']['name']}") in world.blocked
    assert len(world.cluster.children("Job", NAMESPACE, "")) == 1


@pytest.mark.parametrize("kind", ["Job", "VectorIndexRevision"])
def test_what_is_to_be_made_and_is_somebody_elses_is_said(kind: str) -> None:
    world = quiet()
    world.object("VectorIndex", NAME)["spec"] = spec(index={"factory": "PQ8"}).wire()
    if kind == "Job":
        world.object("VectorIndex", NAME)["spec"] = spec(source={"s3": {"bucket": "elsewhere"}}).wire()
    create = world.cluster.create
    made: list[Raw] = []

    def first_by_others(manifest: Raw) -> Raw | None:
        if manifest["kind"] != kind or made:
            return create(manifest)
        made.append(manifest)
        theirs = {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": FOREIGN}}
        create(theirs)
        return create(manifest)

    world.cluster.create = first_by_others  # type: ignore[method-assign]
    with pytest.raises(ReportedError, match="belongs to somebody else"):
        world.run()
    assert [rule for rule, subject in world.blocked if subject.startswith(kind)] == ["NameConflict"]


def test_a_manifest_has_the_same_mark_until_it_changes() -> None:
    one, other = deployment_raw(STABLE), deployment_raw(STABLE, replicas=3)
    assert marked(one) == marked(deepcopy(one))
    assert raw.annotation(marked(one), labels.RENDERED) != raw.annotation(marked(other), labels.RENDERED)


@pytest.mark.parametrize("conditions", [{"ready": False}, None], ids=["none is ready", "there is none"])
def test_pods_that_nobody_reaches_are_not_ready(conditions: Raw | None) -> None:
    world = quiet().settle()
    assert world.ready() == ("True", "Serving")
    old = world.object("EndpointSlice", f"{NAME}-x7k")
    rows = [row | {"conditions": conditions} for row in old["endpoints"]] if conditions else []
    old["endpoints"] = rows
    world.run()
    assert world.ready() == ("False", "NoEndpoints")
    old["endpoints"] = slice_raw(STABLE)["endpoints"]
    world.run()
    assert world.ready() == ("True", "Serving")
