"""A real Argo CD on the local cluster, where the operator is at work and pods are real: one for all tests."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator

import pytest
from e2e.vectors import Corpus
from gitops import argocd
from gitops_cluster import site as sites
from gitops_cluster.site import Index, Site
from layers import local_layout

from harness import images as image_builds
from harness.local import LocalCluster
from harness.waiting import wait_for

LAYER = "gitops_cluster"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return Corpus.make()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    argocd.require(LAYER, own_network=local_layout().NODE_LINK in argocd.networks())
    cluster = LocalCluster()
    folder = tmp_path_factory.mktemp("argocd")
    with sites.opened(cluster, image_builds.build(cluster), folder, f"gitops-{secrets.token_hex(2)}") as made:
        yield made


@pytest.fixture
def index(site: Site, corpus: Corpus) -> Iterator[Index]:
    """An index of Git whose first revision is stable on one searcher; it goes with its Application, all of it."""
    made = site.index(f"products-{next(_numbers)}")
    made.space.put(good(made), corpus)
    made.commit(made.space.manifest(good(made)))
    made.deploy()
    made.becomes("Healthy")
    wait_for(made.reached, 30, f"kube-proxy to know of {made.name}")
    yield made
    made.delete()
    assert made.space.kube.get("VectorIndex", made.name, made.space.namespace) is None
    wait_for(lambda: not left(made), sites.DELETED_SECONDS, "what came of it to go", last_seen=lambda: str(left(made)))


def left(index: Index) -> list[str]:
    """What is there of an index."""
    return [f"{one['kind']}/{one['metadata']['name']}" for one in index.handle.children()]


def good(index: Index) -> str:
    """The folder of its first data."""
    return f"{index.name}-good"
