"""Kueue, only where it is asked for: by the chart of its own module, with its CRDs, webhooks and their certificates."""

from __future__ import annotations

import shutil
from pathlib import Path

from . import builds, image_build, layout, workloads
from .terminal import output_of, say

FILES = layout.HERE / "kueue"
RELEASE, NAMESPACE = "kueue", "kueue-system"
READY_SECONDS = 180
LEAVE_SECONDS = 60
QUEUES = ("localqueues", "workloads", "clusterqueues", "resourceflavors", "workloadpriorityclasses")
"""What people make of it. It has finalizers that only Kueue takes away, so it goes while Kueue is at work."""


def on() -> None:
    """Builds what the cache lacks, installs it, and waits until its webhooks answer."""
    builds.ensure("kueue", "helm")
    image_build.build("kueue", layout.KUEUE_IMAGE, _context(), FILES / "Dockerfile")
    repository, _, tag = layout.KUEUE_IMAGE.rpartition(":")
    image = [f"controllerManager.manager.image.{key}={value}" for key, value in
             (("repository", repository), ("tag", tag))]  # fmt: skip
    say("installing Kueue (about a minute) ...")
    _helm(
        "upgrade", "--install", RELEASE, str(builds.module_folder("kueue") / "charts" / "kueue"),
        "--namespace", NAMESPACE, "--create-namespace", "--values", str(FILES / "values.yaml"),
        "--set", ",".join(image), "--wait", f"--timeout={READY_SECONDS}s",
    )  # fmt: skip
    say("Kueue is at work: make ResourceFlavors, ClusterQueues and LocalQueues")


def off() -> None:
    """Removes it, with every queue, its CRDs and webhooks. The build stays."""
    if _is_installed():
        for kind in QUEUES:
            what = [f"{kind}.kueue.x-k8s.io", "--all", "--all-namespaces", f"--timeout={LEAVE_SECONDS}s"]
            output_of([*workloads.kubectl(), "delete", "--ignore-not-found", *what])
        _helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", f"--timeout={READY_SECONDS}s")
    output_of([*workloads.kubectl(), "delete", "namespace", NAMESPACE, "--ignore-not-found"])


def _is_installed() -> bool:
    return RELEASE in _helm("list", "--namespace", NAMESPACE, "--all", "--short").split()


def _context() -> Path:
    """A folder with what the image is built of."""
    folder = layout.CACHE / "kueue"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(layout.binary("kueue"), folder / "manager")
    return folder


def _helm(*arguments: str) -> str:
    return output_of([str(layout.binary("helm")), "--kubeconfig", str(layout.KUBECONFIG), *arguments])
