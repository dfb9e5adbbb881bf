"""A real Argo CD on an API server without nodes: controller, repository server and API server are one program, started
thrice; Git and redis are the machine's.

The controller's metrics listen on every address, so all this runs in a network of its own, which has loopback only.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3
import yaml
from control_plane import ControlPlane
from layers import program, unavailable
from ports import held

from argocd_files import ARGOCD

Json = dict[str, Any]
LAYER = "gitops"
HOME = "argocd"
IN_CLUSTER = "https://kubernetes.default.svc"
_SETTINGS = ("argocd-cm", "argocd-cmd-params-cm", "argocd-rbac-cm", "argocd-gpg-keys-cm", "argocd-ssh-known-hosts-cm",
             "argocd-tls-certs-cm")  # fmt: skip
_PROJECT = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "AppProject",
    "metadata": {"name": "default", "namespace": HOME},
    "spec": {
        "sourceRepos": ["*"],
        "destinations": [{"server": IN_CLUSTER, "namespace": "*"}],
        "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
    },
}


@dataclass(slots=True)
class ArgoCD:
    """One that runs. `folder`: logs, and the Git repository that Applications read. `url`: of its API server."""

    plane: ControlPlane
    folder: Path
    url: str = ""
    _http: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(timeout=30.0, retries=False))

    # ------------------------------------------------------------ Git

    @property
    def repository(self) -> Path:
        return self.folder / "git" / "deployments"

    def commit(self, files: Mapping[str, Json]) -> None:
        """Write files of the repository as YAML, and commit all that is there."""
        for name, document in files.items():
            path = self.repository / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        who = ["-c", "user.name=tests", "-c", "user.email=tests@example.com"]
        for words in (["add", "--all"], [*who, "commit", "--quiet", "--allow-empty", "--message", "a change"]):
            subprocess.run(["git", "-C", str(self.repository), *words], check=True)

    # ------------------------------------------------------------ Applications

    def apply(self, application: Json, path: str) -> None:
        """An Application that reads `path` of the repository."""
        source = {**application["spec"]["source"], "path": path}
        source |= {"repoURL": "git://127.0.0.1/deployments", "targetRevision": "main"}
        found = {**application, "spec": {**application["spec"], "source": source}}
        answer = self.plane.api.apply(found, force=True)
        assert answer.ok, answer.message

    def get(self, name: str) -> Json:
        """The Application with its status; {} where there is none."""
        answer = self.plane.api.get(f"/apis/argoproj.io/v1alpha1/namespaces/{HOME}/applications/{name}")
        return answer.body if answer.ok else {}

    def states(self, name: str) -> tuple[str, str]:
        """Sync and health of an Application."""
        status = self.get(name).get("status", {})
        return status.get("sync", {}).get("status", ""), status.get("health", {}).get("status", "")

    def refresh(self, name: str) -> None:
        """Have it look at Git and at the cluster, and wait until it has."""
        self.ask("GET", f"/api/v1/applications/{name}", {"refresh": "normal"})

    def wait(self, what: str, probe: Callable[[], Any], seconds: float = 60.0, name: str = "") -> Any:
        """The first value of `probe` that is true."""
        deadline = time.monotonic() + seconds
        while not (value := probe()):
            assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}\n{self.explain(name)}"
            time.sleep(0.2)
        return value

    def explain(self, name: str) -> str:
        """What is known of an Application, and what the programs last said."""
        logs = [f"{path.name}: {line}" for path in self.folder.glob("*.log") for line in _last(path)]
        return f"{json.dumps(self.get(name).get('status', {}), indent=1)[:5000]}\n" + "\n".join(logs)

    def health(self, application: str, name: str) -> Json:
        """Health of a VectorIndex in the tree of resources, as the page of the Application shows it."""
        tree = self.ask("GET", f"/api/v1/applications/{application}/resource-tree", {})
        nodes = [one for one in tree.get("nodes", ()) if (one["kind"], one["name"]) == ("VectorIndex", name)]
        found: Json = nodes[0].get("health", {}) if nodes else {}
        return found

    def actions(self, application: str, namespace: str, name: str) -> dict[str, bool]:
        """Action -> whether it is greyed."""
        said = self.ask("GET", f"/api/v1/applications/{application}/resource/actions", _index(namespace, name))
        return {one["name"]: one.get("disabled", False) for one in said["actions"]}

    def act(self, application: str, namespace: str, name: str, action: str) -> None:
        """Run an action, as a click does."""
        path = f"/api/v1/applications/{application}/resource/actions"
        self.ask("POST", path, _index(namespace, name), json.dumps(action))

    def ask(self, method: str, path: str, query: Mapping[str, str], body: str | None = None) -> Json:
        """One request to its API."""
        words = "&".join(f"{key}={value}" for key, value in query.items())
        headers = {"Content-Type": "application/json"}
        answer = self._http.request(method, f"{self.url}{path}?{words}", body=body, headers=headers)
        assert answer.status == 200, f"{method} {path}: {answer.status} {answer.data[:800]!r}"
        said: Json = json.loads(answer.data)
        return said


def _index(namespace: str, name: str) -> dict[str, str]:
    kind = {"group": "vectorindex.dev", "version": "v1alpha1", "kind": "VectorIndex"}
    return {"namespace": namespace, "resourceName": name, **kind}


def _last(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines()[-6:]


# ---------------------------------------------------------------- starting and ending it


@contextmanager
def started(plane: ControlPlane, source: Path, folder: Path) -> Iterator[ArgoCD]:
    """Argo CD with the chart's customizations. `source`: of its module."""
    made = ArgoCD(plane, folder)
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main", str(made.repository)], check=True)
    kubeconfig = _install(made, source / "manifests")
    with ExitStack() as stack:
        ports = stack.enter_context(held(7))
        made.url = f"http://127.0.0.1:{ports[2]}"
        for title, words in _programs(made, kubeconfig, ports):
            stack.enter_context(_running(made, title, words, kubeconfig))
        made.wait("Argo CD to answer", lambda: _answers(made), 90)
        yield made


def _install(made: ArgoCD, manifests: Path) -> Path:
    """Its CRDs, settings and rights; a kubeconfig with these."""
    api = made.plane.api
    api.install([manifests / "crds" / f"{name}-crd.yaml" for name in ("application", "appproject", "applicationset")])
    labels = {"app.kubernetes.io/part-of": "argocd"}
    objects: list[Json] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "argocd", "namespace": HOME}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "argocd"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "argocd", "namespace": HOME}],
        },
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "argocd-secret", "labels": labels}},
        *(yaml.safe_load((manifests / "base" / "config" / f"{name}.yaml").read_text()) for name in _SETTINGS),
        _PROJECT,
    ]
    for one in objects:
        one["metadata"].setdefault("namespace", HOME)
        answer = api.apply(one)
        assert answer.ok, f"{one['metadata']['name']}: {answer.message}"
    patch = made.plane.kubectl(
        "-n", HOME, "patch", "configmap", "argocd-cm", "--patch-file", str(ARGOCD / "argocd-cm.yaml")
    )
    assert patch.returncode == 0, patch.stderr
    return made.plane.kubeconfig(HOME, "argocd")


def _programs(made: ArgoCD, kubeconfig: Path, ports: tuple[int, ...]) -> Iterator[tuple[str, list[str]]]:
    """Title and arguments; what begins with `argocd-` is the name by which the one program knows what it is."""
    redis, repositories, api, *metrics = ports
    seen = ["--metrics-port", str(metrics[0])]
    yield "redis-server", ["--port", str(redis), "--bind", "127.0.0.1", "--save", "", "--dir", str(made.folder)]
    yield "git", ["daemon", f"--base-path={made.folder / 'git'}", "--export-all", "--listen=127.0.0.1", "--reuseaddr"]
    address = ["--address", "127.0.0.1", "--metrics-address", "127.0.0.1"]
    yield (
        "argocd-repo-server",
        ["--redis", f"127.0.0.1:{redis}", "--disable-tls", "--port", str(repositories), *address, *seen],
    )
    known = ["--kubeconfig", str(kubeconfig), "--namespace", HOME, "--redis", f"127.0.0.1:{redis}"]
    known += ["--repo-server", f"127.0.0.1:{repositories}", "--repo-server-plaintext"]
    yield "argocd-application-controller", [*known, "--metrics-port", str(metrics[1])]
    served = ["--insecure", "--disable-auth", "--address", "127.0.0.1", "--port", str(api), "--staticassets", ""]
    yield "argocd-server", [*known, *served, "--metrics-port", str(metrics[2])]


@contextmanager
def _running(made: ArgoCD, title: str, words: list[str], kubeconfig: Path) -> Iterator[None]:
    ours = title.startswith("argocd-")
    (made.folder / "bin").mkdir(exist_ok=True)
    helm = made.folder / "bin" / "helm"
    if not helm.exists():
        helm.symlink_to(program(LAYER, "helm"))
    environment = {
        **os.environ,
        "KUBECONFIG": str(kubeconfig),
        "HOME": str(made.folder),
        "PATH": f"{helm.parent}:{os.environ['PATH']}",
        "ARGOCD_BINARY_NAME": title,
        "ARGOCD_FAKE_IN_CLUSTER": "true",
        "ARGOCD_GPG_ENABLED": "false",
    }
    command = [str(program(LAYER, "argocd")) if ours else title, *words]
    with (made.folder / f"{title}.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def _answers(made: ArgoCD) -> bool:
    try:
        return "metadata" in made.ask("GET", "/api/v1/applications", {})
    except (AssertionError, urllib3.exceptions.HTTPError):
        return False


def require() -> None:
    """Skip where something is not there."""
    for name in ("git", "redis-server"):
        if shutil.which(name) is None:
            unavailable(LAYER, f"{name} is not there", f"Install it: apt-get install {name}")
    for name in ("kubernetes", "helm", "argocd"):
        program(LAYER, name)
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        unavailable(LAYER, "Argo CD would listen on every address", "It gets a network of its own by: make test-gitops")
