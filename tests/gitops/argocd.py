"""A real Argo CD on the API server of any cluster: controller, repository server and API server are one program,
started thrice; Git and redis are the machine's.

The controller's metrics listen on every address, so all this runs in another network than the machine's: one that has
loopback only, or that of the local cluster's node.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import urllib3
import yaml
from control_plane import Api
from layers import CHECKOUT, program, unavailable
from ports import held

from argocd_files import ARGOCD

Json = dict[str, Any]
LAYER = "gitops"
HOME = "argocd"
MODULE = "github.com/argoproj/argo-cd/v3"
IN_CLUSTER = "https://kubernetes.default.svc"
TOKEN_SECONDS = 4 * 3600
_SETTINGS = ("argocd-cm", "argocd-cmd-params-cm", "argocd-rbac-cm", "argocd-gpg-keys-cm", "argocd-ssh-known-hosts-cm",
             "argocd-tls-certs-cm")  # fmt: skip
_PROJECT: Json = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "AppProject",
    "metadata": {"name": "default"},
    "spec": {
        "sourceRepos": ["*"],
        "destinations": [{"server": IN_CLUSTER, "namespace": "*"}],
        "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
    },
}


class Plane(Protocol):
    """A cluster's API server, for its administrator."""

    api: Api

    def kubectl(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """The real kubectl, as admin."""

    def kubeconfig(self, namespace: str, account: str, seconds: int = 3600) -> Path:
        """A kubeconfig with a token of a ServiceAccount. `seconds`: for how long the token is good."""


@dataclass(slots=True)
class ArgoCD:
    """One that runs. `folder`: logs, and the Git repository that Applications read. `home`: its namespace.

    URLs: of its API server, of that repository, of the controller's metrics.
    """

    plane: Plane
    folder: Path
    home: str = HOME
    url: str = ""
    repository_url: str = ""
    metrics_url: str = ""
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
        source |= {"repoURL": self.repository_url, "targetRevision": "main"}
        meta = {**application["metadata"], "namespace": self.home}
        found = {**application, "metadata": meta, "spec": {**application["spec"], "source": source}}
        answer = self.plane.api.apply(found, force=True)
        assert answer.ok, answer.message

    def get(self, name: str) -> Json:
        """The Application with its status; {} where there is none."""
        answer = self.plane.api.get(self._path(name))
        return answer.body if answer.ok else {}

    def names(self) -> list[str]:
        """Of all Applications, the newest first."""
        items = self.plane.api.get(self._path("")).body["items"]
        return [one["metadata"]["name"] for one in sorted(items, key=_created, reverse=True)]

    def delete(self, name: str, seconds: float = 60.0) -> None:
        """Delete an Application, and wait until it has gone with what it deployed."""
        self.plane.api.request("DELETE", self._path(name))
        self.wait(f"{name} to go", lambda: not self.get(name), seconds, name=name)

    def disown(self, name: str) -> None:
        """Take the finalizers off an Application that does not go."""
        self.plane.api.request(
            "PATCH", self._path(name), {"metadata": {"finalizers": None}}, "application/merge-patch+json"
        )

    def _path(self, name: str) -> str:
        return f"/apis/argoproj.io/v1alpha1/namespaces/{self.home}/applications/{name}".rstrip("/")

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

    def applied(self) -> Counter[str]:
        """How often the controller has run kubectl, by its command, and synced, by Application, since it began; also
        where nothing came of it. Its argocd_app_k8s_request_total knows nothing of what kubectl writes."""
        said = self._http.request("GET", self.metrics_url).data.decode()
        counted: Counter[str] = Counter()
        for name, label in (("kubectl_exec", "command"), ("app_sync", "name")):
            for labels, value in re.findall(rf"^argocd_{name}_total\{{(.*?)\}} (\S+)$", said, re.MULTILINE):
                of = dict(re.findall(r'(\w+)="([^"]*)"', labels))
                counted[f"{name} {of[label]}"] += int(float(value))
        return counted

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


def _created(application: Json) -> str:
    return str(application["metadata"]["creationTimestamp"])


def _index(namespace: str, name: str) -> dict[str, str]:
    kind = {"group": "vectorindex.dev", "version": "v1alpha1", "kind": "VectorIndex"}
    return {"namespace": namespace, "resourceName": name, **kind}


def _last(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines()[-6:]


# ---------------------------------------------------------------- starting and ending it


def source() -> Path:
    """The folder of Argo CD's module, with its manifests."""
    folder = CHECKOUT / "hack" / "local-cluster" / "argocd"
    command = ["go", "-C", str(folder), "list", "-m", "-f", "{{.Dir}}", MODULE]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stderr
    return Path(listed.stdout.strip())


@contextmanager
def started(
    plane: Plane, source: Path, folder: Path, *, home: str = HOME, namespaces: Sequence[str] = ()
) -> Iterator[ArgoCD]:
    """Argo CD with the chart's customizations, in namespace `home`. `source`: of its module.

    `namespaces`: it looks at these, and at what is in none; default: at all of the cluster.
    """
    made = ArgoCD(plane, folder, home)
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main", str(made.repository)], check=True)
    kubeconfig = _install(made, source / "manifests", namespaces)
    with ExitStack() as stack:
        ports = stack.enter_context(held(8))
        made.url, made.metrics_url = f"http://127.0.0.1:{ports[2]}", f"http://127.0.0.1:{ports[6]}/metrics"
        made.repository_url = f"git://127.0.0.1:{ports[3]}/deployments"
        for title, words in _programs(made, kubeconfig, ports):
            stack.enter_context(_running(made, title, words, kubeconfig))
        made.wait("Argo CD to answer", lambda: _answers(made), 90)
        yield made


def _install(made: ArgoCD, manifests: Path, namespaces: Sequence[str]) -> Path:
    """Its CRDs, settings and rights; a kubeconfig with these."""
    api, home = made.plane.api, made.home
    api.install([manifests / "crds" / f"{name}-crd.yaml" for name in ("application", "appproject", "applicationset")])
    labels = {"app.kubernetes.io/part-of": "argocd"}
    objects: list[Json] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": home}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "argocd"}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": home},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "argocd", "namespace": home}],
        },
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "argocd-secret", "labels": labels}},
        *(yaml.safe_load((manifests / "base" / "config" / f"{name}.yaml").read_text()) for name in _SETTINGS),
        {**_PROJECT, "metadata": dict(_PROJECT["metadata"])},
        *([_cluster(namespaces, labels)] if namespaces else []),
    ]
    for one in objects:
        one["metadata"].setdefault("namespace", home)
        answer = api.apply(one)
        assert answer.ok, f"{one['metadata']['name']}: {answer.message}"
    patch = made.plane.kubectl(
        "-n", home, "patch", "configmap", "argocd-cm", "--patch-file", str(ARGOCD / "argocd-cm.yaml")
    )
    assert patch.returncode == 0, patch.stderr
    return made.plane.kubeconfig(home, "argocd", TOKEN_SECONDS)


def _cluster(namespaces: Sequence[str], labels: Mapping[str, str]) -> Json:
    """The Secret by which Argo CD knows the cluster that it is in, and what of it to look at."""
    told = {"name": "in-cluster", "server": IN_CLUSTER, "config": "{}", "namespaces": ",".join(namespaces)}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "in-cluster", "labels": {**labels, "argocd.argoproj.io/secret-type": "cluster"}},
        "stringData": told | {"clusterResources": "true"},
    }


def _programs(made: ArgoCD, kubeconfig: Path, ports: tuple[int, ...]) -> Iterator[tuple[str, list[str]]]:
    """Title and arguments; what begins with `argocd-` is the name by which the one program knows what it is."""
    redis, repositories, api, git, *metrics = ports
    seen = ["--metrics-port", str(metrics[0])]
    yield "redis-server", ["--port", str(redis), "--bind", "127.0.0.1", "--save", "", "--dir", str(made.folder)]
    where = ["--listen=127.0.0.1", f"--port={git}", "--reuseaddr"]
    yield "git", ["daemon", f"--base-path={made.folder / 'git'}", "--export-all", *where]
    address = ["--address", "127.0.0.1", "--metrics-address", "127.0.0.1"]
    yield (
        "argocd-repo-server",
        ["--redis", f"127.0.0.1:{redis}", "--disable-tls", "--port", str(repositories), *address, *seen],
    )
    known = ["--kubeconfig", str(kubeconfig), "--namespace", made.home, "--redis", f"127.0.0.1:{redis}"]
    known += ["--repo-server", f"127.0.0.1:{repositories}", "--repo-server-plaintext"]
    yield "argocd-application-controller", [*known, "--metrics-port", str(metrics[2])]
    served = ["--insecure", "--disable-auth", "--address", "127.0.0.1", "--port", str(api), "--staticassets", ""]
    yield "argocd-server", [*known, *served, "--metrics-port", str(metrics[1])]


@contextmanager
def _running(made: ArgoCD, title: str, words: list[str], kubeconfig: Path) -> Iterator[None]:
    ours = title.startswith("argocd-")
    (made.folder / "bin").mkdir(exist_ok=True)
    helm = made.folder / "bin" / "helm"
    if not helm.exists():
        helm.symlink_to(program(LAYER, "helm"))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
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


def networks() -> Set[str]:
    """Names of the links of the network that this process is in."""
    return {name for _, name in socket.if_nameindex()}


def require(layer: str = LAYER, *, own_network: bool) -> None:
    """Skip where something is not there. `own_network`: whether Argo CD may listen on every address of the network
    that this process is in."""
    for name in ("git", "redis-server"):
        if shutil.which(name) is None:
            unavailable(layer, f"{name} is not there", f"Install it: apt-get install {name}")
    for name in ("kubernetes", "helm", "argocd"):
        program(layer, name)
    if not own_network:
        verb = layer.replace("_", "-")
        unavailable(layer, "Argo CD would listen on every address", f"It gets another network by: make test-{verb}")
