"""One injector and one real API server per session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from control_plane import Api, ControlPlane
from layers import program
from mesh.injector import LAYER, Injector


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    plane = ControlPlane(program(LAYER, "kubernetes"), tmp_path_factory.mktemp("control-plane"))
    with plane.running() as running:
        yield running


@pytest.fixture(scope="session")
def istio(tmp_path_factory: pytest.TempPathFactory) -> Injector:
    return Injector(tmp_path_factory.mktemp("istio"))
