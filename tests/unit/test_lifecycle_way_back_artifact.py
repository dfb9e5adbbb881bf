"""Whether what a rollback would load is there: who is asked for it, and what people are told, once and when sure."""

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
    condition,
    front,
    loaded,
    run,
    spec,
)
from unit.test_internal_requests import MASTER, published, serving  # noqa: F401 - a fixture
from unit.test_lifecycle_polls import POLL, QUIET, asked, idle, look, polling

from vectorindex_operator.adapters.source_looks import path_of
from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import ArtifactSeen, Trip
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.observation import Observation, RevisionView
from vectorindex_operator.core.plan import EnsureSearchers, MoveTraffic, Plan, WriteRevisionStatus
from vectorindex_operator.core.source_poll import SourceAnswer, hear
from vectorindex_searcher.contract import (
    ArtifactLook,
    Found,
)

STABLE = polling()


def retired(factory: str, hours: float) -> RevisionView:
    """What was stable so long ago, and is not loaded any more."""
    view = a_revision(spec(index={"factory": factory}), "Superseded", created=NOW - hours * HOUR)
    return replace(view, status=view.status.model_copy(update={"phase": "Retired"}))


BEFORE = retired("Flat", 90)
DIGEST = BEFORE.spec.digest
GONE_AT = to_text(NOW - HOUR)


def known(view: RevisionView, found: str, at: float) -> RevisionView:
    """As a pass left it that heard this of its artifact."""
    one = ArtifactSeen(found=found, at=to_text(at))
    return replace(view, status=view.status.model_copy(update={"artifact_seen": one}))


def gone(view: RevisionView) -> RevisionView:
    return known(view, "Absent", NOW - HOUR)


def resting(before: RevisionView = BEFORE, **changes: Any) -> Observation:
    """STABLE serves, and a rollback would go to `before`, which is not loaded."""
    obs = idle(**changes)
    return replace(obs, revisions={**obs.revisions, before.name: before})


def able(obs: Observation, now: float = NOW) -> Observation:
    """One of stable's pods has said that it can be asked."""
    question = asked(obs, now)
    return replace(obs, heard=hear(question, now, SourceAnswer(look(question, artifacts=True)), now))


def artifact(found: str, digest: str = DIGEST, **changes: Any) -> ArtifactLook:
    return ArtifactLook(digest=digest, found=found, **changes)


def told(obs: Observation, found: str, now: float = NOW) -> Observation:
    """The observation of after a poll that asked for the artifact as well."""
    ready = able(obs, now)
    question = asked(ready, now + POLL)
    assert question.artifact
    said = look(question, artifacts=True, artifact=artifact(found, question.artifact))
    return replace(ready, heard=hear(question, now + POLL, SourceAnswer(said), now + POLL))


def events(plan: Plan) -> list[EventReason]:
    return [one.reason for one in plan.events]


def way_back(plan: Plan) -> tuple[str, str, str]:
    return condition(plan.status, "RollbackPossible")


# ---------------------------------------------------------------- who is asked


def test_an_image_is_asked_for_an_artifact_once_it_has_said_that_it_can_be() -> None:
    """An earlier one refuses a question with a parameter that it does not know, and would no longer be polled."""
    obs = resting()
    first = asked(obs)
    assert (first.artifact, path_of(first)) == ("", "/v1/source?maxAge=150.0")
    earlier = replace(obs, heard=hear(first, NOW, SourceAnswer(look(first)), NOW))
    assert asked(earlier, NOW + POLL).artifact == ""
    second = asked(able(obs), NOW + POLL)
    assert (second.artifact, second.gone) == (DIGEST, False)
    assert path_of(second) == f"/v1/source?maxAge=150.0&artifact={DIGEST}"
    assert asked(able(resting(gone(BEFORE))), NOW + POLL).gone


@pytest.mark.parametrize("answer", ["refused", "silent", "no longer able", "of another revision"])
def test_who_does_not_take_the_question_is_asked_without_it(answer: str) -> None:
    obs = able(resting())
    question = asked(obs, NOW + POLL)
    said = {
        "refused": SourceAnswer(problem="it answers with status 400: ..."),
        "silent": SourceAnswer(problem="no whole answer within 2 s"),
        "no longer able": SourceAnswer(look(question, "", under_way=True)),
        "of another revision": SourceAnswer(look(question, artifacts=True).model_copy(update={"revision": "docs-x"})),
    }[answer]
    obs = replace(obs, heard=hear(question, NOW + POLL, said, NOW + POLL))
    assert asked(obs, NOW + POLL + 5).artifact == ""


def test_what_another_revision_can_says_nothing_of_stable() -> None:
    obs = able(resting())
    assert obs.heard is not None
    other = replace(obs.heard, question=replace(obs.heard.question, revision="docs-old"))
    assert asked(replace(obs, heard=other), NOW + POLL).artifact == ""


def test_without_a_way_back_no_artifact_is_asked_for() -> None:
    assert asked(able(idle()), NOW + POLL).artifact == ""


def test_during_a_soak_stable_is_asked_for_its_own() -> None:
    of = spec(index={"factory": "HNSW32"}, source={"tombstones": {"prefix": "gone/"}}, **QUIET)
    candidate = a_revision(of, "Soaking", created=NOW - 60)
    rollout = candidate.status.rollout
    assert rollout is not None
    status = candidate.status.model_copy(update={"rollout": rollout.model_copy(update={"prior": STABLE.name})})
    obs = idle(of, STABLE)
    obs = replace(
        obs,
        revisions={**obs.revisions, candidate.name: replace(candidate, status=status)},
        loaded={**obs.loaded, candidate.name: loaded(candidate)},
        traffic=front(candidate),
    )
    question = asked(obs)
    obs = replace(obs, heard=hear(question, NOW, SourceAnswer(look(question, artifacts=True)), NOW))
    assert asked(obs, NOW + POLL).artifact == STABLE.spec.digest


def test_an_artifact_in_another_place_is_not_asked_for() -> None:
    """Searchers look below their own place: what is elsewhere is not there, and yet not gone."""
    elsewhere = BEFORE.spec.model_copy(update={"artifacts": spec(artifacts={"s3": {"prefix": "new/"}}).artifacts.s3})
    obs = resting(replace(BEFORE, spec=elsewhere))
    assert asked(able(obs), NOW + POLL).artifact == ""
    late = told(resting(), Found.ABSENT)
    plan = run(replace(late, revisions=obs.revisions), NOW + POLL)
    assert (events(plan), way_back(plan)[1]) == ([], "Cold")


@pytest.mark.parametrize(
    "digest", ["", "d1", "D1" * 32, f"{'d1' * 32}\r\nHost: evil", f"../{'d1' * 30}x", "\u0664" * 64]
)
def test_what_is_no_digest_is_never_asked_for(digest: str) -> None:
    """A revision's spec is anybody's to write who may, and this goes into the line of a request."""
    named = replace(BEFORE, spec=BEFORE.spec.model_copy(update={"digest": digest}))
    assert asked(able(resting(named)), NOW + POLL).artifact == ""


# ---------------------------------------------------------------- what people are told


def test_that_it_is_gone_is_told_once_and_that_it_is_back_as_well() -> None:
    obs = told(resting(), Found.ABSENT)
    plan = run(obs, NOW + POLL)
    assert events(plan) == [EventReason.WAY_BACK_ARTIFACT_GONE]
    (event,) = plan.events
    assert event.warning
    assert f"s3://indexes/team-a/docs/{DIGEST}/manifest.json" in event.message
    assert way_back(plan)[:2] == ("False", "ArtifactGone")
    (written,) = actions(plan, WriteRevisionStatus)
    assert (written.revision, written.status.artifact_gone_at) == (BEFORE.name, to_text(NOW + POLL))
    obs = after(obs, plan)
    again = run(obs, NOW + POLL + 1)
    assert (events(again), actions(again, WriteRevisionStatus), again.status) == ([], [], plan.status)
    obs = replace(obs, heard=None)  # an operator that begins anew knows it from the status
    again = run(obs, NOW + 2 * POLL)
    assert (events(again), actions(again, WriteRevisionStatus), again.status) == ([], [], plan.status)
    obs = told(obs, Found.PRESENT, NOW + 2 * POLL)
    back = run(obs, NOW + 3 * POLL)
    assert events(back) == [EventReason.WAY_BACK_ARTIFACT_BACK]
    assert not back.events[0].warning
    assert way_back(back)[:2] == ("True", "Cold")
    last = run(after(obs, back), NOW + 3 * POLL + 1)
    assert (events(last), actions(last, WriteRevisionStatus)) == ([], [])


def test_what_is_there_writes_nothing() -> None:
    obs = told(resting(), Found.PRESENT)
    plan = run(obs, NOW + POLL)
    assert (events(plan), actions(plan, WriteRevisionStatus), way_back(plan)[:2]) == ([], [], ("True", "Cold"))


def unsure(news: Found) -> dict[str, dict[str, Any]]:
    """What an answer has that does not say `news` of the artifact that was asked for."""
    return {
        "unknown": {"artifact": artifact(Found.UNKNOWN, reason="AccessDenied", message="may not read")},
        "a word of another release": {"artifact": artifact("Elsewhere")},
        "nothing": {"artifact": None},
        "another artifact": {"artifact": artifact(news, "e2" * 32)},
        "another revision": {"artifact": artifact(news), "revision": "docs-other"},
        "another source": {"artifact": artifact(news), "source": "1" * 16},
    }


@pytest.mark.parametrize("before", [BEFORE, gone(BEFORE)])
@pytest.mark.parametrize("said", [*unsure(Found.ABSENT), "silence"])
def test_who_cannot_tell_has_not_said_that_it_is_gone_nor_that_it_is_back(said: str, before: RevisionView) -> None:
    obs = able(resting(before))
    question = asked(obs, NOW + POLL)
    changes = unsure(Found.PRESENT if question.gone else Found.ABSENT).get(said)
    answer = SourceAnswer(problem="no whole answer within 2 s")
    if changes is not None:
        answer = SourceAnswer(look(question, artifacts=True).model_copy(update=changes))
    heard = hear(question, NOW + POLL, answer, NOW + POLL)
    assert heard.found is Found.UNKNOWN
    plan = run(replace(obs, heard=heard), NOW + POLL)
    assert (events(plan), actions(plan, WriteRevisionStatus)) == ([], [])
    assert way_back(plan)[:2] == (("False", "ArtifactGone") if question.gone else ("True", "Cold"))


def test_what_was_heard_before_the_status_was_written_takes_nothing_back() -> None:
    """Of two operators, or of one that was paused, the last look counts, whoever writes first."""
    obs = told(resting(), Found.ABSENT)
    assert obs.heard is not None

    def after_status(at: float) -> Plan:
        before = known(BEFORE, "Present", at)
        return run(replace(obs, revisions={**obs.revisions, before.name: before}), NOW + POLL + 1)

    plan = after_status(obs.heard.asked_at + 1)
    assert (events(plan), actions(plan, WriteRevisionStatus)) == ([], [])
    plan = after_status(NOW + 24 * HOUR)
    assert events(plan) == [EventReason.WAY_BACK_ARTIFACT_GONE]  # the clock was set back since


def test_what_was_heard_of_another_way_back_is_not_said_of_this_one() -> None:
    """A promotion, a rollback: what is gone is what a rollback went to before."""
    obs = told(resting(), Found.ABSENT)
    newer = retired("PQ8", 2)
    plan = run(replace(obs, revisions={**obs.revisions, newer.name: newer}), NOW + POLL)
    assert (events(plan), way_back(plan)[:2]) == ([], ("True", "Cold"))


def test_a_way_back_whose_pods_run_is_possible_and_yet_the_loss_is_told() -> None:
    """A pod of it that starts again needs what is gone."""
    warm = replace(BEFORE, status=BEFORE.status.model_copy(update={"phase": "Superseded"}))
    obs = told(resting(warm), Found.ABSENT)
    plan = run(replace(obs, loaded={**obs.loaded, warm.name: loaded(warm)}), NOW + POLL)
    assert events(plan) == [EventReason.WAY_BACK_ARTIFACT_GONE]
    assert way_back(plan)[:2] == ("True", "ArtifactGone")
    assert "starts again fails" in way_back(plan)[2]


def test_polling_that_was_turned_off_says_nothing_for_ever() -> None:
    of = spec(source={"tombstones": {"prefix": "gone/"}, "poll": "0"}, **QUIET)
    late = told(resting(), Found.ABSENT).heard
    obs = replace(resting(gone(BEFORE), of=of), heard=late)
    plan = run(obs)
    assert (events(plan), way_back(plan)[:2]) == ([], ("True", "Cold"))
    again = run(after(obs, plan))
    assert (events(again), actions(again, WriteRevisionStatus)) == ([], [])


def test_a_rollback_goes_the_same_way_and_says_what_is_known() -> None:
    """A look decides nothing: what is loaded after all, from a cache of the node, takes the traffic."""
    rollout = STABLE.status.rollout
    assert rollout is not None
    trip = Trip(rule="errors", reason="ErrorRate", message="9 %", at=to_text(NOW - 5))
    status = STABLE.status.model_copy(update={"rollout": rollout.model_copy(update={"trip": trip})})
    tripped = replace(STABLE, status=status)
    obs = resting(gone(BEFORE), view=tripped)
    plan = run(obs)
    assert BEFORE.name in {one.revision for one in actions(plan, EnsureSearchers)}
    assert actions(plan, MoveTraffic) == []
    (row,) = plan.status.blocked_by
    assert (row.rule, row.subject) == ("RollbackTargetNotReady", BEFORE.name)
    assert f"seen to be gone at {GONE_AT}" in row.message
    ready = replace(obs, loaded={**obs.loaded, BEFORE.name: loaded(BEFORE)})
    (move,) = actions(run(ready), MoveTraffic)
    assert move.decision.to_revision == BEFORE.name
