"""The apiserver layer: a real etcd and kube-apiserver with our CRDs, one per session."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from control_plane import Api, ControlPlane, Json
from layers import CHECKOUT, program

LAYER = "apiserver"
GATEWAY_API = Path(__file__).parent / "gateway-api"
"""CRDs of the Gateway API as they are published (each file says of which release)."""
_ran: dict[str, str] = {}
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    plane = ControlPlane(program(LAYER, "kubernetes"), tmp_path_factory.mktemp("control-plane"))
    with plane.running() as api:
        for path in sorted([*(CHECKOUT / "crds").glob("*.yaml"), *GATEWAY_API.glob("*.yaml")]):
            answer = api.apply(yaml.safe_load(path.read_text()), manager="test")
            assert answer.ok, answer.message
        for plural in ("vectorindexes", "vectorindexrevisions"):
            _wait_until_served(api, f"vectorindex.dev/v1alpha1/{plural}")
        _wait_until_served(api, "gateway.networking.k8s.io/v1/httproutes")
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


def _wait_until_served(api: Api, path: str) -> None:
    """Until the list answers and the schema is published (strict validation and apply read it)."""
    deadline = time.monotonic() + 20
    while not api.get(f"/apis/{path}").ok:
        assert time.monotonic() < deadline, f"{path} never served"
        time.sleep(0.1)
