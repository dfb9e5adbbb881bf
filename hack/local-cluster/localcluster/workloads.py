"""What the cluster itself puts into Kubernetes: DNS permissions, the object store, a pretended GPU."""

from __future__ import annotations

import os
import subprocess
import urllib.error
import urllib.request
from string import Template

from . import api, layout
from .terminal import ClusterError, output_of

GPU = "nvidia.com/gpu"


def apply(manifest: str) -> None:
    """Applies manifests/`manifest` with the layout's values in it."""
    text = Template((layout.HERE / "manifests" / manifest).read_text()).substitute(layout.substitutions())
    command = [*kubectl(), "apply", "--server-side", "--force-conflicts", "--field-manager=local-cluster", "-f", "-"]
    output_of(command, text_in=text)


def kubectl() -> list[str]:
    """The command line of kubectl for this cluster, whatever KUBECONFIG says."""
    return [str(layout.binary("kubernetes")), "kubectl", "--kubeconfig", str(layout.KUBECONFIG)]


def object_store_answers() -> bool:
    """Whether the S3 server says from the host, through its Service, that it is well."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{layout.S3_ENDPOINT}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def set_fake_gpu(on: bool) -> None:
    """Makes the node claim one GPU, or none; remembered over a restart of the cluster."""
    patch = {"status": {"capacity": {GPU: "1" if on else None}, "allocatable": {GPU: "1" if on else None}}}
    status, body = api.request("PATCH", f"{api.NODE_PATH}/status", patch, "application/merge-patch+json")
    if status != 200:
        raise ClusterError(f"the API server refused the patch of the node ({status}): {body.decode(errors='replace')}")
    layout.FAKE_GPU.touch() if on else layout.FAKE_GPU.unlink(missing_ok=True)


def run_tool(command: list[str], arguments: list[str]) -> int:
    """Runs kubectl or helm for the user, with this cluster's kubeconfig; its exit status."""
    # As a variable, not as a flag: kubectl takes no flags before a plugin's name.
    path = f"{layout.TOOLS}:{os.environ.get('PATH', '')}"
    env = {**os.environ, "KUBECONFIG": str(layout.KUBECONFIG), "PATH": path}
    return subprocess.run([*command, *arguments], env=env, check=False).returncode
