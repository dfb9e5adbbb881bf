"""What a VectorIndex says about its pods: added to all, judged before it is frozen, and never in the way of ours."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from goldens import assert_golden
from observations import DATA, SETTINGS, a_revision, actions, index, run, seen, spec
from pydantic import ValidationError
from raw_objects import NAME, Raw, deployment_raw, front_raw, index_raw, revision_raw, searcher_pod, slice_raw
from unit.test_execute import SAID, World

from vectorindex_operator.api.pod import POD_BYTES
from vectorindex_operator.api.v1alpha1 import FEATURES, Pod, Serving, VectorIndexSpec, VectorIndexStatus
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.leftovers import CollectLeft
from vectorindex_operator.core.observation import Observation, RevisionView
from vectorindex_operator.core.plan import CreateRevision, EnsureSearchers, StartBuild
from vectorindex_operator.manifests import jobs, searchers
from vectorindex_operator.manifests.render import Rendered, render
from vectorindex_operator.reconcile.errors import InvalidError, RefusedError, ReportedError, UnreachableError
from vectorindex_searcher.contract import TASK_ENV, BuildTask, CollectTask, Identity, inert

GOLDENS = Path(__file__).parent / "golden"
POD: dict[str, Any] = {
    "priorityClassName": "high",
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["nvme"]}]}]}}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"},
        {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "ScheduleAnyway",
         "labelSelector": {"matchLabels": {"team": "search"}}},
    ],
    "schedulerName": "packer",
    "runtimeClassName": "gvisor",
    "labels": {"team": "search"},
    "annotations": {"sidecar.istio.io/inject": "false"},
    "imagePullSecrets": [{"name": "mirror"}],
    "env": [{"name": "TZ", "value": "UTC"},
            {"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}],
    "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "volumeMounts": [{"name": "ca", "mountPath": "/mnt/ca", "readOnly": True}],
}  # fmt: skip
INSTALLED = replace(SETTINGS, image_pull_secrets=("registry",))
PLAIN = spec(build={"device": "CPU"})
OF = spec(build={"device": "CPU", "pod": POD}, searcher={"pod": POD})
TYPO = InvalidError('422 Invalid: Deployment.apps "docs-trial" is invalid: spec.template.spec.affinity: no such thing')


def rendered(action: type[Rendered], obs: Observation, of: VectorIndexSpec) -> Raw:
    (planned,) = actions(run(obs), action)
    return render(planned, obs, of, INSTALLED)[0]


def revision(of: VectorIndexSpec, phase: str) -> RevisionView:
    """With all that serves it, as today's revisions have it."""
    view = a_revision(of, phase)
    return replace(view, spec=view.spec.model_copy(update={"serving": Serving.of(of)}))


def build_job(of: VectorIndexSpec) -> Raw:
    return rendered(StartBuild, seen(of, revision(of, "Pending")), of)


def frozen(of: VectorIndexSpec) -> Raw:
    """A revision as it is made of a spec."""
    view = a_revision(of, "Pending")
    action = CreateRevision(view.name, view.spec.digest, DATA, Serving.of(of))
    return render(action, seen(of), of, INSTALLED)[0]


def deployment(of: VectorIndexSpec, now: VectorIndexSpec | None = None) -> Raw:
    """The searchers of a stable revision of `of`, while the spec says `now`."""
    view, template = revision(of, "Stable"), frozen(of)["spec"]["podTemplate"]
    view = replace(view, spec=view.spec.model_copy(update={"pod_template": template}))
    return rendered(EnsureSearchers, seen(now or of, view, traffic=view), now or of)


# ---------------------------------------------------------------- what is added


def test_what_is_added_to_jobs_and_searchers() -> None:
    templates = [one["spec"]["template"] for one in (deployment(OF), build_job(OF))]
    assert_golden(GOLDENS / "pods-of-a-platform.yaml", templates)


def test_nothing_of_ours_is_lost() -> None:
    """All that a pod without it has is in the pod with it, too."""

    for plain, full in ((deployment(PLAIN), deployment(OF)), (build_job(PLAIN), build_job(OF))):
        ours, all_of_it = plain["spec"]["template"], full["spec"]["template"]
        assert ours["metadata"]["labels"].items() <= all_of_it["metadata"]["labels"].items()
        (one,), (other,) = ours["spec"].pop("containers"), all_of_it["spec"].pop("containers")
        assert [each["name"] for each in one["env"]] == [each["name"] for each in other["env"]][: len(one["env"])]
        ours["spec"].pop("topologySpreadConstraints", None)  # theirs take the place of ours
        one.pop("env")
        for before, after in ((ours["spec"], all_of_it["spec"]), (one, other)):
            for field, value in before.items():
                now = after[field]
                assert (now[: len(value)] if isinstance(value, list) else now) == value, field


def test_nothing_that_a_user_names_is_filled_in_by_the_kubelet() -> None:
    """It would put a Secret's keys, which are variables of the same container, into a place that messages name."""
    key = "$(SOURCE_AWS_SECRET_ACCESS_KEY)/"
    bad = spec(source={"s3": {"prefix": key}, "poll": "1m"})
    view = revision(bad, "Stable")
    obs = seen(bad, view, traffic=view)
    serves = rendered(EnsureSearchers, obs, bad)["spec"]["template"]["spec"]["containers"][0]["env"]
    build = build_job(bad)["spec"]["template"]["spec"]["containers"][0]["env"]
    assert not [one for one in (*serves, *build) if "$(" in one.get("value", "")]
    (task,) = [one["value"] for one in build if one["name"] == TASK_ENV]
    assert BuildTask.model_validate_json(task).source.s3.prefix == key, "and it is read as it was written"
    assert json.loads(inert(json.dumps({key: "\\$("}))) == {key: "\\$("}


def test_a_spread_without_selector_counts_the_pods_of_the_revision() -> None:
    one, other = deployment(OF)["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert one["labelSelector"]["matchLabels"]["vectorindex.dev/revision"] == a_revision(OF, "Stable").name
    assert other["labelSelector"] == {"matchLabels": {"team": "search"}}
    of_job = build_job(OF)["spec"]["template"]["spec"]["topologySpreadConstraints"][0]
    assert of_job["labelSelector"]["matchLabels"] == {
        "app.kubernetes.io/component": "job", "vectorindex.dev/index": "docs",
    }  # fmt: skip


def test_a_label_of_ours_stands_whatever_is_asked_for() -> None:
    """The schema refuses it; so does whoever renders, where an older schema is in the cluster."""
    bad = spec(searcher={"pod": {"labels": {"vectorindex.dev/revision": "other", "team": "search"}}})
    marks = deployment(bad)["spec"]["template"]["metadata"]["labels"]
    assert marks["vectorindex.dev/revision"] == a_revision(bad, "Stable").name
    assert marks["team"] == "search"


def test_the_job_that_removes_what_is_left_runs_as_the_others_did() -> None:
    task = CollectTask(
        identity=Identity(namespace="team-a", name="docs", uid="u"), artifacts=OF.artifacts.s3.location()
    )
    action = CollectLeft("docs-collect", "team-a", "docs", OF.artifacts.s3, task, Pod.model_validate(POD))
    template = jobs.collect_left(action, INSTALLED)["spec"]["template"]
    assert template["spec"]["affinity"] == POD["affinity"]
    assert template["metadata"]["labels"]["team"] == "search"


# ---------------------------------------------------------------- what follows an edit


def test_an_edit_makes_a_revision_of_the_same_artifact_and_touches_no_pod() -> None:
    stable = revision(PLAIN, "Stable")
    obs = seen(OF, stable, traffic=stable)
    (made,) = actions(run(obs), CreateRevision)
    assert made.digest == stable.spec.digest
    assert made.name != stable.name
    assert not actions(run(obs), StartBuild)
    assert deployment(PLAIN, now=OF) == deployment(PLAIN), "what runs is left as it is"


def test_without_it_nothing_is_another() -> None:
    """`wire()` is what hashes and what is frozen: none of the new names may show in it."""
    assert set(spec().searcher.pod.wire()) == {"nodeSelector", "tolerations", "serviceAccountName", "priorityClassName"}
    assert not spec(searcher={"pod": {"priorityClassName": "high"}}).searcher.pod.is_deep


def test_a_revision_with_variables_is_left_alone_by_releases_that_would_drop_them() -> None:
    assert frozen(OF)["spec"]["requires"] == ["pod.env"]
    assert set(frozen(OF)["spec"]["requires"]) <= FEATURES
    assert frozen(spec(searcher={"pod": POD | {"env": []}}))["spec"]["requires"] == []


def test_more_than_fits_is_refused() -> None:
    env = [{"name": f"V{number}", "value": "x" * 4096} for number in range(8)]
    with pytest.raises(ValidationError, match=f"{POD_BYTES} are taken: put long values into a ConfigMap"):
        spec(searcher={"pod": {"env": env}})


# ---------------------------------------------------------------- judged before it counts


def edited(**refuse: Any) -> World:
    """Stable serves, and somebody has said more about the pods since."""
    stable = revision(PLAIN, "Stable")
    listed = seen(PLAIN).index.status.source
    view = index(OF, VectorIndexStatus(source=listed, conditions=SAID))
    mine = [searcher_pod(stable, number) for number in range(2)]
    objects = (index_raw(view), front_raw(stable), revision_raw(stable), deployment_raw(stable))
    return World(*objects, *mine, slice_raw(stable), **refuse)


def test_pods_that_no_api_server_makes_are_told_and_nothing_is_frozen() -> None:
    world = edited(refuse={("judge", "Deployment"): TYPO})
    with pytest.raises(ReportedError):
        world.run()
    assert len(world.phases) == 1, "no revision was made"
    assert ("WriteRefused", "spec.searcher.pod") in world.blocked
    assert world.told.of(EventReason.WRITE_REFUSED) == [f"spec.searcher.pod: {TYPO}"]
    assert world.ready() == ("True", "Serving")
    world.cluster.refuse.clear()
    world.run()
    assert len(world.phases) == 2


def test_what_may_pass_by_itself_stops_nothing() -> None:
    """A quota of today says nothing about the day on which the revision is built and proven."""
    world = edited(refuse={("judge", "Deployment"): RefusedError("403 Forbidden: exceeded quota: count")})
    world.run()
    assert len(world.phases) == 2


def test_an_api_server_that_does_not_answer_ends_the_pass() -> None:
    world = edited(refuse={("judge", "Deployment"): UnreachableError("POST: timed out")})
    with pytest.raises(UnreachableError):
        world.run()
    assert len(world.phases) == 1


def test_pods_that_say_nothing_new_are_not_asked_about() -> None:
    world = edited(refuse={("judge", "Deployment"): TYPO})
    plain = index(spec(build={"device": "CPU"}, searcher={"minScore": 0.5}))
    world.change("VectorIndex", NAME, spec=index_raw(plain)["spec"])
    world.run()
    assert len(world.phases) == 2


def test_what_is_judged_is_what_would_be_frozen() -> None:
    trial = searchers.trial(OF, index(OF), INSTALLED)
    template, mine = trial["spec"]["template"], frozen(OF)["spec"]["podTemplate"]
    assert template["spec"]["affinity"] == mine["spec"]["affinity"]
    assert template["spec"]["containers"] == mine["spec"]["containers"]
    assert trial["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
