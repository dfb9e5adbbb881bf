"""`rebuild`: the same spec and data, built once more under another digest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from observations import (
    DATA,
    HOUR,
    NEW_DATA,
    NOW,
    SETTINGS,
    a_revision,
    actions,
    built,
    condition,
    listing,
    run,
    said,
    seen,
    source,
    spec,
    with_spec,
)

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Rebuild, Rejection, VectorIndexSpec, VectorIndexStatus, WorkFailure
from vectorindex_operator.core import identity
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.observation import Observation, RevisionView
from vectorindex_operator.core.plan import CreateRevision, StartBuild
from vectorindex_operator.manifests.revisions import revision

OF = spec()
STABLE = a_revision(OF, "Stable", created=NOW - 48 * HOUR)
REJECTED = Rejection(stage="Gate", reason="RecallBelowMin", message="0.9", at=to_text(NOW - HOUR))


def asks(obs: Observation, verb: str = "rebuild", nonce: str = "n1") -> Observation:
    return with_spec(obs, commands=(Command(verb, "", nonce),))


def rebuilt(phase: str, *, number: int = 1, of: VectorIndexSpec = OF, **status: Any) -> RevisionView:
    """The revision of a later build."""
    digest = identity.digest(of, DATA, number)
    view = a_revision(of, phase, created=NOW - 60, **status)
    frozen = view.spec.model_copy(update={"digest": digest, "rebuild": Rebuild(number=number, nonce="n1")})
    mine = view.status.build and {"build": built(digest)}
    name = identity.revision_name("docs", digest)
    return replace(view, name=name, spec=frozen, status=view.status.model_copy(update=mine or {}))


def created(obs: Observation) -> CreateRevision:
    (one,) = actions(run(obs), CreateRevision)
    return one


def test_it_is_another_digest_of_the_same_spec_and_data() -> None:
    obs = asks(seen(OF, STABLE, traffic=STABLE))
    create = created(obs)
    assert (create.digest, create.fingerprint) == (identity.digest(OF, DATA, 1), DATA)
    assert create.rebuild == Rebuild(number=1, nonce="n1")
    assert run(obs).status.verbs == ()  # answered when it is there
    assert created(obs) == create  # one, however often it is read
    assert revision(create, obs.index, OF, SETTINGS)["spec"]["rebuild"] == {"number": 1, "nonce": "n1"}


def test_it_is_built_and_answered_when_it_is_there() -> None:
    made = rebuilt("Pending")
    plan = run(asks(seen(OF, STABLE, made, traffic=STABLE)))
    assert said(plan) == ("Done", f"{made.name} is built anew")
    assert [one.task.digest for one in actions(plan, StartBuild)] == [made.spec.digest]
    assert actions(plan, CreateRevision) == []
    assert condition(plan.status, "RolledOut")[0] == "False"


def test_it_serves_in_the_end_and_nothing_is_wanted_back() -> None:
    before = replace(STABLE, status=STABLE.status.model_copy(update={"phase": "Superseded"}))
    made = rebuilt("Stable")
    plan = run(asks(seen(OF, before, made, traffic=made)))
    assert (plan.status.phase, plan.forward) == ("Stable", ())
    assert plan.status.rebuilds == 1


def test_one_that_failed_leaves_what_serves() -> None:
    plan = run(seen(OF, STABLE, rebuilt("Rejected", rejected=REJECTED), traffic=STABLE))
    assert (plan.status.phase, condition(plan.status, "RolledOut")[0]) == ("Stable", "True")


def test_what_was_rejected_can_be_built_anew() -> None:
    bad = a_revision(OF, "Rejected", rejected=REJECTED)
    assert created(asks(seen(OF, bad))).rebuild == Rebuild(number=1, nonce="n1")


def test_a_number_is_never_used_again() -> None:
    """Its artifact may still be there: it would be found, and nothing built."""
    obs = asks(seen(OF, STABLE, traffic=STABLE))
    status = obs.index.status.model_copy(update={"rebuilds": 4})
    assert created(with_spec(obs, status=status)).digest == identity.digest(OF, DATA, 5)
    plan = run(seen(OF, STABLE, rebuilt("Stable", number=7), traffic=STABLE))
    assert plan.status.rebuilds == 7
    assert run(seen(OF, STABLE, traffic=STABLE)).status.rebuilds is None


# ---------------------------------------------------------------- what comes after one


def test_a_change_of_what_serves_goes_by_the_newest_build() -> None:
    now = spec(searcher={"minScore": 0.3})
    made = rebuilt("Stable")
    create = created(seen(now, STABLE, made, traffic=made))
    assert (create.digest, create.rebuild) == (made.spec.digest, made.spec.rebuild)


def test_but_not_by_one_that_failed() -> None:
    now = spec(searcher={"minScore": 0.3})
    bad = rebuilt("Rejected", rejected=REJECTED)
    create = created(seen(now, STABLE, bad, traffic=STABLE))
    assert (create.digest, create.rebuild) == (STABLE.spec.digest, None)


def test_refresh_takes_the_build_that_serves() -> None:
    made = rebuilt("Stable")
    create = created(asks(seen(OF, made, traffic=made), "refresh", "n2"))
    assert (create.digest, create.rebuild) == (made.spec.digest, made.spec.rebuild)


def test_new_data_are_built_for_the_first_time() -> None:
    made = rebuilt("Stable")
    obs = replace(seen(OF, made, traffic=made), jobs=(listing(OF, NEW_DATA),))
    create = created(with_spec(obs, status=VectorIndexStatus(source=source(OF, NEW_DATA), rebuilds=1)))
    assert (create.digest, create.rebuild) == (identity.digest(OF, NEW_DATA), None)


def test_what_only_the_data_made_differ_is_finished_first() -> None:
    """As it is with a first build: polls do not drop it."""
    made = rebuilt("Pending")
    obs = replace(seen(OF, STABLE, made, traffic=STABLE), jobs=(listing(OF, NEW_DATA),))
    plan = run(with_spec(obs, status=VectorIndexStatus(source=source(OF, NEW_DATA))))
    assert (plan.status.next, [one.revision for one in actions(plan, StartBuild)]) == (made.name, [made.name])


# ---------------------------------------------------------------- where it does not apply

FAILED = WorkFailure(
    stage="Build",
    key=identity.build_hash(OF),
    count=1,
    at=to_text(NOW - 60),
    reason="BadData",
    message="",
    permanent=True,
)
OTHER = spec(index={"factory": "Flat"})
UNDER_WAY = a_revision(OTHER, "Building", created=NOW - 60)


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        (
            seen(OTHER, STABLE, UNDER_WAY, traffic=STABLE),
            f"{UNDER_WAY.name} is Building: it is decided first, or given up (`abort`)",
        ),
        (seen(OTHER, STABLE, traffic=STABLE), "this spec and data were not built yet: they are built anyway"),
        (Observation(index=with_spec(seen(OF)).index), "this spec and data were not built yet: they are built anyway"),
        (seen(OF, a_revision(OF, "BuildFailed", failure=FAILED)), "its build failed: `retry` tries it again"),
    ],
    ids=["under way", "not made", "not listed", "failed"],
)
def test_it_is_refused(obs: Observation, message: str) -> None:
    plan = run(asks(obs))
    assert said(plan) == ("Refused", message)
    assert [one for one in actions(plan, CreateRevision) if one.rebuild] == []


def test_it_is_refused_while_the_index_is_suspended() -> None:
    assert said(run(asks(seen(spec(suspend=True), STABLE, traffic=STABLE))))[0] == "Refused"
