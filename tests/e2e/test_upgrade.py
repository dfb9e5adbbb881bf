"""From the first release to this one and back, with an index serving: no query fails and nothing is forgotten.

The release that the other tests use is downgraded in place, as a user would do it. So no other test runs beside this
one (only the module that looks back on all of them comes later), and at its end this checkout's release is there again.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from e2e.operator_release import Operator
from e2e.vectors import Corpus
from e2e.workspace import Workspace, merged, no_failures
from layers import unavailable

from harness import past, release
from harness.base import Cluster
from harness.errors import LackingError
from harness.images import Images
from harness.kube import Json, Kube
from harness.past import PastRelease
from harness.s3 import ObjectStore
from harness.vix import REVISION_LABEL

POLL_SECONDS = 10
POLLED = {
    "source": {"poll": f"{POLL_SECONDS}s", "minInterval": "1s"},
    "rollout": {"soak": {"minQueries": 6_000}},
}
SLOW, FAST = 40.0, 250.0
"""Queries a second. At the slow pace a soak outlasts every upgrade, at the fast one it ends within a minute."""
COARSE = {"index": {"factory": "PQ4x4"}}
"""Recall@10 of about 0.2: the gate rejects it."""
QUIET_SECONDS = 2 * POLL_SECONDS
LIMIT_SECONDS = 900


@pytest.fixture
def first_release(cluster: Cluster, images: Images, operator: Operator) -> Iterator[PastRelease]:
    """The first release, installed; afterwards this checkout's is there again."""
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(past.release(cluster))
        except LackingError as lacking:
            unavailable("e2e", str(lacking), "Only this test needs it.")
        stack.enter_context(operator.earlier())
        release.install(cluster, found.images, found.chart)
        yield found
        release.install(cluster, images)


@pytest.fixture
def space(first_release: PastRelease, kube: Kube, store: ObjectStore) -> Iterator[Workspace]:
    """Gone before this checkout's release is installed again: what a failed test left is nobody's business."""
    made = Workspace.create(kube, store, first_release.images, f"e2e-upgrade-{secrets.token_hex(2)}")
    made.rollout = {}  # the first release knows of no shadow, and with pods that it made there is none
    yield made
    made.remove()


@pytest.mark.long
@pytest.mark.timeout(LIMIT_SECONDS)
def test_upgrades_and_a_downgrade_cost_no_query_and_no_build(
    cluster: Cluster, images: Images, first_release: PastRelease, space: Workspace, corpus: Corpus
) -> None:
    index, name = space.index, release.installed(cluster)
    past_number = release.revision(cluster, name)
    first = _first_revision(space, corpus)
    coarse = _rejected(space, "good", {first})
    with space.traffic(corpus, rate=SLOW) as traffic:
        # The upgrade, in the middle of a soak.
        second = _soaking(space, corpus.moved(), "better", {first, coarse})
        before = _what_stays(space, first, second)
        release.install(cluster, images)
        _looked_at(space, history=5)
        assert _what_stays(space, first, second) == before
        traffic.pace(FAST)
        index.wait_revision(second, "Stable")
        _rejected_still(space, "good", coarse)
        _back_by_verb(space, first, first_release.images.searcher.reference)
        traffic.wait(lambda s: s.newest == first, 60, f"answers of {first}")
        no_failures(traffic.snapshot())

        # The downgrade, in the middle of another.
        traffic.pace(SLOW)
        newest = _soaking(space, corpus.moved(seed=5), "newer", {first, second, coarse})
        assert _images_of(space, newest) == {images.searcher.reference}, "new revisions have the new image"
        before = _what_stays(space, first)  # a release that cannot sign replaces searchers that want a signature
        release.go_back(cluster, name, past_number)
        _looked_at(space, history=4)
        assert _what_stays(space, first) == before
        traffic.pace(FAST)
        index.wait_revision(newest, "Stable")
        _rejected_still(space, "good", coarse)
        _scaled(space, newest)
        no_failures(traffic.snapshot())

        # The upgrade again, of an index at rest.
        before = _what_stays(space)
        release.install(cluster, images)
        _looked_at(space, history=6)
        _listed_again(space)  # by a Job: the place that is wanted now is not the one that stable's searchers list
        assert _what_stays(space) == before
        _settled(space, newest)
        seen = traffic.snapshot()
    no_failures(seen, at_least=10_000)
    assert set(seen.revisions) == {first, second, newest}
    assert set(index.revisions()) == {first, second, coarse, newest}
    assert space.built() == {first: 1, second: 1, coarse: 1, newest: 1}


# ---------------------------------------------------------------- what is done with an index


def _first_revision(space: Workspace, corpus: Corpus) -> str:
    space.put("good", corpus)
    space.apply("good", **POLLED)
    space.index.wait_condition("RolledOut")
    return space.index.traffic()


def _soaking(space: Workspace, data: Corpus, folder: str, known: set[str]) -> str:
    """A revision of other data that has the traffic and has yet to prove itself; its name."""
    space.put(folder, data)
    space.apply(folder, **POLLED)
    made = space.index.wait_new_revision(known)
    space.index.wait_revision(made, "Soaking")
    return made


def _rejected(space: Workspace, folder: str, known: set[str]) -> str:
    """A revision that the gate turned down; its name."""
    space.apply(folder, **merged(POLLED, COARSE))
    made = space.index.wait_new_revision(known)
    space.index.wait_revision(made, "Rejected")
    space.index.wait_condition("Stalled", reason="RecallBelowMin")
    return made


def _rejected_still(space: Workspace, folder: str, revision: str) -> None:
    """Its manifest again, as Argo CD applies it: a listing or two, and nothing else."""
    index = space.index
    space.apply(folder, **merged(POLLED, COARSE))
    index.wait_condition("Stalled", reason="RecallBelowMin")
    _listed_again(space)
    listings = _listings(space)
    space.hold(lambda: (space.work(), set(index.revisions()), index.traffic()), QUIET_SECONDS, "nothing is tried again")
    assert len(_listings(space) | listings) <= 2, "a listing takes the place of the one before"
    assert index.revision(revision)["phase"] == "Rejected"


def _back_by_verb(space: Workspace, revision: str, image: str) -> None:
    """Loaded again as it was proven, image and all."""
    space.index.verb("rollback", f"{revision}@by-a-person")
    space.index.wait(lambda: space.index.traffic() == revision, 60, f"the traffic to go back to {revision}")
    assert _images_of(space, revision) == {image}


def _scaled(space: Workspace, revision: str) -> None:
    """A change that needs no new revision is carried out."""
    space.index.patch({"spec": {"searcher": {"replicas": 2}}})
    _settled(space, revision)


def _settled(space: Workspace, revision: str) -> None:
    """Two searchers, and none that starts or drains."""
    space.index.wait(
        lambda: space.index.status()["ready"] == "2/2" and len(space.index.pods(revision)) == 2, 150, "two searchers"
    )


# ---------------------------------------------------------------- what became of it


def _what_stays(space: Workspace, *untouched: str) -> Json:
    """What an upgrade or a downgrade must leave as it is; fields that only one of two releases knows are left out.

    `untouched`: revisions whose searchers are in it.
    """
    index = space.index
    status = index.status()
    return {
        "traffic": index.traffic(),
        "stable": status["stable"],
        "searchers": {pod["metadata"]["name"]: _life(pod) for name in untouched for pod in index.pods(name)},
        "templates": {name: _templates(space, name) for name in untouched},
        "history": [(row["revision"], row["outcome"], row["reason"]) for row in status["history"]],
        "phases": {name: _phase(item) for name, item in index.revisions().items()},
        "rejections": {
            name: item["status"]["rejected"]["message"]
            for name, item in index.revisions().items()
            if "rejected" in item["status"]
        },
        "digests": {name: item["spec"]["digest"] for name, item in index.revisions().items()},
        "built": space.built(),
    }


def _phase(revision: Json) -> str:
    """Retired: superseded, and its pods are gone, for which the first release had no word."""
    phase = str(revision["status"]["phase"])
    return "Superseded" if phase == "Retired" else phase


def _life(pod: Json) -> tuple[str, int]:
    return pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]


def _templates(space: Workspace, revision: str) -> list[str]:
    """One name for each pod template that a revision's Deployment ever had."""
    made = space.kube.list("ReplicaSet", space.namespace, f"{REVISION_LABEL}={revision}")
    return sorted(one["metadata"]["name"] for one in made)


def _images_of(space: Workspace, revision: str) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in space.index.pods(revision)}


def _looked_at(space: Workspace, **spec: Any) -> None:
    """The operator of now has seen this harmless change."""
    space.index.patch({"spec": spec})
    generation = space.index.get()["metadata"]["generation"]
    space.index.wait(lambda: space.index.status()["observedGeneration"] == generation, 60, "to be looked at")


def _listed_again(space: Workspace) -> None:
    """The source has been listed by a Job that began after this call."""
    known = {job["metadata"]["uid"] for job in space.index.jobs("resolve")}

    def listed() -> bool:
        new = [job for job in space.index.jobs("resolve") if job["metadata"]["uid"] not in known]
        return any(job["status"].get("succeeded") for job in new)

    space.index.wait(listed, 60 + POLL_SECONDS, "a new listing of the source")


def _listings(space: Workspace) -> set[str]:
    return {job["metadata"]["name"] for job in space.index.jobs("resolve")}
