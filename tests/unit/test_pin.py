"""`spec.pinRevision`: the revision of that name serves; nothing is built, and what guards traffic stands above it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from observations import (
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
    recorded,
    report,
    run,
    seen,
    spec,
    with_spec,
)
from soaks import NEW, OLD, SOAKING, STABLE, soak

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import GateStatus, Rejection, VectorIndexSpec
from vectorindex_operator.core import identity
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.observation import Observation, RevisionView, Task
from vectorindex_operator.core.plan import (
    CreateRevision,
    DeleteJob,
    ForgetRevision,
    Plan,
    StartBuild,
    StartResolve,
    StartValidation,
)

BEFORE = a_revision(NEW, "Superseded", created=NOW - 90 * HOUR)
"""It was stable before STABLE."""
WORK = (StartResolve, CreateRevision, StartBuild, StartValidation)
THIRD = spec(index={"factory": "Flat"})


def pins(name: str, of: VectorIndexSpec = OLD, **changes: Any) -> VectorIndexSpec:
    return of.model_copy(update={"pin_revision": name, **changes})


def world(name: str = BEFORE.name, *more: RevisionView, of: VectorIndexSpec = OLD, **changes: Any) -> Observation:
    """STABLE serves, and is what the rest of the spec asks for."""
    obs = seen(pins(name, of), STABLE, BEFORE, *more, traffic=STABLE)
    return replace(obs, **({"loaded": {STABLE.name: loaded(STABLE)}} | changes))


def begun(plan: Plan) -> list[Any]:
    return [one for one in plan.actions if isinstance(one, WORK)]


def test_it_is_rolled_out_as_what_it_was_proven_to_be() -> None:
    plan = run(world())
    assert (phase(plan, BEFORE), moved(plan), begun(plan)) == ("Surging", [], [])
    assert plan.status.candidate == BEFORE.name
    rolled = recorded(plan, BEFORE)
    assert (rolled.report, rolled.rollout is not None and rolled.rollout.prior) == (BEFORE.status.report, STABLE.name)


def test_another_gate_or_other_classes_measure_nothing_again() -> None:
    """Its classes are frozen in it: a report for others would not fit it."""
    other = spec(segments=[{"name": "fr"}], gate={"k": 5})
    plan = run(world(of=other))
    assert (phase(plan, BEFORE), begun(plan)) == ("Surging", [])


def test_then_it_serves_and_nothing_else_is_wanted() -> None:
    mine = a_revision(NEW, "Stable")
    obs = seen(pins(mine.name), mine, traffic=mine)
    plan = run(obs)
    assert (plan.status.phase, condition(plan.status, "RolledOut")[0], begun(plan)) == ("Stable", "True", [])
    assert condition(plan.status, "UpToDate")[2].startswith("index: once spec.pinRevision is taken out")
    newer = replace(obs, jobs=(listing(OLD, NEW_DATA),))
    assert begun(run(newer, NOW + 24 * HOUR)) == []  # neither new data nor a poll that is due
    out = run(with_spec(after(obs, plan), spec=OLD))
    assert len(actions(out, CreateRevision)) == 1


def test_another_source_waits_for_it_too() -> None:
    """What is pinned was not built of it, whatever else is the same."""
    mine = a_revision(OLD, "Stable")
    elsewhere = spec(source={"s3": {"bucket": "embeddings", "prefix": "others/"}})
    plan = run(seen(pins(mine.name, elsewhere), mine, traffic=mine))
    assert "source.s3: once spec.pinRevision is taken out" in condition(plan.status, "UpToDate")[2]


def test_what_is_on_its_way_gives_way() -> None:
    building = a_revision(THIRD, "Building", created=NOW - 60)
    work = job(Task.BUILD, of=building, key=f"{identity.build_hash(THIRD)}/0/cpu")
    obs = world(BEFORE.name, building, of=THIRD)
    plan = run(replace(obs, jobs=(*obs.jobs, work)))
    assert (phase(plan, building), phase(plan, BEFORE)) == ("Superseded", "Surging")
    assert [one.name for one in actions(plan, DeleteJob)] == [work.name]


def test_a_soak_of_another_is_reverted() -> None:
    to_stable = run(with_spec(soak(), spec=pins(STABLE.name, NEW)))
    assert (moved(to_stable), phase(to_stable, SOAKING)) == ([STABLE.name], "Superseded")
    third = a_revision(THIRD, "Retired", promoted_at=to_text(NOW - 90 * HOUR), created=NOW - 90 * HOUR)
    third = replace(third, status=a_revision(THIRD, "Superseded", created=NOW - 90 * HOUR).status)
    obs = with_spec(soak(), spec=pins(third.name, NEW))
    to_another = run(replace(obs, revisions={**obs.revisions, third.name: third}))
    assert (moved(to_another), phase(to_another, SOAKING)) == ([STABLE.name], "Superseded")
    assert phase(to_another, third) == "Validated"


def test_its_own_soak_goes_on() -> None:
    plan = run(with_spec(soak(switched=NOW - 16 * 60), spec=pins(SOAKING.name)))
    assert phase(plan, SOAKING) == "Stable"


# ---------------------------------------------------------------- what stands above it


def test_a_guardrail_does() -> None:
    obs = with_spec(soak(errors=300), spec=pins(SOAKING.name))
    view = obs.revisions[SOAKING.name]
    passed = held().status.gate
    assert passed is not None
    view = replace(view, status=view.status.model_copy(update={"gate": passed.model_copy(update={"verdict": "Pass"})}))
    obs = replace(obs, revisions={**obs.revisions, view.name: view})
    plan = run(obs)
    assert (moved(plan), phase(plan, SOAKING)) == ([STABLE.name], "RolledBack")
    assert condition(plan.status, "Stalled")[:2] == ("True", "RolledBack")
    back = replace(after(obs, plan), evidence={}, traffic=seen(OLD, STABLE, traffic=STABLE).traffic)
    assert moved(run(back, NOW + HOUR)) == []  # and is remembered
    retried = run(with_spec(back, commands=(Command("retry", "", "n1"),)), NOW + HOUR)
    assert recorded(retried, SOAKING).rejected is None
    assert (begun(retried), moved(retried)) == ([], [SOAKING.name])  # its searchers are still there
    assert retried.status.verbs[0].result == "Done"


def test_a_person_who_goes_back_does() -> None:
    obs = with_spec(soak(), spec=pins(SOAKING.name), commands=(Command("rollback", "", "n1"),))
    plan = run(obs)
    assert (moved(plan), phase(plan, SOAKING)) == ([STABLE.name], "RolledBack")


def test_it_stands_above_suspend() -> None:
    plan = run(world(of=OLD.model_copy(update={"suspend": True})))
    assert (phase(plan, BEFORE), condition(plan.status, "Suspended")[0]) == ("Surging", "")


# ---------------------------------------------------------------- what cannot be pinned


def rejected(stage: str) -> RevisionView:
    why = Rejection(stage=stage, reason="RecallBelowMin", message="0.9", at=to_text(NOW - HOUR))
    return a_revision(THIRD, "Rejected", rejected=why, report=report(THIRD, 0.9, 0.89))


def held() -> RevisionView:
    verdict = GateStatus(
        gate_hash=identity.gate_hash(THIRD), thresholds_hash="t", verdict="Inconclusive", reason="RecallUncertain",
        message="", at=to_text(NOW - HOUR),
    )  # fmt: skip
    return a_revision(THIRD, "Validating", report=report(THIRD, 0.95, 0.94), gate=verdict)


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        (rejected("Gate"), "RecallBelowMin"),
        (held(), "PinnedRevisionNotProven"),
        (a_revision(THIRD, "Building"), "PinnedRevisionNotProven"),
        (a_revision(THIRD, "Superseded", promoted_at=None), "PinnedRevisionNotProven"),
    ],
    ids=["rejected", "held", "in build", "given up in build"],
)
def test_what_did_not_pass_the_gate_cannot(view: RevisionView, reason: str) -> None:
    plan = run(world(view.name, view))
    assert (moved(plan), begun(plan)) == ([], [])
    assert condition(plan.status, "Stalled")[:2] == ("True", reason)
    assert condition(plan.status, "Ready")[0] == "True"
    assert view.name not in {one.revision for one in plan.actions if type(one).__name__ == "EnsureSearchers"}


def test_a_name_that_is_not_there_says_which_are() -> None:
    obs = world("docs-00000000")
    plan = run(obs)
    status, reason, message = condition(plan.status, "Stalled")
    assert (status, reason) == ("True", "PinnedRevisionNotFound")
    assert f"(those that passed the gate: {STABLE.name}, {BEFORE.name})" in message
    assert (begun(plan), plan.status.phase) == ([], "Stalled")
    settled = run(after(obs, plan), NOW + 60)
    assert (settled.status.conditions, settled.events) == (plan.status.conditions, ())


def test_what_is_on_its_way_waits_while_the_name_is_wrong() -> None:
    surging = a_revision(THIRD, "Surging", created=NOW - 60)
    plan = run(world("docs-00000000", surging, of=THIRD))
    assert (moved(plan), phase(plan, surging)) == ([], "Validated")


@pytest.mark.parametrize("verb", ["refresh", "rebuild"])
def test_nothing_is_made_by_a_command(verb: str) -> None:
    plan = run(with_spec(world(STABLE.name), commands=(Command(verb, "", "n1"),)))
    (answer,) = plan.status.verbs
    assert (answer.result, begun(plan)) == ("Refused", [])


def test_what_is_pinned_is_not_forgotten() -> None:
    of = spec(history=1)
    old = [a_revision(of, "Superseded", data=f"{n:02}" * 32, created=NOW - n * HOUR) for n in range(50, 55)]
    obs = seen(pins(old[-1].name, of), STABLE, *old, traffic=STABLE)
    assert old[-1].name not in {one.name for one in actions(run(obs), ForgetRevision)}
