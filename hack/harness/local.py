"""The cluster of hack/local-cluster: a real Kubernetes on this Linux machine, without Docker."""

from __future__ import annotations

import sys
from pathlib import Path

from harness.base import CHECKOUT, Cluster, Image, S3Access
from harness.commands import run

PROGRAM = CHECKOUT / "hack" / "local-cluster" / "cluster"
FIRST_UP_SECONDS = 3600
FIRST_IMAGE_SECONDS = 1200


class LocalCluster(Cluster):
    """This machine reaches its pods and ClusterIPs, and `cluster build-image` brings images to it."""

    name = "local"
    direct = True

    def __init__(self) -> None:
        said = run([sys.executable, PROGRAM, "env"], timeout=30)
        self._facts = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        self.kubeconfig = Path(self._facts["KUBECONFIG"])
        self.audit_log, self.audit_backups = Path(self._facts["AUDIT_LOG"]), int(self._facts["AUDIT_BACKUPS"])
        tools = Path(self._facts["CLUSTER_TOOLS"])
        self.kubectl_program, self.helm_program = str(tools / "kubectl"), str(tools / "helm")

    def up(self) -> None:
        run([sys.executable, PROGRAM, "up"], timeout=FIRST_UP_SECONDS, show=True)

    def provide_image(self, target: str, tag: str, checkout: Path = CHECKOUT) -> Image:
        image = Image(f"localhost/vectorindex-{target}", tag)
        build = [str(PROGRAM), "build-image", "--target", target, "--tag", image.reference]
        where = ["--context", str(checkout), "--file", str(checkout / "Dockerfile")]
        run([sys.executable, *build, *where], timeout=FIRST_IMAGE_SECONDS, show=True)
        return image

    def s3(self) -> S3Access:
        facts = self._facts
        return S3Access(
            endpoint=facts["S3_ENDPOINT"],
            endpoint_in_cluster=facts["S3_ENDPOINT_IN_CLUSTER"],
            access_key=facts["AWS_ACCESS_KEY_ID"],
            secret_key=facts["AWS_SECRET_ACCESS_KEY"],
            region=facts["AWS_REGION"],
        )
