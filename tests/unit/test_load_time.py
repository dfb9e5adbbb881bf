"""How long a rollback waits where searchers must be loaded first: noted once, when they come up, and told to people."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from observations import (
    HOUR,
    NOW,
    a_revision,
    actions,
    after,
    built,
    condition,
    front,
    loaded,
    pod,
    recorded,
    run,
    seen,
    spec,
    with_rollout,
)

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Trip
from vectorindex_operator.core.loaded import LoadedRevision, PodView
from vectorindex_operator.core.observation import Observation, RevisionView
from vectorindex_operator.core.plan import WriteRevisionStatus
from vectorindex_operator.core.traffic import Decision, DecisionKind
from vectorindex_operator.reconcile import pods

OLD, NEW = spec(), spec(index={"factory": "HNSW32"})
BEFORE = a_revision(OLD, "Superseded", created=NOW - 30 * HOUR)
STABLE = a_revision(NEW, "Stable", created=NOW - 2 * HOUR)
SWITCHED_AT = NOW - 3


def with_status(view: RevisionView, **changes: Any) -> RevisionView:
    return replace(view, status=view.status.model_copy(update=changes))


def took(name: str, seconds: float, **changes: Any) -> PodView:
    """A pod that was ready so long after it had a node."""
    return pod(name, scheduled_at=NOW - 90, ready_at=NOW - 90 + seconds, **changes)


def just_switched(*searchers: PodView) -> tuple[RevisionView, Observation]:
    """The traffic was given to a candidate with these pods, and no status says so yet."""
    stable = a_revision(OLD, "Stable")
    candidate = with_rollout(a_revision(NEW, "Surging", created=NOW - 120), prior=stable.name)
    decision = Decision(
        DecisionKind.SWITCH, stable.name, candidate.name, "Surge", "Ready", "ready", SWITCHED_AT, serial=1
    )
    obs = seen(NEW, stable, candidate, traffic=front(candidate, decision))
    return candidate, replace(obs, loaded={**obs.loaded, candidate.name: loaded(candidate, *searchers)})


def way_back(obs: Observation, now: float = NOW) -> tuple[str, str, str]:
    return condition(run(obs, now).status, "RollbackPossible")


# ---------------------------------------------------------------- what is noted


def test_it_is_noted_with_the_switch_and_by_the_first_pod() -> None:
    candidate, obs = just_switched(took("a", 41.0), took("b", 34.0))
    assert recorded(run(obs), candidate).load_seconds == 34.0


def test_it_is_noted_once() -> None:
    """A pod that was unready for a while looks as if it had loaded until then; and nothing is written at rest."""
    candidate, obs = just_switched(took("a", 34.0), took("b", 41.0))
    noted = after(obs, run(obs))
    late = replace(noted, loaded={**noted.loaded, candidate.name: loaded(candidate, took("a", 80.0), took("b", 85.0))})
    again = [one for one in actions(run(late, NOW + 5), WriteRevisionStatus) if one.revision == candidate.name]
    assert [one.status.load_seconds for one in again] in ([], [34.0])
    assert late.revisions[candidate.name].status.load_seconds == 34.0


def test_a_revision_whose_pods_nobody_saw_keeps_what_is_known() -> None:
    candidate, obs = just_switched(pod("a", ready=False), pod("b", ready=False))
    assert recorded(run(obs), candidate).load_seconds is None
    known = with_status(candidate, load_seconds=20.0)
    obs = replace(obs, revisions={**obs.revisions, candidate.name: known})
    assert recorded(run(obs), candidate).load_seconds == 20.0


@pytest.mark.parametrize(
    ("searchers", "seconds"),
    [
        ((took("a", 7.0), took("b", 5.0)), 5.0),
        ((took("a", 7.0), took("b", 5.0, deleting=True)), 7.0),
        ((took("a", 0.0),), 1.0),  # within one second, as far as Kubernetes tells
        ((took("a", -600.0),), 1.0),  # whatever stands there
        ((pod("a", ready_at=None),), None),
        ((pod("a", ready_at=NOW, scheduled_at=None),), None),
        ((), None),
    ],
)
def test_the_time_of_a_load(searchers: tuple[PodView, ...], seconds: float | None) -> None:
    assert LoadedRevision.of("docs-1", searchers).load_seconds == seconds


def test_since_when_a_pod_is_ready_is_read_from_it() -> None:
    def raw(status: str) -> dict[str, Any]:
        ready = {"type": "Ready", "status": status, "lastTransitionTime": to_text(NOW - 5)}
        return {"metadata": {"name": "a"}, "status": {"conditions": [ready]}}

    assert pods.pod_view(raw("True")).ready_at == NOW - 5
    assert pods.pod_view(raw("False")).ready_at is None


# ---------------------------------------------------------------- what is said


def test_a_cold_way_back_says_how_long_its_load_takes() -> None:
    known = with_status(BEFORE, load_seconds=34.0)
    status, reason, message = way_back(seen(NEW, known, STABLE, traffic=STABLE))
    assert (status, reason) == ("True", "Cold")
    assert message == f"to {BEFORE.name}: it would be loaded from its artifact first, which takes about 34 s"


def test_of_a_revision_from_before_that_was_noted_its_size_tells() -> None:
    small = with_status(BEFORE, build=built(resident_bytes=2**30))
    large = with_status(STABLE, build=built(resident_bytes=2**32), load_seconds=60.0)
    assert way_back(seen(NEW, small, large, traffic=large))[2].endswith("which takes about 15 s (by its size)")
    tiny = with_status(BEFORE, build=built(resident_bytes=1))
    assert way_back(seen(NEW, tiny, large, traffic=large))[2].endswith("which takes about 1 s (by its size)")


def test_where_nothing_tells_nothing_is_claimed() -> None:
    said = f"to {BEFORE.name}: it would be loaded from its artifact first"
    assert way_back(seen(NEW, BEFORE, STABLE, traffic=STABLE))[2] == said
    empty = with_status(STABLE, build=built(resident_bytes=0), load_seconds=60.0)
    assert way_back(seen(NEW, BEFORE, empty, traffic=empty))[2] == said


def test_a_warm_way_back_waits_for_nothing() -> None:
    known = with_status(BEFORE, load_seconds=34.0)
    obs = seen(NEW, known, STABLE, traffic=STABLE)
    obs = replace(obs, loaded={**obs.loaded, known.name: loaded(known)})
    assert way_back(obs)[1:] == ("Warm", f"to {BEFORE.name}: its searchers are loaded")


def test_it_is_said_while_a_rollback_waits_for_it() -> None:
    known = with_status(BEFORE, load_seconds=34.0)
    trip = Trip(rule="errors", reason="ErrorRate", message="9 %", at=to_text(NOW - 5))
    tripped = with_rollout(STABLE, trip=trip)
    plan = run(seen(NEW, known, tripped, traffic=tripped))
    (row,) = (one for one in plan.status.blocked_by if one.rule == "RollbackTargetNotReady")
    assert row.message == "its searchers are being loaded from its artifact; that takes about 34 s"


def test_at_rest_it_changes_nothing() -> None:
    obs = seen(NEW, with_status(BEFORE, load_seconds=34.0), STABLE, traffic=STABLE)
    for _ in range(3):
        obs = after(obs, run(obs))
    later = run(obs, NOW + HOUR)
    assert later.status == obs.index.status
    assert not actions(later, WriteRevisionStatus)
