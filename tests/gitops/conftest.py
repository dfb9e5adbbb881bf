"""A real Argo CD on a real API server, one of each per session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from control_plane import ControlPlane
from gitops import argocd
from gitops.argocd import ArgoCD
from layers import CHECKOUT, program


@pytest.fixture(scope="session")
def argo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArgoCD]:
    argocd.require(own_network=argocd.networks() == {"lo"})
    plane = ControlPlane(program(argocd.LAYER, "kubernetes"), tmp_path_factory.mktemp("control-plane"))
    with plane.running() as api:
        api.install((CHECKOUT / "crds").glob("*.yaml"))
        with argocd.started(plane, argocd.source(), tmp_path_factory.mktemp("argocd")) as running:
            yield running
