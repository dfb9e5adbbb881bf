"""`source.schedule`: the source is looked at at times of the clock, once for each, and never for nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from observations import (
    DATA,
    HOUR,
    NEW_DATA,
    NOW,
    SETTINGS,
    actions,
    after,
    index,
    listing,
    run,
    seen,
    source,
    spec,
    with_spec,
)
from pydantic import ValidationError
from unit.test_lifecycle_polls import QUIET, asked, listed, look, polling, told

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Schedule, VectorIndexSpec, VectorIndexStatus
from vectorindex_operator.core import identity, recipe
from vectorindex_operator.core.look_times import SPREAD_SECONDS, Times, around, delay, look_times
from vectorindex_operator.core.observation import Observation
from vectorindex_operator.core.plan import CreateRevision, Plan
from vectorindex_operator.manifests import revisions

NIGHTLY = {"cron": "0 3 * * *"}
OF = spec(source={"poll": "0", "schedule": NIGHTLY}, **QUIET)
STABLE = polling(OF)
TODAY = NOW - 5 * HOUR + delay("uid-docs")
"""The look of three o'clock this morning: NOW is eight o'clock, of a Friday in January."""
TOMORROW = TODAY + 24 * HOUR


def at_rest(since: float, of: VectorIndexSpec = OF, data: str = DATA) -> Observation:
    """Stable serves, and the source was listed at `since`."""
    done = listing(of, data, created_at=since, finished_at=since + 20)
    return seen(of, STABLE, traffic=STABLE, jobs=(done,))


def looks(plan: Plan) -> bool:
    return plan.ask is not None or listed(plan)


# ---------------------------------------------------------------- which times

ZURICH = ZoneInfo("Europe/Zurich")
SPRING, AUTUMN = (2026, 3, 29), (2026, 10, 25)


def wall(day: tuple[int, int, int], text: str, fold: int = 0) -> float:
    hour, minute = map(int, text.split(":"))
    return datetime(*day, hour, minute, tzinfo=ZURICH, fold=fold).timestamp()


@pytest.mark.parametrize(
    ("cron", "at", "last", "coming"),
    [
        # 02:30 is skipped: right after the gap, once
        ("30 2 * * *", wall(SPRING, "01:59"), wall((2026, 3, 28), "02:30"), wall(SPRING, "03:00")),
        ("30 2 * * *", wall(SPRING, "03:00"), wall(SPRING, "03:00"), wall((2026, 3, 30), "02:30")),
        ("30 2 * * *", wall(SPRING, "05:00"), wall(SPRING, "03:00"), wall((2026, 3, 30), "02:30")),
        # 02:50 comes twice: the first counts, also as seen from before the second
        ("50 2 * * *", wall(AUTUMN, "02:49"), wall((2026, 10, 24), "02:50"), wall(AUTUMN, "02:50")),
        ("50 2 * * *", wall(AUTUMN, "02:50"), wall(AUTUMN, "02:50"), wall((2026, 10, 26), "02:50")),
        ("50 2 * * *", wall(AUTUMN, "02:20", fold=1), wall(AUTUMN, "02:50"), wall((2026, 10, 26), "02:50")),
        ("50 2 * * *", wall(AUTUMN, "02:55", fold=1), wall(AUTUMN, "02:50"), wall((2026, 10, 26), "02:50")),
        # what recurs goes on evenly
        ("*/30 * * * *", wall(AUTUMN, "02:45"), wall(AUTUMN, "02:30"), wall(AUTUMN, "02:00", fold=1)),
        ("*/30 * * * *", wall(SPRING, "01:45"), wall(SPRING, "01:30"), wall(SPRING, "03:00")),
        ("15 * * * *", wall(AUTUMN, "02:20", fold=1), wall(AUTUMN, "02:15", fold=1), wall(AUTUMN, "03:15")),
        ("0 0 29 2 *", wall(AUTUMN, "12:00"), wall((2024, 2, 29), "00:00"), wall((2028, 2, 29), "00:00")),
    ],
)
def test_times_around_a_moment(cron: str, at: float, last: float, coming: float) -> None:
    assert around(Schedule(cron=cron, time_zone="Europe/Zurich"), at) == (last, coming)


@pytest.mark.parametrize("cron", ["*/20 * * * *", "0,30 1-3 * * *", "15 */2 * * *", "45 2 * * *"])
@pytest.mark.parametrize("day", [SPRING, AUTUMN, (2026, 6, 1)])
def test_no_time_is_lost_and_none_comes_twice(cron: str, day: tuple[int, int, int]) -> None:
    """Seen from any moment of a night: a time stays the next one until it has come, and then is the last one."""
    schedule, begin = Schedule(cron=cron, time_zone="Europe/Zurich"), wall(day, "00:00")
    last, coming = around(schedule, begin)
    for minute in range(0, 6 * 60, 5):
        at = begin + 60 * minute
        before, later = around(schedule, at)
        assert before <= at < later
        assert (before, later) == (last, coming) if at < coming else before == coming
        last, coming = before, later


def test_looks_at_the_same_time_are_spread_and_those_of_one_index_are_not() -> None:
    delays = [delay(f"uid-{number}") for number in range(1000)]
    assert delays == [delay(f"uid-{number}") for number in range(1000)]
    assert (min(delays) >= 0, max(delays) < SPREAD_SECONDS) == (True, True)
    assert max(delays.count(one) for one in set(delays)) < 15
    times = [look_times(OF, f"uid-{number}", NOW) for number in range(3)]
    assert [one.due(0) - TODAY + delay("uid-docs") for one in times if one] == delays[:3]


# ---------------------------------------------------------------- what is looked at, and when


def test_between_its_times_nothing_is_looked_at_and_nothing_written() -> None:
    obs = after(at_rest(TODAY), run(at_rest(TODAY)))
    for hour in range(18):
        plan = run(obs, NOW + hour * HOUR)
        assert (looks(plan), plan.status) == (False, obs.index.status)
    assert run(obs, TOMORROW - 7).requeue_after == pytest.approx(7)


def test_at_its_time_one_searcher_is_asked_once() -> None:
    obs = at_rest(TODAY)
    question = asked(obs, TOMORROW)
    assert question.max_age == 0
    obs = told(obs, look(question), question, TOMORROW)
    for minutes in (0, 1, 30, 23 * 60):
        assert not looks(run(obs, TOMORROW + 60 * minutes))
    assert looks(run(obs, TOMORROW + 24 * HOUR))


def test_of_times_that_nobody_was_there_for_one_look_is_made() -> None:
    obs, asks = at_rest(TODAY - 30 * 24 * HOUR), 0
    for hour in range(12):
        now = NOW + hour * HOUR
        plan = run(obs, now)
        assert not listed(plan)
        if plan.ask is not None:
            obs, asks = told(obs, look(plan.ask), plan.ask, now), asks + 1
    assert asks == 1


def test_new_data_is_listed_by_one_job() -> None:
    obs = at_rest(TODAY)
    question = asked(obs, TOMORROW)
    obs = told(obs, look(question, NEW_DATA), question, TOMORROW)
    assert listed(run(obs, TOMORROW + 1))
    done = listing(OF, NEW_DATA, name="docs-resolve-2", created_at=TOMORROW + 1, finished_at=TOMORROW + 30)
    assert not looks(run(replace(obs, jobs=(done,)), TOMORROW + 31))


def test_a_restarted_operator_asks_the_same_pod_which_need_not_list_again() -> None:
    """What was heard is gone with the operator before. The pod listed after three o'clock, and answers from that."""
    obs = at_rest(TODAY - 24 * HOUR)
    first, later = asked(obs, TODAY), asked(obs, NOW)
    assert {asked(obs, TODAY + hour * HOUR).pod for hour in range(24)} == {first.pod}
    assert (first.pod, later.max_age) == (later.pod, NOW - TODAY)
    answer = look(later, age_seconds=NOW - TODAY - 1)
    assert not looks(run(told(obs, answer, later), NOW + 1))


def test_it_asks_the_same_pod_also_where_others_have_come_since() -> None:
    """An autoscaler adds them by day."""
    names = [f"docs-{number}" for number in range(4)]
    kept, asked_first = 0, set()
    for day in range(100):
        times = Times(TODAY + day * 24 * HOUR, 0.0, 0.0)
        before, later = times.whose_turn(names[:3]), times.whose_turn(names)
        kept += before == later
        asked_first.add(before)
    assert (kept > 60, asked_first) == (True, {0, 1, 2})


def test_a_listing_from_before_the_time_is_no_look_at_it() -> None:
    obs = at_rest(TODAY)
    question = asked(obs, TOMORROW + 10)
    stale = look(question, NEW_DATA, age_seconds=3 * HOUR)
    assert not listed(run(told(obs, stale, question, TOMORROW + 10), TOMORROW + 11))


def test_a_job_that_began_before_the_time_is_no_look_at_it() -> None:
    """It may have listed before three o'clock and ended after it."""
    slow = listing(OF, created_at=TODAY - 5, finished_at=TODAY + 5)
    assert looks(run(seen(OF, STABLE, traffic=STABLE, jobs=(slow,))))


def test_a_job_looks_where_no_searcher_can_be_asked() -> None:
    obs = replace(at_rest(TODAY), loaded={})
    assert listed(run(obs, TOMORROW))
    assert not looks(run(obs, NOW))


def test_a_result_that_went_with_its_node_long_ago_is_not_looked_for_between_the_times() -> None:
    """It was read. Just after the listing it may not have been."""
    done = listing(OF, created_at=TODAY, finished_at=TODAY + 20, result=None)
    view = index(OF, VectorIndexStatus(source=source(OF).model_copy(update={"at": to_text(NOW - 240 * HOUR)})))
    obs = seen(OF, STABLE, traffic=STABLE, jobs=(done,), index=view)
    assert listed(run(obs, TODAY + 60))
    assert not looks(run(obs))


def test_without_a_job_the_last_listing_is_that_of_the_status() -> None:
    view = index(OF, VectorIndexStatus(source=source(OF)))
    obs = seen(OF, STABLE, traffic=STABLE, jobs=(), index=view)
    assert not looks(run(obs))
    assert looks(run(obs, TOMORROW))


@pytest.mark.parametrize("held", [{"suspend": True}, {"pinRevision": STABLE.name}])
def test_while_it_is_suspended_or_pinned_nobody_looks_and_later_once(held: dict[str, Any]) -> None:
    of = spec(source={"poll": "0", "schedule": NIGHTLY}, **QUIET, **held)
    obs = at_rest(TODAY, of)
    assert not looks(run(obs, TOMORROW + HOUR))
    assert looks(run(at_rest(TODAY), TOMORROW + HOUR))


def test_the_first_listing_and_one_of_an_edited_source_wait_for_no_time() -> None:
    assert listed(run(Observation(index=index(OF))))
    moved = spec(source={"poll": "0", "schedule": NIGHTLY, "s3": {"prefix": "new/"}}, **QUIET)
    assert listed(run(with_spec(at_rest(TODAY), spec=moved)))


# ---------------------------------------------------------------- what it is beside


def test_it_stands_in_the_place_of_poll_for_the_source_and_not_for_deleted_ids() -> None:
    of = spec(source={"poll": "5m", "schedule": NIGHTLY, "tombstones": {"prefix": "gone/"}}, **QUIET)
    assert not looks(run(seen(of, polling(of), traffic=polling(of), jobs=(listing(of, created_at=TODAY),))))
    assert recipe.tombstone_poll(of) == 300.0


def test_it_changes_nothing_that_a_revision_is_made_of() -> None:
    plain = spec(source={"poll": "0"}, **QUIET)
    assert identity.digest(OF, DATA) == identity.digest(plain, DATA)
    assert identity.source_hash(OF) == identity.source_hash(plain)


@pytest.mark.parametrize(
    ("source_of", "told_of_it"), [({"poll": "0", "schedule": NIGHTLY}, True), ({"poll": "0"}, False)]
)
def test_searchers_are_told_of_the_source(source_of: dict[str, Any], told_of_it: bool) -> None:
    of = spec(source=source_of)
    (make,) = actions(run(seen(of)), CreateRevision)
    frozen = revisions.revision(make, index(of), of, SETTINGS)["spec"]
    assert ("sourcePoll" in frozen) == told_of_it


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("schedule", "field", "why"),
    [
        ({"cron": "0 3 * *"}, "cron", "minute, hour, day of month"),
        ({"cron": "0 0 3 * * *"}, "cron", "minute, hour, day of month"),
        ({"cron": "60 3 * * *"}, "cron", "minute, hour, day of month"),
        ({"cron": "0 3 L * *"}, "cron", "minute, hour, day of month"),
        ({"cron": "0 3 * * MON#1"}, "cron", "minute, hour, day of month"),
        ({"cron": "*/0 * * * *"}, "cron", "minute, hour, day of month"),
        ({"cron": "@daily"}, "cron", "such as 0 3 * * *"),
        ({"cron": "0 3 30 2 *"}, "cron", "bad day-of-month"),
        ({"cron": "0 3 * * MON-SUN"}, "cron", "bad day-of-week"),
        ({"cron": "0 3 * FOO *"}, "cron", "bad month"),
        ({"cron": "30-10 3 * * *"}, "cron", "bad minute"),
        ({"cron": "0 3 * * *", "timeZone": "Europe/Zurch"}, "timeZone", "no such time zone"),
        ({"cron": "0 3 * * *", "timeZone": "Europe"}, "timeZone", "no such time zone"),
        ({"cron": "0 3 * * *", "timeZone": "../../etc/passwd"}, "timeZone", "should match"),
        ({"cron": "0 3 * * *", "timeZone": ""}, "timeZone", "should match"),
        ({"cron": "0 3 * * *", "zone": "UTC"}, "zone", "not permitted"),
        ({}, "cron", "required"),
    ],
)
def test_what_no_clock_shows_is_refused(schedule: dict[str, str], field: str, why: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Schedule.model_validate(schedule)
    (fault,) = caught.value.errors()
    assert fault["loc"] == (field,)
    assert why in fault["msg"]


@pytest.mark.parametrize("cron", ["0 3 * * *", "*/30 6-20 * * MON-FRI", "5,35 0-23/2 1,15 jan-jun 0-7", "0  3 * * sun"])
def test_what_clocks_show_is_taken(cron: str) -> None:
    last, coming = around(Schedule(cron=cron, time_zone="Pacific/Auckland"), NOW)
    assert last <= NOW < coming


def test_a_clock_that_is_set_back_asks_nobody_again() -> None:
    obs = at_rest(TODAY)
    question = asked(obs, TOMORROW)
    obs = told(obs, look(question), question, TOMORROW)
    assert not looks(run(obs, TOMORROW - 600))
