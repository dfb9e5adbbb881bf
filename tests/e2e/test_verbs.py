"""A person's word: stop what is new, hold it, take it, give it up, build it once more, say what serves."""

from __future__ import annotations

import pytest
from e2e.vectors import Corpus
from e2e.workspace import RULES, SLOW, Workspace, no_failures

from harness.vix import REVISION_LABEL, unix

ENDLESS = {"rollout": {"soak": {"minQueries": 1_000_000}, "keepPrior": "10m"}}
"""Nothing but a word ends its soak, and then what was stable stays loaded."""
STILL_SECONDS = 8
WINDOW_SECONDS = 20
LONG_WINDOWS = [rule | {"window": f"{WINDOW_SECONDS}s", "consecutive": 4} for rule in RULES]
"""Only the fourth failed window makes a Fail."""


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


@pytest.mark.long
@pytest.mark.together("long rollouts")
def test_given_up_in_its_soak_then_refused_over_a_fail_then_given_up_in_its_build(
    served: Workspace, corpus: Corpus
) -> None:
    index, first = served.index, served.index.traffic()
    for folder, data in {"better": corpus.moved(), "bad": corpus.spoiled(), "other": corpus.moved(seed=5)}.items():
        served.put(folder, data)
    before = served.lives(first)
    with served.traffic(corpus, rate=SLOW) as traffic:
        served.apply("better", **ENDLESS)
        second = index.wait_new_revision({first})
        index.wait_revision(second, "Soaking")
        traffic.wait_answers(second)
        assert served.say("abort", "in-soak")["result"] == "Done"
        index.wait(lambda: index.traffic() == first, 15, "the traffic to go back")
        served.wait_phase(second, "RolledBack")
        rejected = index.revision(second)["rejected"]
        assert (rejected["stage"], rejected["reason"]) == ("Rollout", "Aborted")
        assert "abort in-soak" in index.wait_condition("Stalled", reason="RolledBack")["message"]
        served.wait_event("RolledBack", second, "in-soak")
        jobs = served.work()
        served.apply("better", **ENDLESS)
        served.hold(lambda: (served.work(), index.traffic()), STILL_SECONDS, "what was given up stays so")
        assert served.work() <= jobs

        served.apply("bad", guardrails={"rules": LONG_WINDOWS})
        bad = index.wait_new_revision({first, second})
        index.wait_revision(bad, "Soaking")
        switched = unix(index.revision(bad)["rollout"]["switchedAt"])
        traffic.wait(lambda seen: seen.at > switched + 2 * WINDOW_SECONDS, 90, "a whole window and a look at it")
        said = served.say("promote", "over-a-fail")
        assert said["result"] == "Refused", said
        assert "zero-results fails: " in said["message"]
        assert f"of 4 windows of {WINDOW_SECONDS} s beyond doubt" in said["message"]
        served.wait_event("CommandRefused", "zero-results fails")
        assert index.status()["stable"] == first
        index.wait_revision(bad, "RolledBack")
        assert index.revision(bad)["rejected"]["reason"] == "ZeroResultRate"

        served.apply("other", build={"resources": {"limits": {"cpu": "100m"}}})  # it takes longer than a word to it
        third = index.wait_new_revision({first, second, bad})
        index.wait_revision(third, "Building")
        assert served.say("abort", "in-build", third)["result"] == "Done"
        served.wait_phase(third, "Rejected")
        rejected = index.revision(third)["rejected"]
        assert (rejected["stage"], rejected["reason"]) == ("Abort", "Aborted")
        index.wait(lambda: not _works_on(served, third), 60, "its Job to be stopped")
        index.wait_condition("Stalled", reason="Aborted")
        seen = traffic.snapshot()
    no_failures(seen, at_least=2000)
    assert set(seen.revisions) == {first, second, bad}
    assert (index.traffic(), index.status()["stable"]) == (first, first)
    assert served.lives(first) == before, "what serves all the time is not touched"
    assert served.built() == {first: 1, second: 1, bad: 1}, "what was given up in its build left no index"


@pytest.mark.long
@pytest.mark.together("long rollouts")
def test_pinned_in_a_soak_then_to_another_then_let_go_and_built_once_more(served: Workspace, corpus: Corpus) -> None:
    index, first = served.index, served.index.traffic()
    served.put("better", corpus.moved())
    before = served.lives(first)
    with served.traffic(corpus, rate=SLOW) as traffic:
        served.apply("better", **ENDLESS)
        second = index.wait_new_revision({first})
        index.wait_revision(second, "Soaking")
        jobs = served.work()
        served.apply("better", pinRevision=first)
        index.wait(lambda: index.traffic() == first, 30, f"the traffic to go back to {first}, which is pinned")
        served.wait_phase(second, "Superseded")
        index.wait_condition("RolledOut")
        assert served.lives(first) == before, "no pod was started"
        waits = index.wait_condition("UpToDate", "False")["message"]
        assert "source.s3: once spec.pinRevision is taken out" in waits
        for verb in ("rebuild", "refresh"):
            said = served.say(verb, "while-pinned")
            assert (said["result"], "spec.pinRevision is set" in said["message"]) == ("Refused", True), said

        served.apply("better", pinRevision="products-00000000")
        stalled = index.wait_condition("Stalled", reason="PinnedRevisionNotFound")
        assert first in stalled["message"], "it names those that there are"
        served.hold(lambda: (index.traffic(), served.lives(first)), STILL_SECONDS, "what serves goes on")

        # What the spec asks for serves, and another one is pinned; then the spec asks for that one.
        served.apply("good", pinRevision=second)
        served.wait_phase(second, "Stable", timeout=300)
        index.wait_condition("RolledOut")
        served.apply("better")
        index.wait_condition("UpToDate")
        index.wait_condition("RolledOut")
        served.hold(lambda: (index.traffic(), index.status()["stable"]), STILL_SECONDS, "nothing moves")
        assert index.traffic() == second
        assert served.work() <= jobs, "nothing was built or measured again"

        said = served.say("rebuild", "anew")
        assert said["result"] == "Done", said
        third = index.wait_new_revision({first, second})
        index.wait_revision(third, "Stable")
        index.wait_condition("RolledOut")
        seen = traffic.wait_answers(third)
    no_failures(seen, at_least=2000)
    specs = {name: item["spec"] for name, item in index.revisions().items()}
    assert specs[third]["rebuild"] == {"number": 1, "nonce": "anew"}
    assert specs[third]["fingerprint"] == specs[second]["fingerprint"]
    assert specs[third]["digest"] != specs[second]["digest"]
    assert served.built() == {first: 1, second: 1, third: 1}


def _works_on(space: Workspace, revision: str) -> list[str]:
    """The pods of Jobs of a revision that run or wait to."""
    jobs = [pod for pod in space.index.pods() if "vectorindex.dev/verb" in pod["metadata"]["labels"]]
    mine = [pod for pod in jobs if pod["metadata"]["labels"].get(REVISION_LABEL) == revision]
    return [pod["metadata"]["name"] for pod in mine if pod["status"]["phase"] in ("Pending", "Running")]
