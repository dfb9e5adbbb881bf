"""Manifests that several tests of this layer change a little."""

from __future__ import annotations

import copy
from typing import Any

Json = dict[str, Any]
LEAVE_OUT = object()
"""As a value of `changed`: the field is removed."""

FULL_SPEC: Json = {
    "source": {
        "s3": {
            "bucket": "embeddings",
            "prefix": "products/",
            "endpoint": "https://s3.example:9000",
            "region": "eu-central-1",
            "secretRef": {"name": "s3"},
        },
        "columns": {"id": "sku", "vector": "embedding", "metadata": ["section", "installed_kib"]},
        "poll": "1m",
        "schedule": {"cron": "*/30 6-20 * * MON-FRI", "timeZone": "Europe/Zurich"},
        "minInterval": "1h30m",
        "tombstones": {"prefix": "products/deleted/"},
        "fresh": {"prefix": "products-fresh/", "maxRows": 20000},
    },
    "artifacts": {"s3": {"bucket": "indexes", "secretRef": {"name": "s3"}}, "deletionPolicy": "Retain"},
    "embedding": {
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "version": "1",
        "dimension": 384,
        "metric": "InnerProduct",
        "encoder": {
            "onnx": {
                "s3": {"bucket": "models", "prefix": "all-minilm-l6-v2/", "secretRef": {"name": "s3"}},
                "sha256": "0123456789abcdef" * 4,
            },
            "textColumn": "section",
        },
        "queryPrefix": "query: ",
        "documentPrefix": "passage: ",
    },
    "segments": [{"name": "keyword"}, {"name": "question"}],
    "index": {
        "factory": "IVF4096,PQ48x4fs,RFlat",
        "objective": {"recall": 0.97, "minimise": "Memory"},
        "effort": "High",
        "searchParams": {"nprobe": 32, "k_factor": 4},
    },
    "build": {
        "device": "PreferGPU",
        "gpu": {"resource": "amd.com/gpu", "count": 2},
        "resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "8Gi"}},
        "timeout": "4h",
        "queueName": "ml-batch",
        "retries": 0,
        "pod": {
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "serviceAccountName": "builder",
            "priorityClassName": "low",
        },
    },
    "gate": {
        "k": 20,
        "recall": {"min": 0.96, "confidence": 0.99},
        "queries": {
            "s3": {"bucket": "queries", "prefix": "labelled/"},
            "column": "vec",
            "segmentColumn": "query_class",
            "filterColumn": "only",
            "textColumn": "said",
            "live": {"minQueries": 500},
        },
        "segments": [{"name": "keyword", "min": 0.92}],
        "relevance": {"relevantColumn": "right", "minMRR": 0.6, "maxDropVsStable": "5%"},
        "maxCountDrop": "5%",
        "maxCountRise": "200%",
        "maxCostRise": "300%",
        "allowColumnChanges": ["section"],
        "onInconclusive": "Reject",
    },
    "searcher": {
        "replicas": 3,
        "resources": {"requests": {"cpu": "1500m"}},
        "minScore": -0.3,
        "rerank": {
            "onnx": {
                "s3": {"bucket": "models", "prefix": "cross/", "secretRef": {"name": "s3"}},
                "sha256": "0123456789abcdef" * 4,
            },
            "textColumn": "section",
            "candidates": 50,
            "budget": "80ms",
        },
        "params": {"allow": ["nprobe", "k_factor"], "max": {"nprobe": 64}},
        "auth": {"secretRef": {"name": "clients"}},
        "tls": {"secretRef": {"name": "products-tls"}},
        "cache": {"claimName": "products-cache", "limit": "50Gi"},
        "networkPolicy": {
            "mode": "Managed",
            "from": [
                {"podSelector": {"matchLabels": {"app": "website"}}, "namespaceSelector": {"matchLabels": {}}},
                {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.9.0.0/16"]}},
            ],
        },
        "service": {
            "annotations": {"external-dns.alpha.kubernetes.io/hostname": "search.example.com"},
            "ipFamilyPolicy": "PreferDualStack",
            "trafficDistribution": "PreferClose",
        },
        "pod": {
            "priorityClassName": "high",
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
            ],
            "schedulerName": "default-scheduler",
            "runtimeClassName": "gvisor",
            "labels": {"team": "search", "app.kubernetes.io/part-of": "shop"},
            "annotations": {"sidecar.istio.io/inject": "false"},
            "imagePullSecrets": [{"name": "registry"}],
            "env": [
                {"name": "AWS_CA_BUNDLE", "value": "/mnt/ca/ca.pem"},
                {"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
                {"name": "CORES", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                {"name": "ZONE", "valueFrom": {"configMapKeyRef": {"name": "site", "key": "zone", "optional": True}}},
            ],
            "volumes": [
                {"name": "ca", "configMap": {"name": "ca"}},
                {"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}},
                {"name": "shared", "persistentVolumeClaim": {"claimName": "shared", "readOnly": True}},
            ],
            "volumeMounts": [
                {"name": "ca", "mountPath": "/mnt/ca", "readOnly": True},
                {"name": "shared", "mountPath": "/mnt/shared.d/a", "subPath": "a"},
            ],
        },
    },
    "rollout": {
        "strategy": "BlueGreen",
        "shadow": {
            "maxPerSecond": 50,
            "duration": "2m",
            "minQueries": 1000,
            "maxDuration": "20m",
            "onInconclusive": "Hold",
            "afterSwitch": True,
        },
        "soak": {"duration": "30m", "minQueries": 1000, "maxDuration": "1d"},
        "progressDeadline": "20m",
        "keepPrior": "12h",
    },
    "guardrails": {
        "steadyState": "Observe",
        "falseTripBudget": "0.5%",
        "rules": [
            {
                "name": "zero-results",
                "metric": "ZeroResultRate",
                "segment": "keyword",
                "max": "2%",
                "window": "2m",
                "warmUp": "0s",
                "minSamples": 100,
                "consecutive": 3,
                "mode": "Observe",
                "onNoData": "Pass",
            },
            {"name": "slow", "metric": "LatencyP99", "max": "40ms"},
            {"name": "slower", "metric": "LatencyP95", "segment": "other", "maxRiseVsStable": "150%"},
            {"name": "score", "metric": "TopScore", "min": "0.45"},
            {"name": "drop", "metric": "TopScore", "maxDropVsStable": "10%"},
            {"name": "missed", "metric": "AnswersMissed", "max": "5%"},
            {"name": "changed", "metric": "AnswersChanged", "max": "2%", "segment": "keyword"},
        ],
    },
    "history": 5,
    "pinRevision": "products-1a2b3c4d",
    "suspend": True,
}


def changed(manifest: Json, path: str, value: Any) -> Json:
    """A copy of `manifest` with the field at `path` ("spec.gate.k", "spec.segments.0.name") set or left out."""
    out = copy.deepcopy(manifest)
    *parents, last = path.split(".")
    node: Any = out
    for key in parents:
        node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
    if isinstance(node, list):
        node[int(last)] = value
    elif value is LEAVE_OUT:
        del node[last]
    else:
        node[last] = value
    return out
