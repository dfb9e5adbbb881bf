"""What the searchers of a candidate are told of the columns that users filter by: those of what a rollback goes to."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from observations import HOUR, NOW, SETTINGS, a_revision, actions, after, condition, report, run, seen, spec

from vectorindex_operator.api.v1alpha1 import RolloutStatus, VectorIndexSpec
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.observation import Observation, RevisionView
from vectorindex_operator.core.plan import EnsureSearchers, Plan, WriteRevisionStatus
from vectorindex_operator.manifests.searchers import deployment
from vectorindex_searcher.contract import COLUMNS_BEFORE_ENV
from vectorindex_searcher.serve.settings import Settings

RULES: dict[str, Any] = {"rules": [{"name": "lost", "metric": "FiltersLost", "max": "2%"}]}


def of(columns: list[str], factory: str = "Auto", **changes: Any) -> VectorIndexSpec:
    return spec(source={"columns": {"metadata": columns}}, index={"factory": factory}, **changes)


def stable(columns: list[str], letters: str | None) -> RevisionView:
    before = of(columns, "Flat")
    return a_revision(before, "Stable", created=NOW - 48 * HOUR, report=report(before, column_types=letters))


def begun(plan: Plan, view: RevisionView) -> RolloutStatus:
    (status,) = [one.status for one in actions(plan, WriteRevisionStatus) if one.revision == view.name]
    assert (status.phase, status.rollout is not None) == ("Surging", True)
    assert status.rollout is not None
    return status.rollout


def told(obs: Observation, plan: Plan, view: RevisionView) -> dict[str, str]:
    """The environment of its searchers."""
    (load,) = [one for one in actions(plan, EnsureSearchers) if one.revision == view.name]
    pod = deployment(load, obs.index, view, SETTINGS.internal_keys)["spec"]["template"]["spec"]
    return {entry["name"]: entry.get("value", "") for entry in pod["containers"][0]["env"]}


def test_a_candidate_knows_the_columns_of_what_a_rollback_goes_to() -> None:
    before, now = stable(["lang", "price"], "sf"), of(["lang"], guardrails=RULES)
    candidate = a_revision(now, "Validated")
    obs = seen(now, before, candidate, traffic=before)
    plan = run(obs)
    assert (begun(plan, candidate).prior, begun(plan, candidate).columns_before) == (
        before.name,
        {"lang": "s", "price": "f"},
    )
    env = told(obs, plan, candidate)
    assert Settings.from_environment(env).columns_before == {"lang": "s", "price": "f"}


@pytest.mark.parametrize("letters", [None, "s"], ids=["a report of before", "half of one"])
def test_what_is_not_known_of_the_prior_is_not_guessed(letters: str | None) -> None:
    before, now = stable(["lang", "price"], letters), of(["lang"], guardrails=RULES)
    candidate = a_revision(now, "Validated")
    obs = seen(now, before, candidate, traffic=before)
    plan = run(obs)
    assert begun(plan, candidate).columns_before is None
    assert COLUMNS_BEFORE_ENV not in told(obs, plan, candidate)


@pytest.mark.parametrize(
    ("before_takes", "now_takes", "known"),
    [
        (True, False, {"lang": "s"}),  # each filter that is refused was taken
        (True, True, {"lang": "s"}),
        (None, True, {"lang": "s"}),
        (None, None, {"lang": "s"}),
        (None, False, None),  # both may be of a type that takes none
        (False, False, {}),
        (False, True, {}),
    ],
)
def test_an_index_that_took_no_filter_has_none_to_lose(
    before_takes: bool | None, now_takes: bool | None, known: dict[str, str] | None
) -> None:
    was, now = of(["lang"], "Flat"), of(["lang"], guardrails=RULES)
    told_before = report(was, column_types="s", filters=before_takes)
    before = a_revision(was, "Stable", created=NOW - 48 * HOUR, report=told_before)
    candidate = a_revision(now, "Validated", report=report(now, column_types="s", filters=now_takes))
    assert begun(run(seen(now, before, candidate, traffic=before)), candidate).columns_before == known


def test_what_the_gate_lets_through_and_users_may_miss_is_told_once() -> None:
    before, now = stable(["lang", "price"], "sf"), of(["lang"])
    proven = a_revision(now, "Validating", report=report(now, column_types="s"))
    obs = seen(now, before, proven, traffic=before)
    plan = run(obs)
    (event,) = [one for one in plan.events if one.reason is EventReason.FILTERS_DROPPED]
    assert (event.warning, event.revision, "'price'" in event.message) == (True, proven.name, True)
    assert event.message in condition(plan.status, "Validated")[2]
    later = run(after(obs, plan), NOW + 5)
    assert EventReason.FILTERS_DROPPED not in [one.reason for one in later.events]


def test_where_there_was_no_column_or_no_revision_that_is_known() -> None:
    now = of(["lang"], guardrails=RULES)
    candidate, before = a_revision(now, "Validated"), stable([], None)
    assert begun(run(seen(now, before, candidate, traffic=before)), candidate).columns_before == {}
    assert begun(run(seen(now, candidate)), candidate).columns_before == {}


def test_nothing_is_told_where_no_rule_asks() -> None:
    """So an upgrade, and an edit that is no rule, changes no pod."""
    before, now = stable(["lang", "price"], "sf"), of(["lang"])
    candidate = a_revision(now, "Validated")
    obs = seen(now, before, candidate, traffic=before)
    plan = run(obs)
    assert begun(plan, candidate).columns_before is None
    assert COLUMNS_BEFORE_ENV not in told(obs, plan, candidate)
    assert COLUMNS_BEFORE_ENV not in told(obs, plan, before)


def test_what_was_told_is_told_for_as_long_as_the_revision_is_loaded() -> None:
    """Whatever becomes of the prior, and of the rule in the spec: its pods are not restarted for it."""
    now = of(["lang"], guardrails=RULES)
    candidate = a_revision(now, "Stable")
    rollout = candidate.status.rollout
    assert rollout is not None
    frozen = rollout.model_copy(update={"prior": "long-gone", "columns_before": {"price": "f"}})
    candidate = replace(candidate, status=candidate.status.model_copy(update={"rollout": frozen}))
    for edited in (now, of(["lang"]), of(["lang"], guardrails={"rules": []})):
        obs = seen(edited, candidate, traffic=candidate)
        assert json.loads(told(obs, run(obs), candidate)[COLUMNS_BEFORE_ENV]) == {"price": "f"}
