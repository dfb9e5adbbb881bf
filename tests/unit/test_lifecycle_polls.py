"""The source is looked at by stable's searchers: a Job lists only where they say that it changed, or cannot say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from observations import (
    DATA,
    HOUR,
    NEW_DATA,
    NOW,
    a_revision,
    actions,
    index,
    listing,
    loaded,
    pod,
    run,
    seen,
    source,
    spec,
)

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import SourcePoll, VectorIndexSpec, VectorIndexStatus
from vectorindex_operator.core.observation import JobState, Observation, RevisionView
from vectorindex_operator.core.plan import Plan, StartResolve
from vectorindex_operator.core.progress.poll import FIRST_WAIT_SECONDS, MOST_ASKS
from vectorindex_operator.core.source_poll import Heard, Said, SourceAnswer, SourceQuestion, hear
from vectorindex_searcher.contract import SourceLook

POLL = 300.0
QUIET: dict[str, Any] = {"guardrails": {"rules": []}}
"""Nobody watches what is stable."""
OF = spec(source={"tombstones": {"prefix": "gone/"}}, **QUIET)


def polling(of: VectorIndexSpec = OF, phase: str = "Stable", **changes: Any) -> RevisionView:
    """A revision whose searchers were told what to list."""
    view = a_revision(of, phase, **changes)
    return replace(view, spec=view.spec.model_copy(update={"source_poll": SourcePoll()}))


STABLE = polling()


def idle(of: VectorIndexSpec = OF, view: RevisionView = STABLE, **changes: Any) -> Observation:
    """Stable serves; the source was listed an hour ago."""
    at = NOW - HOUR
    done = listing(of, created_at=at, finished_at=at)
    return seen(of, view, traffic=view, jobs=(done,), **changes)


def listed(plan: Plan) -> bool:
    return bool(actions(plan, StartResolve))


def asked(obs: Observation, now: float = NOW) -> SourceQuestion:
    """The question of a pass that starts no Job."""
    plan = run(obs, now)
    assert plan.ask is not None
    assert not listed(plan)
    return plan.ask


def look(question: SourceQuestion, fingerprint: str = DATA, **changes: Any) -> SourceLook:
    return SourceLook(
        pod=question.pod, revision=question.revision, source=question.source, fingerprint=fingerprint, **changes
    )


def told(
    obs: Observation, answer: SourceLook | SourceAnswer, question: SourceQuestion, now: float = NOW
) -> Observation:
    """The observation of after the answer."""
    got = answer if isinstance(answer, SourceAnswer) else SourceAnswer(answer)
    return replace(obs, heard=hear(question, now, got, now))


# ---------------------------------------------------------------- what costs nothing


def test_a_poll_of_an_idle_index_is_a_question_to_one_pod_and_no_job() -> None:
    plan = run(idle())
    assert plan.ask is not None
    assert plan.ask.pod in [pod.name for pod in loaded(STABLE).pods]
    assert plan.actions == tuple(one for one in plan.actions if type(one).__name__ in ("EnsureSearchers",))
    assert plan.requeue_after == POLL


def test_a_source_that_is_as_it_was_is_asked_for_once_a_poll_and_never_listed_by_a_job() -> None:
    obs, now, asks = idle(), NOW, 0
    for _ in range(50):
        plan = run(obs, now)
        assert not listed(plan)
        if plan.ask is not None:
            obs, asks = told(obs, look(plan.ask), plan.ask, now), asks + 1
        now += plan.requeue_after
    assert asks == 50


def test_pods_are_asked_in_turn() -> None:
    obs, pods = idle(), set()
    for number in range(4):
        question = asked(obs, NOW + number * POLL)
        pods.add(question.pod)
        obs = told(obs, look(question), question, NOW + number * POLL)
    assert len(pods) == 2


def test_after_a_restart_of_the_operator_a_pod_that_listed_lately_need_not_list_again() -> None:
    assert asked(idle()).max_age == POLL / 2


def test_nothing_is_asked_before_a_poll_is_over() -> None:
    at = NOW - POLL + 1
    plan = run(seen(OF, STABLE, traffic=STABLE, jobs=(listing(OF, created_at=at, finished_at=at),)))
    assert (plan.ask, listed(plan)) == (None, False)
    assert plan.requeue_after == pytest.approx(1.0)


def test_polling_that_is_off_asks_nobody() -> None:
    of = spec(source={"poll": "0"}, **QUIET)
    plan = run(idle(of, polling(of)))
    assert (plan.ask, listed(plan)) == (None, False)


def test_without_a_job_the_last_listing_is_that_of_the_status() -> None:
    """Somebody removed finished Jobs."""
    view = index(OF, VectorIndexStatus(source=source(OF)))
    obs = idle(index=view)
    question = asked(replace(obs, jobs=()))
    assert question.after == ""
    assert not listed(run(told(replace(obs, jobs=()), look(question), question)))
    assert listed(run(told(replace(obs, jobs=()), look(question, NEW_DATA), question)))


# ---------------------------------------------------------------- what leads to a Job


def test_a_source_that_changed_is_listed_by_one_job() -> None:
    obs = idle()
    question = asked(obs)
    obs = told(obs, look(question, NEW_DATA), question)
    plan = run(obs)
    (start,) = actions(plan, StartResolve)
    assert plan.ask is None
    # What was heard before that Job says nothing any more, whatever the clocks say.
    done = listing(OF, name=start.name, key=start.key, created_at=NOW - 90, finished_at=NOW - 60)
    plan = run(replace(obs, jobs=(done,)))
    assert (plan.ask, listed(plan)) == (None, False)


def test_a_pod_that_always_says_changed_costs_a_job_a_poll() -> None:
    obs, now, jobs = idle(), NOW, 0
    while now < NOW + 20 * POLL:
        plan = run(obs, now)
        if plan.ask is not None:
            obs = told(obs, look(plan.ask, "ab" * 32), plan.ask, now)
            continue
        for start in actions(plan, StartResolve):
            jobs += 1
            done = listing(OF, name=start.name, key=start.key, created_at=now, finished_at=now + 3)
            obs = replace(obs, jobs=(done,))
        now += max(plan.requeue_after, 1.0)
    assert jobs <= 20


def test_what_was_said_is_compared_with_what_the_last_job_found_also_where_that_is_held_back() -> None:
    """minInterval holds new data back: the searchers see it too, and it is no news."""
    view = index(OF, VectorIndexStatus(source=source(OF).model_copy(update={"at": to_text(NOW - POLL - 60)})))
    at = NOW - POLL - 1
    obs = idle(index=view)
    obs = replace(obs, jobs=(listing(OF, NEW_DATA, created_at=at, finished_at=at),))
    question = asked(obs)
    assert question.known == NEW_DATA
    assert not listed(run(told(obs, look(question, NEW_DATA), question)))


def test_what_is_held_back_is_said_with_the_time_when_it_goes_on() -> None:
    listed_at = NOW - POLL - 60
    view = index(OF, VectorIndexStatus(source=source(OF).model_copy(update={"at": to_text(listed_at)})))
    obs = replace(idle(index=view), jobs=(listing(OF, NEW_DATA, created_at=NOW - 1, finished_at=NOW - 1),))
    (row,) = (one for one in run(obs).status.blocked_by if one.rule == "NewDataWaits")
    assert to_text(listed_at + 600) in row.message
    assert "source.minInterval 10m" in row.message
    assert not [one for one in run(idle()).status.blocked_by if one.rule == "NewDataWaits"]


@pytest.mark.parametrize(
    "edit",
    [
        {"s3": {"endpoint": "http://other:9000"}},
        {"s3": {"prefix": "new/"}},
        {"s3": {"bucket": "elsewhere"}},
        {"tombstones": {"prefix": "docs/deleted/"}},
    ],
)
def test_searchers_that_were_told_of_another_source_are_not_asked(edit: dict[str, Any]) -> None:
    """A Job listed the new place already; the next revision's searchers will be told of it."""
    of = spec(source={"tombstones": {"prefix": "gone/"}} | edit, **QUIET)
    told_before = polling(OF)
    plan = run(idle(of, told_before))
    same_place = "endpoint" in edit.get("s3", {})  # how to reach it is live
    assert (plan.ask is not None, listed(plan)) == (same_place, not same_place)


def test_queries_that_came_to_lie_below_the_source_are_no_rows() -> None:
    of = spec(gate={"queries": {"s3": {"bucket": "vectors", "prefix": "docs/queries/"}}}, **QUIET)
    assert listed(run(idle(of, polling(of))))  # its pods were told before


@pytest.mark.parametrize("why", ["an earlier release", "no pod", "nothing is stable", "unable"])
def test_a_job_lists_where_nobody_can_be_asked(why: str) -> None:
    if why == "an earlier release":
        obs = idle(view=a_revision(OF, "Stable"))
    elif why == "no pod":
        obs = idle()
        obs = replace(obs, loaded={STABLE.name: loaded(STABLE, pod("a", ready=False), pod("b", deleting=True))})
    elif why == "nothing is stable":
        obs = idle(view=polling(phase="Rejected"))
    else:
        obs = idle()
        question = asked(obs)
        obs = told(obs, SourceAnswer(problem="404", unable=True), question)
    assert listed(run(obs))


@pytest.mark.parametrize("said", ["silent", "denied", "under way", "told of another source", "another revision", "old"])
def test_who_cannot_tell_is_asked_again_and_then_a_job_lists(said: str) -> None:
    obs, now, asks, pods = idle(), NOW, 0, set()
    while True:
        assert asks <= MOST_ASKS, "no Job lists"
        plan = run(obs, now)
        if listed(plan):
            break
        if plan.ask is None:
            now += plan.requeue_after
            continue
        asks, question = asks + 1, plan.ask
        pods.add(question.pod)
        answers: dict[str, SourceAnswer] = {
            "silent": SourceAnswer(problem="no whole answer within 2 s"),
            "denied": SourceAnswer(look(question, "", reason="AccessDenied", message="may not list")),
            "under way": SourceAnswer(look(question, "", under_way=True)),
            "told of another source": SourceAnswer(look(question).model_copy(update={"source": "0" * 16})),
            "another revision": SourceAnswer(look(question).model_copy(update={"revision": "docs-other"})),
            "old": SourceAnswer(look(question, age_seconds=POLL)),
        }
        obs = told(obs, answers[said], question, now)
    assert asks == MOST_ASKS
    assert len(pods) == (1 if said == "under way" else 2)
    assert now - NOW == pytest.approx(FIRST_WAIT_SECONDS * (2 ** (MOST_ASKS - 1) - 1))


def test_an_answer_about_another_source_is_not_believed() -> None:
    """Its pod was told to list something else: that this is as it was says nothing about the source of today."""
    question = asked(idle())
    other = look(question).model_copy(update={"source": "0123456789abcdef"})
    assert hear(question, NOW, SourceAnswer(other), NOW).said is Said.MISTOLD
    assert hear(question, NOW, SourceAnswer(look(question)), NOW).said is Said.SAME


def test_what_was_heard_about_another_spec_or_listing_is_forgotten() -> None:
    obs = idle()
    question = asked(obs)
    for change in ({"revision": "docs-old"}, {"source": "0" * 16}, {"known": NEW_DATA}, {"after": "docs-resolve-0"}):
        old = replace(question, **change)
        fresh = replace(obs, heard=Heard(old, NOW, Said.SAME, NOW))
        assert asked(fresh) == question


def test_a_failed_listing_is_tried_again_by_jobs_alone() -> None:
    failed = replace(listing(OF), state=JobState.FAILED, result=None, finished_at=NOW - HOUR)
    plan = run(replace(idle(), jobs=(failed,)))
    assert (plan.ask, listed(plan)) == (None, True)
