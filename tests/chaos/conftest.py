"""The chaos layer: faults of the API server, on a real one whose kubelet is played."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from chaos import report
from chaos.campaign import asked
from chaos.ground import Cluster, ground
from chaos.ledger import Ledger
from chaos.operators import Spawner
from chaos.report import results


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First the one that takes an hour, so that what is cut off has at least that."""
    items.sort(key=lambda item: "test_cluster.py" not in item.nodeid)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real etcd and API server."""
    with ground() as made:
        yield made
        assert not made.kubelet.failures, "the kubelet that is played was refused something: the tests mean nothing"


@pytest.fixture(scope="session")
def ledger() -> Iterator[Ledger]:
    """What is known of the run on a real cluster: on disk, and on the page after each turn when it is a whole run."""
    campaign = asked(os.environ)
    made = Ledger(report.FOLDER / f"{'whole' if campaign.is_whole else 'part'}.jsonl", campaign)
    resume = bool(os.environ.get("CHAOS_RESUME"))
    made.begin(results.stamp(), resume=resume)
    if campaign.is_whole and not resume:
        report.forget()
    if campaign.is_whole:
        made.changed = lambda: report.write(made)
    yield made
    made.changed()  # with what the tests after it have found


@pytest.fixture(scope="session")
def spawner() -> Iterator[Spawner]:
    made = Spawner()
    yield made
    made.close()
