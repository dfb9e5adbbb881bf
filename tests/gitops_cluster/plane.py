"""The local cluster's API server for the harness of tests/gitops, which otherwise starts one of its own."""

from __future__ import annotations

import base64
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import urllib3
import yaml
from control_plane import Api, kubeconfig_of

from harness.base import Cluster


@dataclass(slots=True)
class LocalPlane:
    """As its administrator. `folder`: for the files that programs want of a kubeconfig."""

    cluster: Cluster
    folder: Path
    api: Api = field(init=False)

    def __post_init__(self) -> None:
        """The admin's kubeconfig holds certificates, not paths."""
        self.folder.mkdir(parents=True, exist_ok=True)
        known = yaml.safe_load(self.cluster.kubeconfig.read_text())
        (cluster,), (user,) = known["clusters"], known["users"]
        pool = urllib3.PoolManager(
            maxsize=4,
            timeout=30.0,
            ca_certs=str(self._file("ca.crt", cluster["cluster"]["certificate-authority-data"])),
            cert_file=str(self._file("admin.crt", user["user"]["client-certificate-data"])),
            key_file=str(self._file("admin.key", user["user"]["client-key-data"])),
        )
        self.api = Api(cluster["cluster"]["server"], pool, token="")

    def kubectl(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """The real kubectl, as admin."""
        command = self.cluster.kubectl_command(*arguments)
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)

    def kubeconfig(self, namespace: str, account: str, seconds: int = 3600) -> Path:
        """A kubeconfig with a token of a ServiceAccount. `seconds`: for how long the token is good."""
        return kubeconfig_of(self.api, self.folder / "ca.crt", self.folder, namespace, account, seconds)

    def _file(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_bytes(base64.b64decode(content))
        return path
