"""`rollout.keepPrior`: what was stable stays loaded after a promotion, and what goes wrong later costs seconds."""

from __future__ import annotations

import time

import pytest
from e2e.operator_release import Operator
from e2e.sightings import Sightings
from e2e.vectors import CLUSTERS, Corpus, bodies
from e2e.workspace import SLOW, Workspace, no_failures

from harness import audit, release
from harness.errors import LackingError
from harness.vix import unix

KEPT = {"rollout": {"keepPrior": "10m"}}
SHORTLY = {"rollout": {"keepPrior": "20s"}}


@pytest.mark.long
@pytest.mark.together("long rollouts")
def test_a_late_fault_goes_back_in_one_write_to_pods_that_are_there(
    served: Workspace, corpus: Corpus, operator: Operator
) -> None:
    index, first = served.index, served.index.traffic()
    asked = bodies(corpus.queries())
    served.put("late", corpus.spoiled(0.5))
    served.put("last", corpus.moved())
    well = [body for number, body in enumerate(asked) if number % CLUSTERS >= CLUSTERS // 2]
    badly = [body for number, body in enumerate(asked) if number % CLUSTERS < CLUSTERS // 2]
    with Sightings(served) as sightings, served.asked(well, rate=SLOW) as traffic:
        served.apply("late", **KEPT)
        late = index.wait_new_revision({first})
        index.wait_revision(late, "Stable")
        before = _warm(served, first)
        began = time.time()
        with served.asked(badly, rate=SLOW, pod="more") as more:  # nobody asked these during its soak
            served.wait_phase(late, "RolledBack", timeout=150)
            seen = more.wait(lambda s: s.at - s.revisions[late].last_at > 5, 60, f"no more answers of {late}")
        no_failures(seen)
        assert served.lives(first) == before, "no pod was started"
        _went_back_at_once(served, late, first, seen.revisions[late].last_at)
        moves = _service_writes(served, operator, began)
        assert moves in (None, 1), "selector and decision are one write"

        served.apply("last", **SHORTLY)
        last = index.wait_new_revision({first, late})
        index.wait_revision(last, "Stable")
        _warm(served, first)
        index.wait(lambda: not index.pods(first), 150, f"{first} to be unloaded")
        lasted = unix(index.revision(first)["phaseTimes"]["Retired"]) - unix(index.revision(last)["promotedAt"])
        print(f"kept for 20 s: its searchers were gone {lasted:.0f} s after the promotion")
        assert lasted >= 20
        served.wait_event("Retired", first, "their time is over")
        index.wait(lambda: index.condition("RollbackPossible")["reason"] == "Cold", 30, "the way back to be cold")
        seen = traffic.snapshot()
    no_failures(seen, at_least=2000)
    assert sightings.looks > 100
    assert sightings.most == 2, sightings.loaded
    assert served.built() == {first: 1, late: 1, last: 1}


def _warm(space: Workspace, prior: str) -> set[tuple[str, int]]:
    """That a rollback would find `prior` loaded; the lives of its pods."""
    space.index.wait(lambda: space.index.condition("RollbackPossible")["reason"] == "Warm", 30, "a warm way back")
    assert prior in space.index.condition("RollbackPossible")["message"]
    lives = space.lives(prior)
    assert lives
    return lives


def _went_back_at_once(space: Workspace, bad: str, to: str, last_bad: float) -> None:
    """By the rule that failed, in the pass that saw it. `last_bad`: when `bad` answered last, Unix seconds."""
    decision, trip = space.index.decision(), unix(space.index.revision(bad)["rollout"]["trip"]["at"])
    assert decision is not None
    assert (decision.kind, decision.to_revision, decision.rule) == ("RollBack", to, "zero-results")
    print(f"late fault: trip to switch {decision.at - trip:.3f} s, trip to last bad answer {last_bad - trip:.2f} s")
    assert decision.at - trip <= 1.0, "decide and switch are one pass"
    assert last_bad - trip <= 15.0
    space.wait_event("RolledBack", bad)
    stalled = space.index.wait_condition("Stalled", reason="RolledBack")
    assert "zero-results" in stalled["message"]


def _service_writes(space: Workspace, operator: Operator, since: float) -> int | None:
    """How often the operator wrote a Service of the index; None: this cluster keeps no audit log."""
    try:
        asked = audit.events(operator.cluster, release.NAMESPACE, since)
    except LackingError:
        return None
    written = [one for one in asked if one["verb"] in ("create", "update", "patch", "delete")]
    about = [one["objectRef"] for one in written if "objectRef" in one]
    return sum((one.get("resource"), one.get("namespace")) == ("services", space.namespace) for one in about)
