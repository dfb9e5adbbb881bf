"""A candidate first answers live queries that nobody sees: what is wrong is rejected before any user meets it."""

from __future__ import annotations

from typing import Any

import pytest
from e2e.vectors import Corpus, bodies
from e2e.workspace import Workspace, no_failures

ZERO_RESULTS = {"name": "zero-results", "metric": "ZeroResultRate", "max": "5%", "window": "10s", "minSamples": 100}
CHANGED = {"name": "changed", "metric": "AnswersChanged", "max": "5%", "minSamples": 100}


def shadow(*rules: dict[str, Any]) -> dict[str, Any]:
    """Of a spec: a shadow judged by these rules."""
    settings = {"maxPerSecond": 50, "duration": "10s", "minQueries": 200, "maxDuration": "4m"}
    return {"rollout": {"shadow": settings}, "guardrails": {"rules": [*rules]}}


@pytest.mark.together("tests/e2e/test_rollouts.py")
def test_what_is_wrong_is_rejected_in_shadow_and_answers_no_user(served: Workspace, corpus: Corpus) -> None:
    index, first = served.index, served.index.traffic()
    right = corpus.moved()
    for folder, data in {"wrong": corpus.spoiled(), "right": right, "a-part": right.blurred(0.2)}.items():
        served.put(folder, data)
    # Each query counts once in a shadow, so there are many of them.
    with served.traffic(corpus, more=bodies(corpus.queries(8000, seed=9))) as traffic:
        served.apply("wrong", **shadow(ZERO_RESULTS))
        wrong = index.wait_new_revision({first})
        index.wait_revision(wrong, "Rejected")
        rejected = index.revision(wrong)
        assert (rejected["rejected"]["stage"], rejected["rejected"]["reason"]) == ("Shadow", "ZeroResultRate")
        assert rejected["rollout"]["shadow"]["outcome"] == "Failed"
        assert "stable's 0%" in index.wait_condition("Stalled", reason="ZeroResultRate")["message"]

        served.apply("right", **shadow(ZERO_RESULTS, CHANGED))
        second = index.wait_new_revision({first, wrong})
        index.wait_revision(second, "Stable")
        assert index.revision(second)["rollout"]["shadow"]["outcome"] == "Passed"
        assert served.has_event("ShadowPassed")

        # All answers are hits, and the gate has no labels: only what became of stable's answers tells.
        served.apply("a-part", **shadow(ZERO_RESULTS, CHANGED))
        part = index.wait_new_revision({first, wrong, second})
        index.wait_revision(part, "Rejected")
        assert index.revision(part)["rejected"]["reason"] == "AnswersChanged"
        seen = traffic.wait(lambda now: now.at - now.revisions[first].last_at > 5, 60, f"no more answers of {first}")
    no_failures(seen, at_least=3000)
    assert set(seen.revisions) == {first, second}, "nobody was answered by what was rejected"
    assert seen.revisions[second].zero_rate == 0.0
    outcomes = {row["revision"]: row["outcome"] for row in index.status()["history"]}
    assert outcomes == {part: "Rejected", second: "Stable", wrong: "Rejected", first: "Superseded"}
