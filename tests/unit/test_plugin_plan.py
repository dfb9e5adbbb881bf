"""`kubectl vectorindex plan` says what the operator then does: each edit is planned, applied to the simulated cluster,
and what happened there is compared."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import yaml
from layers import CHECKOUT
from observations import NOW, a_revision, seen
from observations import spec as spec_of
from planned_edits import CASES, Case, Played, played
from record_objects import at_rest, building, objects, play, shadowing, soaking
from recorded import Json, Recorded
from simulator.world import edited

from vectorindex_operator.api.v1alpha1 import API_VERSION, VectorIndexSpec
from vectorindex_operator.core.observation import Observation
from vectorindex_plugin import estimate
from vectorindex_plugin.app import run
from vectorindex_plugin.applying import LAST_APPLIED, applied
from vectorindex_plugin.exits import Exit
from vectorindex_plugin.facts.plan import ROUTERS, SEARCHERS, of_edit
from vectorindex_plugin.planning import Effect, effects
from vectorindex_plugin.seen import look
from vectorindex_plugin.verbs.common import Session

QUICK = [case for case in CASES if case.quick]


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_what_is_planned_happens(case: Case) -> None:
    assert played(case) == Played(case.leads_to, case.leads_to)


def test_what_is_under_way_gives_way() -> None:
    for moment, factory, effect in (
        (soaking, "A", Effect.MOVE),
        (shadowing, "A", Effect.GIVE_UP),
        (building, "C", Effect.GIVE_UP),
    ):
        world = play(moment).world
        now, *there = objects(world)
        obs = look(Recorded(there, now["unix"]), "search", "products", now["unix"]).obs
        spec = VectorIndexSpec.model_validate(edited(world.spec, index__factory=factory))
        assert effect in {one.effect for one in effects(obs, spec, now["unix"])}


def test_what_waits_is_named() -> None:
    cluster = Recorded.at("at_rest")
    obs = look(cluster, "search", "products", cluster.now).obs
    waits = {}
    for path, value in (("rollout__soak__duration", "1h"), ("pinRevision", "products-00000000"), ("suspend", True)):
        spec = VectorIndexSpec.model_validate(edited(cluster.objects[0]["spec"], index__factory="B", **{path: value}))
        waits[path] = " ".join(one.message for one in effects(obs, spec, cluster.now) if one.effect is Effect.WAIT)
    assert "rollout: from the next rollout on" in waits["rollout__soak__duration"]
    assert waits["pinRevision"].startswith("PinnedRevisionNotFound") or "PinnedRevisionNotFound" in waits["pinRevision"]
    assert "nothing new begins" in waits["suspend"]


# ---------------------------------------------------------------- what it takes


def test_an_artifact_that_is_there_tells_what_its_pods_take() -> None:
    cluster = Recorded.at("at_rest")
    obs = look(cluster, "search", "products", cluster.now).obs
    spec = VectorIndexSpec.model_validate(edited(cluster.objects[0]["spec"], searcher__minScore=0.5))
    (need,) = of_edit(obs, spec, cluster.now).needs
    (running,) = (one for one in cluster.objects if one["kind"] == "Deployment")
    assert need.requests == running["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert need.limits == running["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert need.pods == 2


def test_a_build_without_room_is_seen_before_it_is_begun() -> None:
    cluster = Recorded.at("at_rest")
    obs = look(cluster, "search", "products", cluster.now).obs
    small = {"build__resources": {"limits": {"memory": "32Mi"}}, "index__factory": "IVF64,SQ8"}
    spec = VectorIndexSpec.model_validate(edited(cluster.objects[0]["spec"], **small))
    notes = {need.what: need.note for need in of_edit(obs, spec, cluster.now).needs}
    assert notes["Job: build"].startswith("too little memory")
    assert estimate.sizes("IVF64,SQ8", 10_000, 8) is not None


def at_rest_with(**edit: object) -> tuple[Observation, VectorIndexSpec, float]:
    """A recorded index at rest, an edit of it, and the time."""
    cluster = Recorded.at("at_rest")
    obs = look(cluster, "search", "products", cluster.now).obs
    return obs, VectorIndexSpec.model_validate(edited(cluster.objects[0]["spec"], **edit)), cluster.now


def test_an_index_in_shards_takes_searchers_of_each_and_routers() -> None:
    obs, spec, now = at_rest_with(index__shards=3, index__factory="IVF64,SQ8", build__parallelism=2)
    planned = of_edit(obs, spec, now)
    needs = {one.what: one for one in planned.needs}
    assert needs["Job: lay the rows of shards ready"].pods == 1
    assert needs["Job: build"].pods == 2
    assert (needs[SEARCHERS].pods, needs[ROUTERS].pods) == (6, 2)
    (whole,) = (one for one in of_edit(*at_rest_with(index__factory="IVF64,SQ8")).needs if one.what == SEARCHERS)
    assert whole.pods == 2
    said = {one.when: one.pods for one in planned.at_once}
    assert said["while both revisions are loaded"] == 2 + 6 + 2


@pytest.mark.parametrize(
    ("memory", "note", "pods"),
    [
        ("257Mi", "Auto comes to 2 shards of 257Mi with as many rows, metadata not counted", 4),
        ("256Mi", "10,000 rows as Flat do not fit 64 shards of 256Mi, or none can tell", 2),
    ],
)
def test_what_auto_comes_to_is_estimated(memory: str, note: str, pods: int) -> None:
    edit = at_rest_with(index__shards="Auto", index__factory="Flat", searcher__memoryPerShard=memory)
    planned = of_edit(*edit)
    assert note in planned.notes
    assert {one.what: one.pods for one in planned.needs}[SEARCHERS] == pods


def test_an_edit_of_what_routers_do_replaces_them_alone() -> None:
    of = spec_of(index={"shards": 3})
    stable = a_revision(of, "Stable")
    obs = seen(of, stable, traffic=stable)
    found = effects(obs, spec_of(index={"shards": 3}, searcher={"partial": "Allow"}), NOW)
    assert [(one.effect, one.message.partition(" are")[0]) for one in found] == [(Effect.RESTART, "its routers")]
    found = effects(obs, spec_of(index={"shards": 3}, searcher={"replicas": 3}), NOW)
    assert [(one.effect, one.message) for one in found] == [(Effect.SCALE, "8 pods become 12")]


def test_no_more_pods_are_there_at_once_than_was_said() -> None:
    """Searchers by what the operator then does in the simulated cluster."""
    world = play(at_rest).world
    now, *there = objects(world)
    obs = look(Recorded(there, now["unix"]), "search", "products", now["unix"]).obs
    spec = VectorIndexSpec.model_validate(edited(world.spec, index__factory="B", searcher__replicas=3))
    said = {one.when: one for one in of_edit(obs, spec, now["unix"]).at_once}
    world.apply(index__factory="B", searcher__replicas=3)
    most, building = 0, 0
    while world.now < now["unix"] + 240:
        world.clock.step()
        kinds = [one for one in objects(world)[1:] if one["kind"] in ("Deployment", "Job")]
        searchers = sum(one["spec"]["replicas"] for one in kinds if one["kind"] == "Deployment")
        most = max(most, searchers)
        building = max(building, searchers + sum(one.get("status", {}).get("active", 0) for one in kinds))
    assert (said["while both revisions are loaded"].pods, said["while a Job runs"].pods) == (6, 4)
    assert (most, building) == (6, 6)


def test_a_moment_has_the_sums_of_all_pods() -> None:
    obs, spec, now = at_rest_with(searcher__replicas=5, searcher__resources={"limits": {"cpu": "1500m"}})
    (one,) = of_edit(obs, spec, now).at_once
    (pod,) = obs.objects["Deployment", obs.traffic.revision]["spec"]["template"]["spec"]["containers"]
    assert (one.when, one.pods) == ("while pods are replaced", 6)
    assert one.requests["cpu"] == one.limits["cpu"] == "9", "a limit alone is the request, too"
    assert one.requests["memory"] == f"{6 * int(pod['resources']['requests']['memory'][:-2])}Mi"


@pytest.mark.parametrize(
    ("hard", "used", "lacks"),
    [
        (
            {"requests.memory": "4Gi", "pods": "4", "count/jobs.batch": "0"},
            {"requests.memory": "768Mi", "pods": "2"},
            [],
        ),
        ({"requests.memory": "1Gi"}, {"requests.memory": "768Mi"}, ["requests.memory: 768Mi more are needed than now"]),
        ({"memory": "1536Mi"}, {"memory": "768Mi"}, []),
        (
            {"memory": "1535Mi"},
            {"memory": "768Mi"},
            ["memory: 768Mi more are needed than now, and 767Mi left, while b"],
        ),
        ({"pods": "3"}, {"pods": "2"}, ["pods: 2 more are needed than now, and 1 left, while both revisions are loa"]),
        ({"pods": "1"}, {"pods": "2"}, ["pods: 2 more are needed than now, and 0 left, while both revisions are loa"]),
        ({"limits.cpu": "64"}, {}, ["limits.cpu is counted: pods that name none"]),
        ({"limits.memory": "1e3"}, {}, []),
    ],
)
def test_a_quota_has_room_or_it_is_said_for_what_not(
    hard: dict[str, str], used: dict[str, str], lacks: list[str]
) -> None:
    obs, spec, now = at_rest_with(searcher__minScore=0.5)
    quota = {"metadata": {"name": "compute"}, "spec": {"hard": hard}, "status": {"hard": hard, "used": used}}
    scoped = {**quota, "spec": {"hard": hard, "scopes": ["Terminating"]}}
    (found,) = of_edit(obs, spec, now, [scoped, quota]).quotas
    assert [words[: len(start)] for words, start in zip(found.lacks, lacks, strict=True)] == lacks


def test_who_may_not_read_quotas_is_told(tmp_path: Path) -> None:
    cluster, path = Recorded.at("at_rest"), tmp_path / "one.yaml"
    cluster.refused = frozenset({"ResourceQuota"})
    _, (one,) = plan(cluster, path, manifest(edited(cluster.objects[0]["spec"], searcher__minScore=0.5)))
    assert one["quotas"] == []
    assert "ResourceQuotas may not be read: whether there is room is not known" in one["notes"]


# ---------------------------------------------------------------- manifests


def plan(cluster: Recorded, path: Path, manifest: Json) -> tuple[int, list[Json]]:
    path.write_text(yaml.safe_dump(manifest), encoding="utf-8")
    session = Session(cluster, "search", "json", lambda: cluster.now)
    with redirect_stdout(io.StringIO()) as out:
        status = run(["plan", str(path), "-o", "json"], session)
    return status, json.loads(out.getvalue() or "[]")


def manifest(spec: Json, name: str = "products") -> Json:
    return {"apiVersion": API_VERSION, "kind": "VectorIndex", "metadata": {"name": name}, "spec": spec}


def test_a_file_against_the_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster, path = Recorded.at("at_rest"), tmp_path / "one.yaml"
    spec = cluster.objects[0]["spec"]
    status, (same,) = plan(cluster, path, manifest(spec))
    assert (status, same["effects"], same["changes"]) == (Exit.DONE, [], [])
    _, (more,) = plan(cluster, path, manifest(edited(spec, searcher__replicas=5)))
    assert [one["effect"] for one in more["effects"]] == ["Scale"]
    assert more["changes"] == ["spec.searcher.replicas"]
    _, (new,) = plan(cluster, path, manifest(spec, "other"))
    assert new["new"]
    assert [one["effect"] for one in new["effects"]] == ["List", "Build", "Prove", "RollOut"]
    assert plan(cluster, path, manifest(edited(spec, embedding__metric="L2")))[0] == Exit.REFUSED
    assert "another embedding is another VectorIndex" in capsys.readouterr().err
    assert plan(cluster, path, manifest(edited(spec, gate__k=0)))[0] == Exit.REFUSED
    assert plan(cluster, path, {"kind": "Secret"})[0] == Exit.NOT_FOUND


def test_an_apply_leaves_what_the_manifest_never_named() -> None:
    live = {"spec": {"history": 5, "searcher": {"replicas": 7, "minScore": 0.1}, "segments": [{"name": "a"}]}}
    wanted = {"spec": {"segments": [{"name": "b"}], "searcher": {"minScore": 0.2}}}
    assert applied(live, wanted)["searcher"] == {"replicas": 7, "minScore": 0.2}
    said = {
        "metadata": {"annotations": {LAST_APPLIED: json.dumps({"spec": {"history": 5, "searcher": {"replicas": 7}}})}}
    }
    assert applied(live | said, wanted) == {"searcher": {"minScore": 0.2}, "segments": [{"name": "b"}]}
    assert applied(live, {"spec": {"history": None}})["searcher"] == live["spec"]["searcher"]
    assert "history" not in applied(live, {"spec": {"history": None}})


def test_the_page_describes_each_effect() -> None:
    page = (CHECKOUT / "docs" / "plugin.md").read_text(encoding="utf-8")
    assert all(f"| {effect.value} | " in page for effect in Effect)


def test_the_page_shows_a_plan_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    cluster, path = Recorded.at("at_rest"), tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump(manifest(edited(cluster.objects[0]["spec"], index__factory="IVF64,SQ8"))))
    with redirect_stdout(io.StringIO()) as out:
        run(["plan", str(path)], Session(cluster, "search", "screen", lambda: cluster.now))
    text = "\n".join(line.rstrip() for line in out.getvalue().splitlines())
    assert text in (CHECKOUT / "docs" / "plugin.md").read_text(encoding="utf-8")
