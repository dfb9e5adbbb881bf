"""The demo by somebody with rights in one namespace alone: out of a registry, by digest, with a pull Secret.

On the local cluster, in its node's network, where that registry is: with a password, and a certificate of a CA that
only those know who were told. An administrator makes what is the cluster's first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from layers import program

from demo import encoder
from demo.summary import EXPECTED
from harness import release
from harness.base import CHECKOUT, Cluster
from harness.errors import HarnessError
from harness.local import PROGRAM, LocalCluster
from releasing import files, images, publish
from releasing.images import Registry

NAMESPACE, ACCOUNT, SECRET = "elsewhere", "installer", "registry"
REGISTRY = images.local().prefix
PUSHED = CHECKOUT / "build" / "release" / "pushed.yaml"
"""What was pushed before these tests: tests/run_layers.py."""
ADMINISTRATORS = "elsewhere-cluster"
"""The release with what is the cluster's, and its namespace."""
INSTALLER = f"{ADMINISTRATORS}-{release.CHART_NAME}-installer"
DEMO_SECONDS = 900
SUMMARY = CHECKOUT / "build" / "demo" / "summary.json"
CHART = f"oci://{REGISTRY}/charts"
TRUSTED = {"SSL_CERT_FILE": str(images.local_ca())}
"""By which Helm and cosign believe the registry."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A namespace, and what its one user has: a kubeconfig, a password of the registry, and digests."""

    cluster: Cluster
    kubeconfig: Path
    password: Path
    digests: dict[str, str]
    store: str

    def run(self, *command: str | Path, timeout: float, **environment: str) -> subprocess.CompletedProcess[str]:
        """As that user, in the network where the registry is."""
        own = {"KUBECONFIG": str(self.kubeconfig), "PYTHONPATH": str(CHECKOUT / "hack"), "NO_COLOR": "1"}
        inside = [sys.executable, str(PROGRAM), "network", "env", *(f"{k}={v}" for k, v in (own | environment).items())]
        words = [*inside, *map(str, command)]
        return subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=timeout)

    def demo(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        named = {f"{target.upper()}_DIGEST": digest for target, digest in self.digests.items()}
        named |= {"CLUSTER": "current", "CLUSTER_NAMESPACE": NAMESPACE, "PULL_SECRET": SECRET}
        named |= {"IMAGE_REPOSITORY": images.repository(REGISTRY, "operator"), "OBJECT_STORE_IMAGE": self.store}
        return self.run(sys.executable, "-m", "demo", *words, timeout=DEMO_SECONDS, **(named | environment))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    cluster, folder = LocalCluster(), tmp_path_factory.mktemp("elsewhere")
    registry = images.local()
    assert registry.authfile is not None
    pushed = yaml.safe_load(PUSHED.read_text())
    digests = {
        target: pushed[key]["digest"] for key, target in {"image": "operator", "searcherImage": "searcher"}.items()
    }
    with suppress(HarnessError):
        encoder.obtain()  # here: where the demo runs there is no package index
    store = _push_store(registry, folder)
    _administer(cluster, registry.authfile)
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(_kubeconfig(cluster))
    yield Elsewhere(cluster, kubeconfig, registry.authfile, digests, store)
    cluster.helm("uninstall", ADMINISTRATORS, "--namespace", ADMINISTRATORS)
    cluster.kubectl("delete", "namespace", NAMESPACE, ADMINISTRATORS, "--wait=false")


def _push_store(registry: Registry, folder: Path) -> str:
    """The S3 server of the demo, whose image a cluster elsewhere cannot have either."""
    program = subprocess.run(
        [sys.executable, PROGRAM, "binary", "versitygw"], capture_output=True, text=True, check=True
    ).stdout.strip()
    context = folder / "store"
    context.mkdir()
    (context / "versitygw").write_bytes(Path(program).read_bytes())
    (context / "versitygw").chmod(0o755)
    (context / "Dockerfile").write_text(
        'FROM scratch AS store\nCOPY versitygw /versitygw\nUSER 1000:1000\nENTRYPOINT ["/versitygw"]\n'
    )
    name = f"{REGISTRY}/versitygw"
    words = images.command("store", f"docker://{name}:dev", (), registry.flags())
    where = ["--context", str(context), "--file", str(context / "Dockerfile")]
    done = subprocess.run([*words, *where], stdout=subprocess.PIPE, text=True, check=True)
    return f"{name}@{done.stdout.strip()}"


def _administer(cluster: Cluster, password: Path) -> None:
    """What docs/elsewhere.md has an administrator do. The CRDs may be another release's already."""
    mine = "false" if cluster.kubectl("get", "crd", "--ignore-not-found", "vectorindexes.vectorindex.dev") else "true"
    cluster.helm(
        "upgrade", "--install", ADMINISTRATORS, release.CHART, "--namespace", ADMINISTRATORS, "--create-namespace",
        "--set", "scope=cluster", "--set", f"crds.enabled={mine}",
    )  # fmt: skip
    meta = {"namespace": NAMESPACE}
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    subjects = [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}]
    objects = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, **meta}},
        {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, **meta},
            "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": password.read_text()},
        },
        *(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": {"name": f"vectorindex-{role}", **meta}, "subjects": subjects,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            }
            for role, name in {"admin": "admin", "installer": INSTALLER}.items()
        ),
    ]  # fmt: skip
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))


def _kubeconfig(cluster: Cluster) -> str:
    """Of the ServiceAccount, for two hours."""
    known = yaml.safe_load(cluster.kubeconfig.read_text())
    token = cluster.kubectl("-n", NAMESPACE, "create", "token", ACCOUNT, "--duration=2h").strip()
    context = {"cluster": known["clusters"][0]["name"], "user": ACCOUNT, "namespace": NAMESPACE}
    mine = {"users": [{"name": ACCOUNT, "user": {"token": token}}], "current-context": "elsewhere"}
    return yaml.safe_dump(known | mine | {"contexts": [{"name": "elsewhere", "context": context}]})


@pytest.fixture(scope="module", autouse=True)
def tools() -> Iterator[None]:
    """kubectl and helm on PATH, as users have them."""
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{Path(LocalCluster().kubectl_program).parent}:{before}"
    yield
    os.environ["PATH"] = before


def test_what_is_lacking_is_said_before_anything_is_made(elsewhere: Elsewhere) -> None:
    binding = "vectorindex-installer"
    elsewhere.cluster.kubectl("-n", NAMESPACE, "delete", "rolebinding", binding)
    try:
        said = elsewhere.demo()
    finally:
        elsewhere.cluster.kubectl(
            "-n", NAMESPACE, "create", "rolebinding", binding, f"--clusterrole={INSTALLER}",
            f"--serviceaccount={NAMESPACE}:{ACCOUNT}",
        )  # fmt: skip
    assert said.returncode == 1
    assert "patch vectorindexes.vectorindex.dev/status" in said.stdout
    assert "--clusterrole=vectorindex-operator-installer" in said.stdout
    assert "Five revisions" in said.stdout.splitlines()[0]
    left = elsewhere.cluster.kubectl("-n", NAMESPACE, "get", "deployments,pods,services", "-o", "name")
    assert left == ""

    unnamed = elsewhere.demo(CLUSTER_NAMESPACE="")
    assert unnamed.returncode == 1
    assert "create customresourcedefinitions.apiextensions.k8s.io" in unnamed.stdout
    assert "CLUSTER_NAMESPACE=NAMESPACE" in unnamed.stdout


def test_the_chart_is_installed_out_of_the_registry(elsewhere: Elsewhere, tmp_path: Path) -> None:
    values = tmp_path / "images.yaml"
    values.write_text(images.values(REGISTRY, elsewhere.digests))
    packed = elsewhere.cluster.helm("package", release.CHART, "--destination", tmp_path).strip().rpartition(": ")[2]
    known = ["--registry-config", elsewhere.password]
    pushed = elsewhere.run("helm", "push", packed, CHART, *known, timeout=60, **TRUSTED)
    assert pushed.returncode == 0, pushed.stderr
    pull = ("helm", "pull", f"{CHART}/{release.CHART_NAME}", "--destination", tmp_path)
    refused = elsewhere.run(*pull, timeout=60, **TRUSTED)
    assert refused.returncode != 0, "the registry asked for no password"
    strange = elsewhere.run(*pull, *known, timeout=60)
    assert "unknown authority" in strange.stderr
    done = elsewhere.run(
        "helm", "install", release.DEFAULT_NAME, f"{CHART}/{release.CHART_NAME}", *known, "--namespace", NAMESPACE,
        "--set", f"scope=namespace,operatorClass={NAMESPACE},imagePullSecrets[0].name={SECRET}",
        "--values", values, "--wait", "--timeout", "180s", timeout=240, **TRUSTED,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert _images(elsewhere) == {f"{images.repository(REGISTRY, 'operator')}@{elsewhere.digests['operator']}"}


def _images(elsewhere: Elsewhere) -> set[str]:
    """What the namespace's pods run."""
    pods = json.loads(elsewhere.cluster.kubectl("-n", NAMESPACE, "get", "pods", "-o", "json"))["items"]
    return {one["image"] for pod in pods for one in pod["spec"]["containers"]}


@pytest.mark.timeout(DEMO_SECONDS + 300)
def test_the_demo_runs_to_its_end(elsewhere: Elsewhere) -> None:
    said = elsewhere.demo()
    print(said.stdout)
    assert said.returncode == 0, said.stdout[-4000:] + said.stderr[-2000:]
    summary = json.loads(SUMMARY.read_text())
    assert (summary["outcomes"], summary["failed"]) == (list(EXPECTED), 0)
    if encoder.FOLDER.is_dir():
        assert summary["words"]["answered"] == summary["words"]["asked"] > 0
    assert _images(elsewhere) == {
        f"{images.repository(REGISTRY, target)}@{digest}" for target, digest in elsewhere.digests.items()
    } | {elsewhere.store}
    pods = json.loads(elsewhere.cluster.kubectl("-n", NAMESPACE, "get", "pods", "-o", "json"))["items"]
    assert all(pod["spec"]["imagePullSecrets"] == [{"name": SECRET}] for pod in pods)

    cleaned = elsewhere.demo("--clean")
    assert cleaned.returncode == 0, cleaned.stdout + cleaned.stderr
    left = elsewhere.cluster.kubectl("-n", NAMESPACE, "get", "vix,vixr,jobs,services,deployments", "-o", "name").split()
    assert [one for one in left if "operator" not in one] == []
    gone = elsewhere.run("helm", "uninstall", release.DEFAULT_NAME, "--namespace", NAMESPACE, timeout=120)
    assert gone.returncode == 0, gone.stderr


def test_a_registry_asks_for_its_password(elsewhere: Elsewhere) -> None:
    with pytest.raises(HarnessError, match="did not get to"):
        images.build("operator", f"docker://{REGISTRY}/vectorindex-operator:none", ())


def test_what_a_release_signs_is_verified_and_nothing_else_is(elsewhere: Elsewhere, tmp_path: Path) -> None:
    """As `make release` does it, by a key and a signing config without sigstore's public log: there is no internet."""
    with publish.logged_in(images.local()) as environment:

        def cosign(*words: str | Path) -> bool:
            told = TRUSTED | environment | {"COSIGN_PASSWORD": ""}
            done = elsewhere.run(program("elsewhere", "cosign"), *words, timeout=120, **told)
            print(f"cosign {' '.join(map(str, words))}: {done.returncode}\n{done.stdout[-400:]}{done.stderr}")
            return done.returncode == 0

        for name in ("mine", "another"):
            assert cosign("generate-key-pair", "--output-key-prefix", tmp_path / name)
        assert cosign("signing-config", "create", "--out", tmp_path / "config.json")
        signer = publish.Signer(str(tmp_path / "mine.key"), str(tmp_path / "config.json"))
        steps = publish.steps(images.local(), "0", _files(tmp_path), elsewhere.digests, tmp_path, signer=signer)
        assert all(cosign(*step.command[1:]) for step in steps if step.command[0] == "cosign")

        def checked(key: str) -> list[bool]:
            by = signer.looked_at(str(tmp_path / key))
            looking = publish.checks(images.local(), tmp_path, elsewhere.digests, by)
            return [cosign(*step.command[1:]) for step in looking]

        assert all(checked("mine.pub"))
        assert not any(checked("another.pub"))
        unsigned = f"{REGISTRY}/versitygw@{elsewhere.store.rpartition('@')[2]}"
        assert not cosign("verify", *signer.looked_at(str(tmp_path / "mine.pub")), unsigned)


def _files(out: Path) -> Path:
    """What a release says of its images, and checksums."""
    for target in images.TARGETS:
        files.write(out / f"{target}.cdx.json", {"bomFormat": "CycloneDX", "specVersion": "1.5", "components": []})
    files.write(out / files.PROVENANCE, files.provenance(""))
    files.write_sums(out)
    return out
