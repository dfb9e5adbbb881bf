"""What a VectorIndex may name, restricted by the chart's policies: decided by a real API server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from apiserver.manifests import FULL_SPEC, LEAVE_OUT, changed
from chart import IMAGE, helm, of_kind, render
from control_plane import Api, Json
from pydantic import BaseModel

from vectorindex_operator.api.v1alpha1 import STORES, VectorIndexSpec

NAMED = (
    *("secretRef.name", "tokenSecretRef.name", "serviceAccountName", "endpoint.url", "claimName"),
    *(f"{kind}.endpoint" for kind in STORES),
)
"""Ends of the paths of what the policies are about."""
ENDPOINT = "https://s3.example.com"
TENANTS = {
    "name": "tenants",
    "namespaceSelector": {"matchLabels": {"tier": "tenant"}},
    "serviceAccountNames": ["searcher", "index-*"],
    "secretNames": ["s3", "vectorindex-*"],
    "claimNames": ["vectors", "index-*"],
    "endpoints": [ENDPOINT],
}
AWS = {
    "name": "aws",
    "namespaceSelector": {"matchLabels": {"store": "aws"}},
    "secretNames": [],
    "endpoints": [""],
}
AZURE = {"account": "acme", "container": "vectors"}
GOOD: Json = {
    "source": {"s3": {"bucket": "vectors", "endpoint": ENDPOINT, "secretRef": {"name": "s3"}}},
    "artifacts": {"s3": {"bucket": "indexes", "endpoint": ENDPOINT}},
    "build": {"pod": {"serviceAccountName": "index-builder"}},
    "searcher": {"pod": {"serviceAccountName": "searcher"}, "auth": {"secretRef": {"name": "vectorindex-tokens"}}},
}


def named(model: type[BaseModel] = VectorIndexSpec, at: str = "") -> Iterator[str]:
    """Every path of the spec that names a Secret, a ServiceAccount, a claim or an endpoint."""
    for name, info in model.model_fields.items():
        path = f"{at}.{info.alias or name}".lstrip(".")
        if any(f".{path}".endswith(f".{end}") for end in NAMED):
            yield path
        parts: tuple[Any, ...] = (info.annotation, *getattr(info.annotation, "__args__", ()))
        for part in parts:
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from named(part, path)


def ruled(*rules: Json) -> Json:
    """Values of the chart."""
    return {"admission": {"enabled": True, "rules": list(rules)}}


@pytest.fixture(scope="module")
def admin(control_plane: Any) -> Iterator[Api]:
    """An API server whose policies are in force."""
    api: Api = control_plane.api
    for name, labels in (("tenant", {"tier": "tenant"}), ("aws", {"store": "aws"}), ("free", {})):
        assert api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}).ok
    rendered = render(values=ruled(TENANTS, AWS))
    policies = of_kind(rendered, "ValidatingAdmissionPolicy") + of_kind(rendered, "ValidatingAdmissionPolicyBinding")
    assert len(policies) == 4
    for manifest in policies:
        answer = api.apply(manifest, "helm")
        assert answer.ok, answer.message
    deadline = time.monotonic() + 60  # the API server takes up a new policy some time after it is stored
    for namespace in ("tenant", "aws"):
        bad = {"source": {"s3": {"bucket": "vectors", "endpoint": "http://x"}}}
        while api.apply(vix("probe", namespace, bad), dryRun="All").ok:
            assert time.monotonic() < deadline, "the policy never came into force"
            time.sleep(0.1)
    yield api
    for manifest in policies:
        assert api.delete(manifest).ok


def vix(name: str, namespace: str, spec: Json) -> Json:
    least = {"source": {"s3": {"bucket": "vectors"}}, "artifacts": {"s3": {"bucket": "indexes"}}}
    return {
        "apiVersion": "vectorindex.dev/v1alpha1",
        "kind": "VectorIndex",
        "metadata": {"name": name, "namespace": namespace},
        "spec": least | spec,
    }


def test_every_field_that_names_one_is_in_the_policies() -> None:
    """A new place or Secret in the spec must not be a way around them."""
    everything = {"serviceAccountNames": ["x"], "secretNames": ["x"], "claimNames": ["x"], "endpoints": ["http://x"]}
    rendered = render(values=ruled({"name": "a"} | everything))
    (policy,) = of_kind(rendered, "ValidatingAdmissionPolicy")
    judged = [
        one["messageExpression"].split("'")[0].strip('" :')
        for one in policy["spec"]["validations"]
        if "messageExpression" in one
    ]
    assert sorted(judged) == sorted(f"spec.{path}" for path in named())


def test_what_is_allowed_is_admitted(admin: Api, name: str) -> None:
    answer = admin.apply(vix(name, "tenant", GOOD))
    assert answer.ok, answer.message


@pytest.mark.parametrize(
    ("path", "value", "allowed"),
    [
        ("build.pod.serviceAccountName", "admin", "'searcher', 'index-*'"),
        ("searcher.pod.serviceAccountName", "searcher-admin", "'searcher', 'index-*'"),
        ("source.s3.secretRef.name", "s3-admin", "'s3', 'vectorindex-*'"),
        ("artifacts.s3", {"bucket": "indexes", "endpoint": ENDPOINT, "secretRef": {"name": "db"}}, "'s3'"),
        ("gate", {"queries": {"s3": {"bucket": "q-q", "endpoint": ENDPOINT, "secretRef": {"name": "db"}}}}, "'s3'"),
        ("searcher.auth.secretRef.name", "vectorindex", "'s3', 'vectorindex-*'"),
        ("searcher.tls", {"secretRef": {"name": "ingress-tls"}}, "'s3', 'vectorindex-*'"),
        ("source.s3.endpoint", "https://s3.example.com.evil.net", f"'{ENDPOINT}'"),
        ("artifacts.s3.endpoint", "http://s3.example.com", f"'{ENDPOINT}'"),
        ("gate", {"queries": {"s3": {"bucket": "queries", "endpoint": "https://other"}}}, f"'{ENDPOINT}'"),
        ("source.s3.endpoint", LEAVE_OUT, f"'{ENDPOINT}'"),
        ("source", {"azure": {**AZURE, "endpoint": ENDPOINT, "secretRef": {"name": "db"}}}, "'s3'"),
        ("source", {"gcs": {"bucket": "vectors", "endpoint": ENDPOINT, "secretRef": {"name": "db"}}}, "'s3'"),
        ("artifacts", {"gcs": {"bucket": "queries"}}, f"'{ENDPOINT}'"),
        ("artifacts", {"azure": {**AZURE, "endpoint": "https://other"}}, f"'{ENDPOINT}'"),
        ("artifacts", {"azure": {"account": "acme", "container": "queries"}}, f"'{ENDPOINT}'"),
        ("gate", {"queries": {"s3": {"bucket": "queries"}}}, f"'{ENDPOINT}'"),
        ("source", {"volume": {"claimName": "database"}}, "'vectors', 'index-*'"),
        ("artifacts", {"volume": {"claimName": "index"}}, "'vectors', 'index-*'"),
        ("gate", {"queries": {"volume": {"claimName": "database"}}}, "'vectors', 'index-*'"),
        ("searcher.cache", {"limit": "1Gi", "claimName": "database"}, "'vectors', 'index-*'"),
    ],
)
def test_what_is_not_allowed_is_refused_by_field_and_value(
    admin: Api, name: str, path: str, value: Any, allowed: str
) -> None:
    answer = admin.apply(changed(vix(name, "tenant", GOOD), f"spec.{path}", value))
    assert answer.status in (403, 422), answer.body
    leaf = value
    while isinstance(leaf, dict):
        leaf = list(leaf.values())[-1]
    refused = "" if value is LEAVE_OUT or leaf == "queries" else leaf
    assert f"spec.{path.split('.')[0]}." in answer.message
    assert f": '{refused}' may not be named here: allowed are {allowed}" in answer.message
    assert "rule tenants in admission.rules" in answer.message


@pytest.mark.parametrize(
    ("place", "refused"),
    [
        ({"url": "https://other/v1"}, "url: 'https://other/v1' may not be named here"),
        ({"url": ENDPOINT, "tokenSecretRef": {"name": "db"}}, "tokenSecretRef.name: 'db' may not be named here"),
        ({"url": ENDPOINT, "tokenSecretRef": {"name": "s3"}}, ""),
    ],
)
def test_texts_go_to_endpoints_that_the_rules_allow(admin: Api, name: str, place: dict[str, Any], refused: str) -> None:
    with_text = changed(vix(name, "tenant", GOOD), "spec.source.columns", {"metadata": ["text"]})
    answer = admin.apply(changed(with_text, "spec.embedding", {"encoder": {"endpoint": place, "textColumn": "text"}}))
    assert answer.ok is not bool(refused), answer.message
    assert not refused or f"spec.embedding.encoder.endpoint.{refused}" in answer.message


@pytest.mark.parametrize(
    ("store", "refused"),
    [
        ({"endpoint": "https://other"}, "endpoint: 'https://other' may not be named here"),
        ({}, "endpoint: '' may not be named here"),
        ({"endpoint": ENDPOINT, "secretRef": {"name": "db"}}, "secretRef.name: 'db' may not be named here"),
        ({"endpoint": ENDPOINT, "secretRef": {"name": "s3"}}, ""),
    ],
)
def test_an_encoder_is_fetched_from_where_the_rules_allow(
    admin: Api, name: str, store: dict[str, Any], refused: str
) -> None:
    with_text = changed(vix(name, "tenant", GOOD), "spec.source.columns", {"metadata": ["text"]})
    onnx = {"s3": {"bucket": "models", **store}, "sha256": "ab" * 32}
    answer = admin.apply(changed(with_text, "spec.embedding", {"encoder": {"onnx": onnx, "textColumn": "text"}}))
    assert answer.ok is not bool(refused), answer.message
    assert not refused or f"spec.embedding.encoder.onnx.s3.{refused}" in answer.message
    allowed = {"s3": {"bucket": "models", "endpoint": ENDPOINT}, "sha256": "ab" * 32}
    encoding = changed(with_text, "spec.embedding", {"encoder": {"onnx": allowed, "textColumn": "text"}})
    answer = admin.apply(changed(encoding, "spec.searcher.rerank", {"onnx": onnx}))
    assert answer.ok is not bool(refused), answer.message
    assert not refused or f"spec.searcher.rerank.onnx.s3.{refused}" in answer.message


@pytest.mark.parametrize("pod", ["build.pod", "searcher.pod"])
def test_pods_mount_claims_that_the_rules_allow(admin: Api, name: str, pod: str) -> None:
    def mounting(**source: Any) -> Json:
        return changed(vix(name, "tenant", GOOD), f"spec.{pod}.volumes", [{"name": "mine", **source}])

    assert admin.apply(mounting(persistentVolumeClaim={"claimName": "index-2"}), dryRun="All").ok
    assert admin.apply(mounting(configMap={"name": "anything"}), dryRun="All").ok
    answer = admin.apply(mounting(persistentVolumeClaim={"claimName": "database"}), dryRun="All")
    assert answer.status in (403, 422), answer.body
    assert (
        f"spec.{pod}.volumes: one names a claim that may not be named here (claimNames of rule tenants"
        in answer.message
    )
    assert not admin.apply(mounting(persistentVolumeClaim={}), dryRun="All").ok


def test_an_encoder_may_be_in_any_store_that_the_rules_allow(admin: Api, name: str) -> None:
    with_text = changed(vix(name, "tenant", GOOD), "spec.source.columns", {"metadata": ["text"]})
    for store, ok in (
        ({"volume": {"claimName": "index-models", "path": "minilm/"}}, True),
        ({"volume": {"claimName": "models", "path": "minilm/"}}, False),
        ({"azure": {**AZURE, "endpoint": ENDPOINT}}, True),
        ({"azure": AZURE}, False),
        ({"gcs": {"bucket": "models", "endpoint": ENDPOINT, "secretRef": {"name": "db"}}}, False),
    ):
        encoder = {"onnx": {**store, "sha256": "ab" * 32}, "textColumn": "text"}
        answer = admin.apply(changed(with_text, "spec.embedding", {"encoder": encoder}), dryRun="All")
        assert answer.ok is ok, answer.message


@pytest.mark.parametrize(
    "variable",
    ["https_proxy", "HTTP_PROXY", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"],
)
@pytest.mark.parametrize("pod", ["build.pod", "searcher.pod"])
def test_an_endpoint_that_is_allowed_is_the_server_that_is_reached(
    admin: Api, name: str, pod: str, variable: str
) -> None:
    good = changed(vix(name, "tenant", GOOD), f"spec.{pod}.env", [{"name": "TZ", "value": "UTC"}])
    assert admin.apply(good, dryRun="All").ok
    answer = admin.apply(changed(good, f"spec.{pod}.env", [{"name": variable, "value": "http://evil"}]))
    assert answer.status in (403, 422), answer.body
    assert f"spec.{pod}.env: no AWS_, no proxy, no CA and no collector of traces may be chosen here" in answer.message


def test_another_namespace_has_its_own_rules_or_none(admin: Api, name: str) -> None:
    assert admin.apply(vix(name, "free", FULL_SPEC)).ok
    keyless: Json = {"searcher": {"pod": {"serviceAccountName": "anybody"}}}
    assert admin.apply(vix(name, "aws", keyless)).ok
    refused = admin.apply(vix(name, "aws", {"source": {"s3": {"bucket": "vectors", "secretRef": {"name": "s3"}}}}))
    assert "spec.source.s3.secretRef.name: 's3' may not be named here: allowed are none (rule aws" in refused.message
    refused = admin.apply(vix(name, "aws", {"source": {"s3": {"bucket": "vectors", "endpoint": ENDPOINT}}}))
    assert f"spec.source.s3.endpoint: '{ENDPOINT}' may not be named here: allowed are '' (rule aws" in refused.message


def test_what_was_there_before_a_rule_can_be_annotated_and_scaled_but_not_spread(admin: Api, name: str) -> None:
    """A rollback by annotation is what a tenant needs most in the very hour in which the rules are tightened."""
    there = vix(name, "late", {"source": {"s3": {"bucket": "vectors", "secretRef": {"name": "old"}}}})
    namespace: Json = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "late"}}
    assert admin.apply(namespace).ok
    assert admin.apply(there).ok
    namespace["metadata"]["labels"] = {"tier": "tenant"}
    assert admin.apply(namespace).ok
    deadline = time.monotonic() + 60
    while admin.apply(vix("probe", "late", {}), dryRun="All").ok:
        assert time.monotonic() < deadline, "the label never came into force"
        time.sleep(0.1)
    there["metadata"]["annotations"] = {"vectorindex.dev/rollback": "1"}
    assert admin.apply(there).ok
    assert admin.apply(changed(there, "spec.searcher", {"replicas": 5})).ok
    for path, value, says in (
        (
            "artifacts.s3",
            {"bucket": "indexes", "secretRef": {"name": "old"}},
            "spec.artifacts.s3.secretRef.name: 'old'",
        ),
        ("source.s3.secretRef.name", "older", "spec.source.s3.secretRef.name: 'older'"),
        ("gate", {"queries": {"s3": {"bucket": "queries"}}}, "spec.gate.queries.s3.endpoint: ''"),
    ):
        refused = admin.apply(changed(there, f"spec.{path}", value))
        assert not refused.ok
        assert says in refused.message


def test_a_policy_without_rules_is_a_mistake() -> None:
    done = helm(IMAGE, values=ruled())
    assert done.returncode != 0
    assert "admission.rules is empty" in done.stderr
    assert not of_kind(render(values={"admission": {"rules": [TENANTS]}}), "ValidatingAdmissionPolicy")


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"name": "Bad Name"}, "/admission/rules/0/name"),
        ({"serviceAccountNames": ["*"]}, "/admission/rules/0/serviceAccountNames/0"),
        ({"secretNames": ['a"b']}, "/admission/rules/0/secretNames/0"),
        ({"claimNames": ["*"]}, "/admission/rules/0/claimNames/0"),
        ({"secretNames": None}, "/admission/rules/0/secretNames"),
        ({"endpoints": ["s3.example.com"]}, "/admission/rules/0/endpoints/0"),
        ({"endpoints": ["https://s3/'+'"]}, "/admission/rules/0/endpoints/0"),
        ({"buckets": ["x"]}, "additional properties 'buckets' not allowed"),
    ],
)
def test_a_bad_rule_is_refused_by_name(rule: Json, says: str) -> None:
    done = helm(IMAGE, values=ruled({"name": "a"} | rule))
    assert done.returncode != 0
    assert says in done.stderr


def test_a_long_list_is_matched_whole_and_shown_in_part(admin: Api) -> None:
    names = [f"s{number}" for number in range(256)]
    (policy,) = of_kind(render(values=ruled({"name": "a", "secretNames": names})), "ValidatingAdmissionPolicy")
    answer = admin.apply(policy, "helm", dryRun="All")
    assert answer.ok, answer.message
    assert "'s7', 248 more" in policy["spec"]["validations"][0]["messageExpression"]
    assert '"s255"' in policy["spec"]["validations"][0]["expression"]
