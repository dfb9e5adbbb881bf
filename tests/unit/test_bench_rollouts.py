"""What the benchmark of rollouts says of what it saw; the run itself needs a cluster and 40 minutes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import rollout_faults
import rollouts

from harness.errors import HarnessError
from harness.kube import Kube
from harness.traffic import Snapshot

OPTIONS = rollouts.Options(indexes=2, cycles=1, rate=100.0, every=20.0, seed=1, minutes=10.0)


def rollout(ended: str, wanted: str = "Stable", **more: Any) -> rollouts.Rollout:
    return rollouts.Rollout("a", 0, f"r-{ended}", wanted, ended, 60.0, **more)


def test_a_wrong_end_and_a_failed_query_are_on_the_page_with_what_happened_before() -> None:
    failure = {"kind": "refused", "detail": "port | 8080", "at": 105.0, "sent_at": 104.0, "query": 1}
    result = rollouts.Result(
        [rollout("Stable"), rollout("BuildFailed", said="no\nstore"), rollout("RolledBack", "RolledBack")],
        {"a": Snapshot(queries=1000, failed=1, answered_again=3, failures=[failure]), "b": Snapshot(queries=500)},
        [rollout_faults.Fault("searcher killed", "a", "pod", 103.0, 103.1)],
    )

    page, document = rollouts.page(OPTIONS, result), rollouts.summary(result)

    assert "**3 rollouts** (2 of good data, 1 of bad) of 4" in page
    assert "The time was over before the other 1." in page
    assert "**1 of 1,500 queries failed**; 3 more were answered" in page
    assert "| refused: port / 8080 | searcher killed | 1 |" in page
    assert "- r-BuildFailed: BuildFailed, not Stable: no store" in page
    assert (document["wrong"], document["failed"], document["rollouts"]) == (1, 1, 3)
    figures = rollouts.figures(document)
    assert (figures["rollouts.count"], figures["rollouts.wrong"], figures["rollouts.faults"]) == (3.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("where", "at", "said"),
    [("a", 100.0, "killed"), ("", 100.0, "killed"), ("b", 100.0, "none"), ("a", 110.0, "none"), ("a", 10.0, "none")],
)
def test_a_fault_is_named_where_it_concerned_the_index_and_was_not_long_over(where: str, at: float, said: str) -> None:
    fault = rollout_faults.Fault("killed", where, "pod", at, at + 1)

    assert rollouts._near([fault], "a", {"at": 105.0, "sent_at": 104.0}) == said


def test_no_fault_takes_the_last_ready_searcher_and_none_kills_one_of_the_same_revision_twice() -> None:
    def pod(name: str, revision: str, ready: str = "True") -> dict[str, Any]:
        labels = {"vectorindex.dev/revision": revision, "app.kubernetes.io/component": "searcher"}
        conditions = [{"type": "Ready", "status": ready}]
        return {"metadata": {"name": name, "labels": labels}, "status": {"conditions": conditions}}

    pods = [pod("a-1", "a"), pod("a-2", "a", "False"), pod("b-1", "b"), pod("b-2", "b")]
    space: Any = SimpleNamespace(namespace="n", index=SimpleNamespace(pods=lambda: pods))
    operator: Any = SimpleNamespace(cluster=SimpleNamespace(name="kind"))
    faults = rollout_faults.Faults(operator, [space], seed=3, every=1.0)

    assert {faults._one_of_two()[1]["metadata"]["name"] for _ in range(30)} == {"b-1", "b-2"}
    with pytest.raises(HarnessError, match="two ready searchers"):
        faults._one_of_two(but={("n", "b")})


def test_of_an_index_in_shards_a_pod_of_each_shard_is_lost_only_where_each_has_two() -> None:
    def pod(name: str, revision: str, shard: str, component: str = "shard") -> dict[str, Any]:
        labels = {"vectorindex.dev/revision": revision, "app.kubernetes.io/component": component}
        labels |= {"vectorindex.dev/shard": shard} if shard else {}
        conditions = [{"type": "Ready", "status": "True"}]
        return {"metadata": {"name": name, "labels": labels}, "status": {"conditions": conditions}}

    whole = [pod(f"a-{shard}-{one}", "a", shard) for shard in "01" for one in "xy"]
    half = [pod("b-0-x", "b", "0"), pod("b-0-y", "b", "0"), pod("b-1-x", "b", "1")]
    routers = [pod(f"router-{one}", "a", "", "searcher") for one in "xy"]
    lost: list[str] = []
    kube = SimpleNamespace(delete=lambda kind, name, namespace, grace: lost.append(name))
    pods = [*half, *whole, *routers]
    space: Any = SimpleNamespace(namespace="n", kube=kube, index=SimpleNamespace(pods=lambda: pods))
    operator: Any = SimpleNamespace(cluster=SimpleNamespace(name="kind"))
    faults = rollout_faults.Faults(operator, [space], seed=3, every=1.0, shards=True)
    faults._lose_one_of_each()
    assert [name[:3] for name in lost] == ["a-0", "a-1"]
    assert faults._one_of_two(rollout_faults.SEARCHER)[1] in routers
    assert faults._one_of_two(rollout_faults.SHARD)[1] in [*half, *whole]
    del pods[3]
    with pytest.raises(HarnessError, match="each shard"):
        faults._lose_one_of_each()


def test_a_run_in_shards_has_a_page_and_keys_of_its_own() -> None:
    options = rollouts.Options(indexes=1, cycles=2, rate=100.0, every=15.0, seed=1, minutes=8.0, shards=2)
    assert options.spec["index"] == {"shards": 2}
    assert OPTIONS.spec == rollouts.QUICK
    faults = [rollout_faults.Fault(f"router killed{end}", "a", "", 1.0, 2.0) for end in ("", rollout_faults.NOT_DONE)]
    result = rollouts.Result([rollout("Stable")], {"a": Snapshot(queries=1000, failed=2)}, faults)
    figures = rollouts.figures(rollouts.summary(result), "shards")
    assert figures["shards.faults"] == 1.0
    assert (figures["shards.failed"], figures["shards.queries"], figures["shards.rollouts"]) == (2.0, 1000.0, 1.0)
    assert "on 1 index of 2 shards of 2 searchers, behind 2 routers, at once." in rollouts.page(options, result)


def test_an_api_server_that_was_stopped_on_purpose_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [HarnessError("the API server does not answer"), (503, {}), (200, {"kind": "Pod"})]

    def call(*_: Any, **__: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, HarnessError):
            raise answer
        return answer

    monkeypatch.setattr(Kube, "call", call)
    monkeypatch.setattr(rollout_faults.time, "sleep", lambda _: None)
    kube = object.__new__(rollout_faults.PatientKube)

    assert kube.call("GET", "/api/v1/pods") == (200, {"kind": "Pod"})
