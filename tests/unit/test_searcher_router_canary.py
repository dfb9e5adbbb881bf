"""The canary of merged answers: what `validate` keeps of it, what a shard's searcher proves and tells, and the router
that is ready only if the recall of merged answers is what was measured."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sharded import Router, addresses, admin_ports, pods_of, routing
from unit.test_searcher_shards import COUNT, DIMENSION, SHARDS, Place, refused, small, vectors_of, write
from waiting import until

from vectorindex_searcher import contract
from vectorindex_searcher.artifact.sharded import find_sharded
from vectorindex_searcher.contract import Location, ShardCanary, revision_key
from vectorindex_searcher.errors import BadData
from vectorindex_searcher.proof import merged_canary
from vectorindex_searcher.proof.shard_canaries import ShardCanaries
from vectorindex_searcher.serve.load import Loaded
from vectorindex_searcher.serve.route import canary as canary_module
from vectorindex_searcher.serve.settings import Settings

__all__ = ["small"]  # the fixture

KEY = revision_key("k" * 32, "uid-1")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Shards that find some of their rows, in lists of which two are searched; and what is proven of them."""
    root, scattered = tmp_path_factory.mktemp("built"), np.random.default_rng(4).standard_normal((COUNT, DIMENSION))
    place = Place(root, write(root / "source", list(range(COUNT)), scattered.astype(np.float32)), "IVF16,SQ8")
    place.building["index"] = contract.IndexSpec(factory="IVF16,SQ8", search_params={"nprobe": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vectorindex_searcher.build.task.HELD_OUT", 30)
        patch.setattr("vectorindex_searcher.proof.merged.HELD_OUT", 45)
        place.all()
        place.prove()
    return place


@pytest.fixture(scope="module")
def canaries(built: Place) -> list[ShardCanary]:
    return told(built)


@pytest.fixture
def place(built: Place, tmp_path: Path) -> Place:
    """One of its own, for a test that changes it."""
    shutil.copytree(built.root, tmp_path / "artifacts")
    return Place(tmp_path, tmp_path / "source")


def served(place: Place, number: int, **more: Any) -> Loaded:
    found = find_sharded(place.store, place.layout, place.digest)
    assert found is not None
    report = hashlib.sha256(place.store.read(place.layout.report(place.digest, "g1"))).hexdigest()
    gate = {"shard": number, "gate_hash": "g1", "report_sha256": report, "gate_of_whole": True}
    loaded: Loaded = place.serve(manifest_sha256=found[1], **gate | more)
    loaded.release()
    return loaded


def told(place: Place) -> list[ShardCanary]:
    canaries = [served(place, number).canary for number in range(SHARDS)]
    return [ShardCanary.model_validate_json(one or b"") for one in canaries]


# ------------------------------------------------------------------ validate, and searchers of shards


def test_what_shards_tell_merges_to_what_validate_measured(built: Place, canaries: list[ShardCanary]) -> None:
    report = built.prove()
    assert report.canary_queries == 45
    assert 0.3 < report.canary_recall < 0.99  # a canary that everybody passes would prove nothing
    assert (report.result("sha").canary_queries, report.result("sha").canary_recall) == (45, report.canary_recall)
    assert all(built.layout.owns(key) for key in built.stored())
    assert [one.shard for one in canaries] == list(range(SHARDS))
    available = np.array(canaries[0].available)
    recall = merged_canary.merged_recall([merged_canary.PartAnswers.of(one) for one in canaries], available)
    assert recall == pytest.approx(report.canary_recall)
    assert {one.recall for one in canaries} == {report.canary_recall}


def test_the_canary_of_exact_shards_is_whole_whoever_asks_and_a_row_is_no_answer_to_itself(tmp_path: Path) -> None:
    vectors = vectors_of(COUNT)
    place = Place(tmp_path, write(tmp_path / "source", list(range(COUNT)), vectors), "Flat")
    place.all()
    assert place.prove().canary_recall == 1.0
    np.save(tmp_path / "queries.npy", np.concatenate([vectors[:20], vectors_of(20, 5)]))
    place.store.delete_many([key for key in place.stored() if "/reports/" in key])
    report = place.prove(queries=Location(folder=str(tmp_path / "queries.npy")), k=7)
    assert (report.canary_queries, report.canary_recall) == (40, 1.0)
    parts = told(place)
    assert merged_canary.merged_recall([merged_canary.PartAnswers.of(one) for one in parts], np.full(40, 7)) == 1.0


def test_a_try_that_died_before_its_report_leaves_canaries_that_count(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*of: Any) -> Any:
        raise KeyboardInterrupt

    place.store.delete_many([key for key in place.stored() if "/reports/" in key])
    with monkeypatch.context() as patch:
        patch.setattr("vectorindex_searcher.proof.merged.publish_merged", die)
        with pytest.raises(KeyboardInterrupt):
            place.prove()
    left = {key: place.store.read(key) for key in place.stored() if "canary-" in key}
    assert len(left) == SHARDS
    report = place.prove()
    assert {key: place.store.read(key) for key in left} == left
    assert all(served(place, number).canary_recall == report.shards[number].canary_recall for number in range(SHARDS))


def test_a_searcher_of_a_shard_proves_its_own_part(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert served(place, 1).canary_recall == pytest.approx(place.prove().shards[1].canary_recall)
    assert refused(lambda: served(place, 1, report_sha256="0" * 64)) == "ChecksumMismatch"
    assert refused(lambda: served(place, 1, shard=None)) == "BadTask"
    worse = "vectorindex_searcher.proof.shard_canaries.scored_answers"
    none = np.full((45, 10), -1)
    monkeypatch.setattr(worse, lambda engine, queries, k, own: (none.astype(np.float32), none))
    assert refused(lambda: served(place, 1)) == "CanaryRecall"


def test_a_report_of_an_earlier_release_has_no_canary(place: Place) -> None:
    key = place.layout.report(place.digest, "g1")
    report = json.loads(place.store.read(key))
    for name in ("files", "canaryQueries", "canaryRecall"):
        del report[name]
    place.store.put(key, json.dumps(report).encode())
    assert place.prove().canary_queries == 0  # it is read as it is
    assert refused(lambda: served(place, 0)) == "BadReport"


def test_many_hits_leave_fewer_queries() -> None:
    vectors = np.zeros((2000, 4), np.float32)
    sizes = [(k, shards) for k, shards in ((10, 3), (100, 64), (1000, 64))]
    found = [len(ShardCanaries(vectors, k, shards, contract.Metric.COSINE).numbers) for k, shards in sizes]
    assert found == [300, 81, 8]


def test_what_comes_first_in_a_file_is_no_likelier_to_be_asked() -> None:
    numbers = ShardCanaries(np.zeros((2000, 4), np.float32), 1000, 64, contract.Metric.COSINE).numbers
    assert numbers.max() > 1500


# ------------------------------------------------------------------ the router


@contextmanager
def routed(place: Place, said: list[Any], *, wait: bool = True, key: str = KEY) -> Iterator[Router]:
    """A router of shards whose admin ports say these."""
    engines = [served(place, number, gate_hash="", gate_of_whole=False).engine for number in range(SHARDS)]
    with pods_of(engines, canaries=said, key=KEY) as pods:
        more = {"gate_hash": "g1", "admin_ports": admin_ports(pods)}
        with routing(addresses(pods), wait=wait, settings=Settings(internal_key=key), **more) as router:
            yield router


def text(told: ShardCanary) -> bytes:
    return told.model_dump_json(by_alias=True).encode()


def changed(told: ShardCanary, **more: Any) -> bytes:
    return text(told.model_copy(update=more))


def metric(router: Router) -> str:
    _, _, body = router.request("GET", "/metrics", admin=True)
    lines = body.decode().splitlines()
    return next((line for line in lines if line.startswith("vectorindex_canary_recall{")), "")


def test_a_router_is_ready_once_merged_answers_are_what_validate_measured(
    built: Place, canaries: list[ShardCanary]
) -> None:
    with routed(built, [text(one) for one in canaries]) as router:
        assert router.ready()
        assert float(metric(router).split()[-1]) == pytest.approx(canaries[0].recall)


def test_a_router_of_worse_shards_ends_as_a_searcher_does(built: Place, canaries: list[ShardCanary]) -> None:
    first, second, third = canaries
    worse = changed(second, right=tuple(() for _ in second.right))
    with pytest.raises(BadData) as raised, routed(built, [text(first), worse, text(third)]):
        pass
    assert raised.value.reason == "CanaryRecall"
    assert f"the gate measured {first.recall:.4f}" in str(raised.value)


@pytest.mark.parametrize("wrong", ["gate", "shard", "missing", "words", "other"])
def test_a_router_waits_for_every_shard_and_says_for_which(
    built: Place, canaries: list[ShardCanary], wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary_module, "AGAIN_SECONDS", 0.01)
    parts = canaries
    said = {
        "gate": changed(parts[1], gate_hash="g2"),
        "shard": text(parts[0]),
        "missing": None,
        "words": b"{}",
        "other": changed(parts[1], recall=0.0),
    }[wrong]
    with routed(built, [text(parts[0]), said, text(parts[2])], wait=False) as router:

        def message() -> str:
            return str(router.request("GET", "/readyz", admin=True)[2]["message"])

        which = "0, 1, 2" if wrong == "other" else "1"
        until(lambda: message() == f"waiting for what shards {which} of 3 answered to the canary queries")
        assert not router.ready()


def test_who_has_no_key_is_told_nothing(
    built: Place, canaries: list[ShardCanary], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary_module, "AGAIN_SECONDS", 0.01)
    with routed(built, [text(one) for one in canaries], wait=False, key="") as router:
        until(lambda: "canary" in str(router.request("GET", "/readyz", admin=True)[2]["message"]))
        assert not router.ready()


def test_of_equal_scores_the_first_shard_counts() -> None:
    one = merged_canary.PartAnswers(np.float32([[2, 1]]), np.array([[False, True]]))
    other = merged_canary.PartAnswers(np.float32([[2, 1]]), np.array([[True, False]]))
    assert merged_canary.merged_recall([one, other], np.array([2])) == 0.5
    assert merged_canary.merged_recall([one, one], np.array([2])) == 0.0


@pytest.mark.parametrize(
    "more",
    [
        {"scores": ((1.0, 0.5),), "right": ((2,),)},
        {"scores": ((1.0,) * 11,), "right": ((),)},
        {"scores": ((float("nan"),),), "right": ((),)},
        {"available": (11,)},
        {"available": ()},
    ],
)
def test_a_canary_that_says_more_than_there_is_is_none(more: dict[str, Any]) -> None:
    good = {"gate_hash": "g", "shard": 0, "k": 10, "recall": 1, "available": (1,), "scores": ((1.0,),), "right": ((),)}
    ShardCanary(**good)
    with pytest.raises(ValueError, match="ShardCanary"):
        ShardCanary(**good | more)


def test_a_canary_is_asked_for_where_ports_are_named() -> None:
    task: dict[str, Any] = {"identity": contract.Identity(name="x"), "shards": (("http://a:1",),)}
    with pytest.raises(ValueError, match="adminPorts"):
        contract.RouteTask(**task, gate_hash="g")
    with pytest.raises(ValueError, match="adminPorts"):
        contract.RouteTask(**task, admin_ports=(1, 2))
