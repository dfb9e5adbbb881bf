"""Every object that the operator writes against its golden; beside them what must hold, whatever a golden says.

After an intended change: UPDATE_GOLDENS=1 pytest tests/unit/test_manifests_golden.py, then read the diff.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from goldens import assert_golden
from observations import DATA, NOW, SETTINGS, a_revision, actions, index, job, report, run, seen, spec

from vectorindex_operator.adapters.signing import Signer
from vectorindex_operator.api.v1alpha1 import Live as LiveSettings
from vectorindex_operator.api.v1alpha1 import RevisionSpec, Serving, SourcePoll, VectorIndexSpec
from vectorindex_operator.core import identity
from vectorindex_operator.core.internal_keys import ANNOTATION, InternalKeys, addressee
from vectorindex_operator.core.observation import JobState, JobView, Observation, RevisionView, Task
from vectorindex_operator.core.plan import CreateRevision as Create
from vectorindex_operator.core.plan import (
    EnsureNetworkPolicy,
    EnsureSearchers,
    MoveTraffic,
    StartBuild,
    StartCollect,
    StartOutcomes,
    StartPartition,
    StartPublish,
    StartResolve,
    StartValidation,
)
from vectorindex_operator.core.state import Installation
from vectorindex_operator.core.traffic import Decision, DecisionKind
from vectorindex_operator.manifests import service as front_service
from vectorindex_operator.manifests.labels import LIVE
from vectorindex_operator.manifests.podspec import TOKENS_DIR
from vectorindex_operator.manifests.render import Rendered, render
from vectorindex_operator.manifests.sizing import frozen_sizing
from vectorindex_searcher.contract import (
    INTERNAL_KEY_ENV,
    LIVE_KEY_ENV,
    LIVE_QUERIES_ENV,
    LIVE_QUERIES_PATH,
    PARAM_LIMITS_ENV,
    PROCESSES_ENV,
    SHARD_TOKEN_ENV,
    TASK_ENV,
    EncoderProof,
    ExitCode,
    Gain,
    Identity,
    InternalRequest,
    OutcomesTask,
    RerankProof,
    RouteTask,
    ServeTask,
    Target,
    ValidateTask,
    key_id,
    live_key,
    revision_key,
    sign,
)
from vectorindex_searcher.serve.http.internal import InternalRequests
from vectorindex_searcher.serve.http.messages import Problem, Request
from vectorindex_searcher.serve.settings import Settings

Json = dict[str, Any]
GOLDENS = Path(__file__).parent / "golden"
INSTALLED = replace(
    SETTINGS, image_pull_policy="Always", image_pull_secrets=("registry",), namespace="vectorindex-system",
    labels={"app.kubernetes.io/name": "vectorindex-operator"}, metrics_from=({"namespaceSelector": {}},),
)  # fmt: skip

POD = {
    "nodeSelector": {"role": "search"},
    "tolerations": [{"key": "dedicated", "value": "search", "effect": "NoSchedule"}],
    "serviceAccountName": "searcher",
    "priorityClassName": "high",
}
EVERYTHING = spec(
    source={"columns": {"metadata": ["title"]}, "s3": {"endpoint": "http://s3:9000", "region": "eu-1"},
            "tombstones": {"prefix": "docs/deleted/"}},
    embedding={"model": "e5", "version": "2", "dimension": 8},
    segments=[{"name": "fr"}],
    build={"device": "PreferGPU", "timeout": "1h", "retries": 5, "pod": POD,
           "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "4Gi"}}},
    gate={"queries": {"s3": {"bucket": "queries", "secretRef": {"name": "queries"}}, "segmentColumn": "lang"},
          "segments": [{"name": "fr", "min": 0.9}]},
    searcher={"minScore": 0.3, "pod": POD},
)  # fmt: skip
PENDING, BUILT, STABLE = (a_revision(EVERYTHING, phase) for phase in ("Pending", "Validating", "Stable"))
FROZEN = frozen_sizing()
ON_CPU = spec(build={"device": "CPU"})
SECURED = spec(searcher={"auth": {"secretRef": {"name": "clients"}}, "tls": {"secretRef": {"name": "docs-tls"}}})
POLICED = spec(searcher={"auth": {"secretRef": {"name": "clients"}, "policies": "Required"}})
SECURED_STABLE = a_revision(SECURED, "Stable")
PROTECTED = spec(searcher={"networkPolicy": {"mode": "Managed", "from": [
    {"podSelector": {"matchLabels": {"app": "website"}}}, {"namespaceSelector": {}},
    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.9.0.0/16"]}},
]}})  # fmt: skip
PROTECTED_STABLE = a_revision(PROTECTED, "Stable")
ON_A_CLAIM = spec(searcher={"cache": {"claimName": "docs-cache", "limit": "20Gi"}})
ON_VOLUMES = spec(searcher={"cache": {"ephemeral": {"size": "20Gi", "storageClassName": "fast"}}})
CACHED = a_revision(spec(), "Stable")
RERANKED = spec(
    source={"columns": {"metadata": ["text"]}},
    embedding={"encoder": {"onnx": {"s3": {"bucket": "models"}, "sha256": "ab" * 32}, "textColumn": "text"}},
    gate={"queries": {"s3": {"bucket": "queries"}, "textColumn": "said"}, "relevance": {"relevantColumn": "right"}},
    searcher={"rerank": {"onnx": {"s3": {"bucket": "models", "prefix": "cross/"}, "sha256": "cd" * 32}}},
)
GAIN = Gain(without=0.5, reranked=0.75, low=0.125, high=0.375)
MODELS_SEEN = report(
    RERANKED,
    encoder=EncoderProof(rows=200, deviating=0, deviating_low=0, cosine=1, bytes=90 << 20),
    rerank=RerankProof(queries=300, mrr=GAIN, ndcg=GAIN, p95_ms=40, bytes=600 << 20),
)
RERANKING = a_revision(RERANKED, "Stable", report=MODELS_SEEN)
POLLED = spec(gate={"queries": {"s3": {"bucket": "vectors", "prefix": "docs/queries/"}}})
TOLD = SourcePoll(queries=POLLED.gate.queries.s3 if POLLED.gate.queries else None)
POLLING = a_revision(POLLED, "Stable")
POLLING = replace(POLLING, spec=POLLING.spec.model_copy(update={"source_poll": TOLD}))
STORED_ON_VOLUMES = spec(
    source={"s3": None, "volume": {"claimName": "vectors", "path": "docs/"}, "tombstones": {"prefix": "docs/deleted/"}},
    artifacts={"s3": None, "volume": {"claimName": "indexes"}},
    gate={"queries": {"volume": {"claimName": "vectors", "path": "queries"}}},
)
ON_ONE_VOLUME = spec(
    source={"s3": None, "volume": {"claimName": "all", "path": "docs/"}},
    artifacts={"s3": None, "volume": {"claimName": "all", "path": "indexes"}},
)
VOLUME_PENDING, VOLUME_BUILT, VOLUME_STABLE = (
    a_revision(STORED_ON_VOLUMES, phase) for phase in ("Pending", "Validating", "Stable")
)
ONE_VOLUME_PENDING = a_revision(ON_ONE_VOLUME, "Pending")
CPU_PENDING = a_revision(ON_CPU, "Pending")
IN_SHARDS = spec(
    index={"shards": 3},
    build={"parallelism": 2, "timeout": "1h", "retries": 5},
    searcher={"auth": {"secretRef": {"name": "clients"}}, "tls": {"secretRef": {"name": "docs-tls"}},
              "networkPolicy": {"mode": "Managed", "from": [{"podSelector": {}}]},
              "pod": {"serviceAccountName": "index-reader"}},
)  # fmt: skip
SHARDS_PENDING, SHARDS_STABLE = (a_revision(IN_SHARDS, phase) for phase in ("Pending", "Stable"))


MADE = {
    ("Deployment", f"{SHARDS_STABLE.name}-shard-{number}"): {"metadata": {"uid": f"uid-{number}"}}
    for number in range(3)
}


def shard_job(verb: Task) -> JobView:
    """One of the Jobs that went before in the first try."""
    key = f"{identity.build_hash(IN_SHARDS)}/0"
    return job(verb, JobState.SUCCEEDED, key=key, of=SHARDS_PENDING)


OUT_OF_HISTORY = a_revision(EVERYTHING, "Removing", data="d0" * 32, created=NOW)
READS = OutcomesTask(
    identity=Identity(namespace="team-a", name="docs", uid="uid-docs"),
    artifacts=EVERYTHING.artifacts.s3.location(),
    restore=True,
)
SWITCH = Decision(DecisionKind.SWITCH, "", STABLE.name, "Surge", "Ready", "ready on 2 pods", 1_800_000_000.25)
BACK = replace(
    SWITCH, kind=DecisionKind.ROLL_BACK, from_revision="docs-0bad0bad", rule="errors", reason="ErrorRate", nonce="n1"
)


def planned(obs: Observation, kind: type[Rendered]) -> Rendered:
    (action,) = actions(run(obs), kind)
    return action


CASES: dict[str, tuple[Rendered, Observation, VectorIndexSpec]] = {
    "resolve-job": (planned(seen(EVERYTHING, jobs=(), data=DATA[::-1]), StartResolve), seen(EVERYTHING), EVERYTHING),
    "build-job": (planned(seen(ON_CPU, CPU_PENDING), StartBuild), seen(ON_CPU, CPU_PENDING), ON_CPU),
    "partition-job": (
        planned(seen(IN_SHARDS, SHARDS_PENDING), StartPartition),
        seen(IN_SHARDS, SHARDS_PENDING),
        IN_SHARDS,
    ),
    "build-job-shards": (
        planned(seen(IN_SHARDS, SHARDS_PENDING, jobs=(shard_job(Task.PARTITION),)), StartBuild),
        seen(IN_SHARDS, SHARDS_PENDING),
        IN_SHARDS,
    ),
    "publish-job": (
        planned(seen(IN_SHARDS, SHARDS_PENDING, jobs=(shard_job(Task.BUILD),)), StartPublish),
        seen(IN_SHARDS, SHARDS_PENDING),
        IN_SHARDS,
    ),
    "searchers-shards": (
        planned(seen(IN_SHARDS, SHARDS_STABLE, traffic=SHARDS_STABLE), EnsureSearchers),
        seen(IN_SHARDS, SHARDS_STABLE, objects=MADE),
        IN_SHARDS,
    ),
    "network-policy-shards": (
        planned(seen(IN_SHARDS, SHARDS_STABLE, traffic=SHARDS_STABLE), EnsureNetworkPolicy),
        seen(IN_SHARDS, SHARDS_STABLE, network_policies={"docs-shards": "uid-policy"}),
        IN_SHARDS,
    ),
    "build-job-gpu": (planned(seen(EVERYTHING, PENDING), StartBuild), seen(EVERYTHING, PENDING), EVERYTHING),
    "build-job-volumes": (
        planned(seen(STORED_ON_VOLUMES, VOLUME_PENDING), StartBuild),
        seen(STORED_ON_VOLUMES, VOLUME_PENDING),
        STORED_ON_VOLUMES,
    ),
    "build-job-one-volume": (
        planned(seen(ON_ONE_VOLUME, ONE_VOLUME_PENDING), StartBuild),
        seen(ON_ONE_VOLUME, ONE_VOLUME_PENDING),
        ON_ONE_VOLUME,
    ),
    "validate-job-volumes": (
        planned(seen(STORED_ON_VOLUMES, VOLUME_BUILT), StartValidation),
        seen(STORED_ON_VOLUMES, VOLUME_BUILT),
        STORED_ON_VOLUMES,
    ),
    "revision-volumes": (
        Create(VOLUME_STABLE.name, VOLUME_STABLE.spec.digest, DATA, Serving.of(STORED_ON_VOLUMES)),
        seen(STORED_ON_VOLUMES),
        STORED_ON_VOLUMES,
    ),
    "validate-job": (planned(seen(EVERYTHING, BUILT), StartValidation), seen(EVERYTHING, BUILT), EVERYTHING),
    "revision": (Create(PENDING.name, PENDING.spec.digest, DATA, Serving.of(EVERYTHING)), seen(EVERYTHING), EVERYTHING),
    "searchers": (
        planned(seen(EVERYTHING, STABLE, traffic=STABLE), EnsureSearchers),
        seen(EVERYTHING, STABLE),
        EVERYTHING,
    ),
    "searchers-polling": (
        planned(seen(POLLED, POLLING, traffic=POLLING), EnsureSearchers),
        seen(POLLED, POLLING),
        POLLED,
    ),
    "searchers-reranking": (
        planned(seen(RERANKED, RERANKING, traffic=RERANKING), EnsureSearchers),
        seen(RERANKED, RERANKING),
        RERANKED,
    ),
    "searchers-claim": (
        planned(seen(ON_A_CLAIM, CACHED, traffic=CACHED), EnsureSearchers),
        seen(ON_A_CLAIM, CACHED),
        ON_A_CLAIM,
    ),
    "searchers-ephemeral": (
        planned(seen(ON_VOLUMES, CACHED, traffic=CACHED), EnsureSearchers),
        seen(ON_VOLUMES, CACHED),
        ON_VOLUMES,
    ),
    "service": (MoveTraffic(SWITCH, ""), seen(EVERYTHING, STABLE), EVERYTHING),
    "revision-secured": (
        Create(SECURED_STABLE.name, SECURED_STABLE.spec.digest, DATA, Serving.of(SECURED)),
        seen(SECURED),
        SECURED,
    ),
    "service-secured": (
        MoveTraffic(replace(SWITCH, to_revision=SECURED_STABLE.name), "", tls=True),
        seen(SECURED, SECURED_STABLE),
        SECURED,
    ),
    "network-policy": (
        planned(seen(PROTECTED, PROTECTED_STABLE, traffic=PROTECTED_STABLE), EnsureNetworkPolicy),
        seen(PROTECTED, PROTECTED_STABLE),
        PROTECTED,
    ),
    "collect-job": (
        planned(seen(EVERYTHING, STABLE, OUT_OF_HISTORY, traffic=STABLE), StartCollect),
        seen(EVERYTHING, STABLE, OUT_OF_HISTORY),
        EVERYTHING,
    ),
    "outcomes-job": (StartOutcomes("docs-outcomes-1", "key", 0, READS), seen(EVERYTHING), EVERYTHING),
    "service-rolled-back": (MoveTraffic(BACK, "42"), seen(EVERYTHING, STABLE), EVERYTHING),
}


def objects(case: str, settings: Installation = INSTALLED) -> tuple[Json, ...]:
    action, obs, of = CASES[case]
    return render(action, obs, of, settings)


def pods_of(case: str) -> Iterator[Json]:
    """Every pod spec in the objects of a case."""
    for manifest in objects(case):
        if manifest["kind"] in ("Job", "Deployment"):
            yield manifest["spec"]["template"]["spec"]
        if manifest["kind"] == "VectorIndexRevision":
            yield manifest["spec"]["podTemplate"]["spec"]


@pytest.mark.parametrize("case", CASES)
def test_rendered_objects_are_the_golden_ones(case: str) -> None:
    assert_golden(GOLDENS / f"{case}.yaml", objects(case))


@pytest.mark.parametrize("case", CASES)
def test_rendering_twice_gives_the_same_and_touches_nothing(case: str) -> None:
    first = json.dumps(objects(case))
    assert json.dumps(objects(case)) == first


def test_searchers_measure_live_recall_where_a_rule_of_their_own_rollout_judges_it() -> None:
    """And get memory and disk for it. Rules that a user adds later are of the next rollout: they restart no pods."""
    rules = {"rules": [{"name": "live", "metric": "LiveRecall", "min": "93%", "mode": "Observe"}]}
    wanted, plain = spec(guardrails=rules), spec()
    for of, now in ((wanted, plain), (plain, wanted)):
        stable = a_revision(of, "Stable")
        obs = seen(now, stable, traffic=stable)
        deployment = next(
            o for o in render(planned(obs, EnsureSearchers), obs, now, INSTALLED) if o["kind"] == "Deployment"
        )
        (one,) = deployment["spec"]["template"]["spec"]["containers"]
        task = json.loads(next(e["value"] for e in one["env"] if e["name"] == TASK_ENV))
        # Named only where it is wanted: an image older than the field refuses a task that has it.
        # Not `False` without the rule: an image older than the field refuses a task that names it.
        assert task.get("liveRecall") is (True if of is wanted else None)
        assert one["resources"]["requests"]["memory"] == ("544Mi" if of is wanted else "384Mi")
        assert one["resources"]["requests"]["ephemeral-storage"] == ("288Mi" if of is wanted else "256Mi")


# ---------------------------------------------------------------- what must never change


@pytest.mark.parametrize("case", CASES)
def test_every_pod_is_restricted_and_gets_no_api_token(case: str) -> None:
    pods = list(pods_of(case))
    assert len(pods) == (0 if case.startswith(("service", "network")) else 4 if case == "searchers-shards" else 1)
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"} & pod.keys()
        kinds = {kind for volume in pod["volumes"] for kind in volume}
        more = {
            "revision-secured": "secret",
            "searchers-shards": "secret",
            "searchers-claim": "persistentVolumeClaim",
            "searchers-ephemeral": "ephemeral",
        } | {name: "persistentVolumeClaim" for name in CASES if "volume" in name}
        assert kinds == {"name", "emptyDir"} | {more[name] for name in more if name == case}
        for one in pod["containers"]:
            inner = one["securityContext"]
            assert inner["allowPrivilegeEscalation"] is False
            assert inner["readOnlyRootFilesystem"] is True
            assert inner["capabilities"] == {"drop": ["ALL"]}
            assert "privileged" not in inner
            assert not [port for port in one.get("ports", ()) if "hostPort" in port]


@pytest.mark.parametrize("case", CASES)
def test_credentials_are_named_and_never_contained(case: str) -> None:
    """The kubelet reads Secrets by name; neither their values nor their names travel in a task."""
    for pod in pods_of(case):
        (one,) = pod["containers"]
        assert {source["secretRef"]["name"] for source in one["envFrom"]} <= {"s3", "queries"}
        assert {source["prefix"] for source in one["envFrom"]} <= {"SOURCE_", "ARTIFACTS_", "QUERIES_"}
        for variable in one.get("env", ()):
            assert "secretKeyRef" not in json.dumps(variable)
            assert "secretRef" not in variable.get("value", "")
    assert "AWS_" not in json.dumps(objects(case))


def test_each_pod_gets_the_keys_that_it_needs_and_no_other() -> None:
    def prefixes(case: str) -> list[str]:
        (pod,) = pods_of(case)
        return [source["prefix"] for source in pod["containers"][0]["envFrom"]]

    assert prefixes("resolve-job") == prefixes("build-job-gpu") == ["SOURCE_", "ARTIFACTS_"]
    # Tombstones lie in the source's bucket: who hides deleted ids reads it, and nobody else does.
    assert prefixes("validate-job") == ["ARTIFACTS_", "QUERIES_", "SOURCE_"]
    assert prefixes("searchers") == prefixes("revision") == ["ARTIFACTS_", "SOURCE_"]
    assert prefixes("revision-secured") == ["ARTIFACTS_"]


@pytest.mark.parametrize("case", ["resolve-job", "build-job", "build-job-gpu", "validate-job"])
def test_a_job_fails_at_once_for_what_trying_again_cannot_mend(case: str) -> None:
    (job,) = objects(case)
    disruption, fatal = job["spec"]["podFailurePolicy"]["rules"]
    # A drained node costs no attempt, and comes first: an evicted container may end with any exit code.
    assert (disruption["action"], disruption["onPodConditions"]) == (
        "Ignore", [{"type": "DisruptionTarget", "status": "True"}],
    )  # fmt: skip
    assert (fatal["action"], fatal["onExitCodes"]["operator"]) == ("FailJob", "In")
    assert fatal["onExitCodes"]["values"] == [64, 65, 66, 70, 75]
    assert {ExitCode.MEMORY, ExitCode.STORE_UNAVAILABLE}.isdisjoint(fatal["onExitCodes"]["values"])
    assert fatal["onExitCodes"]["containerName"] == job["spec"]["template"]["spec"]["containers"][0]["name"]
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"  # podFailurePolicy needs it
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (1, 1)
    assert job["spec"]["activeDeadlineSeconds"] > 0


OF_A_REVISION = ("build-job", "validate-job", "collect-job", "partition-job", "publish-job")


@pytest.mark.parametrize("case", CASES)
def test_everything_is_owned_and_named_validly(case: str) -> None:
    revision_owned = {case for case in CASES if case.startswith(OF_A_REVISION)}
    for manifest in objects(case):
        meta = manifest["metadata"]
        (owner,) = meta["ownerReferences"]
        above = "VectorIndexRevision" if case in revision_owned else "VectorIndex"
        of_shard = case == "searchers-shards" and manifest["kind"] == "Service"  # it goes with its pods
        assert owner["kind"] == ("Deployment" if of_shard else above)
        assert owner["controller"] is True
        assert owner["uid"]
        assert len(meta["name"]) <= 63
        assert meta["namespace"] == "team-a"
        assert meta["labels"]["app.kubernetes.io/managed-by"] == "vectorindex-operator"
        assert all(len(value) <= 63 for value in meta["labels"].values())


def test_selectors_name_one_revision_and_match_its_pods() -> None:
    deployment, budget = objects("searchers")
    (service,) = objects("service")
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert selector == budget["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert selector["vectorindex.dev/revision"] == STABLE.name
    for case in ("build-job", "validate-job", "resolve-job"):  # a Job's pod never gets queries
        (job,) = objects(case)
        assert not selector.items() <= job["spec"]["template"]["metadata"]["labels"].items()


def test_the_pods_of_a_shard_are_reached_by_routers_alone() -> None:
    manifests = {(one["kind"], one["metadata"]["name"]): one for one in objects("searchers-shards")}
    name = SHARDS_STABLE.name
    (service,) = render(MoveTraffic(replace(SWITCH, to_revision=name), ""), seen(IN_SHARDS, SHARDS_STABLE), IN_SHARDS,
                        INSTALLED)  # fmt: skip
    routers = manifests["Deployment", name]["spec"]["template"]
    assert service["spec"]["selector"].items() <= routers["metadata"]["labels"].items()
    (router,) = routers["spec"]["containers"]
    env = {one["name"]: one.get("value") for one in router["env"]}
    task = RouteTask.model_validate_json(env[TASK_ENV])
    assert (router["args"][0], router["envFrom"], env[SHARD_TOKEN_ENV]) == ("route", [], TOKENS_DIR)
    assert "--tls-cert" in router["args"]
    selectors = []
    for number in range(3):
        shard = f"{name}-shard-{number}"
        assert task.shards[number] == (f"http://{shard}.team-a.svc:8080",)
        headless = manifests["Service", shard]["spec"]
        pods, budget = manifests["Deployment", shard]["spec"], manifests["PodDisruptionBudget", shard]["spec"]
        marks = pods["template"]["metadata"]["labels"]
        assert headless["clusterIP"] == "None"
        assert headless["selector"] == pods["selector"]["matchLabels"] == budget["selector"]["matchLabels"]
        assert headless["selector"].items() <= marks.items()
        assert not service["spec"]["selector"].items() <= marks.items()  # users do not get there
        (one,) = pods["template"]["spec"]["containers"]
        told = ServeTask.model_validate_json(one["env"][0]["value"])
        # The report is of the merged answers; each shard has a canary of its own in it.
        assert (told.shard, told.gate_of_whole) == (number, True)
        assert told.gate_hash == task.gate_hash != ""
        assert told.report_sha256
        assert "--token-file" in one["args"]
        assert "--tls-cert" not in one["args"]
        (spread,) = pods["template"]["spec"]["topologySpreadConstraints"]
        assert spread["labelSelector"]["matchLabels"] == headless["selector"]
        selectors.append(str(headless["selector"]))
    assert len(set(selectors)) == 3


def test_routers_measure_live_recall_and_shards_scan_for_them() -> None:
    action, obs, of = CASES["searchers-shards"]
    assert isinstance(action, EnsureSearchers)
    for live, proven in ((False, False), (True, False), (True, True)):
        made = render(replace(action, live_recall=live, merged_canary=proven), obs, of, INSTALLED)
        pods = [one["spec"]["template"]["spec"]["containers"][0] for one in made if one["kind"] == "Deployment"]
        texts = [one["env"][0]["value"] for one in pods]
        *shards, router = [*map(ServeTask.model_validate_json, texts[:-1]), RouteTask.model_validate_json(texts[-1])]
        assert {one.live_recall for one in (*shards, router)} == {live}
        assert router.admin_ports == ((8081,) * 3 if live or proven else ())
        assert bool(router.gate_hash) is proven


def test_a_build_in_shards_repeats_one_of_them() -> None:
    (job,) = objects("build-job-shards")
    told = job["spec"]
    assert (told["completionMode"], told["completions"], told["parallelism"]) == ("Indexed", 3, 2)
    assert told["backoffLimitPerIndex"] == 5
    assert "backoffLimit" not in told  # it would count all of them together
    assert told["activeDeadlineSeconds"] == 2 * 3600  # two rounds


def test_a_rolling_update_never_takes_the_last_pod() -> None:
    deployment, budget = objects("searchers")
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_the_switch_has_a_precondition_when_there_was_a_service() -> None:
    assert "resourceVersion" not in objects("service")[0]["metadata"]
    assert objects("service-rolled-back")[0]["metadata"]["resourceVersion"] == "42"


# ---------------------------------------------------------------- tokens and TLS


def test_tokens_and_certificate_are_mounted_read_only_where_serve_is_told_to_look() -> None:
    (pod,) = pods_of("revision-secured")
    (one,) = pod["containers"]
    flags = dict(zip(one["args"][1::2], one["args"][2::2], strict=True))
    mounts = {mount["name"]: mount for mount in one["volumeMounts"]}
    secrets = {volume["name"]: volume["secret"] for volume in pod["volumes"] if "secret" in volume}
    assert {name: secret["secretName"] for name, secret in secrets.items()} == {"tokens": "clients", "tls": "docs-tls"}
    assert flags["--token-file"] == mounts["tokens"]["mountPath"]
    for flag, key in (("--tls-cert", "tls.crt"), ("--tls-key", "tls.key")):
        assert flags[flag] == f"{mounts['tls']['mountPath']}/{key}"
        assert {"key": key, "path": key} in secrets["tls"]["items"]
    for name in secrets:
        assert mounts[name]["readOnly"] is True
        assert "subPath" not in mounts[name], "the kubelet never updates a subPath"
        assert secrets[name]["defaultMode"] & 0o007 == 0
    assert {probe["httpGet"]["port"] for probe in (one["readinessProbe"], one["livenessProbe"])} == {"admin"}


def test_policies_are_read_from_the_secret_of_the_tokens_by_a_flag_that_older_images_refuse() -> None:
    """An image that knows no policies must not begin to serve: it would show every row to every token."""
    secured = deployed(POLICED, a_revision(POLICED, "Stable"))["spec"]["template"]["spec"]["containers"][0]
    assert secured["args"] == ["serve", "--token-file", TOKENS_DIR, "--policies", f"{TOKENS_DIR}/policies.json"]
    plain = edited(searcher={"auth": {"secretRef": {"name": "clients"}}})
    assert "--policies" not in deployed(plain)["spec"]["template"]["spec"]["containers"][0]["args"]


def test_the_service_says_https_exactly_while_its_revision_does() -> None:
    (secured,), (plain,) = objects("service-secured"), objects("service")
    assert [port.pop("appProtocol", None) for port in secured["spec"]["ports"]] == ["https"]
    assert secured["spec"]["ports"] == plain["spec"]["ports"]


# ---------------------------------------------------------------- the frozen template


def deployed(of: VectorIndexSpec, view: RevisionView = STABLE, settings: Installation = INSTALLED) -> Json:
    obs = seen(of, view, traffic=view)
    (load,) = actions(run(obs), EnsureSearchers)
    rendered: Json = render(load, obs, of, settings)[0]
    return rendered


def edited(**changes: Any) -> VectorIndexSpec:
    return VectorIndexSpec.model_validate(EVERYTHING.wire() | changes)


def test_an_edit_of_the_searchers_pod_or_min_score_changes_no_running_searcher() -> None:
    before = deployed(EVERYTHING)
    pod = {"nodeSelector": {"role": "other"}, "priorityClassName": "low", "serviceAccountName": "x"}
    assert deployed(edited(searcher={"pod": pod, "minScore": 0.9})) == before
    assert deployed(edited(segments=[{"name": "fr"}, {"name": "de"}])) == before


def test_limits_on_parameters_are_what_the_spec_says_now_and_an_upgrade_restarts_no_pod() -> None:
    """Not frozen: a limit that was set because queries hurt must hold for the revision that is gone back to."""
    before = deployed(EVERYTHING)
    (plain,) = before["spec"]["template"]["spec"]["containers"]
    assert PARAM_LIMITS_ENV not in {entry["name"] for entry in plain["env"]}
    now = edited(searcher=EVERYTHING.searcher.wire() | {"params": {"allow": ["nprobe"], "max": {"nprobe": 64}}})
    after = deployed(now)
    (one,) = after["spec"]["template"]["spec"]["containers"]
    (entry,) = [entry for entry in one["env"] if entry["name"] == PARAM_LIMITS_ENV]
    limits = Settings.from_environment({PARAM_LIMITS_ENV: entry["value"]}).params
    assert (limits.allow, limits.max) == (("nprobe",), {"nprobe": 64})
    assert [other for other in one["env"] if other is not entry] == plain["env"]
    assert after["metadata"]["annotations"][LIVE] != before["metadata"]["annotations"][LIVE]
    assert deployed(edited(searcher=EVERYTHING.searcher.wire())) == before


def test_access_is_what_the_spec_says_now_also_of_a_revision_from_before_it() -> None:
    """Neither a token that was taken away nor an open port comes back with a rollback; a corrected Secret arrives."""
    secured = SECURED.searcher.wire()
    closed = deployed(edited(searcher={"auth": secured["auth"], "tls": secured["tls"]}))
    pod = closed["spec"]["template"]["spec"]
    assert {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume} == {
        "clients",
        "docs-tls",
    }
    assert "--token-file" in pod["containers"][0]["args"]
    opened = deployed(spec(), SECURED_STABLE)["spec"]["template"]["spec"]
    assert [volume for volume in opened["volumes"] if "secret" in volume] == []
    assert opened["containers"][0]["args"] == ["serve"]
    corrected = deployed(
        edited(artifacts={"s3": {"bucket": "indexes", "secretRef": {"name": "right"}, "endpoint": "https://new"}})
    )
    (one,) = corrected["spec"]["template"]["spec"]["containers"]
    assert [entry["secretRef"]["name"] for entry in one["envFrom"] if entry["prefix"] == "ARTIFACTS_"] == ["right"]
    task = json.loads(next(entry["value"] for entry in one["env"] if entry["name"] == TASK_ENV))
    assert task["artifacts"]["s3"]["endpoint"] == "https://new"
    moved = deployed(edited(artifacts={"s3": {"bucket": "elsewhere", "secretRef": {"name": "right"}}}))
    assert moved["spec"]["template"] == deployed(EVERYTHING)["spec"]["template"]  # its bytes are where they are


def test_an_upgrade_of_the_operator_changes_no_running_searcher() -> None:
    upgraded = Installation("example/searcher:v9", "example/gpu:v9", "Never", ("other",))
    assert deployed(EVERYTHING, settings=upgraded) == deployed(EVERYTHING)


def test_replicas_and_resources_follow_the_vectorindex_and_nothing_else_changes() -> None:
    before = deployed(EVERYTHING)
    resources = {"requests": {"cpu": "2", "ephemeral-storage": "9Gi"}, "limits": {"memory": "3Gi"}}
    changed = deployed(edited(searcher={"replicas": 7, "resources": resources}))
    assert changed["spec"]["replicas"] == 7
    one = changed["spec"]["template"]["spec"]["containers"][0]
    assert one["resources"] == resources
    assert one["env"].pop() == {"name": PROCESSES_ENV, "value": "2"}, "one for each core"
    changed["spec"]["replicas"] = before["spec"]["replicas"]
    changed["metadata"]["annotations"] = before["metadata"]["annotations"]
    one["resources"] = before["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert changed == before


def test_memory_and_disk_are_computed_from_the_artifact_unless_given() -> None:
    one = deployed(EVERYTHING)["spec"]["template"]["spec"]["containers"][0]
    assert one["resources"] == {
        "requests": {"cpu": "1", "memory": "384Mi", "ephemeral-storage": "256Mi"},
        "limits": {"memory": "1280Mi", "ephemeral-storage": "512Mi"},
    }
    given = {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi", "ephemeral-storage": "1Gi"}}
    one = deployed(edited(searcher={"resources": given}))["spec"]["template"]["spec"]["containers"][0]
    assert one["resources"] == given


def test_searchers_of_a_revision_of_before_keep_their_memory() -> None:
    """An operator that counts more restarts no pod of theirs; nor does one that would give them more processes."""
    template = STABLE.spec.pod_template
    of_before = {**template, "metadata": {"labels": template["metadata"]["labels"]}}
    before = replace(STABLE, spec=STABLE.spec.model_copy(update={"pod_template": of_before}))
    many = edited(searcher={"resources": {"limits": {"cpu": "8"}}})
    assert PROCESSES_ENV in variables(deployed(many))
    assert PROCESSES_ENV not in variables(deployed(many, before))
    pod = deployed(EVERYTHING, before)["spec"]["template"]
    assert pod["spec"]["containers"][0]["resources"]["limits"]["memory"] == "768Mi"
    assert "annotations" not in pod["metadata"]


def test_searchers_of_a_build_that_did_not_tell_its_size_are_left_as_they_are() -> None:
    """An operator that begins to ask for disk restarts no pod of a revision that was built before."""
    status = STABLE.status
    assert status.build is not None
    silent = status.model_copy(update={"build": status.build.model_copy(update={"vectors_bytes": None})})
    one = deployed(EVERYTHING, replace(STABLE, status=silent))["spec"]["template"]["spec"]["containers"][0]
    assert one["resources"] == {"requests": {"cpu": "1", "memory": "384Mi"}, "limits": {"memory": "1280Mi"}}


def test_the_gate_asks_for_the_disk_of_what_it_fetches_unless_told() -> None:
    def asked(of: VectorIndexSpec) -> object:
        obs = seen(of, a_revision(of, "Validating"))
        (job,) = render(planned(obs, StartValidation), obs, of, INSTALLED)
        return job["spec"]["template"]["spec"]["containers"][0]["resources"]

    assert asked(spec(build={"resources": {}})) == {"requests": {"ephemeral-storage": "288Mi"}}
    given = {"limits": {"ephemeral-storage": "4Gi"}}
    assert asked(spec(build={"resources": given})) == given


# ---------------------------------------------------------------- live queries

WITH_LIVE = spec(gate={"queries": {"live": {}}})


def variables(manifest: Json) -> dict[str, str]:
    (one,) = manifest["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry.get("value", "") for entry in one["env"]}


def test_searchers_keep_live_queries_where_the_gate_asks_for_them_and_get_memory_for_it() -> None:
    for of, memory in ((WITH_LIVE, "432Mi"), (spec(), "384Mi")):
        stable = a_revision(of, "Stable")
        obs = seen(of, stable, traffic=stable)
        (deployment, _) = render(planned(obs, EnsureSearchers), obs, of, INSTALLED)
        assert variables(deployment).get(LIVE_QUERIES_ENV) == ("1" if of is WITH_LIVE else None)
        (one,) = deployment["spec"]["template"]["spec"]["containers"]
        assert one["resources"]["requests"]["memory"] == memory
    assert identity.live_hash(LiveSettings.of(WITH_LIVE)) != identity.live_hash(LiveSettings.of(spec()))


def test_the_gate_gets_the_key_that_reads_stables_live_queries_and_no_other() -> None:
    master = "m" * 32
    settings = replace(INSTALLED, internal_keys=InternalKeys(master))
    stable, fresh = a_revision(WITH_LIVE, "Stable"), a_revision(WITH_LIVE, "Validating", data=DATA[::-1])
    obs = seen(WITH_LIVE, stable, fresh, traffic=stable, data=DATA[::-1])
    deployment = {"spec": {"template": {"metadata": {"annotations": {ANNOTATION: key_id(master)}}}}}
    keyed = replace(
        obs,
        objects={
            ("VectorIndexRevision", stable.name): {"metadata": {"uid": stable.uid}},
            ("Deployment", stable.name): deployment,
        },
    )
    (job,) = render(planned(keyed, StartValidation), keyed, WITH_LIVE, settings)
    mine = revision_key(master, stable.uid)
    assert variables(job)[LIVE_KEY_ENV] == live_key(mine)
    assert mine not in json.dumps(job)
    assert master not in json.dumps(job)
    # The two ends: what the Job signs with, its target, and the pod that it asks.
    task = ValidateTask.model_validate_json(variables(job)[TASK_ENV])
    assert task.live is not None
    path = f"{LIVE_QUERIES_PATH}?age=0"
    headers = sign(
        variables(job)[LIVE_KEY_ENV],
        InternalRequest("GET", path),
        Target(task.live.index_uid, task.live.revision),
        1_800_000_000.0,
    )
    (asked, _) = render(planned(seen(WITH_LIVE, stable, traffic=stable), EnsureSearchers), obs, WITH_LIVE, settings)
    served = ServeTask.model_validate_json(variables(asked)[TASK_ENV])
    pod = InternalRequests(served, mine, lambda: 1_800_000_100.0)
    sent = {name.lower().encode(): value.encode() for name, value in headers.items()}
    pod.check(Request(b"GET", path.encode(), sent, b"", keep_alive=True, completed=0.0))
    for nobody, of, with_keys in (
        (obs, WITH_LIVE, settings),
        (keyed, WITH_LIVE, INSTALLED),
        (seen(spec(), a_revision(spec(), "Validating")), spec(), settings),
    ):
        (job,) = render(planned(nobody, StartValidation), nobody, of, with_keys)
        assert LIVE_KEY_ENV not in variables(job)


# ---------------------------------------------------------------- the decision on the Service


@pytest.mark.parametrize("decision", [SWITCH, BACK])
def test_a_decision_is_read_as_it_was_written(decision: Decision) -> None:
    meta = front_service.service(decision, "", index(EVERYTHING), tls=False)["metadata"]
    assert front_service.read_decision(meta["annotations"]["vectorindex.dev/decision"]) == decision


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "{}", "Switch", '{"kind": "Jump"}', "[" * 100_000,
        *(json.dumps({"kind": "Switch", "from": "", "to": "a", "rule": "r", "reason": "r", "message": "m", "at": at})
          for at in (None, "soon", float("nan"), float("inf"), 1e300, -1e15)),
    ],
)  # fmt: skip
def test_a_garbled_decision_is_none(text: str) -> None:
    assert front_service.read_decision(text) is None


def test_the_names_of_jobs_come_from_their_attempt() -> None:
    (job,) = objects("build-job")
    key = job["metadata"]["annotations"]["vectorindex.dev/attempt"]
    assert key == f"{identity.build_hash(ON_CPU)}/0/cpu"
    assert job["metadata"]["name"] == identity.build_job_name(CPU_PENDING.name, key)


# ---------------------------------------------------------------- keys of internal requests

OLD_MASTER, MASTER = "o" * 32, "m" * 32
SIGNING = replace(INSTALLED, internal_keys=InternalKeys(MASTER, OLD_MASTER))


def made_with(settings: Installation) -> RevisionView:
    """STABLE as an operator with these settings made it."""
    action, obs, of = CASES["revision"]
    (manifest,) = render(action, obs, of, settings)
    return replace(STABLE, spec=RevisionSpec.model_validate(manifest["spec"]))


def key_of(deployment: Json) -> str:
    (one,) = deployment["spec"]["template"]["spec"]["containers"]
    return "".join(e["value"] for e in one["env"] if e["name"] == INTERNAL_KEY_ENV)


def test_pods_get_their_revisions_key_and_the_master_key_is_nowhere() -> None:
    revision = made_with(SIGNING)
    deployment = deployed(EVERYTHING, revision, SIGNING)
    assert key_of(deployment) == revision_key(MASTER, revision.uid)
    assert deployment["spec"]["template"]["metadata"]["annotations"] == FROZEN | {ANNOTATION: key_id(MASTER)}
    for text in (json.dumps(deployment), json.dumps(revision.spec.wire())):
        assert MASTER not in text
    assert revision_key(MASTER, revision.uid) not in json.dumps(revision.spec.wire())  # history tells no keys
    another = replace(revision, uid="uid-of-another-revision")
    assert key_of(deployed(EVERYTHING, another, SIGNING)) != key_of(deployment)


def test_a_revision_made_without_a_key_never_gets_one() -> None:
    """Its pods would restart at an upgrade of the operator."""
    before = made_with(INSTALLED)
    assert ANNOTATION not in json.dumps(before.spec.wire())
    assert deployed(EVERYTHING, before, SIGNING) == deployed(EVERYTHING, before, INSTALLED)
    assert key_of(deployed(EVERYTHING, before, SIGNING)) == ""


def test_a_rotation_restarts_no_pod_while_the_previous_key_is_there() -> None:
    old = made_with(replace(INSTALLED, internal_keys=InternalKeys(OLD_MASTER)))
    before = deployed(EVERYTHING, old, replace(INSTALLED, internal_keys=InternalKeys(OLD_MASTER)))
    assert deployed(EVERYTHING, old, SIGNING) == before
    assert made_with(SIGNING).spec.pod_template["metadata"]["annotations"] == FROZEN | {ANNOTATION: key_id(MASTER)}
    # Once it is gone the operator cannot sign for these pods: they get the current one, one after the other.
    gone = deployed(EVERYTHING, old, replace(INSTALLED, internal_keys=InternalKeys(MASTER)))
    assert key_of(gone) == revision_key(MASTER, old.uid)
    assert gone["spec"]["template"]["metadata"]["annotations"] == FROZEN | {ANNOTATION: key_id(MASTER)}
    # An operator without any key speaks to pods without one.
    without = deployed(EVERYTHING, old, INSTALLED)
    assert key_of(without) == ""
    assert without == deployed(EVERYTHING, made_with(INSTALLED), INSTALLED) | {"spec": without["spec"]}
    assert without["spec"]["template"]["metadata"]["annotations"] == FROZEN


@pytest.mark.parametrize("settings", [INSTALLED, SIGNING, replace(INSTALLED, internal_keys=InternalKeys(MASTER))])
def test_what_the_operator_signs_its_pods_take(settings: Installation) -> None:
    """The two ends: the key in the rendered pod, and the signature for the pod as the operator sees it later."""
    for maker in (INSTALLED, SIGNING, replace(INSTALLED, internal_keys=InternalKeys(OLD_MASTER))):
        view = made_with(maker)
        deployment = deployed(EVERYTHING, view, settings)
        stored = {"metadata": {"name": view.name, "uid": view.uid}, "spec": view.spec.wire()}
        live = {("Deployment", view.name): deployment, ("VectorIndexRevision", view.name): stored}
        obs = replace(seen(EVERYTHING, view), objects=live)
        headers = Signer(settings.internal_keys, lambda: 1_800_000_000.0).headers(
            addressee(obs, view.name), "GET", "/v1/evidence?since=0"
        )
        (one,) = deployment["spec"]["template"]["spec"]["containers"]
        task = ServeTask.model_validate_json(next(e["value"] for e in one["env"] if e["name"] == TASK_ENV))
        pod = InternalRequests(task, key_of(deployment), lambda: 1_800_000_100.0)
        sent = {name.lower().encode(): value.encode() for name, value in headers.items()}
        pod.check(Request(b"GET", b"/v1/evidence?since=0", sent, b"", keep_alive=True, completed=0.0))
        if key_of(deployment):
            with pytest.raises(Problem, match="ForgedSignature"):
                pod.check(Request(b"GET", b"/v1/evidence?since=1", sent, b"", keep_alive=True, completed=0.0))
