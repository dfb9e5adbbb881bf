"""What the chart renders: against goldens, against a real API server, and what its schema refuses.

After an intended change: UPDATE_GOLDENS=1 pytest tests/apiserver/test_chart.py, then read the diff.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
import yaml
from chart import CHART, HOME, IMAGE, helm, of_kind, render
from control_plane import Api, ControlPlane, Json
from goldens import assert_golden
from layers import CHECKOUT

GOLDENS = Path(__file__).parent / "golden"
EVERYTHING = (
    "watchNamespaces={team-a,team-b}",
    "replicaCount=2",
    "clusterUid=0f5c2c8e-6a2b-4f0e-9a57-1f4d6f3b8c11",
    "collectHistory=true",
    "outcomes=true",
    "webhook.url=https://hooks.example.com/vectorindex",
    "webhook.secretName=hooks",
    "prometheus.url=https://proxy.monitoring.svc:8443",
    "prometheus.tenantHeader=X-Scope-OrgID",
    "prometheus.secretName=metrics",
    "image.digest=sha256:" + "0" * 64,
    "searcherImage.repository=example/searcher",
    "searcherImage.digest=sha256:" + "1" * 64,
    "gpuImage.repository=example/searcher-gpu",
    "gpuImage.digest=sha256:" + "2" * 64,
    "imagePullSecrets[0].name=registry",
    "imagePullSecrets[1].name=mirror",
    "fixedUser=false",
    "commands.needRight=true",
    "proxy.httpsProxy=http://proxy:3128",
    "proxy.noProxy=.house.example",
    "trustBundle.configMapName=house-ca",
    "logLevel=debug",
    "crds.keep=false",
    "serviceAccount.name=index-operator",
    "serviceAccount.annotations.owner=search",
    "metrics.serviceMonitor.enabled=true",
    "metrics.serviceMonitor.labels.release=prometheus",
    "metrics.podMonitor.enabled=true",
    "metrics.from[0].namespaceSelector.matchLabels.name=monitoring",
    "networkPolicy.enabled=true",
    "nodeSelector.role=control",
    "tolerations[0].operator=Exists",
    "priorityClassName=high",
    "podAnnotations.a=b",
    "podLabels.c=d",
    "commonLabels.team=search",
    "extraEnv[0].name=HTTPS_PROXY",
    "extraEnv[0].value=http://proxy:3128",
    "fullnameOverride=vix",
    "internalKey.existingSecret=internal",
    "admission.enabled=true",
    "admission.rules[0].name=tenants",
    "admission.rules[0].namespaceSelector.matchLabels.tier=tenant",
    "admission.rules[0].secretNames={s3,vectorindex-*}",
)
CASES = {"default": (), "everything": EVERYTHING}


@pytest.mark.parametrize("case", CASES)
def test_rendered_objects_are_the_golden_ones(case: str) -> None:
    rendered = [one for one in render(*CASES[case]) if one["kind"] != "CustomResourceDefinition"]
    assert_golden(GOLDENS / f"chart-{case}.yaml", rendered)


@pytest.mark.parametrize("case", CASES)
def test_the_api_server_takes_every_object(api: Api, case: str) -> None:
    for namespace in (HOME, "team-a", "team-b"):
        assert api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}).ok
    rendered = [one for one in render(*CASES[case]) if not one["apiVersion"].startswith("monitoring.coreos.com")]
    for manifest in rendered:
        answer = api.apply(manifest, "helm", force=True, dryRun="All")
        assert answer.ok, f"{manifest['kind']}: {answer.message}"


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_the_operator_runs_under_pod_security_restricted(api: Api, kind: str) -> None:
    """And so does the Job before it is uninstalled."""
    labels = {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
    }
    name = "restricted"
    assert api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}).ok
    rendered = render()
    account = of_kind(rendered, "ServiceAccount")[0]
    account["metadata"]["namespace"] = name
    assert api.apply(account).ok
    template = of_kind(rendered, kind)[0]["spec"]["template"]
    pod = template | {"apiVersion": "v1", "kind": "Pod"}
    pod["metadata"] = {"name": "operator", "namespace": name}
    answer = api.apply(pod, dryRun="All")
    assert answer.ok, answer.message
    container = pod["spec"]["containers"][0]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    container["securityContext"]["allowPrivilegeEscalation"] = True
    assert 'violates PodSecurity "restricted' in api.apply(pod, dryRun="All").message


def test_the_crds_of_the_chart_are_those_of_the_checkout() -> None:
    def specs(objects: list[Json]) -> dict[str, Json]:
        return {one["metadata"]["name"]: one["spec"] for one in objects}

    checkout = [yaml.safe_load(path.read_text()) for path in (CHECKOUT / "crds").glob("*.yaml")]
    kept = of_kind(render(), "CustomResourceDefinition")
    assert specs(kept) == specs(checkout)
    assert {one["metadata"]["annotations"]["helm.sh/resource-policy"] for one in kept} == {"keep"}
    removed = of_kind(render("crds.keep=false"), "CustomResourceDefinition")
    assert [one["metadata"].get("annotations") for one in removed] == [None, None]
    assert not of_kind(render("crds.enabled=false"), "CustomResourceDefinition")


def test_without_an_image_helm_says_what_to_set() -> None:
    done = helm()
    assert done.returncode != 0
    assert "image.repository is required: the registry path of the operator's image" in done.stderr


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("image.repository=null", "at '/image': missing property 'repository'"),
        ("image.repo=x", "at '/image': additional properties 'repo' not allowed"),
        ("replicas=2", "at '': additional properties 'replicas' not allowed"),
        ("replicaCount=two", "at '/replicaCount': got string, want integer"),
        ("image.pullPolicy=Sometimes", "at '/image/pullPolicy'"),
        ("image.tag=1234567", "at '/image/tag': got number, want string"),
        ("image.digest=abc", "at '/image/digest'"),
        ("logLevel=verbose", "at '/logLevel'"),
        ("watchNamespaces=team-a", "at '/watchNamespaces': got string, want array"),
        ("watchNamespaces={Team}", "at '/watchNamespaces/0'"),
        ("imagePullSecrets={registry}", "at '/imagePullSecrets/0'"),
        ("crds.enabled=maybe", "at '/crds/enabled'"),
        ("proxy.httpsProxy=proxy:3128", "at '/proxy/httpsProxy'"),
        ("trustBundle.configMapName=House CA", "at '/trustBundle/configMapName'"),
        ("internalKey.existingSecret=No Name", "at '/internalKey/existingSecret'"),
    ],
)
def test_a_bad_value_is_refused_by_name(setting: str, says: str) -> None:
    done = helm(IMAGE, setting)
    assert done.returncode != 0
    assert says in done.stderr


@pytest.mark.parametrize(
    ("settings", "operator", "searcher"),
    [
        ((), "example/vectorindex-operator:0.1.0", "example/vectorindex-searcher:0.1.0"),
        (("image.tag=dev",), "example/vectorindex-operator:dev", "example/vectorindex-searcher:dev"),
        (("image.repository=r:5000/op",), "r:5000/op:0.1.0", "r:5000/op-searcher:0.1.0"),
        (
            ("image.tag=v1", "searcherImage.tag=v2"),
            "example/vectorindex-operator:v1",
            "example/vectorindex-searcher:v2",
        ),
    ],
)
def test_the_searchers_image_is_looked_for_beside_the_operators(
    settings: tuple[str, ...], operator: str, searcher: str
) -> None:
    container = of_kind(render(*settings), "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]
    env = {one["name"]: one.get("value") for one in container["env"]}
    assert (container["image"], env["VECTORINDEX_SEARCHER_IMAGE"]) == (operator, searcher)


def test_dashboards_and_alerts_are_those_of_the_charts_folder() -> None:
    settings = ("metrics.dashboards.enabled=true", "metrics.dashboards.annotations.grafana_folder=Search")
    page = "https://docs.example.com/operations"
    rendered = render(*settings, "metrics.prometheusRule.enabled=true", f"metrics.prometheusRule.runbookUrl={page}")
    maps = of_kind(rendered, "ConfigMap")
    boards = {name: json.loads(text) for one in maps for name, text in one["data"].items()}
    files = {f"vectorindex-{path.name}": json.loads(path.read_text()) for path in (CHART / "dashboards").iterdir()}
    assert boards == files
    assert {one["metadata"]["labels"]["grafana_dashboard"] for one in maps} == {"1"}
    assert {one["metadata"]["annotations"]["grafana_folder"] for one in maps} == {"Search"}
    (rule,) = of_kind(rendered, "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((CHART / "alerts.yaml").read_text().replace("docs/operations.md", page))


def test_templates_render_the_same_wherever_and_whenever() -> None:
    """Argo CD renders again and again, without a cluster: what differs each time would be drift for ever."""
    text = "".join(path.read_text() for path in CHART.glob("templates/**/*") if path.is_file())
    for word in ("genCA", "genSelfSigned", "uuidv4", "now", "Capabilities"):
        assert re.search(rf"\{{\{{[^}}]*\b{word}\b", text) is None, word
    assert re.findall(r"rand[A-Z]\w*", text) == ["randAlphaNum"]  # only where Helm sees a cluster: below
    assert helm(IMAGE).stdout == helm(IMAGE).stdout


def test_the_operator_is_told_how_managed_policies_let_it_in() -> None:
    """What the operator is told are the labels of its pod, and what its own policy says about metrics."""
    objects = render("networkPolicy.enabled=true", "metrics.from[0].namespaceSelector.matchLabels.name=monitoring")
    deployment = of_kind(objects, "Deployment")[0]
    env = {one["name"]: one.get("value") for one in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    told = dict(pair.split("=") for pair in env["VECTORINDEX_OPERATOR_LABELS"].split(","))
    assert told == deployment["spec"]["selector"]["matchLabels"]
    (policy,) = of_kind(objects, "NetworkPolicy")
    assert json.loads(env["VECTORINDEX_METRICS_FROM"]) == policy["spec"]["ingress"][0]["from"]


# ---------------------------------------------------------------- the key of internal requests

SECRET = "operator-vectorindex-operator-internal-key"


def mounted_key(objects: list[Json]) -> str:
    """The Secret that the operator's pod mounts as its internal key; empty: none, and then nothing speaks of it."""
    pod = of_kind(objects, "Deployment")[0]["spec"]["template"]["spec"]
    (one,) = pod["containers"]
    secrets = [v["secret"]["secretName"] for v in pod["volumes"] if v["name"] == "internal-key"]
    places = [m["mountPath"] for m in one["volumeMounts"] if m["name"] == "internal-key"]
    assert places == [e["value"] for e in one["env"] if e["name"] == "VECTORINDEX_INTERNAL_KEY_DIR"]
    assert len(secrets) == len(places)
    return "".join(secrets)


def test_without_a_cluster_there_is_no_key_that_changes_at_each_rendering() -> None:
    objects = render()
    assert (of_kind(objects, "Secret"), mounted_key(objects)) == ([], "")
    ours = render("internalKey.existingSecret=ours")
    assert (of_kind(ours, "Secret"), mounted_key(ours)) == ([], "ours")


def test_in_a_cluster_the_key_is_made_once_and_kept(control_plane: ControlPlane) -> None:
    api, cluster = control_plane.api, control_plane.helm_flags()
    assert api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME}}).ok
    objects = render("crds.enabled=false", cluster=cluster)
    (made,) = of_kind(objects, "Secret")
    assert made["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert mounted_key(objects) == made["metadata"]["name"]
    assert len(base64.b64decode(made["data"]["key"])) == 64
    other = of_kind(render("crds.enabled=false", cluster=cluster), "Secret")[0]
    assert other["data"] != made["data"], "a first key is random"
    assert api.apply(made, "helm").ok
    try:
        again = of_kind(render("crds.enabled=false", cluster=cluster), "Secret")
        assert [one["data"] for one in again] == [made["data"]]
        # A rotation by hand survives the next upgrade.
        rotated = {"key": base64.b64encode(b"n" * 40).decode(), "previous": made["data"]["key"]}
        assert api.apply(made | {"data": rotated}, "helm", force=True).ok
        again = of_kind(render("crds.enabled=false", cluster=cluster), "Secret")
        assert [one["data"] for one in again] == [rotated]
        assert not of_kind(render("crds.enabled=false", "internalKey.existingSecret=x", cluster=cluster), "Secret")
        off = render("crds.enabled=false", "internalKey.create=false", cluster=cluster)
        assert (of_kind(off, "Secret"), mounted_key(off)) == ([], "")
    finally:
        assert api.delete(made).ok


def test_an_installer_of_single_namespaces_needs_no_right_to_read_others(control_plane: ControlPlane) -> None:
    api = control_plane.api
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "team-a"}}
    for namespace in (HOME, "team-a"):
        assert api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}).ok
    assert api.apply(account).ok
    objects = render("crds.enabled=false", "watchNamespaces={team-a}", cluster=control_plane.helm_flags())
    assert [one["metadata"]["name"] for one in of_kind(objects, "Secret")] == [mounted_key(objects)] != [""]
