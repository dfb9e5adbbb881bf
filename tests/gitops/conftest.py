"""A real Argo CD on a real API server, one of each per session."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from control_plane import ControlPlane
from gitops import argocd
from gitops.argocd import ArgoCD
from layers import CHECKOUT, program

MODULE = "github.com/argoproj/argo-cd/v3"


@pytest.fixture(scope="session")
def argo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArgoCD]:
    argocd.require()
    folder = CHECKOUT / "hack" / "local-cluster" / "argocd"
    listed = subprocess.run(
        ["go", "-C", str(folder), "list", "-m", "-f", "{{.Dir}}", MODULE], capture_output=True, text=True, check=False
    )
    assert listed.returncode == 0, listed.stderr
    plane = ControlPlane(program(argocd.LAYER, "kubernetes"), tmp_path_factory.mktemp("control-plane"))
    with plane.running() as api:
        api.install((CHECKOUT / "crds").glob("*.yaml"))
        with argocd.started(plane, Path(listed.stdout.strip()), tmp_path_factory.mktemp("argocd")) as running:
            yield running
