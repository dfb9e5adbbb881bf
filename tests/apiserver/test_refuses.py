"""What `kubectl apply` refuses, each time naming the field."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from apiserver.manifests import FULL_SPEC, LEAVE_OUT, changed
from control_plane import Api, ControlPlane, Json

RULES = "spec.guardrails.rules"
CROSS = {"s3": {"bucket": "models"}, "sha256": "ab" * 32}
NETWORK = "spec.searcher.networkPolicy"
SCHEDULE = "spec.source.schedule"
FRESH = "spec.source.fresh.prefix"
POD = "spec.searcher.pod"


STEP = {"weight": 10, "duration": "5m"}


def canary(**changes: Any) -> dict[str, Any]:
    """A rollout by steps."""
    return {"strategy": "Canary", "steps": [STEP], "route": {"parentRefs": [{"name": "g"}]}} | changes


def rule(**fields: Any) -> list[Json]:
    return [{"name": "one", "metric": "ErrorRate"} | fields]


def managed(*peers: Json) -> Json:
    return {"mode": "Managed", "from": list(peers)}


def env(**variable: Any) -> Json:
    return {"env": [variable]}


def volume(**fields: Any) -> Json:
    return {"volumes": [{"name": "a"} | fields]}


ONE: Json = {"claimName": "one"}
ENCODER_ON_IT: Json = {"onnx": {"volume": ONE, "sha256": "0" * 64}, "textColumn": "text"}


def both(whose: str, **spec: Any) -> Json:
    """A spec whose pods have the claim `one` in pod.volumes; `spec` says where it stands besides."""
    least = {"source": {"s3": {"bucket": "embeddings"}}, "artifacts": {"s3": {"bucket": "indexes"}}}
    pod = {"pod": volume(persistentVolumeClaim={"claimName": "one", "readOnly": True})}
    return least | spec | {whose: spec.get(whose, {}) | pod}


def mounted(path: str) -> Json:
    return volume(emptyDir={}) | {"volumeMounts": [{"name": "a", "mountPath": path}]}


@pytest.mark.parametrize(
    ("path", "value", "field", "says"),
    [
        # shape
        ("spec.gate.recal", {"min": 0.9}, ".spec.gate.recal", "field not declared in schema"),
        ("spec.index.parts", 2, ".spec.index.parts", "field not declared in schema"),
        ("spec.source", LEAVE_OUT, "spec.source", "Required value"),
        ("spec.artifacts.s3", LEAVE_OUT, "spec.artifacts", "exactly one kind of store has to be given: s3, azure"),
        ("spec.source.volume", {"claimName": "vectors"}, "spec.source", "exactly one kind of store has to be given"),
        (
            "spec.gate.queries",
            {"s3": {"bucket": "queries"}, "volume": {"claimName": "q"}},
            "spec.gate.queries",
            "give one kind of store only: s3, azure, gcs or volume",
        ),
        (
            "spec.source.azure",
            {"account": "acme", "container": "vectors"},
            "spec.source",
            "exactly one kind of store has to be given",
        ),
        ("spec.source", {"azure": {"container": "vectors"}}, "spec.source.azure.account", "Required value"),
        ("spec.source", {"azure": {"account": "acme"}}, "spec.source.azure.container", "Required value"),
        (
            "spec.source",
            {"azure": {"account": "Acme", "container": "vectors"}},
            "spec.source.azure.account",
            "should match",
        ),
        (
            "spec.source",
            {"azure": {"account": "acme", "container": "a_b"}},
            "spec.source.azure.container",
            "should match",
        ),
        (
            "spec.source",
            {"azure": {"account": "acme", "container": "vectors", "endpoint": "https://acme?sig=x"}},
            "spec.source.azure.endpoint",
            "should match",
        ),
        (
            "spec.artifacts",
            {"azure": {"account": "acme", "container": "vectors", "anonymous": True, "secretRef": {"name": "a"}}},
            "spec.artifacts.azure.anonymous",
            "contradict each other",
        ),
        (
            "spec.source",
            {"azure": {"account": "acme", "container": "v-s", "prefix": "a/b"}, "tombstones": {"prefix": "a/"}},
            "spec.source.tombstones.prefix",
            "must not be, or contain, the prefix of the vectors",
        ),
        ("spec.source.gcs", {"bucket": "vectors"}, "spec.source", "exactly one kind of store has to be given"),
        ("spec.source", {"gcs": {"prefix": "a"}}, "spec.source.gcs.bucket", "Required value"),
        ("spec.source", {"gcs": {"bucket": "Bad"}}, "spec.source.gcs.bucket", "should match"),
        (
            "spec.artifacts",
            {"gcs": {"bucket": "vectors", "anonymous": True, "secretRef": {"name": "a"}}},
            "spec.artifacts.gcs.anonymous",
            "contradict each other",
        ),
        ("spec.source", {"volume": {}}, "spec.source.volume.claimName", "Required value"),
        (
            "spec",
            {
                "source": {"s3": {"bucket": "embeddings"}},
                "artifacts": {"volume": {"claimName": "one"}},
                "searcher": {"cache": {"claimName": "one", "limit": "4Gi"}},
            },
            "spec.searcher.cache.claimName",
            "needs a claim of its own",
        ),
        ("spec.source.columns", {"vector": ""}, "spec.source.columns.vector", "only with index.import"),
        *(
            ("spec", both(whose, **spec), f"spec.{whose}.pod.volumes", "a pod mounts each once")
            for whose, spec in (
                ("build", {"source": {"volume": ONE}}),
                ("build", {"artifacts": {"volume": ONE}}),
                ("build", {"gate": {"queries": {"volume": ONE}}}),
                ("build", {"embedding": {"encoder": ENCODER_ON_IT}}),
                ("searcher", {"artifacts": {"volume": ONE}}),
                ("searcher", {"source": {"volume": ONE, "tombstones": {"prefix": "deleted/"}}}),
                ("searcher", {"embedding": {"encoder": ENCODER_ON_IT}}),
                ("searcher", {"searcher": {"cache": {"claimName": "one", "limit": "4Gi"}}}),
            )
        ),
        ("spec.source", {"volume": {"claimName": "Bad_Name"}}, "spec.source.volume.claimName", "should match"),
        ("spec.source", {"volume": {"claimName": "v", "path": "/a"}}, "spec.source.volume.path", "should match"),
        ("spec.source", {"volume": {"claimName": "v", "path": "a/../b"}}, "spec.source.volume.path", "should match"),
        (
            "spec.source",
            {"volume": {"claimName": "v", "path": "a"}, "tombstones": {"prefix": "a/"}},
            "spec.source.tombstones.prefix",
            "must not be, or contain, the prefix of the vectors",
        ),
        (
            "spec.build.pod",
            {"volumes": [{"name": "store-source", "emptyDir": {}}]},
            "spec.build.pod.volumes[0].name",
            "are the operator's own",
        ),
        ("spec", LEAVE_OUT, "spec", "Required value"),
        ("spec.gate.k", "10", ".spec.gate.k", "expected numeric"),
        ("spec.searcher.minScore", None, "spec.searcher.minScore", "must be of type number"),
        # enums
        (
            "spec.embedding.encoder",
            {"onnx": {"s3": {"bucket": "models"}, "sha256": "ab" * 32}, "textColumn": "title"},
            "spec.embedding.encoder.textColumn",
            "must be one of source.columns.metadata",
        ),
        (
            "spec.embedding.encoder",
            {"onnx": {"sha256": "ab" * 32}, "textColumn": "title"},
            "spec.embedding.encoder.onnx",
            "exactly one kind of store has to be given",
        ),
        (
            "spec.embedding.encoder",
            {"onnx": {"s3": {"bucket": "m-s"}, "gcs": {"bucket": "m-s"}, "sha256": "ab" * 32}, "textColumn": "title"},
            "spec.embedding.encoder.onnx",
            "exactly one kind of store has to be given",
        ),
        (
            "spec.embedding.encoder",
            {"onnx": {"s3": {"bucket": "models"}, "sha256": "AB" * 32}, "textColumn": "title"},
            "spec.embedding.encoder.onnx.sha256",
            "should match",
        ),
        ("spec.embedding.encoder", {"textColumn": "title"}, "spec.embedding.encoder.onnx", "one of onnx and endpoint"),
        ("spec.source.columns.text", "body", "spec.source.columns.text", "needs embedding.encoder"),
        (
            "spec.embedding.encoder",
            {"endpoint": {"url": "tei.ml.svc"}, "textColumn": "title"},
            "spec.embedding.encoder.endpoint.url",
            "should match",
        ),
        (
            "spec.embedding.encoder",
            {"endpoint": {"url": "http://tei:65536/v1"}, "textColumn": "title"},
            "spec.embedding.encoder.endpoint.url",
            "should match",
        ),
        (
            "spec.embedding.encoder",
            {"endpoint": {"url": "http://[/v1"}, "textColumn": "title"},
            "spec.embedding.encoder.endpoint.url",
            "should match",
        ),
        ("spec.embedding.queryPrefix", "query: ", "spec.embedding.encoder", "are of embedding.encoder"),
        ("spec.searcher.rerank", {"onnx": CROSS}, "spec.searcher.rerank", "searcher.rerank needs embedding.encoder"),
        (
            "spec.searcher.rerank",
            {"onnx": {"sha256": "ab" * 32}},
            "spec.searcher.rerank.onnx",
            "exactly one kind of store has to be given",
        ),
        (
            "spec.searcher.rerank",
            {"onnx": CROSS | {"gcs": {"bucket": "m-s"}}},
            "spec.searcher.rerank.onnx",
            "exactly one kind of store has to be given",
        ),
        ("spec.searcher.rerank", {"onnx": CROSS, "budget": "50"}, "spec.searcher.rerank.budget", "should match"),
        ("spec.searcher.rerank", {"onnx": CROSS, "budget": "5001ms"}, "spec.searcher.rerank.budget", "should match"),
        ("spec.searcher.rerank", {"onnx": CROSS, "candidates": 201}, "spec.searcher.rerank.candidates", "less than"),
        ("spec.embedding.metric", "cosine", "spec.embedding.metric", 'supported values: "Cosine", "InnerProduct"'),
        ("spec.build.device", "TPU", "spec.build.device", '"PreferGPU"'),
        ("spec.rollout.strategy", "Linear", "spec.rollout.strategy", '"BlueGreen"'),
        ("spec.artifacts.deletionPolicy", "Keep", "spec.artifacts.deletionPolicy", '"Retain", "Delete"'),
        ("spec.gate.onInconclusive", "Pass", "spec.gate.onInconclusive", '"Hold", "Reject"'),
        ("spec.index.objective.minimise", "Cost", "spec.index.objective.minimise", '"Latency", "Memory"'),
        ("spec.index.effort", "Max", "spec.index.effort", '"Low", "Normal", "High"'),
        (RULES, rule(metric="Errors", max="2%"), f"{RULES}[0].metric", '"ErrorRate"'),
        # bounds
        ("spec.gate.k", 0, "spec.gate.k", "greater than or equal to 1"),
        ("spec.gate.k", 1001, "spec.gate.k", "less than or equal to 1000"),
        ("spec.gate.recall.min", 1.5, "spec.gate.recall.min", "less than or equal to 1"),
        ("spec.index.objective.recall", 1.5, "spec.index.objective.recall", "less than or equal to 1"),
        ("spec.gate.recall.confidence", 1.0, "spec.gate.recall.confidence", "must be at most 0.999"),
        ("spec.gate.recall.confidence", 0.4, "spec.gate.recall.confidence", "must be at least 0.5"),
        ("spec.source.s3.bucket", "", "spec.source.s3.bucket", "at least 3 chars"),
        ("spec.source.s3.bucket", "Bad_Name", "spec.source.s3.bucket", "should match"),
        ("spec.source.s3.endpoint", "https://me:pw@s3", "spec.source.s3.endpoint", "should match"),
        ("spec.source.s3.endpoint", "s3.example", "spec.source.s3.endpoint", "should match"),
        ("spec.source.s3.endpoint", "https://s3?x=1", "spec.source.s3.endpoint", "should match"),
        (
            "spec.source.s3",
            {"bucket": "embeddings", "anonymous": True, "secretRef": {"name": "s3"}},
            "spec.source.s3.anonymous",
            "contradict each other: remove one",
        ),
        ("spec.source.s3.secretRef.name", "", "spec.source.s3.secretRef.name", "should match"),
        ("spec.source.tombstones", {}, "spec.source.tombstones.prefix", "Required value"),
        ("spec.source.tombstones", {"prefix": "deleted"}, "spec.source.tombstones.prefix", "should match"),
        (
            "spec.searcher.params",
            {"max": {"nprobe": -1}},
            "spec.searcher.params.max.nprobe",
            "greater than or equal to 0",
        ),
        (
            "spec.searcher.params",
            {"allow": ["nprobe"], "max": {"nprobe": 9, "k_factor": 2}},
            "spec.searcher.params.max",
            "params.max names a parameter that params.allow does not",
        ),
        ("spec.searcher.auth", {}, "spec.searcher.auth.secretRef", "Required value"),
        ("spec.searcher.auth.secretRef.name", "Bad Name", "spec.searcher.auth.secretRef.name", "should match"),
        ("spec.searcher.tls", {"secretRef": {}}, "spec.searcher.tls.secretRef.name", "Required value"),
        ("spec.searcher.tls.certFile", "/x", ".spec.searcher.tls.certFile", "field not declared in schema"),
        *(
            ("spec.searcher.cache", cache, "spec.searcher.cache", why)
            for cache, why in (
                ({}, "give one of ephemeral and claimName"),
                ({"ephemeral": {"size": "1Gi"}, "claimName": "a", "limit": "1Gi"}, "give one of ephemeral and claimN"),
                ({"claimName": "a"}, "limit goes with claimName"),
                ({"ephemeral": {"size": "1Gi"}, "limit": "1Gi"}, "limit goes with claimName"),
                ({"ephemeral": {}}, "spec.searcher.cache.ephemeral.size"),
                ({"claimName": "A_b", "limit": "1Gi"}, "should match"),
                ({"claimName": "a", "limit": "1.5Gi"}, "should match"),
            )
        ),
        ("spec.searcher.cache.hostPath", {"path": "/x"}, ".spec.searcher.cache.hostPath", "not declared in schema"),
        (NETWORK, {"mode": "Managed"}, f"{NETWORK}.from", "mode Managed needs from"),
        (NETWORK, {"mode": "Managed", "from": []}, f"{NETWORK}.from", "mode Managed needs from"),
        (NETWORK, {"from": [{"podSelector": {}}]}, f"{NETWORK}.from", "from needs mode Managed"),
        (NETWORK, {"mode": "Deny"}, f"{NETWORK}.mode", '"None", "Managed"'),
        (NETWORK, managed({}), f"{NETWORK}.from[0]", "name either ipBlock"),
        (NETWORK, managed({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}), f"{NETWORK}.from[0]", "name either"),
        (NETWORK, managed(*[{"podSelector": {}}] * 17), f"{NETWORK}.from", "at most 16 items"),
        (NETWORK, managed({"podSelector": {"matchExpressions": []}}), f"{NETWORK}.from[0]", "not declared in schema"),
        (NETWORK, managed({"ipBlock": {"cidr": "10.0.0.0"}}), f"{NETWORK}.from[0].ipBlock.cidr", "should match"),
        (NETWORK, managed({"ipBlock": {"cidr": "10.0.0.0/33"}}), f"{NETWORK}.from[0].ipBlock.cidr", "such as 10.0.0.0"),
        (NETWORK, managed({"ipBlock": {"cidr": "10.0.0/8"}}), f"{NETWORK}.from[0].ipBlock.cidr", "such as 10.0.0.0/8"),
        *(
            (NETWORK, managed({"ipBlock": {"cidr": "10.0.0.0/8", "except": [out]}}), ".ipBlock.except", "a smaller one")
            for out in ("10.0.0.0/8", "11.0.0.0/16", "10.0.0.0/99", "::/64", "0.0.0.0/0")
        ),
        ("spec.embedding.dimension", 0, "spec.embedding.dimension", "greater than or equal to 1"),
        ("spec.searcher.replicas", 0, "spec.searcher.replicas", "greater than or equal to 1"),
        ("spec.suspend", "true", ".spec.suspend", "expected boolean"),
        ("spec.pinRevision", "The one before", "spec.pinRevision", "should match"),
        ("spec.history", 0, "spec.history", "greater than or equal to 1"),
        ("spec.build.retries", 11, "spec.build.retries", "less than or equal to 10"),
        ("spec.build.gpu.count", 0, "spec.build.gpu.count", "greater than or equal to 1"),
        ("spec.segments", [{"name": f"s{i}"} for i in range(33)], "spec.segments", "at most 32 items"),
        (
            "spec.index",
            {"factory": "IVF8,Flat", "searchParams": {"nprobe": -1}},
            "spec.index.searchParams.nprobe",
            "greater than or equal to 0",
        ),
        ("spec.gate.allowColumnChanges", [""], "spec.gate.allowColumnChanges[0]", "at least 1 chars"),
        ("spec.gate.allowColumnChanges", ["c"] * 33, "spec.gate.allowColumnChanges", "at most 32 items"),
        # text forms
        ("spec.index.objective.memoryLimit", "4 Gi", "spec.index.objective.memoryLimit", "should match"),
        ("spec.index.objective.memoryLimit", "0Gi", "spec.index.objective.memoryLimit", "should match"),
        ("spec.source.poll", "5 minutes", "spec.source.poll", "should match"),
        ("spec.source.minInterval", "10", "spec.source.minInterval", "should match"),
        *(
            (SCHEDULE, {"cron": cron}, f"{SCHEDULE}.cron", "cron is minute, hour, day of month, month and day of week")
            for cron in ("0 3 * *", "@daily", "0 0 3 * * *", "60 3 * * *", "0 24 * * *", "0 3 L * *", "*/0 * * * *", "")
        ),
        (SCHEDULE, {"cron": "0 3 * * *", "timeZone": "Europe/Zurch"}, f"{SCHEDULE}.timeZone", "Europe/Zurch"),
        (SCHEDULE, {"cron": "0 3 * * *", "timeZone": "Europe"}, f"{SCHEDULE}.timeZone", "name of the IANA database"),
        (SCHEDULE, {"cron": "0 3 * * *", "timeZone": "+02:00"}, f"{SCHEDULE}.timeZone", "should match"),
        (SCHEDULE, {"timeZone": "UTC"}, f"{SCHEDULE}.cron", "Required value"),
        (
            "spec.source",
            {"s3": {"bucket": "embeddings"}, "poll": "1m", "schedule": {"cron": "0 3 * * *"}},
            "spec.source.poll",
            "remove poll or schedule",
        ),
        ("spec.rollout.soak.duration", "-5m", "spec.rollout.soak.duration", "should match"),
        ("spec.rollout.keepPrior", "25h", "spec.rollout.keepPrior", "24h at most"),
        ("spec.rollout.keepPrior", "2d", "spec.rollout.keepPrior", "24h at most"),
        ("spec.rollout.keepPrior", 5, "spec.rollout.keepPrior", "a number needs a unit"),
        ("spec.rollout.shadow", {"maxPerSecond": -1}, "spec.rollout.shadow.maxPerSecond", "greater than or equal to 0"),
        ("spec.rollout.shadow", {"onInconclusive": "Reject"}, "spec.rollout.shadow.onInconclusive", '"Switch", "Hold"'),
        ("spec.rollout.shadow", {"duration": "11m"}, "spec.rollout.shadow.duration", "must not be longer"),
        ("spec.rollout.shadow", {"duration": "1d"}, "spec.rollout.shadow.duration", "must not be longer"),
        ("spec.rollout.shadow", {"maxDuration": "1h"}, "spec.rollout.shadow.maxDuration", "50m at most"),
        ("spec.rollout.shadow", {"maxDuration": "1d"}, "spec.rollout.shadow.maxDuration", "50m at most"),
        ("spec.rollout", canary(steps=[]), "spec.rollout.steps", "at least 1 items"),
        ("spec.rollout", {"strategy": "Canary"}, "spec.rollout.steps", "needs steps"),
        ("spec.rollout", canary(strategy="BlueGreen"), "spec.rollout.steps", "steps need strategy: Canary"),
        ("spec.rollout", {"strategy": "Canary", "steps": [STEP]}, "spec.rollout.route", "steps need route.parentRefs"),
        ("spec.rollout", canary(steps=[STEP, STEP]), "spec.rollout.steps", "larger weight"),
        ("spec.rollout", canary(steps=[{**STEP, "weight": 50}, STEP]), "spec.rollout.steps", "larger weight"),
        ("spec.rollout", canary(steps=[{"weight": 10}]), "spec.rollout.steps[0].duration", "needs duration, or pause"),
        (
            "spec.rollout",
            canary(steps=[{**STEP, "weight": 100}]),
            "spec.rollout.steps[0].weight",
            "less than or equal to 99",
        ),
        ("spec.rollout", {"route": {"parentRefs": []}}, "spec.rollout.route.parentRefs", "at least 1 items"),
        (
            "spec.rollout",
            {"route": {"parentRefs": [{"name": "g"}], "hostnames": ["a b"]}},
            "spec.rollout.route.hostnames[0]",
            "should match",
        ),
        (RULES, rule(metric="AnswersChanged", maxRiseVsStable="2%"), f"{RULES}[0]", "stable misses and changes none"),
        ("spec.build.timeout", "", "spec.build.timeout", "should match"),
        ("spec.build.timeout", "0h", "spec.build.timeout", "should match"),
        ("spec.source.minInterval", "9999999d", "spec.source.minInterval", "should match"),
        (RULES, rule(max="2%", window="0m"), f"{RULES}[0].window", "should match"),
        ("spec.gate.maxCountDrop", "10", "spec.gate.maxCountDrop", "should match"),
        ("spec.gate.maxCountDrop", "101%", "spec.gate.maxCountDrop", "should match"),
        ("spec.guardrails.falseTripBudget", "1 %", "spec.guardrails.falseTripBudget", "should match"),
        ("spec.build.resources", {"requests": {"memory": "lots"}}, "spec.build.resources.requests.memory", "match"),
        ("spec.build.pod.serviceAccountName", "Bad Name", "spec.build.pod.serviceAccountName", "should match"),
        ("spec.searcher.pod.tolerations", [{"value": "gpu"}], "spec.searcher.pod.tolerations[0]", "Equal needs a key"),
        # pods: what is ours, and what would make more of a pod than a searcher
        ("spec.searcher.pod.hostNetwork", True, "spec.searcher.pod.hostNetwork", "none: pods share nothing with"),
        ("spec.searcher.pod.hostNetwork", None, "spec.searcher.pod.hostNetwork", "none: pods share nothing with"),
        ("spec.build.pod.securityContext", {"runAsUser": 0}, "spec.build.pod.securityContext", "none: it is that of"),
        ("spec.build.pod.initContainers", [{"name": "a"}], "spec.build.pod.initContainers", "none: no other code"),
        ("spec.build.pod.containers", [{"name": "a"}], "spec.build.pod.containers", "none: there is one container"),
        (POD, {"nodeSelectors": {"a": "b"}}, ".spec.searcher.pod.nodeSelectors", "field not declared in schema"),
        (POD, {"labels": {"vectorindex.dev/revision": "x"}}, f"{POD}.labels", "one that is the operator's own"),
        (POD, {"labels": {"app.kubernetes.io/component": "x"}}, f"{POD}.labels", "one that is the operator's own"),
        (POD, {"annotations": {"vectorindex.dev/memory": "x"}}, f"{POD}.annotations", "one that is the operator's"),
        (POD, env(name="VECTORINDEX_TASK", value="x"), f"{POD}.env[0].name", "choose another name"),
        (POD, env(name="ARTIFACTS_CA_PEM", value="x"), f"{POD}.env[0].name", "choose another name"),
        (POD, env(name="LD_PRELOAD", value="/mnt/a.so"), f"{POD}.env[0].name", "load other code"),
        (POD, env(name="PYTHONPATH", value="/mnt/a"), f"{POD}.env[0].name", "load other code"),
        (POD, env(name="CUDA_INJECTION64_PATH", value="/mnt/a.so"), f"{POD}.env[0].name", "load other code"),
        (POD, env(name="AWS_ENDPOINT_URL_STS", value="http://x"), f"{POD}.env[0].name", "send files away"),
        (POD, env(name="AWS_WEB_IDENTITY_TOKEN_FILE", value="/x"), f"{POD}.env[0].name", "send files away"),
        (POD, env(name="NVIDIA_VISIBLE_DEVICES", value="all"), f"{POD}.env[0].name", "get devices"),
        (
            POD,
            env(name="HTTPS_PROXY", value="http://$(ARTIFACTS_AWS_SECRET_ACCESS_KEY).example.com"),
            f"{POD}.env[0].value",
            "may come from a Secret",
        ),
        (
            POD,
            {"annotations": {"container.apparmor.security.beta.kubernetes.io/searcher": "unconfined"}},
            f"{POD}.annotations",
            "a profile of AppArmor",
        ),
        (POD, env(name="A-B"), f"{POD}.env[0].name", "should match"),
        (POD, env(name="A", valueFrom={"secretKeyRef": {}}), f"{POD}.env[0].valueFrom.secretKeyRef", "names Secrets"),
        (POD, env(name="A", value="x", valueFrom={}), f"{POD}.env[0].valueFrom", "not both"),
        (POD, {"env": [{"name": "A"}, {"name": "A"}]}, f"{POD}.env", "duplicate"),
        (POD, volume(hostPath={"path": "/"}), f"{POD}.volumes[0].hostPath", "none: pods share nothing"),
        (POD, volume(secret={"secretName": "db"}), f"{POD}.volumes[0].secret", "none: a VectorIndex names Secrets"),
        (POD, volume(projected={"sources": []}), f"{POD}.volumes[0].projected", "none: no API token"),
        (POD, volume(), f"{POD}.volumes[0]", "give one of configMap"),
        (POD, volume(emptyDir={}, configMap={"name": "a"}), f"{POD}.volumes[0]", "give one of configMap"),
        (POD, volume(name="cache", emptyDir={}), f"{POD}.volumes[0].name", "choose another name"),
        (POD, {"volumeMounts": [{"name": "a", "mountPath": "/mnt/a"}]}, f"{POD}.volumeMounts", "is not in volumes"),
        (POD, mounted("/usr/lib"), f"{POD}.volumeMounts[0].mountPath", "should match"),
        (POD, mounted("/mnt/../usr/lib"), f"{POD}.volumeMounts[0].mountPath", "should match"),
        ("spec.searcher.service.type", "LoadBalancer", "spec.searcher.service.type", "none: it is ClusterIP"),
        ("spec.searcher.service.ipFamilyPolicy", "Dual", "spec.searcher.service.ipFamilyPolicy", '"RequireDualStack"'),
        (
            "spec.searcher.service",
            {"annotations": {"vectorindex.dev/decision": "{}"}},
            "spec.searcher.service.annotations",
            "operator's, or kubectl's, own",
        ),
        # numbers
        ("spec.build.resources", {"requests": {"cpu": -1}}, "spec.build.resources.requests.cpu", "a number, or text"),
        ("spec.build.resources", {"requests": {"cpu": True}}, "spec.build.resources.requests.cpu", "value: true"),
        ("spec.build.resources", {"requests": {"cpu": {}}}, "spec.build.resources.requests.cpu", "a number, or text"),
        ("spec.build.resources", {"requests": {"cpu": 1e300}}, "spec.build.resources.requests.cpu", "a number, or"),
        ("spec.source.poll", 5, "spec.source.poll", "Invalid value: 5: a number needs a unit (90s, 15m, 1h30m)"),
        ("spec.source.poll", 0.5, "spec.source.poll", "must be of type integer,string"),
        ("spec.source.minInterval", 10, "spec.source.minInterval", "a number needs a unit"),
        ("spec.gate.maxCountDrop", 10, "spec.gate.maxCountDrop", "a number needs a unit (2%, 0.5%)"),
        ("spec.index.objective.memoryLimit", 0, "spec.index.objective.memoryLimit", "greater than or equal to 1"),
        # lists keyed by name
        ("spec.segments", [{"name": "a"}, {"name": "a"}], "spec.segments", "duplicate"),
        (RULES, rule(max="2%") * 2, RULES, "duplicate"),
        ("spec.segments", [{"name": "other"}], "spec.segments[0]", "the segment of undeclared queries"),
        # guardrail rules
        (RULES, rule(), f"{RULES}[0]", "exactly one of"),
        (RULES, rule(max="2%", maxRiseVsStable="10%"), f"{RULES}[0]", "exactly one of"),
        (RULES, rule(min="0.5"), f"{RULES}[0]", "the other metrics take max"),
        (RULES, rule(metric="TopScore", max="2%"), f"{RULES}[0]", "TopScore, LiveRecall and RerankedShare take min"),
        (RULES, rule(max="40ms"), f"{RULES}[0].max", "a percentage, such as 2%"),
        (RULES, rule(max="-2%"), f"{RULES}[0].max", "a percentage, such as 2%"),
        (RULES, rule(max="200%"), f"{RULES}[0].max", "a percentage, such as 2%"),
        (RULES, rule(max=0.02), f"{RULES}[0].max", 'value: 0.02: supported values: "a percentage, such as 2%"'),
        (RULES, rule(max="a percentage, such as 2%"), f"{RULES}[0].max", "should match"),
        (RULES, rule(metric="LatencyP99", max="-2s"), f"{RULES}[0].max", "a duration, such as 40ms"),
        (RULES, rule(metric="LatencyP99", max="2%"), f"{RULES}[0].max", "a duration, such as 40ms"),
        (RULES, rule(metric="LatencyP95", max=40), f"{RULES}[0].max", "a duration, such as 40ms"),
        (RULES, rule(metric="TopScore", min="5%"), f"{RULES}[0].min", "a number, such as 0.45"),
        (RULES, rule(metric="TopScore", min=1e9), f"{RULES}[0].min", "a number, or text such as 2% or 40ms"),
        (RULES, rule(metric="ClickDepth", max="3.5"), RULES, "mode Observe until searcher.auth is set"),
        (RULES, rule(metric="RefusalRate", max="5%"), RULES, "mode Observe until searcher.auth is set"),
        (RULES, rule(metric="FilteredZeroResultRate", max="5%"), RULES, "mode Observe until searcher.auth is set"),
        (RULES, rule(metric="FiltersLost", maxRiseVsStable="5%"), f"{RULES}[0]", "takes its own filters"),
        (RULES, rule(metric="FiltersLost", max="40ms"), f"{RULES}[0].max", "a percentage, such as 2%"),
        (RULES, rule(metric="ClickDepth", max="5%", mode="Observe"), f"{RULES}[0].max", "a number, such as 3.5"),
        (RULES, rule(metric="ClickDepth", max=-3, mode="Observe"), f"{RULES}[0].max", "a number, such as 3.5"),
        (RULES, rule(metric="ClickDepth", max=True, mode="Observe"), f"{RULES}[0].max", "a number, or text"),
        (RULES, rule(metric="ClickDepth", max={}, mode="Observe"), f"{RULES}[0].max", "a number, or text"),
        (RULES, rule(metric="ClickDepth", max=[3], mode="Observe"), f"{RULES}[0].max", "a number, or text"),
        (RULES, rule(metric="ClickDepth", min="3", mode="Observe"), f"{RULES}[0]", "the other metrics take max"),
        (RULES, rule(metric="PromQL", max=5), f"{RULES}[0]", "PromQL needs query"),
        (RULES, rule(metric="PromQL", max=5, query=""), f"{RULES}[0].query", "at least 1 chars"),
        (RULES, rule(max="2%", query="up"), f"{RULES}[0]", "no other metric takes one"),
        (RULES, rule(metric="PromQL", max="2%", query="up"), f"{RULES}[0].max", "a number, such as 0.45"),
        (
            RULES,
            rule(metric="PromQL", query="up", maxDropVsStable="5%"),
            f"{RULES}[0].query",
            "has to name the revision",
        ),
        (RULES, rule(metric="PromQL", query="up{a='{{pod}}'}", max=5), f"{RULES}[0].query", "in two braces"),
        (RULES, rule(metric="PromQL", query="up", max=5, segment="other"), f"{RULES}[0].segment", "has none"),
        (
            RULES,
            [{**rule(metric="PromQL", query="up", max=5)[0], "name": f"r{n}"} for n in range(9)],
            RULES,
            "at most 8",
        ),
        (RULES, rule(metric="PromQL", query="x" * 2001, max=5), f"{RULES}[0].query", "more than 2000 bytes"),
        (RULES, rule(metric="LiveRecall", min="0.93"), f"{RULES}[0].min", "a percentage, such as 2%"),
        (RULES, rule(metric="LiveRecall", min="101%"), f"{RULES}[0].min", "a percentage, such as 2%"),
        (RULES, rule(metric="LiveRecall", max="93%"), f"{RULES}[0]", "TopScore, LiveRecall and RerankedShare take min"),
        (
            RULES,
            rule(metric="RerankedShare", max="90%"),
            f"{RULES}[0]",
            "TopScore, LiveRecall and RerankedShare take min",
        ),
        (RULES, rule(metric="RerankedShare", min="0.9"), f"{RULES}[0].min", "a percentage, such as 2%"),
        (RULES, rule(metric="LiveRecall", min="93%", consecutive=3), f"{RULES}[0].window", "30m at most"),
        (RULES, rule(max="2%", segment="nobody"), RULES, "that spec.segments does not declare"),
        (RULES, rule(max="2%", window="15m1s"), f"{RULES}[0].window", "30m at most"),
        (RULES, rule(max="2%", window="16s", consecutive=100), f"{RULES}[0].window", "30m at most"),
        (RULES, rule(max="2%", window="1d", consecutive=1), f"{RULES}[0].window", "30m at most"),
        # rules across fields
        (
            "spec.source",
            {"s3": {"bucket": "vectors", "prefix": "a/b"}, "tombstones": {"prefix": "a/b/"}},
            "spec.source.tombstones.prefix",
            "must not be, or contain",
        ),
        (
            "spec.source",
            {"s3": {"bucket": "vectors", "prefix": "a/b/"}, "tombstones": {"prefix": "a/"}},
            "spec.source.tombstones.prefix",
            "must not be, or contain",
        ),
        *(
            (
                "spec.source",
                {"s3": {"bucket": "vectors", "prefix": prefix}, "fresh": {"prefix": fresh}, **more},
                field,
                says,
            )
            for prefix, fresh, more, field, says in (
                ("", "fresh/", {}, FRESH, "must lie beside the prefix of the vectors"),
                ("a/b", "a/b/", {}, FRESH, "must lie beside the prefix of the vectors"),
                ("a/b/", "a/", {}, FRESH, "must lie beside the prefix of the vectors"),
                ("a/", "a/fresh/", {}, FRESH, "must lie beside the prefix of the vectors"),
                ("a/", "b/", {"tombstones": {"prefix": "b/gone/"}}, FRESH, "must lie beside tombstones.prefix"),
                ("a/", "b/c/", {"tombstones": {"prefix": "b/"}}, FRESH, "must lie beside tombstones.prefix"),
                ("a/", "b/", {"poll": 0}, "spec.source.fresh", "needs a source.poll above 0"),
                ("a/", "b/", {"poll": "0m"}, "spec.source.fresh", "needs a source.poll above 0"),
                ("a/", "b/", {"columns": {"text": "t"}}, "spec.source.fresh", "write vectors"),
                ("a/", "bb", {}, FRESH, "should match"),
            )
        ),
        ("spec.source", {"s3": {"bucket": "vectors"}, "fresh": {}}, FRESH, "Required value"),
        (
            "spec.source",
            {"s3": {"bucket": "vectors", "prefix": "a/"}, "fresh": {"prefix": "b/", "maxRows": 50001}},
            "spec.source.fresh.maxRows",
            "less than or equal to 50000",
        ),
        (
            "spec.source",
            {"volume": {"claimName": "v", "path": "a"}, "fresh": {"prefix": "b/"}},
            "spec.source.fresh",
            "needs the source in a bucket",
        ),
        ("spec.gate.segments", [{"name": "a", "min": 0.9}], "spec.gate.segments", "needs gate.queries"),
        ("spec.gate.relevance", {"minMRR": 0.5}, "spec.gate.relevance", "needs gate.queries"),
        ("spec.gate.queries", {"column": "vec"}, "spec.gate.queries", "needs files (s3, azure, gcs or volume), live"),
        (
            "spec.gate.queries",
            {"live": {}, "segmentColumn": "kind"},
            "spec.gate.queries.segmentColumn",
            "a column of the files",
        ),
        (
            "spec.gate.queries",
            {"live": {}, "filterColumn": "only"},
            "spec.gate.queries.filterColumn",
            "a column of the files",
        ),
        (
            "spec.gate.queries",
            {"live": {}, "textColumn": "said"},
            "spec.gate.queries.textColumn",
            "a column of the files",
        ),
        (
            "spec.gate.queries",
            {"s3": {"bucket": "queries"}, "textColumn": "said"},
            "spec.gate.queries.textColumn",
            "needs gate.relevance",
        ),
        ("spec.gate.queries", {"live": {"minQueries": 119}}, "spec.gate.queries.live.minQueries", "120"),
        (
            "spec.gate",
            {"queries": {"live": {}}, "relevance": {}},
            "spec.gate.relevance",
            "needs gate.queries with files",
        ),
        ("spec.gate.recall.min", 0.97, "spec.index.objective.recall", "must be at least gate.recall.min"),
        ("spec.gate.recall.min", 0.995, "spec.gate.recall.min", "only be proven for factory Flat"),
        (
            "spec.index",
            {"factory": "HNSW32", "objective": {"memoryLimit": "1Gi"}},
            "spec.index.objective.memoryLimit",
            "needs index.factory Auto",
        ),
        ("spec.index.searchParams", {"nprobe": 8}, "spec.index.searchParams", "needs an index.factory"),
        ("spec.index.import", {"index": "a", "sha256": "0" * 64}, "spec.index.import", "needs gate.queries"),
        ("spec.index.import", {"index": "a", "sha256": "0"}, "spec.index.import.sha256", "should match"),
        ("spec.index.import", {"index": "a", "sha256": "0" * 64, "ids": "b"}, "spec.index.import", "go together"),
        (
            "spec.index",
            {"factory": "Flat", "import": {"index": "a", "sha256": "0" * 64}},
            "spec.index.import",
            "an index that is built",
        ),
        ("spec.index.shards", 1, "spec.index.shards", "greater than or equal to 2"),
        ("spec.index.shards", 65, "spec.index.shards", "less than or equal to 64"),
        ("spec.index.shards", "auto", "spec.index.shards", "should match '^Auto$'"),
        ("spec.index.shards", "many", "spec.index.shards", "should match '^Auto$'"),
        ("spec.index.shards", 2.5, "spec.index.shards", "shards"),
        ("spec.searcher.memoryPerShard", "8Gi", "spec.searcher.memoryPerShard", "needs index.shards Auto"),
        ("spec.searcher.memoryPerShard", "much", "spec.searcher.memoryPerShard", "should match"),
        ("spec.searcher.partial", "Allow", "spec.searcher.partial", "needs index.shards"),
        ("spec.searcher.partial", "Maybe", "spec.searcher.partial", "supported values"),
        ("spec.build.queueName", "", "spec.build.queueName", "should match"),
        ("spec.build.queueName", "Team A", "spec.build.queueName", "should match"),
        ("spec.build.queueName", "a.b", "spec.build.queueName", "should match"),
        ("spec.build.queueName", "q" * 64, "spec.build.queueName", "Too long"),
        ("spec.build.parallelism", 0, "spec.build.parallelism", "greater than or equal to 1"),
        # names
        ("metadata.name", "x" * 41, "metadata.name", "at most 40 characters"),
        ("metadata.name", "1st", "metadata.name", "DNS-1035"),
        ("metadata.name", "a.b", "metadata.name", "DNS-1035"),
    ],
)
def test_a_bad_field_is_refused_by_name(
    api: Api, smallest: Json, path: str, value: object, field: str, says: str
) -> None:
    answer = api.apply(changed(smallest, path, value))
    assert not answer.ok, f"accepted: {answer.body}"
    assert says.lower() in answer.message.lower()
    assert field in answer.message
    assert not api.get(
        f"/apis/vectorindex.dev/v1alpha1/namespaces/default/vectorindexes/{smallest['metadata']['name']}"
    ).ok


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("spec.artifacts", {"volume": {"claimName": "indexes"}}, "needs artifacts in a bucket"),
        ("spec.index.import", {"index": "a", "sha256": "0" * 64}, "do not go together"),
    ],
)
def test_fresh_rows_need_a_bucket_to_publish_in_and_an_index_to_build(
    api: Api, smallest: Json, path: str, value: object, says: str
) -> None:
    source = {"s3": {"bucket": "vectors", "prefix": "a/"}, "fresh": {"prefix": "b/"}}
    manifest = changed(smallest, "spec.source", source)
    assert api.apply(manifest).ok
    answer = api.apply(changed(manifest, path, value))
    assert "spec.source.fresh" in answer.fields
    assert says in answer.message


ENCODER = {"onnx": {"s3": {"bucket": "models"}, "sha256": "ab" * 32}, "textColumn": "title"}
QUERIES = {"s3": {"bucket": "queries"}}
FRESH = {"s3": {"bucket": "vectors", "prefix": "a/"}, "fresh": {"prefix": "b/"}}


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("spec.index", {"shards": 2, "import": {"index": "a", "sha256": "0" * 64}}, "spec.index.import"),
        ("spec.embedding", {"encoder": ENCODER}, "spec.embedding.encoder"),
        ("spec.source", FRESH, "spec.source.fresh"),
        ("spec.segments", [{"name": "fr"}], "spec.segments"),
        ("spec.gate.queries", QUERIES | {"segmentColumn": "lang"}, "spec.gate.queries.segmentColumn"),
        ("spec.gate.queries", QUERIES | {"filterColumn": "filter"}, "spec.gate.queries.filterColumn"),
        ("spec.gate.queries", {"live": {}}, "spec.gate.queries.live"),
        ("spec.gate", {"queries": QUERIES, "relevance": {}}, "spec.gate.relevance"),
        ("spec.rollout.route", {"parentRefs": [{"name": "public"}]}, "spec.rollout.route"),
        (RULES, rule(metric="AnswersMissed", max="2%"), RULES),
        ("spec.searcher.replicas", 1, "spec.searcher.replicas"),
        ("spec.gate.k", 7, "spec.gate.k"),
    ],
)
def test_what_does_not_go_with_shards_is_refused_by_name(
    api: Api, smallest: Json, path: str, value: object, field: str
) -> None:
    answer = api.apply(changed(changed(smallest, "spec.index.shards", 2), path, value))
    assert not answer.ok, f"accepted: {answer.body}"
    assert "index.shards" in answer.message
    assert field in answer.message


def test_rules_that_only_a_shadow_can_judge_need_one(api: Api, smallest: Json) -> None:
    judged = changed(smallest, RULES, rule(metric="AnswersMissed", max="2%"))
    assert api.apply(judged).ok
    answer = api.apply(changed(judged, "spec.rollout", {"shadow": {"maxPerSecond": 0}}))
    assert answer.fields == (RULES,)
    assert "needs a rollout.shadow.maxPerSecond above 0" in answer.message


def test_gate_segments_need_to_know_the_segment_of_each_query(api: Api, smallest: Json) -> None:
    manifest = changed(smallest | {"spec": FULL_SPEC}, "spec.gate.queries.segmentColumn", "")
    answer = api.apply(manifest)
    assert "spec.gate.segments" in answer.fields
    assert "needs gate.queries with segmentColumn" in answer.message


def test_a_gate_segment_must_be_declared(api: Api, smallest: Json) -> None:
    answer = api.apply(changed(smallest | {"spec": FULL_SPEC}, "spec.gate.segments.0.name", "nobody"))
    assert "spec.gate.segments" in answer.fields
    assert "does not declare" in answer.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "another"),
        ("version", "2"),
        ("dimension", 768),
        ("metric", "Cosine"),
        ("model", ""),
        ("version", LEAVE_OUT),
        ("dimension", LEAVE_OUT),
        ("metric", LEAVE_OUT),
    ],
)
def test_another_embedding_is_another_index(api: Api, smallest: Json, field: str, value: object) -> None:
    manifest = smallest | {"spec": FULL_SPEC}
    assert api.apply(manifest).ok
    answer = api.apply(changed(manifest, f"spec.embedding.{field}", value))
    assert answer.status == 422
    assert answer.fields == (f"spec.embedding.{field}",)
    assert f"embedding.{field} cannot be changed" in answer.message


def test_the_whole_embedding_cannot_be_left_out_later(api: Api, smallest: Json) -> None:
    manifest = smallest | {"spec": FULL_SPEC}
    assert api.apply(manifest).ok
    answer = api.apply(changed(manifest, "spec.embedding", LEAVE_OUT))
    assert answer.status == 422
    assert "spec.embedding.model" in answer.fields


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("spec.gate.recal", {"min": 0.9}, 'unknown field "spec.gate.recal"'),
        ("spec.gate.k", 0, "spec.gate.k: Invalid value: 0: spec.gate.k in body should be greater than or equal to 1"),
        ("spec.gate.recall.min", 0.995, "spec.gate.recall.min"),
    ],
)
def test_kubectl_says_it_as_well(
    control_plane: ControlPlane, smallest: Json, path: str, value: object, says: str
) -> None:
    done = control_plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(changed(smallest, path, value)))
    assert done.returncode != 0
    assert says in done.stderr
