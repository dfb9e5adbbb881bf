"""`rollout.shadow.afterSwitch`: what turns bad after the switch, while users ask other things than before, is seen by
what the prior answers to the same queries; the time before the switch says that all is well."""

from __future__ import annotations

import numpy as np
import pytest
from e2e.vectors import CLUSTERS, DIMENSION, Corpus, bodies
from e2e.workspace import SLOW, Workspace, no_failures

from harness.vix import unix

RISE = {"name": "rise", "metric": "ZeroResultRate", "maxRiseVsStable": "50%", "warmUp": "0s", "minSamples": 100}
MIRRORED = {
    "rollout": {
        "shadow": {
            "maxPerSecond": 50, "duration": "10s", "minQueries": 200, "maxDuration": "4m", "afterSwitch": True,
        },
        "soak": {"minQueries": 1_000_000},
    },
    "guardrails": {"rules": [RISE]},
}  # fmt: skip
MANY = 12_000
"""Queries: each counts once."""


@pytest.mark.long
@pytest.mark.together("long shadows")
def test_what_turns_bad_while_users_ask_other_things_is_seen_by_the_prior(served: Workspace, corpus: Corpus) -> None:
    index, first = served.index, served.index.traffic()
    served.put("late", corpus.spoiled(0.5))
    asked = bodies(corpus.queries(MANY, seed=9))
    well = [body for number, body in enumerate(asked) if number % CLUSTERS >= CLUSTERS // 2]
    badly = [body for number, body in enumerate(asked) if number % CLUSTERS < CLUSTERS // 2]
    anywhere = np.random.default_rng(8).normal(size=(MANY, DIMENSION)).astype(np.float32)
    with served.asked(well, rate=SLOW) as traffic:
        # Half of what is asked finds nothing, whoever answers: in shadow both are alike, and the baseline says so.
        with served.asked(bodies(anywhere), rate=SLOW, pod="nothing") as nothing:
            nothing.wait(lambda seen: seen.queries > 20 * SLOW, 60, "stable to have answered it")
            served.apply("late", **MIRRORED)
            late = index.wait_new_revision({first})
            index.wait_revision(late, "Soaking")
            assert index.revision(late)["rollout"]["shadow"]["outcome"] == "Passed"
            before = nothing.wait_answers(late)
        assert index.traffic() == late, "nothing is wrong with it yet"
        lives = served.lives(first)
        with served.asked(badly, rate=SLOW, pod="other") as other:  # which the prior would answer
            served.wait_phase(late, "RolledBack", timeout=240)
            seen = other.wait(lambda s: s.at - s.revisions[late].last_at > 5, 60, f"no more answers of {late}")
        whole = traffic.snapshot()
    for one in (before, seen, whole):
        no_failures(one)
    assert before.revisions[first].zero_rate > 0.95
    assert seen.revisions[late].zero_rate > 0.95
    assert seen.revisions[first].zero_rate == 0.0
    decision, trip = index.decision(), index.revision(late)["rollout"]["trip"]
    assert decision is not None
    assert (decision.kind, decision.to_revision, decision.rule) == ("RollBack", first, "rise")
    assert "pairs with the revision before" in trip["message"]
    print(f"first bad answer to trip {unix(trip['at']) - seen.revisions[late].first_at:.1f} s: {trip['message']}")
    assert served.lives(first) == lives, "no pod was started"
    assert index.condition("Ready")["status"] == "True"
