"""A candidate first answers live queries that nobody sees: what is wrong is rejected before any user meets it."""

from __future__ import annotations

import pytest
from e2e.vectors import Corpus, bodies
from e2e.workspace import Workspace, no_failures

SHADOW = {
    "rollout": {"shadow": {"maxPerSecond": 50, "duration": "15s", "minQueries": 200, "maxDuration": "4m"}},
    "guardrails": {
        "rules": [
            {"name": "zero-results", "metric": "ZeroResultRate", "max": "5%", "window": "10s", "minSamples": 100},
            {"name": "changed", "metric": "AnswersChanged", "max": "5%"},
        ]
    },
}


@pytest.mark.together
def test_what_is_wrong_is_rejected_in_shadow_and_answers_no_user(served: Workspace, corpus: Corpus) -> None:
    index, first = served.index, served.index.traffic()
    served.put("wrong", corpus.spoiled(0.5))
    served.put("right", corpus.moved())
    # The same query counts once in a shadow.
    with served.traffic(corpus, more=bodies(corpus.queries(8000, seed=9))) as traffic:
        served.apply("wrong", **SHADOW)
        wrong = index.wait_new_revision({first})
        index.wait_revision(wrong, "Rejected")
        rejected = index.revision(wrong)
        assert rejected["rejected"]["stage"] == "Shadow", rejected
        assert rejected["rollout"]["shadow"]["outcome"] == "Failed"
        stalled = index.wait_condition("Stalled", reason=rejected["rejected"]["reason"])
        assert "zero-results" in stalled["message"] or "changed" in stalled["message"]
        assert index.traffic() == first
        seen = traffic.snapshot()
        assert set(seen.revisions) == {first}, "nobody was answered by what was rejected"

        served.apply("right", **SHADOW)
        right = index.wait_new_revision({first, wrong})
        index.wait_revision(right, "Stable")
        shadow = index.revision(right)["rollout"]["shadow"]
        seen = traffic.wait_answers(right)
    assert shadow["outcome"] == "Passed", shadow
    no_failures(seen, at_least=2000)
    assert set(seen.revisions) == {first, right}
    outcomes = {row["revision"]: row["outcome"] for row in index.status()["history"]}
    assert outcomes == {right: "Stable", wrong: "Rejected", first: "Superseded"}
