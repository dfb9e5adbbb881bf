"""An installation by somebody with rights in one namespace: the chart's two parts, and what is asked and said first."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import helm, of_kind, render

from demo import stage
from demo.printer import Printer
from harness import __main__ as preparing
from harness import allowed, release, traffic
from harness.allowed import Right
from harness.base import CHECKOUT, Cluster, Image, S3Access
from harness.errors import HarnessError
from harness.external_cluster import OBJECT_STORE, CurrentCluster, object_store
from harness.images import Images
from harness.kube import Kube

Json = dict[str, Any]
TEAM = "team-a"
OF_THE_CLUSTER = {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "Namespace"}
DIGEST = "sha256:" + "7" * 64
EXAMPLE, IN_WORDS = (CHECKOUT / "examples" / "pydocs" / f"{name}.yaml" for name in ("1-first", "5-more-documents"))


def rules(objects: list[Json]) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for one in objects
        for rule in one.get("rules", ())
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@cache
def part(scope: str) -> list[Json]:
    return render(f"scope={scope}", home=TEAM)


@pytest.fixture(scope="module")
def parts() -> dict[str, list[Json]]:
    return {scope: part(scope) for scope in ("all", "cluster", "namespace")}


# ---------------------------------------------------------------- the chart


def test_the_two_parts_are_the_whole_and_the_installers_role(parts: dict[str, list[Json]]) -> None:
    names = {scope: {(one["kind"], one["metadata"]["name"]) for one in found} for scope, found in parts.items()}
    assert not names["cluster"] & names["namespace"]
    narrower = {("Role", "operator-vectorindex-operator"), ("RoleBinding", "operator-vectorindex-operator")}
    wider = {("ClusterRole", "operator-vectorindex-operator"), ("ClusterRoleBinding", "operator-vectorindex-operator")}
    installer = {("ClusterRole", "operator-vectorindex-operator-installer")}
    assert names["cluster"] | names["namespace"] == names["all"] - wider | narrower | installer


def test_each_part_is_what_its_people_may_make(parts: dict[str, list[Json]]) -> None:
    assert {one["kind"] for one in parts["cluster"]} == {"CustomResourceDefinition", "ClusterRole"}
    assert not {one["kind"] for one in parts["namespace"]} & OF_THE_CLUSTER
    assert {one["metadata"]["namespace"] for one in parts["namespace"]} == {TEAM}


def test_it_watches_its_own_namespace(parts: dict[str, list[Json]]) -> None:
    (operator,) = of_kind(parts["namespace"], "Deployment")
    variables = {one["name"]: one.get("value") for one in operator["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert variables["VECTORINDEX_WATCH_NAMESPACES"] == TEAM
    monitor = of_kind(render("scope=namespace", "metrics.podMonitor.enabled=true", home=TEAM), "PodMonitor")
    assert monitor[0]["spec"]["namespaceSelector"] == {"matchNames": [TEAM]}


def test_the_installer_may_give_the_operator_its_rights(parts: dict[str, list[Json]]) -> None:
    """RBAC lets nobody give what they do not have."""
    (role,) = [one for one in parts["cluster"] if one["metadata"]["name"].endswith("-installer")]
    assert rules(of_kind(parts["namespace"], "Role")) <= rules([role])
    assert not any(name.startswith("rbac.authorization.k8s.io/aggregate") for name in role["metadata"]["labels"])


@pytest.mark.parametrize("value", ["admission.enabled=true", "commands.needRight=true"])
def test_what_only_the_cluster_can_have_is_refused_in_a_namespace(value: str) -> None:
    rule = {"admission": {"rules": [{"name": "teams", "secretNames": ["s3"]}]}, "image": {"repository": "example/op"}}
    done = helm("scope=namespace", value, home=TEAM, values=rule)
    assert done.returncode != 0
    assert f"{value.partition('=')[0]} makes ValidatingAdmissionPolicies" in done.stderr


def test_every_pod_of_the_chart_pulls_by_digest_with_the_secret() -> None:
    cluster = somewhere(pull_secrets=("mirror",))
    image = Image("registry.example.com/vectorindex-operator", "unused", DIGEST)
    words = release.settings(cluster, Images(image, image), {})
    objects = render(*[word for word in words if word != "--set-string"], home=TEAM)
    pods = [one["spec"]["template"]["spec"] for one in objects if one["kind"] in ("Deployment", "Job")]
    assert len(pods) == 2
    for pod in pods:
        assert pod["imagePullSecrets"] == [{"name": "mirror"}]
        assert [one["image"] for one in pod["containers"]] == [image.reference]
    variables = {one["name"]: one.get("value") for one in pods[0]["containers"][0]["env"]}
    told = [one for one in pods if "VECTORINDEX_IMAGE_PULL_SECRETS" in str(one["containers"][0]["env"])]
    assert told
    assert variables["VECTORINDEX_SEARCHER_IMAGE"] == image.reference


# ---------------------------------------------------------------- the harness


class Somewhere(Cluster):
    """A cluster that nobody speaks to."""

    name = "current"
    context = "theirs"
    kubeconfig = Path("kubeconfig")

    def up(self) -> None: ...

    def provide_image(self, target: str, tag: str, checkout: Path = CHECKOUT) -> Image:
        raise NotImplementedError

    def s3(self) -> S3Access:
        return S3Access("http://127.0.0.1:1", f"http://s3.{self.namespace}.svc:9000", "key", "secret", "us-east-1")

    def helm(self, *arguments: str | Path, timeout: float = 300) -> str:
        return yaml.safe_dump_all(part("namespace"))


def somewhere(namespace: str = TEAM, pull_secrets: tuple[str, ...] = ()) -> Somewhere:
    cluster = Somewhere()
    cluster.namespace, cluster.pull_secrets = namespace, pull_secrets
    return cluster


class Answers(Kube):
    """An API server that lets everything but `refused` be done."""

    def __init__(self, cluster: Cluster, *refused: str, known: bool = True) -> None:
        self.cluster, self._refused, self._known = cluster, refused, known

    def call(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> tuple[int, Json]:
        if path == allowed.API:
            return (200 if self._known else 404), {}
        assert (method, path) == ("POST", allowed.REVIEWS)
        assert body is not None
        about = body["spec"]["resourceAttributes"]
        assert about["namespace"] == self.cluster.namespace
        resource = "/".join(filter(None, (about["resource"], about["subresource"])))
        return 201, {"status": {"allowed": f"{about['verb']} {resource}" not in self._refused}}


def test_an_installation_needs_its_objects_and_the_rules_that_it_gives(parts: dict[str, list[Json]]) -> None:
    found = allowed.needed(parts["namespace"])
    assert Right("apps", "deployments", "create") in found
    assert Right("rbac.authorization.k8s.io", "rolebindings", "create") in found
    assert Right("vectorindex.dev", "vectorindexes/finalizers", "update") in found
    assert Right("coordination.k8s.io", "leases", "update", "vectorindex-operator") in found


def test_who_has_all_rights_is_asked_nothing_more() -> None:
    allowed.require(Answers(somewhere()))
    allowed.require(Answers(somewhere(namespace="")))


def test_what_is_lacking_is_named_with_who_mends_it() -> None:
    with pytest.raises(HarnessError) as said:
        allowed.require(Answers(somewhere(), "create events", "create pods/exec", "get leases"))
    lines = str(said.value).splitlines()
    assert lines[0] == f"this kubeconfig lacks 3 rights in namespace {TEAM}:"
    assert [line.strip() for line in lines[1:4]] == [
        "create pods/exec",
        "get leases.coordination.k8s.io vectorindex-operator",
        "create events.events.k8s.io",
    ]
    assert f"-n {TEAM} --clusterrole=vectorindex-operator-installer" in lines[-1]


def test_a_cluster_without_the_crds_says_who_makes_them() -> None:
    with pytest.raises(HarnessError, match=r"knows no VectorIndex(.|\n)*--set scope=cluster"):
        allowed.require(Answers(somewhere(), known=False))


def test_without_a_namespace_the_cluster_is_needed() -> None:
    refusing = Answers(somewhere(namespace=""), "create clusterroles")
    with pytest.raises(HarnessError, match=r"create clusterroles(.|\n)*CLUSTER_NAMESPACE=NAMESPACE"):
        allowed.require(refusing)


def test_the_store_is_in_the_namespace_and_out_of_the_registry() -> None:
    values = OBJECT_STORE | {"S3_ACCESS_KEY": "a", "S3_SECRET_KEY": "b", "OBJECT_STORE_NAMESPACE": TEAM}
    objects = object_store(values, somewhere(pull_secrets=("mirror",)))
    assert {one["metadata"]["namespace"] for one in objects} == {TEAM}
    (deployment,) = of_kind(objects, "Deployment")
    assert deployment["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "mirror"}]
    assert "Namespace" in {one["kind"] for one in object_store(values, somewhere(namespace=""))}


def test_the_manifest_is_the_examples_or_says_where_its_store_and_operator_are() -> None:
    assert stage.manifest_for(somewhere(namespace=""), EXAMPLE) == EXAMPLE.read_text()
    document = yaml.safe_load(stage.manifest_for(somewhere(), EXAMPLE))
    assert document["metadata"]["annotations"] == {stage.CLASS: TEAM}
    places = {document["spec"][place]["s3"]["endpoint"] for place in ("source", "artifacts")}
    document = yaml.safe_load(stage.manifest_for(somewhere(), IN_WORDS))
    places |= {document["spec"]["embedding"]["encoder"]["onnx"]["s3"]["endpoint"]}
    assert places == {f"http://s3.{TEAM}.svc:9000"}
    words = release.settings(somewhere(), Images(Image("a", "b"), Image("c", "d")), {})
    assert {f"operatorClass={TEAM}", "scope=namespace"} <= set(words)


@pytest.mark.parametrize("namespace", ["", TEAM])
def test_without_its_encoder_the_last_manifest_is_as_the_others(namespace: str) -> None:
    cluster = somewhere(namespace=namespace)
    whole, less = (yaml.safe_load(stage.manifest_for(cluster, IN_WORDS, words=words)) for words in (True, False))
    assert whole["spec"]["embedding"].pop("encoder")
    assert whole == less
    assert (
        yaml.safe_load(stage.manifest_for(cluster, EXAMPLE, words=False))["spec"]["embedding"]
        == less["spec"]["embedding"]
    )


class Notes(Answers):
    """Writes down what is written."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.applied: list[Json] = []
        self.deleted: list[str] = []

    def apply(self, manifest: Json, *, dry_run: bool = False) -> Json:
        self.applied.append(manifest)
        return manifest

    def delete(self, kind: str, name: str, namespace: str = "", *, policy: str = "Background", grace: int = -1) -> bool:
        self.deleted.append(f"{kind}/{name} in {namespace}")
        return False

    def get(self, kind: str, name: str, namespace: str = "") -> Json | None:
        raise AssertionError(f"nobody may read {kind}/{name}")

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, timeout: float = 60) -> str:
        return ""


def test_what_an_earlier_run_left_goes_and_the_namespace_stays() -> None:
    kube = Notes(somewhere())
    stage.begin_clean(kube)
    assert kube.deleted == [f"VectorIndex/{stage.NAME} in {TEAM}"]


def test_queries_come_from_a_pod_that_is_pulled_as_the_searchers_are() -> None:
    kube, image = Notes(somewhere(pull_secrets=("mirror",))), Image("registry.example.com/searcher", "any", DIGEST)
    command = traffic._pod(kube, Images(image, image), TEAM, "traffic")
    (pod,) = kube.applied
    assert pod["spec"]["imagePullSecrets"] == [{"name": "mirror"}]
    assert pod["spec"]["containers"][0]["image"] == image.reference
    assert command[command.index("-n") + 1] == TEAM


def test_tests_that_make_namespaces_are_not_run_in_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preparing.clusters, "choose", somewhere)
    assert preparing.main() == 1
    assert "without CLUSTER_NAMESPACE" in capsys.readouterr().err


@pytest.mark.parametrize("namespace", ["", TEAM])
def test_the_demo_says_first_what_it_does_how_long_and_what_stays(
    namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.announce(Printer(), somewhere(namespace))
    said = capsys.readouterr().out
    assert "cluster current (theirs)" in said
    assert "about 5 minutes" in said
    assert "It leaves" in said
    assert "make demo-clean" in said
    assert (TEAM in said) == bool(namespace)


def test_images_are_named_by_digest_or_by_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    current = object.__new__(CurrentCluster)
    monkeypatch.setenv("IMAGE_REPOSITORY", "registry.example.com/vectorindex-operator")
    monkeypatch.delenv("IMAGE_TAG", raising=False)
    monkeypatch.setenv("SEARCHER_DIGEST", DIGEST)
    image = current.provide_image("searcher", "dev-1")
    assert image.reference == f"registry.example.com/vectorindex-searcher@{DIGEST}"
    monkeypatch.delenv("OPERATOR_DIGEST", raising=False)
    with pytest.raises(HarnessError, match=r"needs OPERATOR_DIGEST: build"):
        current.up()
