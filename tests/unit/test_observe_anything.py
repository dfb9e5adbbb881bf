"""Whatever stands in the objects of one index, its pass goes on: nothing raises, and the status can be stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from observations import NEW_DATA, NOW, a_revision, actions, built, index, resolved, run, source, spec
from raw_objects import (
    Raw,
    deployment_raw,
    ended,
    front_raw,
    index_raw,
    job_raw,
    look,
    revision_raw,
    searcher_pod,
    slice_raw,
)

from vectorindex_operator.api.v1alpha1 import RuleVerdict, VectorIndexStatus
from vectorindex_operator.core.judging.baseline import freeze_baseline
from vectorindex_operator.core.judging.evidence import merge
from vectorindex_operator.core.plan import DeleteSearchers, MoveTraffic, WriteRevisionStatus
from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile import pods
from vectorindex_searcher.contract import BuildTask, Device, Identity, ResolveTask

OF = spec()
STABLE, NEXT = a_revision(OF, "Stable"), a_revision(OF, "Building", data=NEW_DATA)
SOAKING = a_revision(spec(index={"factory": "Flat"}), "Soaking")
WHO = Identity(namespace="team-a", name="docs", uid="uid-docs")
RESOLVE = ResolveTask(
    identity=WHO, source=OF.source.s3.location(), columns=OF.source.columns, embedding=OF.embedding,
    artifacts=OF.artifacts.s3.location(),
)  # fmt: skip
BUILD = BuildTask(
    identity=WHO, digest=NEXT.spec.digest, fingerprint=NEW_DATA, attempt="build-1", source=OF.source.s3.location(),
    columns=OF.source.columns, embedding=OF.embedding, index=OF.index, artifacts=OF.artifacts.s3.location(),
    device=Device.CPU,
)  # fmt: skip


def a_world() -> list[Raw]:
    """Stable and a soaking candidate are loaded, the next revision has been built, the source listed."""
    world = [
        index_raw(index(OF, VectorIndexStatus(source=source(OF, NEW_DATA)))),
        front_raw(SOAKING),
        *(revision_raw(one) for one in (STABLE, SOAKING, NEXT)),
        *(deployment_raw(one) for one in (STABLE, SOAKING)),
        *(searcher_pod(one, number) for one in (STABLE, SOAKING) for number in range(2)),
        *ended(job_raw(RESOLVE), resolved(NEW_DATA).model_dump_json(by_alias=True)),
        *ended(job_raw(BUILD, NEXT), built(NEXT.spec.digest).model_dump_json(by_alias=True)),
        slice_raw(SOAKING),
    ]
    verdict = RuleVerdict(
        rule="errors", metric="ErrorRate", verdict="Pass", reason="Pass", value=0.01, limit=0.02, samples=900,
        at="2026-11-20T12:00:00Z",
    )  # fmt: skip
    baseline = freeze_baseline(merge((), NOW, revision=STABLE.name), NOW - 900, NOW).to_wire()
    world[3]["status"]["rollout"] |= {"verdicts": [verdict.wire()], "baseline": baseline, "prior": STABLE.name}
    return json.loads(json.dumps(world))  # type: ignore[no-any-return]


WORLD = a_world()


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from paths(part, (*at, key))


def is_fixed(path: tuple[Any, ...]) -> bool:
    """What the API server vouches for: a list holds objects of its kind, and the VectorIndex has its metadata."""
    return len(path) < 2 or path[1] in ("kind", "apiVersion") or (path[0] == 0 and path[1] == "metadata")


PATHS = [path for path in paths(WORLD) if not is_fixed(path)]
GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20)
    | st.sampled_from(["x" * 5000, "True", "-1", "9999-12-31T23:59:59Z", "2026-11-20", '{"kind": "Failure"}']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
GONE = object()


def changed(world: list[Raw], path: tuple[Any, ...], value: Any) -> list[Raw]:
    world = deepcopy(world)
    at: Any = world
    for part in path[:-1]:
        at = at[part]
    if value is GONE:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return world


def check(world: list[Raw]) -> None:
    plan = run(look(*world, now=NOW))
    assert plan.errors == ()
    json.dumps(plan.status.wire(), allow_nan=False)
    for condition in plan.status.conditions:
        assert len(condition.reason) <= 1024
        assert len(condition.message) <= 32768


def test_the_world_as_it_is_gives_a_plan_with_work() -> None:
    plan = run(look(*WORLD, now=NOW))
    assert plan.errors == ()
    assert len(look(*WORLD, now=NOW).jobs) == 2
    assert plan.safe


@pytest.mark.parametrize("number", range(len(WORLD)), ids=[f"{one['kind']}-{at}" for at, one in enumerate(WORLD)])
def test_any_one_thing_may_be_missing(number: int) -> None:
    for path in (path for path in PATHS if path[0] == number):
        check(changed(WORLD, path, GONE))


@settings(max_examples=400)
@given(st.lists(st.tuples(st.sampled_from(PATHS), GARBAGE), min_size=1, max_size=3))
def test_any_few_things_may_be_anything(edits: list[tuple[tuple[Any, ...], Any]]) -> None:
    world = WORLD
    for path, value in edits:
        try:
            world = changed(world, path, value)
        except (KeyError, TypeError, IndexError):
            continue  # an earlier edit took the place away
    check(world)


# ---------------------------------------------------------------- what once switched rollback off


def a_tripped_world(*more: Raw) -> list[Raw]:
    """The soaking revision has tripped, stable is ready: every pass must go back."""
    world = deepcopy(WORLD)
    trip = {"rule": "errors", "reason": "ErrorRate", "message": "9 %", "at": "2026-11-20T12:00:00Z"}
    world[3]["status"]["rollout"] |= {"trip": trip, "prior": STABLE.name}
    return [*world, *more]


def with_meta(raw: Raw, **meta: Any) -> Raw:
    return raw | {"metadata": raw["metadata"] | meta}


FOREIGN = [{"kind": "Deployment", "name": "x", "uid": "uid-other", "controller": True}]
OURS_BUT_NOT_MANAGED = [{"kind": "VectorIndex", "name": "docs", "uid": "uid-docs"}]
NO_VERB = {**WORLD[9]["metadata"]["labels"]}
NO_VERB.pop(labels.VERB, None)
IN_THE_WAY: dict[str, Raw] = {
    "a foreign Deployment": with_meta(deployment_raw(STABLE), name="web", ownerReferences=FOREIGN),
    "a Deployment of nobody": with_meta(deployment_raw(STABLE), name="web", ownerReferences=[]),
    "a Deployment that only goes along": with_meta(
        deployment_raw(STABLE), name="web", ownerReferences=OURS_BUT_NOT_MANAGED
    ),
    "a foreign Job": with_meta(job_raw(BUILD, NEXT, "other"), ownerReferences=FOREIGN),
    "a Job without a verb": with_meta(job_raw(BUILD, NEXT, "bare"), labels={labels.INDEX: "docs"}),
    "a Job whose numbers are none": with_meta(job_raw(BUILD, NEXT, "odd"), annotations={labels.FAILURES: "many"}),
    "a pod of nobody": with_meta(searcher_pod(STABLE), name="stray", ownerReferences=[]),
}


@pytest.mark.parametrize("stranger", IN_THE_WAY.values(), ids=IN_THE_WAY)
def test_nothing_that_stands_around_stops_a_rollback(stranger: Raw) -> None:
    plan = run(look(*a_tripped_world(stranger), now=NOW))
    assert [move.decision.to_revision for move in actions(plan, MoveTraffic)] == [STABLE.name]
    assert (plan.errors, actions(plan, DeleteSearchers)) == ((), [])


@pytest.mark.parametrize("stranger", IN_THE_WAY.values(), ids=IN_THE_WAY)
def test_what_is_not_ours_is_not_seen(stranger: Raw) -> None:
    without, with_it = look(*WORLD, now=NOW), look(*WORLD, stranger, now=NOW)
    assert with_it.loaded == without.loaded
    if "odd" not in stranger["metadata"]["name"]:
        assert with_it.jobs == without.jobs


@pytest.mark.parametrize("reason", ["R" * 1100, "two words", "", "x\ny", "A" * 64])
def test_a_reason_of_any_length_is_no_reason(reason: str) -> None:
    said = json.dumps({"kind": "Failure", "reason": reason, "message": "m" * 3000, "field": "f" * 3000})
    (_, job) = (one for one in WORLD if one["kind"] == "Job")
    world = [one for one in WORLD if not one["metadata"]["name"].startswith(job["metadata"]["name"])]
    plan = run(look(*world, *ended(job_raw(BUILD, NEXT), said, 65), now=NOW))
    assert plan.errors == ()
    (written,) = (a for a in actions(plan, WriteRevisionStatus) if a.revision == NEXT.name)
    failure = written.status.failure
    assert failure is not None
    assert (failure.reason, len(failure.message) < 2000) == ("Failed", True)


@pytest.mark.parametrize("value", ["1e999", "NaN", str(10**30), json.dumps("x" * 2000), f"[{'1,' * 1500}1]"])
def test_a_result_that_no_status_can_hold_is_none(value: str) -> None:
    text = built().model_dump_json(by_alias=True)[:-1] + f', "newField": {value}}}'
    assert pods.parse_termination_message(text) == (None, None)
