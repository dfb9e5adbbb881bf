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
