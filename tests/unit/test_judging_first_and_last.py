"""The two ends of judging: whom to ask (questions) and what a verdict leads to (acts). And one home for each name."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from observations import HOUR, NOW, a_revision, front, seen, spec

import vectorindex_operator
from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.core.judging.acts import ACTS, Act, Situation
from vectorindex_operator.core.judging.questions import Purpose, Question, questions
from vectorindex_operator.core.judging.rules import Verdict
from vectorindex_operator.core.observation import Observation, RevisionView
from vectorindex_operator.core.traffic import Decision, DecisionKind
from vectorindex_searcher.contract import RING_SECONDS

RELATIVE = {"name": "scores", "metric": "TopScore", "maxDropVsStable": "5%"}
ABSOLUTE = {"name": "errors", "metric": "ErrorRate", "max": "2%"}


def stable(*rules: dict[str, str], promoted: float = NOW - HOUR, **status: Any) -> RevisionView:
    return a_revision(spec(guardrails={"rules": list(rules)}), "Stable", created=promoted, **status)


def asked(view: RevisionView, *others: RevisionView, **changes: Any) -> list[tuple[str, Purpose]]:
    return [(one.revision, one.purpose) for one in questions(of(view, *others, **changes), NOW)]


def of(view: RevisionView, *others: RevisionView, **changes: Any) -> Observation:
    return seen(spec(), view, *others, traffic=view, **changes)


def test_who_cannot_be_judged_is_not_asked() -> None:
    assert asked(stable(ABSOLUTE)) == [(stable().name, Purpose.WATCH)]
    assert asked(stable()) == []  # no rules
    assert asked(stable(RELATIVE)) == []  # the baseline is of another day
    assert asked(stable(ABSOLUTE, promoted=NOW - 25 * HOUR)) == []
    assert asked(stable(ABSOLUTE, promoted=NOW - 48 * HOUR, restored_at=to_text(NOW - HOUR))) != []
    assert questions(seen(spec(), stable(ABSOLUTE)), NOW) == ()  # it has no traffic
    tripped = {"rule": "errors", "reason": "ErrorRate", "message": "", "at": to_text(NOW)}
    assert asked(with_rollout(stable(ABSOLUTE), trip=tripped)) == []
    assert asked(with_rollout(stable(ABSOLUTE), trip=tripped | {"rule": "Manual"})) != []


def with_rollout(view: RevisionView, **changes: Any) -> RevisionView:
    assert view.status.rollout is not None
    rollout = view.status.rollout.model_validate({**view.status.rollout.model_dump(), **changes})
    return replace(view, status=view.status.model_copy(update={"rollout": rollout}))


def soak(*rules: dict[str, str], queries: int = 500, switched: float = NOW - 600, **rollout: Any) -> RevisionView:
    asks = spec(
        index={"factory": "HNSW32"}, guardrails={"rules": list(rules)}, rollout={"soak": {"minQueries": queries}}
    )
    view = a_revision(asks, "Soaking", created=switched)
    return with_rollout(view, switched_at=to_text(switched), prior=stable().name, **rollout)


def test_a_soak_needs_its_queries_counted_even_without_rules() -> None:
    assert asked(soak(), stable()) == [(soak().name, Purpose.SOAK)]
    assert asked(soak(queries=0), stable()) == []


def test_the_prior_is_asked_only_for_a_baseline_that_somebody_needs() -> None:
    assert asked(soak(ABSOLUTE), stable()) == [(soak().name, Purpose.SOAK)]
    assert asked(soak(ABSOLUTE, RELATIVE), stable())[1:] == [(stable().name, Purpose.BASELINE)]
    known = {"from": 0, "to": 1, "segments": []}
    assert asked(soak(RELATIVE, baseline=known), stable()) == [(soak().name, Purpose.SOAK)]


def test_since_is_no_earlier_than_what_is_judged() -> None:
    (question,) = questions(of(soak(ABSOLUTE), stable()), NOW)
    assert question == Question(soak().name, NOW - 605, Purpose.SOAK)
    (question,) = questions(of(soak(ABSOLUTE, switched=NOW - 5 * HOUR), stable()), NOW)
    assert question.since == NOW - RING_SECONDS
    (_, baseline) = questions(of(soak(RELATIVE), stable()), NOW)
    assert baseline.since == NOW - 600 - 900


def test_a_switch_that_the_status_does_not_know_yet_is_known_by_the_service() -> None:
    view = with_rollout(a_revision(spec(), "Surging"), switched_at=None)
    decision = Decision(DecisionKind.SWITCH, "", view.name, "Surge", "Ready", "", NOW - 30)
    obs = replace(seen(spec(), view), traffic=front(view, decision))
    assert questions(obs, NOW) == (Question(view.name, NOW - 35, Purpose.SOAK),)


TABLE = """
| Shadowing | Reject | HoldOrReject | HoldOrAsk | Switch |
| Shifting | Withdraw | Hold | HoldForATime | NextStep |
| Soaking | RollBack | Hold | HoldForATime | Promote |
| Steady | SteadyState | Nothing | Nothing | Nothing |
"""


def test_every_situation_and_verdict_has_its_act() -> None:
    assert set(ACTS) == set(product(Situation, Verdict))
    order = (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.PASS)
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in TABLE.strip().splitlines()]
    assert {(Situation(r[0]), v): Act(a) for r in rows for v, a in zip(order, r[1:], strict=True)} == dict(ACTS)


@pytest.mark.parametrize("path", sorted(Path(vectorindex_operator.__file__).parent.glob("core/**/*.py")), ids=str)
def test_no_module_of_the_core_hands_on_what_it_imports(path: Path) -> None:
    """A name has one home: `import X as X` would make a second one."""
    assert re.findall(r"import (\w+) as \1\b", path.read_text()) == []
