"""A real etcd and kube-apiserver on loopback ports, and a small client that shows their answers as they are.

No controllers run, so nothing is garbage collected and no pod starts: what is tested is what the API server decides.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
import yaml
from ports import held

Json = dict[str, Any]

_TOKEN = "admin"  # a bearer token of this API server, which lives as long as the tests and listens on loopback only
_PREFIXES = {"v1": "/api/v1"}
_PLURALS = {
    "CustomResourceDefinition": "customresourcedefinitions",
    "NetworkPolicy": "networkpolicies",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "VectorIndex": "vectorindexes",
    "VectorIndexRevision": "vectorindexrevisions",
}
_CLUSTER_SCOPED = (
    "CustomResourceDefinition",
    "Namespace",
    "ClusterRole",
    "ClusterRoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """Status code and body of one request."""

    status: int
    body: Json

    @property
    def ok(self) -> bool:
        return self.status < 400

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))

    @property
    def fields(self) -> tuple[str, ...]:
        """Paths that the API server names as the cause of a refusal."""
        causes = (self.body.get("details") or {}).get("causes") or []
        return tuple(str(cause.get("field", "")) for cause in causes)


@dataclass(frozen=True, slots=True)
class Api:
    """Speaks to the API server as admin, or as somebody else."""

    url: str
    pool: urllib3.PoolManager
    as_user: str = ""
    as_groups: tuple[str, ...] = ()
    token: str = _TOKEN
    """Empty: the pool has a certificate to show."""

    def impersonate(self, user: str, *groups: str) -> Api:
        """The same server as somebody else."""
        return replace(self, as_user=user, as_groups=groups)

    def service_account(self, namespace: str, name: str) -> Api:
        """The same server as a ServiceAccount."""
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return self.impersonate(f"system:serviceaccount:{namespace}:{name}", *groups)

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json", **query: str
    ) -> Answer:
        """One request. `query` holds parameters such as dryRun="All"."""
        headers = urllib3.HTTPHeaderDict({"Content-Type": content_type, "Accept": "application/json"})
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if self.as_user:
            headers["Impersonate-User"] = self.as_user
            for group in self.as_groups:
                headers.add("Impersonate-Group", group)
        data = None if body is None else json.dumps(body).encode()
        target = self.url + path + (f"?{urlencode(query)}" if query else "")
        response = self.pool.request(method, target, body=data, headers=headers, retries=False)
        try:
            return Answer(response.status, json.loads(response.data))
        except ValueError:
            return Answer(response.status, {"message": response.data.decode(errors="replace")})

    def get(self, path: str, **query: str) -> Answer:
        return self.request("GET", path, **query)

    def apply(
        self, manifest: Json, manager: str = "kubectl", *, subresource: str = "", force: bool = False, **query: str
    ) -> Answer:
        """Server-side apply under strict field validation, as `kubectl apply --server-side` does it."""
        path = path_of(manifest) + (f"/{subresource}" if subresource else "")
        query = {"fieldManager": manager, "fieldValidation": "Strict", "force": str(force).lower()} | query
        return self.request("PATCH", path, manifest, "application/apply-patch+yaml", **query)

    def delete(self, manifest: Json) -> Answer:
        return self.request("DELETE", path_of(manifest))

    def install(self, crds: Iterable[Path], seconds: float = 20.0) -> None:
        """Apply the CRDs of these files, and return once their kinds are served."""
        served = []
        for path in sorted(crds):
            crd = yaml.safe_load(path.read_text(encoding="utf-8"))
            answer = self.apply(crd, manager="test", force=True)
            assert answer.ok, answer.message
            spec = crd["spec"]
            served += [
                f"/apis/{spec['group']}/{one['name']}/{spec['names']['plural']}"
                for one in spec["versions"]
                if one["served"]
            ]
        deadline = time.monotonic() + seconds
        for kind in served:
            while not self.get(kind).ok:
                assert time.monotonic() < deadline, f"{kind} never served"
                time.sleep(0.1)


def kubeconfig_of(api: Api, authority: Path, folder: Path, namespace: str, account: str, seconds: int) -> Path:
    """A kubeconfig in `folder` with a token of a ServiceAccount, good for `seconds`. `authority`: the CA's file."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    request: Json = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
    request["spec"] = {"expirationSeconds": seconds}
    answer = api.request("POST", path, request)
    if not answer.ok:
        raise RuntimeError(f"no token for {namespace}/{account}: {answer.message}")
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": api.url, "certificate-authority": str(authority)}}],
        "users": [{"name": "test", "user": {"token": answer.body["status"]["token"]}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
    }
    file = folder / f"{namespace}-{account}.json"
    file.write_text(json.dumps(config))
    return file


def path_of(manifest: Json) -> str:
    """The path of the object that `manifest` describes."""
    version, kind, meta = manifest["apiVersion"], manifest["kind"], manifest["metadata"]
    prefix = _PREFIXES.get(version, f"/apis/{version}")
    plural = _PLURALS.get(kind, f"{kind.lower()}s")
    if kind in _CLUSTER_SCOPED:
        return f"{prefix}/{plural}/{meta['name']}"
    return f"{prefix}/namespaces/{meta.get('namespace', 'default')}/{plural}/{meta['name']}"


_AUDIT = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    userGroups: [system:masters]
  - level: Metadata
"""
"""Who asked for what, the tests themselves left out; a watch is told of when it begins."""


@dataclass(slots=True)
class ControlPlane:
    """Starts and ends the two processes. `kubernetes`: the binary that holds both; `folder`: theirs, empty."""

    kubernetes: Path
    folder: Path
    api: Api = field(init=False)
    version: str = field(init=False, default="")

    @contextmanager
    def running(self) -> Iterator[Api]:
        """The admin's client, while both processes run."""
        key = self.folder / "service-accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        tokens = self.folder / "tokens.csv"
        tokens.write_text(f"{_TOKEN},admin,admin,system:masters\n")
        certificates = self.folder / "certificates"
        policy = self.folder / "audit-policy.yaml"
        policy.write_text(_AUDIT)
        with ExitStack() as stack:
            peer, client, secure = stack.enter_context(held(3))
            stack.enter_context(
                self._process(
                    "etcd",
                    f"--data-dir={self.folder / 'etcd'}",
                    f"--listen-client-urls=http://127.0.0.1:{client}",
                    f"--advertise-client-urls=http://127.0.0.1:{client}",
                    f"--listen-peer-urls=http://127.0.0.1:{peer}",
                    f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                    f"--initial-cluster=default=http://127.0.0.1:{peer}",
                    "--unsafe-no-fsync",
                )
            )
            server = stack.enter_context(
                self._process(
                    "kube-apiserver",
                    f"--etcd-servers=http://127.0.0.1:{client}",
                    f"--cert-dir={certificates}",
                    "--bind-address=127.0.0.1",
                    f"--secure-port={secure}",
                    "--authorization-mode=RBAC",
                    f"--token-auth-file={tokens}",
                    "--service-account-issuer=https://kubernetes.default.svc",
                    f"--service-account-key-file={key}",
                    f"--service-account-signing-key-file={key}",
                    "--service-cluster-ip-range=10.0.0.0/16",
                    # Some clusters have it: who makes an object with an owner must have rights over the owner.
                    "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
                    f"--audit-policy-file={policy}",
                    f"--audit-log-path={self.folder / 'audit.log'}",
                    "--audit-log-mode=blocking-strict",
                    # One file, in MB: by itself it begins a new one every 100, and who reads on where it was is lost.
                    "--audit-log-maxsize=100000",
                )
            )
            self._wait_for(lambda: (certificates / "apiserver.crt").exists(), server)
            pool = urllib3.PoolManager(ca_certs=str(certificates / "apiserver.crt"), timeout=10.0)
            self.api = Api(f"https://127.0.0.1:{secure}", pool)
            self._wait_for(self._ready, server)
            self.version = str(self.api.get("/version").body["gitVersion"])
            yield self.api
            pool.clear()

    def audited(self, user: str) -> list[Json]:
        """The audit log's events of one user."""
        lines = (self.folder / "audit.log").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["user"]["username"] == user]

    def kubeconfig(self, namespace: str, account: str, seconds: int = 3600) -> Path:
        """A kubeconfig with a token of a ServiceAccount. `seconds`: for how long the token is good."""
        certificate = self.folder / "certificates" / "apiserver.crt"
        return kubeconfig_of(self.api, certificate, self.folder, namespace, account, seconds)

    def kubectl(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """The real kubectl, as admin."""
        certificate = self.folder / "certificates" / "apiserver.crt"
        connection = (f"--server={self.api.url}", f"--token={_TOKEN}", f"--certificate-authority={certificate}")
        command = [str(self.kubernetes), "kubectl", "--kubeconfig=/dev/null", *connection, *arguments]
        environment = {"HOME": str(self.folder), "PATH": ""}
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, env=environment)

    def helm_flags(self) -> tuple[str, ...]:
        """What lets `helm template` look into this cluster, as admin."""
        certificate = self.folder / "certificates" / "apiserver.crt"
        server = (f"--kube-apiserver={self.api.url}", f"--kube-token={_TOKEN}", f"--kube-ca-file={certificate}")
        return ("--dry-run=server", "--kubeconfig=/dev/null", *server)

    def _ready(self) -> bool:
        try:
            return self.api.get("/readyz").status == 200 and self.api.get("/api/v1/namespaces/default").ok
        except urllib3.exceptions.HTTPError:
            return False

    @contextmanager
    def _process(self, component: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        with (self.folder / f"{component}.log").open("wb") as log:
            process = subprocess.Popen([str(self.kubernetes), component, *arguments], stdout=log, stderr=log)
            try:
                yield process
            finally:
                process.kill()  # nothing in it is worth a graceful end
                process.wait()

    def _wait_for(self, ready: Any, server: subprocess.Popen[bytes], seconds: float = 40.0) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            if server.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "kube-apiserver.log").read_text(errors="replace")
                raise RuntimeError(f"kube-apiserver did not get ready:\n{log[-3000:]}")
            time.sleep(0.1)
