"""What every kind of cluster gives: programs, a kubeconfig, images, an object store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from harness.commands import run

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class S3Access:
    """One object store, as this machine and as pods reach it. Path-style addressing."""

    endpoint: str
    endpoint_in_cluster: str
    access_key: str
    secret_key: str
    region: str

    def secret(self) -> dict[str, str]:
        """The keys of the Secret that a VectorIndex names."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}


@dataclass(frozen=True, slots=True)
class Image:
    """An image as the chart's values name it."""

    repository: str
    tag: str
    digest: str = ""
    """`sha256:...`; wins over the tag."""

    @property
    def reference(self) -> str:
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"


class Cluster(ABC):
    """A cluster that this process may use."""

    name: str
    kubeconfig: Path
    context: str = ""
    """Empty: the kubeconfig's current context."""
    direct: bool = False
    """Whether this machine reaches ClusterIPs and pods."""
    audit_log: Path | None = None
    """What the operator asked of the API server, where that writes it down; rotated files lie beside it."""
    audit_backups: int = 0
    """How many rotated ones there are at most."""
    namespace: str = ""
    """The only one in which this process has rights; empty: it may do everything."""
    pull_secrets: tuple[str, ...] = ()
    """By which pods pull the images, in their own namespace."""
    kubectl_program: str = "kubectl"
    helm_program: str = "helm"

    @abstractmethod
    def up(self) -> None:
        """Start it where that is ours to do; returns at once when it runs. Prints its progress."""

    @abstractmethod
    def provide_image(self, target: str, tag: str, checkout: Path = CHECKOUT) -> Image:
        """The image of one target of a checkout's Dockerfile, where the cluster's pods can use it."""

    @abstractmethod
    def s3(self) -> S3Access:
        """The object store, there and answering."""

    @property
    def label(self) -> str:
        """Which one, for people."""
        return f"cluster {self.name}" + (f" ({self.context})" if self.context else "")

    def environment(self) -> dict[str, str]:
        """What a child process needs to mean this cluster."""
        return {"KUBECONFIG": str(self.kubeconfig)}

    def kubectl_command(self, *arguments: str | Path) -> list[str]:
        """The command line of kubectl on this cluster, whatever KUBECONFIG says."""
        context = ["--context", self.context] if self.context else []
        return [self.kubectl_program, "--kubeconfig", str(self.kubeconfig), *context, *map(str, arguments)]

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, timeout: float = 60) -> str:
        """What `kubectl ARGUMENTS` prints."""
        return run(self.kubectl_command(*arguments), timeout=timeout, stdin=stdin)

    def helm(self, *arguments: str | Path, timeout: float = 300) -> str:
        """What `helm ARGUMENTS` prints."""
        context = ["--kube-context", self.context] if self.context else []
        command = [self.helm_program, "--kubeconfig", str(self.kubeconfig), *context, *map(str, arguments)]
        return run(command, timeout=timeout)
