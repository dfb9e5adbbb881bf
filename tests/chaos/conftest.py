"""The chaos layer: faults of the API server, on a real one whose kubelet is played."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chaos.ground import Cluster, ground
from chaos.operators import Spawner


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real etcd and API server."""
    with ground() as made:
        yield made
        assert not made.kubelet.failures, "the kubelet that is played was refused something: the tests mean nothing"


@pytest.fixture(scope="session")
def spawner() -> Iterator[Spawner]:
    made = Spawner()
    yield made
    made.close()
