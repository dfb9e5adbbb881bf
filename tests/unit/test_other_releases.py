"""What another release of the operator, or a Job of it, wrote: read as far as it can be, and kept as it is."""

from __future__ import annotations

import json
import typing
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from observations import NEW_DATA, NOW, SETTINGS, a_revision, actions, built, index, run, seen, source, spec
from pydantic import ValidationError
from raw_objects import Raw, deployment_raw, front_raw, index_raw, look, revision_raw, searcher_pod, slice_raw

from vectorindex_operator.api.v1alpha1 import (
    STORES,
    GateStatus,
    Rejection,
    RevisionSpec,
    RevisionStatus,
    Rollout,
    RolloutStatus,
    Shadow,
    Soak,
    VectorIndexStatus,
    WorkFailure,
)
from vectorindex_operator.core import identity
from vectorindex_operator.core.lifecycle import decide
from vectorindex_operator.core.plan import (
    CreateRevision,
    DeleteSearchers,
    EnsureSearchers,
    ForgetRevision,
    MoveTraffic,
    StartBuild,
    StartValidation,
    WriteRevisionStatus,
)
from vectorindex_operator.manifests import jobs
from vectorindex_operator.reconcile import pods
from vectorindex_searcher.contract import (
    GCS,
    TASK_ENV,
    Azure,
    BuildResult,
    BuildTask,
    Columns,
    Location,
    Model,
    ResolveTask,
    ServeTask,
    Stored,
    ValidateTask,
    Volume,
)

AT = "2026-11-20T12:00:00Z"
WORK = StartBuild | StartValidation | CreateRevision
NEWER: dict[str, Raw] = {
    "a field of its own": {"shadow": {"pairs": 1200, "unpaired": [None, 3]}},
    "an unknown value": {"gate": {"verdict": "Undecided", "reason": "r", "message": "", "at": AT}},
    "another type": {"phaseTimes": {"Rejected": 17}},
    "another shape": {"rollout": {"kind": "of another world"}},
    "no time": {"promotedAt": "yesterday"},
}


def a_rejected_world(newer: Raw) -> list[Raw]:
    """Stable serves; the wanted revision is rejected. `newer`: what a newer release wrote into that one's status."""
    of = spec(source={"poll": "0"})
    hashes = {"gateHash": identity.gate_hash(of), "thresholdsHash": identity.thresholds_hash(of)}
    stable = a_revision(of, "Stable")
    failed = GateStatus(
        gate_hash=hashes["gateHash"], thresholds_hash=hashes["thresholdsHash"], verdict="Fail", reason="RecallBelowMin",
        message="recall 0.91", at=AT,
    )  # fmt: skip
    rejection = Rejection(stage="Gate", reason="RecallBelowMin", message="recall 0.91", at=AT)
    bad = a_revision(of, "Rejected", data=NEW_DATA, rejected=rejection, gate=failed)
    raw = revision_raw(bad)
    raw["status"] |= {key: value | hashes if key == "gate" else value for key, value in newer.items()}
    view = index(of, VectorIndexStatus(source=source(of, NEW_DATA)))
    mine = [searcher_pod(stable, number) for number in range(2)]
    return [index_raw(view), revision_raw(stable), raw, deployment_raw(stable), *mine]


@pytest.mark.parametrize("newer", NEWER.values(), ids=NEWER)
def test_a_status_of_a_newer_release_keeps_its_rejection_and_repeats_no_work(newer: Raw) -> None:
    world = a_rejected_world(newer)
    obs = look(*world, now=NOW)
    bad = next(r for r in obs.revisions.values() if r.spec.fingerprint == NEW_DATA)
    assert (bad.status.phase, bad.status.rejected is None, bad.status.build is None) == ("Rejected", False, False)
    plan = run(obs)
    assert [a for a in plan.actions if isinstance(a, WORK)] == []
    assert [a for a in actions(plan, WriteRevisionStatus) if a.revision == bad.name] == []


@pytest.mark.parametrize("newer", NEWER.values(), ids=NEWER)
def test_what_is_not_understood_is_written_back_as_it_was_found(newer: Raw) -> None:
    raw = a_rejected_world(newer)[2]["status"]
    status = RevisionStatus.read(raw)
    assert status.wire() == raw
    changed = status.model_copy(update={"message": "looked at"})
    assert changed.wire() == raw | {"message": "looked at"}
    assert RevisionStatus.read(changed.wire()) == changed


def test_what_this_release_sets_anew_replaces_what_it_could_not_read() -> None:
    status = RevisionStatus.read({"promotedAt": "yesterday", "rollout": 7, "new": 1})
    assert status.unread == {"promoted_at", "rollout"}
    changed = status.model_copy(update={"promoted_at": AT})
    assert changed.unread == {"rollout"}
    assert changed.wire() == RevisionStatus().wire() | {"promotedAt": AT, "rollout": 7, "new": 1}


def test_one_row_that_cannot_be_read_does_not_hide_the_others() -> None:
    good = {"rule": "errors", "metric": "ErrorRate", "verdict": "Fail", "reason": "r", "message": "", "at": AT}
    rows = [good | {"segment": "", "samples": 0}, {"rule": 3}, good | {"segment": "b", "samples": 1, "new": True}, "x"]
    raw = {"startedAt": AT, "gateHash": "g", "verdicts": rows}
    rollout = RevisionStatus.read({"rollout": raw}).rollout
    assert rollout is not None
    assert [v.segment for v in rollout.verdicts] == ["", "b"]
    assert rollout.unread == {"verdicts"}
    assert rollout.wire()["verdicts"] == rows


def test_a_rollout_from_before_there_were_shadows_has_the_settings_of_today() -> None:
    """Else every index would say after an upgrade that an edit of its `rollout` waits."""
    raw = {"startedAt": AT, "gateHash": "g", "settings": {"soak": {"duration": "1m"}}}
    rollout = RolloutStatus.read(raw)
    assert rollout.settings == Rollout(soak=Soak(duration="1m"), shadow=Shadow())
    wire = rollout.model_copy(update={"prior": "docs-1"}).wire()
    assert "shadow" not in wire["settings"], "or it would have one from the next pass on"  # type: ignore[operator]


def test_a_guardrail_of_a_newer_release_leaves_the_others_in_force_and_is_written_back() -> None:
    known = {"name": "errors", "metric": "ErrorRate", "max": "2%"}
    rules = [known | {"shadow": True}, {"name": "fairness", "metric": "Fairness", "max": "2%"}]
    raw = {"startedAt": AT, "gateHash": "g", "prior": "docs-1", "guardrails": {"rules": rules}}
    rollout = RevisionStatus.read({"rollout": raw}).rollout
    assert rollout is not None
    assert ([r.name for r in rollout.guardrails.rules], rollout.prior) == (["errors"], "docs-1")
    assert rollout.unread == {"guardrails"}
    tripped = rollout.model_copy(update={"prior": "docs-2"})
    assert tripped.wire()["guardrails"] == {"rules": rules}


def test_a_revision_is_not_promoted_past_a_guardrail_that_cannot_be_read() -> None:
    of = spec()
    old, new = a_revision(spec(index={"factory": "Flat"}), "Stable"), a_revision(of, "Soaking")
    raw = revision_raw(new)
    raw["status"]["rollout"] |= {"prior": old.name, "settings": {"soak": {"duration": "1s", "minQueries": 0}}}
    raw["status"]["rollout"]["guardrails"] = {"rules": []}
    view = index(of, VectorIndexStatus(source=source(of)))
    pods_of = [searcher_pod(one, number) for one in (old, new) for number in range(2)]
    mine = [revision_raw(old), deployment_raw(old), deployment_raw(new)]
    world = [index_raw(view), front_raw(new), slice_raw(new), *mine]
    known = run(look(*world, raw, *pods_of, now=NOW))
    raw["status"]["rollout"]["guardrails"] = {"rules": [{"name": "fair", "metric": "Fairness", "max": "2%"}]}
    unknown = run(look(*world, raw, *pods_of, now=NOW))
    assert [row.rule for row in known.status.blocked_by] == []
    assert [(row.rule, row.subject) for row in unknown.status.blocked_by] == [("ForeignRollout", new.name)]
    assert all(plan.errors == () for plan in (known, unknown))


def test_the_status_of_an_index_keeps_what_it_does_not_know() -> None:
    world = a_rejected_world({})
    world[0]["status"] |= {"claim": {"release": "9.0", "claimedAt": AT}, "conditions": "none"}
    plan = run(look(*world, now=NOW))
    wire = plan.status.wire()
    assert wire["claim"] == {"release": "9.0", "claimedAt": AT}
    assert isinstance(wire["conditions"], list)


def test_a_failure_of_an_unknown_stage_is_kept() -> None:
    raw = {"stage": "Distil", "key": "k", "count": 2, "at": AT, "reason": "R", "message": "m", "permanent": True}
    assert WorkFailure.read(raw).stage == "Distil"


def test_a_result_of_a_newer_image_is_read_and_kept() -> None:
    raw = built().wire() | {"device": "TPU", "sparse": [{"rows": 5}]}
    result, failure = pods.parse_termination_message(__import__("json").dumps(raw))
    assert failure is None
    assert isinstance(result, BuildResult)
    assert result.device == "TPU"
    assert RevisionStatus(build=result).wire()["build"] == raw


def test_our_own_code_is_held_to_the_model_as_before() -> None:
    with pytest.raises(ValidationError, match="bild"):
        RevisionStatus.model_validate({"bild": 1})
    with pytest.raises(ValidationError, match="promotedAt"):
        RevisionStatus.model_validate({"promotedAt": 7})


@pytest.mark.parametrize("raw", [None, 7, "x", [], [{}]])
def test_what_is_no_object_is_no_status(raw: Any) -> None:
    world = a_rejected_world({})
    world[0]["status"] = world[2]["status"] = raw
    assert look(*world, now=NOW).index.status == VectorIndexStatus()


def test_every_model_that_a_status_holds_may_have_been_written_by_another_release() -> None:
    """One that refuses unknown fields would make the whole status unreadable; spec models below it are set aside."""
    from vectorindex_operator.api import status
    from vectorindex_searcher.contract import Model

    own = [one for one in vars(status).values() if isinstance(one, type) and issubclass(one, Model)]
    assert [one.__name__ for one in own if one.__module__ == status.__name__ and not issubclass(one, Stored)] == []


# ---------------------------------------------------------------- what this release must leave as it is


def test_a_revision_says_what_this_release_does_not_know_of_it() -> None:
    raw = revision_raw(a_revision(spec(), "Stable"))
    raw["spec"] |= {"requires": ["sparse", "text"], "sparse": 4}
    raw["status"]["gate"] = 7
    world = [index_raw(index(spec())), raw]
    (view,) = look(*world, now=NOW).revisions.values()
    assert view.foreign_features == ("sparse", "text", "status.gate")


def test_an_unknown_field_without_a_feature_is_no_reason_to_leave_a_revision() -> None:
    raw = revision_raw(a_revision(spec(), "Stable"))
    raw["spec"] |= {"hint": "x", "indexSpec": raw["spec"]["indexSpec"] | {"hint": "x"}}
    (view,) = look(index_raw(index(spec())), raw, now=NOW).revisions.values()
    assert view.foreign_features == ()
    assert RevisionSpec.read(raw["spec"]).wire() == raw["spec"]


def test_a_revision_that_cannot_be_read_is_named() -> None:
    raw = revision_raw(a_revision(spec(), "Stable"))
    del raw["spec"]["digest"]
    obs = look(index_raw(index(spec())), raw, now=NOW)
    assert dict(obs.revisions) == {}
    assert list(obs.unreadable) == [raw["metadata"]["name"]]
    assert "spec.digest" in obs.unreadable[raw["metadata"]["name"]]


def makes_unreadable(raw: Raw) -> None:
    del raw["spec"]["digest"]


def makes_foreign(raw: Raw) -> None:
    raw["spec"]["requires"] = ["sparse"]


def makes_of_a_later_phase(raw: Raw) -> None:
    raw["status"]["phase"] = "Migrating"


LEFT = pytest.mark.parametrize("change", [makes_unreadable, makes_foreign, makes_of_a_later_phase])


@LEFT
def test_what_this_release_does_not_know_keeps_its_searchers_and_is_no_way_back(change: Callable[[Raw], None]) -> None:
    of = spec()
    older, bad = a_revision(of, "Stable"), a_revision(spec(index={"factory": "Flat"}), "Soaking")
    raw, tripped = revision_raw(older), revision_raw(bad)
    change(raw)
    trip = {"rule": "errors", "reason": "ErrorRate", "message": "9 %", "at": AT}
    tripped["status"]["rollout"] |= {"trip": trip, "prior": older.name}
    both = [one for view in (older, bad) for one in (deployment_raw(view), searcher_pod(view), searcher_pod(view, 1))]
    plan = run(look(index_raw(index(of)), front_raw(bad), slice_raw(bad), raw, tripped, *both, now=NOW))
    assert plan.errors == ()
    assert (actions(plan, DeleteSearchers), actions(plan, ForgetRevision), actions(plan, MoveTraffic)) == ([], [], [])
    touched = {one.revision for one in plan.safe if isinstance(one, (EnsureSearchers, WriteRevisionStatus))}
    assert older.name not in touched
    rows = {row.subject: row for row in plan.status.blocked_by}
    row = rows[f"VectorIndexRevision/{older.name}"]
    assert (row.rule, "Upgrade the operator" in row.message) == ("ForeignRevision", True)


@LEFT
def test_what_this_release_does_not_know_is_neither_built_nor_given_the_traffic(change: Callable[[Raw], None]) -> None:
    of = spec(source={"poll": "0"})
    stable, wanted = a_revision(of, "Stable"), a_revision(of, "Validated", data=NEW_DATA)
    raw = revision_raw(wanted)
    change(raw)
    view = index(of, VectorIndexStatus(source=source(of, NEW_DATA)))
    mine = [deployment_raw(stable), searcher_pod(stable), searcher_pod(stable, 1), slice_raw(stable)]
    plan = run(look(index_raw(view), front_raw(stable), revision_raw(stable), raw, *mine, now=NOW))
    assert plan.errors == ()
    assert [one for one in plan.actions if isinstance(one, (WORK, MoveTraffic, ForgetRevision))] == []
    assert plan.status.stable == stable.name


@LEFT
def test_what_this_release_does_not_know_serves_on(change: Callable[[Raw], None]) -> None:
    serving = a_revision(spec(), "Stable")
    raw = revision_raw(serving)
    change(raw)
    mine = [deployment_raw(serving), searcher_pod(serving), searcher_pod(serving, 1), slice_raw(serving)]
    plan = run(look(index_raw(index(spec())), front_raw(serving), raw, *mine, now=NOW))
    assert plan.errors == ()
    assert [one for one in plan.actions if isinstance(one, (DeleteSearchers, MoveTraffic, ForgetRevision))] == []
    assert next(c.status for c in plan.status.conditions if c.type == "Ready") == "True"


# ---------------------------------------------------------------- images of before

TASKS: tuple[type[Model], ...] = (ResolveTask, BuildTask, ValidateTask, ServeTask)
FIRST_RELEASE = json.loads((Path(__file__).parent / "golden" / "first-release-tasks.json").read_text())
"""What the images of the first release read of a task: fields by model, words by enum. Never to be changed."""


OTHER_STORES = {"azure": Azure, "gcs": GCS, "volume": Volume}
"""Kinds of store that came later. An image of before must refuse a place there, not be told of no place at all."""

NOT_WITHOUT: dict[type[Model], set[str]] = {Columns: {"text"}, BuildTask: {"encoder"}}
"""Fields that came later, and that an image of before must refuse where they are set: rows would be other ones."""


def models_of(kind: Any) -> Iterator[type[Model]]:
    """The models that a model is made of, and itself; of fields that came later none: who is older never gets them."""
    for inner in typing.get_args(kind):
        yield from models_of(inner)
    if kind in OTHER_STORES.values():
        return
    if isinstance(kind, type) and issubclass(kind, Model):
        yield kind
        for name, info in kind.model_fields.items():
            if name not in kind.later | NOT_WITHOUT.get(kind, set()):
                yield from models_of(info.annotation)


@pytest.mark.parametrize("model", sorted({m for task in TASKS for m in models_of(task)}, key=lambda m: m.__name__))
def test_a_field_that_is_added_to_a_task_says_so(model: type[Model]) -> None:
    """An image refuses what it does not know: a Job of a revision of before would fail for good."""
    known = set(FIRST_RELEASE[model.__name__])
    names = {name: info.alias or name for name, info in model.model_fields.items()}
    if model is Location:
        names = {name: alias for name, alias in names.items() if name not in OTHER_STORES}
    names = {name: alias for name, alias in names.items() if name not in NOT_WITHOUT.get(model, set())}
    assert {alias for name, alias in names.items() if name not in model.later} == known
    assert model.later <= names.keys()
    assert not any(model.model_fields[name].is_required() for name in model.later)


def test_the_kinds_of_store_that_came_later_are_all_but_the_first() -> None:
    assert OTHER_STORES.keys() == STORES.keys() - {"s3"}


def task_of(job: Raw) -> Raw:
    (one,) = job["spec"]["template"]["spec"]["containers"]
    return dict(json.loads(next(env["value"] for env in one["env"] if env["name"] == TASK_ENV)))


@pytest.mark.parametrize("image", ["example/searcher:of-before", SETTINGS.searcher_image])
def test_an_image_of_before_an_upgrade_is_sent_what_the_first_release_knew(image: str) -> None:
    of = spec(gate={"k": 37}, index={"effort": "High"}, artifacts={"s3": {"anonymous": True}})
    view = a_revision(of, "Pending", build=None)
    view = replace(view, spec=view.spec.model_copy(update={"image": image}))
    (start,) = actions(run(seen(of, view)), StartBuild)
    task = task_of(jobs.build(start, index(of), view, of, SETTINGS))
    later = (task.get("gateK"), task["index"].get("effort"), task["artifacts"]["s3"].get("anonymous"))
    assert later == ((37, "High", True) if image == SETTINGS.searcher_image else (None, None, None))
    assert "columns" not in task, "nor what is a default: whoever reads it has the same"


@pytest.mark.parametrize("image", ["example/searcher:of-before", SETTINGS.searcher_image])
def test_an_image_of_before_is_not_told_by_what_artifacts_are_marked(image: str) -> None:
    settings = replace(SETTINGS, cluster_uid="cluster-a")
    known = "cluster-a" if image == SETTINGS.searcher_image else None
    of = spec()
    pending, built = a_revision(of, "Pending", build=None), a_revision(of, "Validating")
    for one, kind, render in ((pending, StartBuild, jobs.build), (built, StartValidation, jobs.validate)):
        view = replace(one, spec=one.spec.model_copy(update={"image": image}))
        (start,) = actions(decide(seen(of, view), settings, NOW), kind)
        assert task_of(render(start, index(of), view, of, settings)).get("cluster") == known
