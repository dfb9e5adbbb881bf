"""An installation by somebody with rights in one namespace: a real Helm, with what docs/elsewhere.md has them given."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from chart import CHART, of_kind, render
from control_plane import Api, ControlPlane, Json
from layers import CHECKOUT, program

from harness import allowed
from harness.base import Cluster, Image, S3Access
from harness.errors import HarnessError
from harness.kube import Kube

TEAM, ACCOUNT, RELEASE = "one-namespace", "installer", "cluster-wide"
ADMIN = ("system:aggregate-to-view", "system:aggregate-to-edit", "system:aggregate-to-admin")
"""What the role `admin` is made of by a controller, which is not here."""
INSTALLER = f"{RELEASE}-vectorindex-operator-installer"


class Theirs(Cluster):
    """The API server, with the kubeconfig of the namespace's ServiceAccount."""

    name, namespace = "current", TEAM

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.helm_program = str(program("apiserver", "helm"))

    def up(self) -> None: ...

    def provide_image(self, target: str, tag: str, checkout: Path = CHECKOUT) -> Image:
        raise NotImplementedError

    def s3(self) -> S3Access:
        raise NotImplementedError


@pytest.fixture(scope="module")
def theirs(control_plane: ControlPlane, api: Api) -> Theirs:
    """What an administrator makes: their part of the chart, the namespace, and `admin` in it."""
    parts = render("scope=cluster", "crds.enabled=false", release=RELEASE)
    roles = [one["metadata"]["name"] for one in parts]
    made = [
        *parts,
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TEAM}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": TEAM}},
        *(binding(name) for name in (*ADMIN, *roles) if name != INSTALLER),
    ]
    for one in made:
        answer = api.apply(one, "helm", force=True)
        assert answer.ok, answer.message
    return Theirs(control_plane.kubeconfig(TEAM, ACCOUNT))


def binding(role: str) -> Json:
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": TEAM}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": role.replace(":", "-"), "namespace": TEAM},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    }


def install(cluster: Cluster) -> subprocess.CompletedProcess[str]:
    settings = f"scope=namespace,operatorClass={TEAM},image.repository=example/vectorindex-operator"
    words = ["install", "vectorindex", str(CHART), "--namespace", TEAM, "--set", settings]
    command = [cluster.helm_program, "--kubeconfig", str(cluster.kubeconfig), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_admin_alone_is_told_what_it_lacks_and_helm_is_refused(theirs: Theirs) -> None:
    with pytest.raises(HarnessError) as said:
        allowed.require(Kube(theirs))
    lacking = {line.strip() for line in str(said.value).splitlines()[1:] if line.startswith("  ")}
    assert "patch vectorindexes.vectorindex.dev/status" in lacking
    assert not any(line.startswith(("create deployments", "create roles")) for line in lacking)
    done = install(theirs)
    assert "attempting to grant RBAC permissions not currently held" in done.stderr
    theirs.helm("uninstall", "vectorindex", "--namespace", TEAM, "--no-hooks")


def test_with_the_installers_role_it_is_installed(theirs: Theirs, api: Api) -> None:
    assert api.apply(binding(INSTALLER), "helm", force=True).ok
    deadline = time.monotonic() + 10
    while True:  # the authorizer sees a binding a moment later
        try:
            allowed.require(Kube(theirs))
            break
        except HarnessError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    done = install(theirs)
    assert done.returncode == 0, done.stderr
    (operator,) = api.get(f"/apis/apps/v1/namespaces/{TEAM}/deployments").body["items"]
    told = {one["name"]: one.get("value") for one in operator["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert told["VECTORINDEX_WATCH_NAMESPACES"] == TEAM
    wished = of_kind(render("scope=namespace", home=TEAM), "Role")
    assert len(api.get(f"/apis/rbac.authorization.k8s.io/v1/namespaces/{TEAM}/roles").body["items"]) == len(wished)
    theirs.helm("uninstall", "vectorindex", "--namespace", TEAM, "--no-hooks")


def test_who_has_a_namespace_alone_is_told_to_name_it(theirs: Theirs) -> None:
    unnamed = Theirs(theirs.kubeconfig)
    unnamed.namespace = ""
    with pytest.raises(HarnessError, match=r"create customresourcedefinitions(.|\n)*CLUSTER_NAMESPACE=NAMESPACE"):
        allowed.require(Kube(unnamed))
