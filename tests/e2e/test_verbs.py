"""A person's word: stop what is new, hold it, take it, give it up, build it once more, say what serves."""

from __future__ import annotations

import pytest
from e2e.vectors import Corpus
from e2e.workspace import Workspace, no_failures

ENDLESS = {"rollout": {"soak": {"minQueries": 1_000_000}, "keepPrior": "10m"}}
"""Nothing but a word ends its soak, and then what was stable stays loaded."""
STILL_SECONDS = 8


@pytest.mark.together("tests/e2e/test_rollouts.py")
def test_suspended_then_held_then_taken_then_back_at_once(served: Workspace, corpus: Corpus) -> None:
    index, first = served.index, served.index.traffic()
    served.put("better", corpus.moved())
    with served.traffic(corpus) as traffic:
        served.apply("better", suspend=True, **ENDLESS)
        index.wait_condition("Suspended")
        assert index.status()["phase"] == "Suspended"
        listings = lambda: [job["metadata"]["uid"] for job in index.jobs()]  # noqa: E731
        served.hold(lambda: (set(index.revisions()), listings()), STILL_SECONDS, "nothing new begins")
        assert (index.condition("RolledOut")["reason"], index.condition("Stalled")) == ("Suspended", {})

        served.apply("better", **ENDLESS)
        second = index.wait_new_revision({first})
        assert served.say("pause", "held")["result"] == "Done"
        index.wait(lambda: served.blocked("Paused"), 180, f"{second} to be held")
        served.hold(lambda: (index.revision(second)["phase"], index.traffic()), STILL_SECONDS, "it is not loaded")
        assert index.revision(second)["phase"] == "Validated"
        assert served.say("resume", "on")["result"] == "Done"
        index.wait_revision(second, "Soaking")
        traffic.wait_answers(second)
        assert served.say("promote", "taken")["result"] == "Done"
        index.wait_revision(second, "Stable")
        assert index.revision(second)["message"].startswith("ByHand")
        assert index.condition("RollbackPossible")["reason"] == "Warm"

        before = served.searchers(first)
        assert served.say("rollback", "back")["result"] == "Done"
        index.wait(lambda: index.traffic() == first, 15, "the traffic to go back")
        served.wait_phase(second, "RolledBack")
        assert served.searchers(first) == before, "no pod was started"
        seen = traffic.wait(lambda s: s.at - s.revisions[second].last_at > 5, 60, f"no more answers of {second}")
    no_failures(seen, at_least=2000)
    assert served.built() == {first: 1, second: 1}
