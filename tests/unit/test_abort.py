"""`abort`: what is on its way is given up and remembered; what is stable is never touched."""

from __future__ import annotations

from dataclasses import replace

import pytest
from observations import (
    DATA,
    HOUR,
    NEW_DATA,
    NOW,
    a_revision,
    actions,
    after,
    condition,
    job,
    listing,
    loaded,
    moved,
    phase,
    pod,
    recorded,
    run,
    said,
    seen,
    source,
    spec,
    with_spec,
)
from soaks import NEW, OLD, OUTGOING, PROVEN, SOAKING, STABLE, leaving, soak

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Trip, VectorIndexStatus, WorkFailure
from vectorindex_operator.core import identity
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.observation import Observation, Task
from vectorindex_operator.core.plan import (
    CreateRevision,
    DeleteJob,
    DeleteSearchers,
    EnsureSearchers,
    MoveTraffic,
    StartBuild,
    StartValidation,
    WriteRevisionStatus,
)
from vectorindex_operator.core.traffic import Traffic

MARK = "a person asked for it: abort n1"
THIRD = spec(index={"factory": "Flat"})


def asks(obs: Observation, argument: str = "", nonce: str = "n1") -> Observation:
    return with_spec(obs, commands=(Command("abort", argument, nonce),))


@pytest.mark.parametrize("was", ["Pending", "Building", "Validating", "Validated", "Surging", "Shadowing"])
def test_what_no_user_has_met_is_rejected_and_stays_so(was: str) -> None:
    mine = a_revision(NEW, was, created=NOW - 60)
    work = job(Task.BUILD, of=mine, key=f"{identity.build_hash(NEW)}/0/cpu")
    obs = seen(NEW, STABLE, mine, traffic=STABLE)
    plan = run(asks(replace(obs, jobs=(*obs.jobs, work))))
    status = recorded(plan, mine)
    assert (status.phase, said(plan)) == ("Rejected", ("Done", f"gave up {mine.name}"))
    assert status.rejected is not None
    assert (status.rejected.stage, status.rejected.reason, status.rejected.message) == ("Abort", "Aborted", MARK)
    assert moved(plan) == []
    assert [one.name for one in actions(plan, DeleteJob)] == [work.name]
    assert [one.revision for one in actions(plan, DeleteSearchers)] == [
        mine.name for one in obs.loaded if one == mine.name
    ]
    assert condition(plan.status, "Stalled")[:2] == ("True", "Aborted")
    settled = run(replace(after(obs, plan), loaded={STABLE.name: loaded(STABLE)}), NOW + 1)
    assert [one for one in settled.actions if not isinstance(one, EnsureSearchers)] == []
    assert (settled.events, settled.status.phase) == ((), "Rejected")


def test_what_soaks_loses_the_traffic_in_one_write() -> None:
    plan = run(asks(soak()))
    (move,) = actions(plan, MoveTraffic)
    assert plan.actions[0] == move
    assert (move.decision.kind, move.decision.to_revision, move.decision.reason) == ("RollBack", STABLE.name, "Aborted")
    assert (phase(plan, SOAKING), said(plan)) == ("RolledBack", ("Done", f"gave up {SOAKING.name}"))
    assert [one.revision for one in actions(plan, WriteRevisionStatus) if one.status.rejected] == [SOAKING.name]


@pytest.mark.parametrize("recorded_too", [False, True])
def test_one_request_is_one_step_although_the_answer_was_lost(recorded_too: bool) -> None:
    """Right after the write of the traffic, or after the statuses, too: what serves then is stable."""
    obs = asks(soak())
    first = run(obs)
    (move,) = actions(first, MoveTraffic)
    reborn = after(obs, first) if recorded_too else obs
    reborn = replace(reborn, traffic=Traffic.to(STABLE.name, "42", move.decision), evidence={})
    reborn = with_spec(reborn, status=obs.index.status)
    again = run(reborn)
    assert (moved(again), said(again)) == ([], ("Done", f"gave up {SOAKING.name}"))
    assert after(reborn, again).revisions[STABLE.name].status.phase == "Stable"


def test_a_target_without_pods_is_loaded_first() -> None:
    obs = soak()
    obs = replace(obs, loaded={**obs.loaded, STABLE.name: loaded(STABLE, pod("s", ready=False))})
    plan = run(asks(obs))
    assert (moved(plan), said(plan)[0]) == ([], "Done")
    assert [row.rule for row in plan.status.blocked_by] == ["RollbackTargetNotReady"]
    waits = replace(after(obs, plan), loaded=soak().loaded, evidence={})
    assert moved(run(waits)) == [STABLE.name]


def both() -> tuple[Observation, str]:
    """One soaks, and what the user asked for since is being built."""
    third = a_revision(THIRD, "Building", created=NOW - 30)
    obs = with_spec(soak(), spec=THIRD)
    return replace(obs, revisions={**obs.revisions, third.name: third}), third.name


def test_everything_on_its_way_is_given_up_at_once() -> None:
    obs, third = both()
    plan = run(asks(obs))
    assert (moved(plan), said(plan)) == ([STABLE.name], ("Done", f"gave up {', '.join(sorted([SOAKING.name, third]))}"))
    phases = {name: view.status.phase for name, view in after(obs, plan).revisions.items()}
    assert phases == {STABLE.name: "Stable", SOAKING.name: "RolledBack", third: "Rejected"}


def test_the_one_that_is_named_alone() -> None:
    obs, third = both()
    plan = run(asks(obs, third))
    assert (moved(plan), said(plan)) == ([], ("Done", f"gave up {third}"))
    assert after(obs, plan).revisions[SOAKING.name].status.phase == "Soaking"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("", "no revision is being built, proven, loaded or soaked"),
        (STABLE.name, f"revision {STABLE.name!r} is not being built, proven, loaded or soaked"),
    ],
)
def test_what_is_stable_is_not_on_its_way(argument: str, message: str) -> None:
    older = a_revision(NEW, "Superseded", created=NOW - 90 * HOUR)
    plan = run(asks(seen(OLD, STABLE, older, traffic=STABLE), argument))
    assert (moved(plan), said(plan)[0]) == ([], "Refused")
    assert [one for one in actions(plan, WriteRevisionStatus) if one.revision == STABLE.name] == []
    assert said(plan)[1] == message


def test_what_has_nothing_to_go_back_to_keeps_the_traffic() -> None:
    obs = soak()
    bad = STABLE.status.model_copy(update={"promoted_at": None})
    obs = replace(obs, revisions={**obs.revisions, STABLE.name: replace(STABLE, status=bad)})
    plan = run(asks(obs))
    assert (moved(plan), said(plan)) == (
        [], ("Refused", f"{SOAKING.name} keeps the traffic: there is no earlier proven revision"),
    )  # fmt: skip


def test_a_verdict_that_goes_back_already_is_not_forgotten() -> None:
    obs = soak()
    view = obs.revisions[SOAKING.name]
    assert view.status.rollout is not None
    trip = Trip(rule="errors", reason="ErrorRate", message="9 %", at=to_text(NOW - 5))
    view = replace(view, status=view.status.model_copy(update={
        "rollout": view.status.rollout.model_copy(update={"trip": trip})
    }))  # fmt: skip
    plan = run(asks(replace(obs, revisions={**obs.revisions, view.name: view})))
    assert said(plan) == ("Refused", f"{SOAKING.name} is going back already: 9 %")
    assert [one.decision.rule for one in actions(plan, MoveTraffic)] == ["errors"]


def test_a_build_that_is_tried_again_by_itself_is_on_its_way() -> None:
    failure = WorkFailure(
        stage="Build", key=identity.build_hash(NEW), count=4, at=to_text(NOW - 60), reason="OutOfMemory", message="oom"
    )
    mine = a_revision(NEW, "BuildFailed", failure=failure)
    plan = run(asks(seen(NEW, STABLE, mine, traffic=STABLE)))
    assert (phase(plan, mine), said(plan)[0]) == ("Rejected", "Done")
    gone = run(asks(seen(OLD, STABLE, mine, traffic=STABLE)))  # nobody wants it any more: it is history
    assert said(gone)[0] == "Refused"


def test_it_is_remembered_until_data_or_spec_change_or_retry() -> None:
    mine = a_revision(NEW, "Validated", created=NOW - 60)
    obs = seen(NEW, STABLE, mine, traffic=STABLE)
    given_up = with_spec(after(obs, run(asks(obs))), commands=())
    easier = spec(index={"factory": "HNSW32"}, gate={"recall": {"min": 0.9}})
    assert run(with_spec(given_up, spec=easier)).status.phase == "Rejected"
    newer = replace(given_up, jobs=(listing(NEW, NEW_DATA),))
    newer = with_spec(newer, status=VectorIndexStatus(source=source(NEW, NEW_DATA)))
    assert [one.digest for one in actions(run(newer), CreateRevision)] == [identity.digest(NEW, NEW_DATA)]
    plan = run(with_spec(given_up, commands=(Command("retry", "", "n2"),)))
    assert recorded(plan, mine).rejected is None
    assert actions(plan, StartBuild) == []  # its artifact is there; it is proven again
    assert len(actions(plan, StartValidation)) == 1


def test_it_needs_no_spec_that_can_be_read() -> None:
    plan = run(asks(with_spec(soak(), spec=None, spec_error="spec.gate.k: no")))
    assert (moved(plan), phase(plan, SOAKING)) == ([STABLE.name], "RolledBack")


def test_it_is_obeyed_while_the_index_is_suspended() -> None:
    held = spec(index={"factory": "HNSW32"}, suspend=True)
    mine = a_revision(NEW, "Building", created=NOW - 60)
    work = job(Task.BUILD, of=mine, key=f"{identity.build_hash(NEW)}/0/cpu")
    obs = seen(held, STABLE, mine, traffic=STABLE)
    plan = run(asks(replace(obs, jobs=(*obs.jobs, work))))
    assert (phase(plan, mine), [one.name for one in actions(plan, DeleteJob)]) == ("Rejected", [work.name])
    assert plan.status.source == source(held, DATA)


def test_what_only_keeps_the_traffic_for_the_next_one_is_on_its_way_too() -> None:
    """Else that one would soak on once the next one is given up, and be promoted."""
    obs = asks(leaving())
    plan = run(obs)
    assert said(plan)[0] == "Done"
    assert phase(plan, PROVEN) == "Rejected"
    rollout = recorded(plan, OUTGOING).rollout
    assert rollout is not None
    assert (rollout.trip is not None and rollout.trip.reason, moved(plan)) == ("Aborted", [])
    assert STABLE.name in {one.revision for one in actions(plan, EnsureSearchers)}, "it is loaded for the way back"
    assert said(run(after(obs, plan), NOW + 1)) == said(plan)
