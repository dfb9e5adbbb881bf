"""The apiserver layer: a real etcd and kube-apiserver with our CRDs, one per session."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from control_plane import Api, ControlPlane, Json
from layers import CHECKOUT, program

LAYER = "apiserver"
GATEWAY_API = Path(__file__).parent / "gateway-api"
"""CRDs of the Gateway API as they are published (each file says of which release)."""
KUEUE = Path(__file__).parent / "kueue"
"""The CRD of Kueue's Workloads, without its schema of a whole megabyte."""
_ran: dict[str, str] = {}
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    plane = ControlPlane(program(LAYER, "kubernetes"), tmp_path_factory.mktemp("control-plane"))
    with plane.running() as api:
        api.install([*(CHECKOUT / "crds").glob("*.yaml"), *GATEWAY_API.glob("*.yaml"), *KUEUE.glob("*.yaml")])
        _ran["on"] = f"kube-apiserver {plane.version} with a real etcd"
        yield plane


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> Api:
    return control_plane.api


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"index-{next(_numbers)}"


@pytest.fixture
def smallest(name: str) -> Json:
    """The smallest VectorIndex there is."""
    return {
        "apiVersion": "vectorindex.dev/v1alpha1",
        "kind": "VectorIndex",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"source": {"s3": {"bucket": "embeddings"}}, "artifacts": {"s3": {"bucket": "indexes"}}},
    }


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _ran:
        terminalreporter.write_line(f"{LAYER} layer: ran on {_ran['on']}")
