"""What the first release (c85bb2e) wrote, read by this one: nothing is built, changed or forgotten.

The golden file was recorded from a real cluster, at rest: one revision superseded, one promoted and gone back to, one
rolled back by a person, one rejected by the gate. It is never written anew. tests/e2e/test_upgrade.py does the same for
real.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import yaml
from raw_objects import at_once

from vectorindex_operator.api.timestamps import to_unix
from vectorindex_operator.core.internal_keys import Addressee
from vectorindex_operator.core.judging.evidence import PodCounts, PodEvidence
from vectorindex_operator.core.judging.questions import Question
from vectorindex_operator.core.state import Installation
from vectorindex_operator.reconcile.drift import matches
from vectorindex_operator.reconcile.loop import Reconciler
from vectorindex_operator.reconcile.observe import observe
from vectorindex_searcher.contract import TrafficLease

Json = dict[str, Any]

RECORDED = Path(__file__).parent / "golden" / "first-release.yaml"
NAMESPACE, NAME = "recorded", "products"
SUPERSEDED, STABLE, ROLLED_BACK, REJECTED = (
    f"{NAME}-{digest}" for digest in ("d474d69d", "8c6b920e", "1b6e6f1d", "bbe59e31")
)
NOW = to_unix("2026-11-26T16:21:00Z")
"""Seconds after the recording; the next listing of the source is an hour away."""


class Cluster:
    """The recorded objects, and what is written over them."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Json] = {}
        for one in yaml.safe_load_all(RECORDED.read_text()):
            self.objects[one["kind"], one["metadata"]["name"]] = one
        self.made: dict[tuple[str, str], Json] = {}
        self.deleted: list[str] = []
        self.statuses: dict[str, Json] = {}

    def get(self, kind: str, namespace: str, name: str) -> Json | None:
        return self.objects.get((kind, name))

    def children(self, kind: str, namespace: str, selector: str) -> list[Json]:
        return [one for (its, _), one in self.objects.items() if its == kind]

    def take_over(self, live: Json) -> None: ...

    def merge(self, manifest: Json) -> Json:
        return self.apply(manifest)

    def apply(self, manifest: Json, *, force: bool = True) -> Json:
        self.made[manifest["kind"], manifest["metadata"]["name"]] = manifest
        return manifest

    def create(self, manifest: Json) -> Json:
        return self.apply(manifest)

    def apply_status(self, manifest: Json) -> Json:
        self.statuses[manifest["metadata"]["name"]] = manifest["status"]
        return manifest

    def delete(self, kind: str, namespace: str, name: str, uid: str, version: str = "") -> None:
        self.deleted.append(f"{kind}/{name}")


class Searchers:
    """They answer, and nobody has queried them."""

    def evidence(
        self, to: Addressee, pods: Iterable[tuple[str, str]], question: Question
    ) -> Future[tuple[PodEvidence, ...]]:
        nothing = PodCounts(question.revision, NOW, None, ())
        return at_once(tuple(PodEvidence(name, nothing, NOW) for name, _ in pods))

    def tell(self, to: Addressee, addresses: Iterable[str], lease: TrafficLease) -> None: ...


class Events:
    def send(self, regarding: Any, event: Any) -> None: ...


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def run(cluster: Cluster) -> None:
    """A pass of an operator whose searchers have another image."""
    settings = Installation(searcher_image="registry/searcher:next")
    stored: Any = cluster
    Reconciler(stored, Searchers(), Events(), settings, clock=lambda: NOW).run(NAMESPACE, NAME)


def test_every_revision_is_read_as_it_was_written(cluster: Cluster) -> None:
    stored: Any = cluster
    seen = observe(stored, NAMESPACE, NAME, NOW)
    assert seen is not None
    assert seen.index.spec_error == ""
    assert {name: view.status.phase for name, view in seen.revisions.items()} == {
        SUPERSEDED: "Superseded",
        STABLE: "Stable",
        ROLLED_BACK: "RolledBack",
        REJECTED: "Rejected",
    }
    for name, view in seen.revisions.items():
        written = cluster.objects["VectorIndexRevision", name]
        assert view.spec.digest == written["spec"]["digest"]
        assert (view.status.rejected is not None) == ("rejected" in written["status"])


def test_a_pass_makes_nothing_changes_no_spec_and_deletes_nothing(cluster: Cluster) -> None:
    run(cluster)

    assert cluster.deleted == []
    for key, manifest in cluster.made.items():
        assert key in cluster.objects, "made anew"
        assert matches(manifest["spec"], cluster.objects[key]["spec"]), f"{key} would be changed"


def test_what_is_written_back_keeps_stable_history_rejections_and_the_answer_to_the_verb(cluster: Cluster) -> None:
    before = copy.deepcopy(cluster.objects["VectorIndex", NAME]["status"])
    run(cluster)

    after = cluster.statuses.get(NAME, before)
    for field in ("stable", "phase", "reason", "history", "verbs", "source", "ready"):
        assert after[field] == before[field], field
    said = {one["type"]: (one["status"], one["reason"]) for one in after["conditions"]}
    assert said.items() >= {one["type"]: (one["status"], one["reason"]) for one in before["conditions"]}.items()
    for name, status in cluster.statuses.items():
        if name != NAME:
            written = cluster.objects["VectorIndexRevision", name]["status"]
            assert status["phaseTimes"].items() >= written["phaseTimes"].items(), name
            # The first release had no word for what is superseded and unloaded.
            ended = {"phase": "Retired"} if written["phase"] == "Superseded" else {}
            kept = {field: value for field, value in written.items() if field != "phaseTimes"} | ended
            assert all(status[field] == value for field, value in kept.items()), name


def test_the_rejected_manifest_is_not_tried_again_with_another_image(cluster: Cluster) -> None:
    """Its rejection was written for this very manifest, which still stands."""
    spec = cluster.objects["VectorIndex", NAME]["spec"]
    assert spec["index"]["factory"] == "PQ4x4"

    for _ in range(3):
        run(cluster)
    assert not {kind for kind, _ in cluster.made} & {"Job", "VectorIndexRevision"}


def test_a_revision_of_the_first_release_is_gone_back_to_with_its_image(cluster: Cluster) -> None:
    index = cluster.objects["VectorIndex", NAME]
    index["metadata"]["annotations"] = {"vectorindex.dev/rollback": f"{SUPERSEDED}@by-a-person"}
    run(cluster)

    written = cluster.objects["VectorIndexRevision", SUPERSEDED]["spec"]
    (container,) = cluster.made["Deployment", SUPERSEDED]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == written["image"]
