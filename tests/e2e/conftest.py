"""The e2e layer: the operator as the chart installs it, on a real cluster, with real images and a real S3 server.

Nothing is shared between tests but the operator: each has a namespace and a bucket of its own. Most tests run side by
side (together.py), and so are the indexes built that they and the other tests of a module start from.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest
from e2e import together
from e2e.operator_release import Operator
from e2e.vectors import Corpus
from e2e.workspace import MakeWorkspace, Workspace
from layers import unavailable

from harness import cluster as clusters
from harness import images as image_builds
from harness import release, s3
from harness.base import Cluster
from harness.errors import HarnessError
from harness.images import Images
from harness.kube import Kube
from harness.s3 import ObjectStore
from harness.waiting import wait_for

LAYER = "e2e"
KEEP = bool(os.environ.get("E2E_KEEP"))
"""E2E_KEEP=1: namespaces stay, for a look at what went wrong."""
APART = {"long": "minutes", "gateway": "needs `make gateway-up`", "queue": "needs `make kueue-up`"}
"""Marks of what is no part of the layer: E2E=long runs what is marked `long`, and nothing else."""
ONLY = os.environ.get("E2E", "")
FIRST_REVISION_SECONDS = 300
"""Those of all tests of a group are built at once."""
_ran: dict[str, str] = {}
_workspace = pytest.StashKey[Workspace]()
_workspaces = pytest.StashKey[dict[str, Workspace]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{together.MARK}: runs side by side with the others of its module")
    for name, why in APART.items():
        config.addinivalue_line("markers", f"{name}: {why}; runs with E2E={name} alone")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """First the module that counts the operator's writes, before there are other indexes; then group by group.

    Last the module that judges what the operator asked in all of them.
    """
    others = [item for item in items if _apart(item) != ONLY]
    items[:] = [item for item in items if item not in others]
    config.hook.pytest_deselected(items=others)
    order = list(dict.fromkeys(together.group_name(item) for item in items))

    def place(item: pytest.Item) -> tuple[bool, bool, int]:
        last, first = _module(item).endswith("test_rights.py"), _module(item).endswith("test_first_revision.py")
        return last, not first, order.index(together.group_name(item))

    items.sort(key=place)


# ---------------------------------------------------------------- once


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    try:
        chosen = clusters.choose()
    except HarnessError as lacking:
        unavailable(LAYER, str(lacking), "The other layers need no cluster.")
    chosen.up()
    _ran["on"] = f"cluster {chosen.name}"
    return chosen


@pytest.fixture(scope="session")
def kube(cluster: Cluster) -> Kube:
    return Kube(cluster)


@pytest.fixture(scope="session")
def store(cluster: Cluster) -> ObjectStore:
    return s3.connect(cluster)


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> Images:
    return image_builds.build(cluster)


@pytest.fixture(scope="session")
def operator(cluster: Cluster, kube: Kube, images: Images) -> Operator:
    """The release, of this checkout; one that is there is upgraded in place."""
    began = time.time()
    return Operator(cluster, kube, release.install(cluster, images), began)


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """Data that every query finds its answer in."""
    return Corpus.make()


# ---------------------------------------------------------------- for each test


@pytest.fixture(scope="session")
def make_workspace(kube: Kube, store: ObjectStore, images: Images, operator: Operator) -> Iterator[MakeWorkspace]:
    """Makes workspaces; at the end of the session all of them are gone, so none hangs in its deletion."""
    made: list[Workspace] = []

    def make(name: str) -> Workspace:
        made.append(Workspace.create(kube, store, images, f"e2e-{_short(name)}-{secrets.token_hex(2)}"))
        return made[-1]

    yield make
    if KEEP:
        return
    for space in made:
        space.remove()
    left = [space.namespace for space in made]
    wait_for(
        lambda: not [name for name in left if kube.get("Namespace", name) is not None],
        180,
        "the tests' namespaces to be gone",
        last_seen=lambda: kube.kubectl("get", "namespaces", "-l", "vectorindex.dev/e2e=true", "-o", "yaml"),
    )


def _workspace_of(item: pytest.Item, make: MakeWorkspace, corpus: Corpus) -> Workspace:
    """The test's own: empty for `workspace`; for `served` the index is applied and not waited for.

    Those of all tests in its module, and in the modules of the tests that run beside it, are made with it.
    """
    made = item.session.stash.setdefault(_workspaces, {})
    if item.nodeid not in made:
        modules = {_module(one) for one in (item, *together.group(item))}
        for one in [one for one in item.session.items if _module(one) in modules]:
            wanted = set(getattr(one, "fixturenames", ())) & {"served", "workspace"}
            if not wanted or one.nodeid in made:
                continue
            space = made[one.nodeid] = make(one.name)
            if "served" in wanted:
                space.put("good", corpus)
                space.apply("good")
    return made[item.nodeid]


@pytest.fixture
def workspace(request: pytest.FixtureRequest, make_workspace: MakeWorkspace, corpus: Corpus) -> Iterator[Workspace]:
    """A namespace with a bucket and no index."""
    space = _workspace_of(request.node, make_workspace, corpus)
    request.node.stash[_workspace] = space
    yield space
    if not KEEP:
        space.retire()


@pytest.fixture
def served(request: pytest.FixtureRequest, workspace: Workspace) -> Workspace:
    """An index whose first revision, of `corpus`, is stable on one searcher."""
    return workspace if together.marked(request.node) else _rolled_out(workspace)  # else: waits in its own thread


def _apart(item: pytest.Item) -> str:
    """Which of APART it is marked with; empty: it is part of the layer."""
    return next((name for name in APART if item.get_closest_marker(name) is not None), "")


def _module(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _rolled_out(space: Workspace) -> Workspace:
    space.index.wait_condition("RolledOut", timeout=FIRST_REVISION_SECONDS)
    return space


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not together.marked(pyfuncitem):
        return None
    value = pyfuncitem._request.getfixturevalue
    shared = {name: value(name) for name in ("corpus", "operator")}
    spaces, folders = pyfuncitem.session.stash[_workspaces], value("tmp_path_factory")

    def argument(test: str, name: str) -> Any:
        if name == "served":
            return _rolled_out(spaces[test])
        if name == "tmp_path":
            return folders.mktemp("together")
        return spaces[test] if name == "workspace" else shared[name]

    together.outcome(pyfuncitem, argument)
    return True


# ---------------------------------------------------------------- what a failure shows


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    report = yield
    if report.failed and call.when != "teardown":
        space = item.stash.get(_workspace, None)
        if space is not None:
            report.sections.append((f"state of {space.namespace}", space.index.explain()))
            report.sections.append(("operator's log", Operator.log_of(space.kube, space.namespace)))
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _ran:
        terminalreporter.write_line(f"{LAYER} layer: ran on {_ran['on']}")


def _short(test: str) -> str:
    """The distinctive part of a test's name, as a piece of a namespace's name."""
    words = re.sub(r"[^a-z0-9]+", "-", test.lower().removeprefix("test_"))
    return words[:24].strip("-")
