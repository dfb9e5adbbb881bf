"""The chart and an index in Git, deployed by Argo CD, with the operator at work and users who ask all the time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from e2e.vectors import Corpus
from e2e.workspace import no_failures
from gitops_cluster.conftest import good
from gitops_cluster.rollback import ARGO_CD, roll_back
from gitops_cluster.site import Index, Site
from gitops_cluster.writes import Recorder

from harness.vix import unix

pytestmark = pytest.mark.timeout(900)
COARSE = {"index": {"factory": "PQ4x4"}}
"""Recall@10 of about 0.2, which no search parameter mends."""
ENDLESS = {"rollout": {"soak": {"minQueries": 1_000_000}, "keepPrior": "10m"}}
"""Nothing but a word ends its soak, and then what was stable stays loaded."""
SELF_HEAL = f"{ARGO_CD}controller"
WATCHED_SECONDS = 20.0
STILL_SECONDS = 8.0


def test_a_commit_is_rolled_out_without_a_failed_query(index: Index, corpus: Corpus) -> None:
    space, first = index.space, index.handle.traffic()
    space.put("better", corpus.moved())
    with space.traffic(corpus) as traffic:
        index.push(space.manifest("better"))
        index.site.synced(index.name, "Progressing")
        message = index.becomes("Healthy")
        second = index.handle.traffic()
        seen = traffic.wait_answers(second)
    no_failures(seen, at_least=1000)
    assert second != first
    assert re.search(r"recall [01]\.\d+, 1/1 pods ready", message), message
    assert space.built() == {first: 1, second: 1}


def test_what_a_guardrail_takes_back_is_degraded_and_self_heal_leaves_it(index: Index, corpus: Corpus) -> None:
    space, first = index.space, index.handle.traffic()
    with space.traffic(corpus) as traffic:
        story = roll_back(index, corpus, "bad", WATCHED_SECONDS)
        work, syncs = space.work(), index.syncs()
        index.push(space.manifest(good(index)))
        index.becomes("Healthy", 120)
        seen = traffic.snapshot()
    print(f"Argo CD said: {story.message}")
    no_failures(seen, at_least=1000)
    assert "zero-results" in story.message
    assert re.search(r"\d+(\.\d+)? ?%", story.message), story.message
    assert story.syncs == 0
    assert story.selfheal_writes == 0, [str(one) for one in story.changes]
    assert story.changes, "the operator wrote meanwhile, so writes are seen"
    assert index.syncs() == syncs + 1, "Git went back"
    assert index.handle.traffic() == first
    assert space.work() == work, "nothing is built or measured for the way back"
    assert space.built() == {first: 1, story.revision: 1}


def test_what_the_gate_rejects_is_degraded_and_a_retry_by_argo_cd_judges_it_again(index: Index) -> None:
    space, handle = index.space, index.handle
    first, before = handle.traffic(), space.lives(handle.traffic())
    index.push(space.manifest(good(index), **COARSE))
    message = index.becomes("Degraded")
    assert "the limit is 0.95" in message
    assert "retry" in index.offered()

    coarse = handle.wait_new_revision({first})
    said = index.act("retry")
    assert said["result"] == "Done", said
    judged = unix(said["at"])
    handle.wait(lambda: unix(handle.revision(coarse)["phaseTimes"]["Rejected"]) >= judged, 120, "to be judged again")
    assert "the limit is 0.95" in index.becomes("Degraded")

    argo, applied = index.site.argo, index.site.argo.applied()
    with Recorder(argo.plane.api, (space.namespace,)) as recorder:
        handle.patch({"spec": {"build": {"retries": 7}}})
        argo.refresh(index.name)
        argo.wait("self-heal", lambda: handle.get()["spec"]["build"]["retries"] == 0, name=index.name)
        changes = recorder.stop()
    assert sum(one.by == (SELF_HEAL,) for one in changes) == 1, "a write by Argo CD is seen where there is one"
    argo.wait("its end", lambda: (argo.applied() - applied).keys() >= {"kubectl_exec apply", f"app_sync {index.name}"})
    index.push(space.manifest(good(index)))
    index.becomes("Healthy", 60)
    assert (handle.traffic(), space.lives(first)) == (first, before)


def test_actions_are_obeyed_by_the_operator_and_self_heal_leaves_them(index: Index, corpus: Corpus) -> None:
    space, handle, first = index.space, index.handle, index.handle.traffic()
    space.put("other", corpus.moved(seed=5))
    with space.traffic(corpus) as traffic:
        index.push(space.manifest("other", **ENDLESS))
        second = handle.wait_new_revision({first})
        assert index.act("pause")["result"] == "Done"
        assert f"{second} is held" in index.becomes("Suspended", 180)
        space.hold(lambda: (handle.revision(second)["phase"], handle.traffic()), STILL_SECONDS, "it is not loaded")
        syncs = index.syncs()

        assert index.act("resume")["result"] == "Done"
        handle.wait_revision(second, "Soaking")
        traffic.wait_answers(second)
        assert index.act("promote")["result"] == "Done"
        handle.wait_revision(second, "Stable")
        index.becomes("Healthy", 60)

        assert index.act("rollback")["result"] == "Done"
        handle.wait(lambda: handle.traffic() == first, 60, "the traffic to go back")
        assert "RolledBack" in index.becomes("Degraded", 60)
        assert index.act("retry")["result"] == "Done"
        space.wait_phase(second, "Soaking", timeout=120)
        seen = traffic.snapshot()
    no_failures(seen, at_least=1000)
    assert index.site.argo.states(index.name)[0] == "Synced"
    assert index.syncs() == syncs
    marks = {f"vectorindex.dev/{action}" for action in ("pause", "resume", "promote", "rollback", "retry")}
    assert marks <= handle.get()["metadata"]["annotations"].keys()
    assert space.built() == {first: 1, second: 1}


def test_another_chart_in_git_restarts_the_operator_and_no_searcher(site: Site, index: Index, corpus: Corpus) -> None:
    space, handle = index.space, index.handle
    first = handle.traffic()
    before = space.lives(first)

    def other_values(chart: Path) -> None:
        values = chart / "values.yaml"
        text = values.read_text(encoding="utf-8")
        assert text.count("relistSeconds: 120") == 1
        values.write_text(text.replace("relistSeconds: 120", "relistSeconds: 60"), encoding="utf-8")

    with space.traffic(corpus) as traffic:
        site.upgrade_chart(other_values)
        index.push(space.manifest(good(index), history=5))
        handle.wait(
            lambda: handle.status()["observedGeneration"] == index.generation(), 120, "the new operator to look"
        )
        index.becomes("Healthy", 120)
        seen = traffic.snapshot()
    no_failures(seen, at_least=500)
    assert (handle.traffic(), set(handle.revisions()), space.lives(first)) == (first, {first}, before)
    assert space.built() == {first: 1}


def test_artifacts_go_with_the_application_where_the_manifest_says_so(index: Index) -> None:
    """Argo CD waits for the Job that removes them, as it waits for all that has a finalizer."""
    space = index.space
    index.push(space.manifest(good(index), artifacts={"deletionPolicy": "Delete"}))
    index.handle.wait(
        lambda: all("finalizers" in one["metadata"] for one in index.handle.revisions().values()), 60, "its finalizers"
    )
    assert space.stored(index.name)
    index.delete()
    assert space.stored(index.name) == set()
    assert index.handle.revisions() == {}


def test_the_operator_goes_with_its_application_and_the_crds_stay(site: Site) -> None:
    """Last: nobody is at work after it."""
    kube, system = site.space.kube, site.operator.namespace
    site.argo.delete(site.name, 120)
    owned = ("Deployment", "ServiceAccount", "Role", "RoleBinding", "PodDisruptionBudget", "Service")
    ours = {kind: [one["metadata"]["name"] for one in kube.list(kind, system)] for kind in owned}
    assert ours == {kind: ["default"] if kind == "ServiceAccount" else [] for kind in owned}
    roles = [one["metadata"]["name"] for one in kube.list("ClusterRole")]
    assert not [name for name in roles if name.startswith(site.name)]
    assert kube.get("CustomResourceDefinition", "vectorindexes.vectorindex.dev") is not None
