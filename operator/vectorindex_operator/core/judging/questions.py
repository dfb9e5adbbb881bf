"""The first step of judging: whose searchers are asked for evidence in this pass, since when, and what for.

Pure, and decided before anybody is asked: a revision without rules, or past its watch, costs no request.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from enum import StrEnum

from vectorindex_operator.api.timestamps import to_unix
from vectorindex_operator.api.v1alpha1 import GuardrailMetric, GuardrailRule, RevisionStatus, RolloutStatus
from vectorindex_operator.core.judging.figures import FigureQuestion, Subject, figure_questions
from vectorindex_operator.core.judging.rules import rule_of
from vectorindex_operator.core.observation import Observation, RevisionView
from vectorindex_operator.core.phase import CANDIDATE, Phase
from vectorindex_operator.core.safety.mirrors import shadow_of, soak_of
from vectorindex_operator.core.safety.roll_back import MANUAL
from vectorindex_searcher.contract import BUCKET_SECONDS, RING_SECONDS

STEADY_WATCH_SECONDS = 24 * 3600.0
"""For how long a stable revision is watched, from its promotion or restoration."""
BASELINE_SECONDS = 900.0
"""How much of stable's time before the switch relative rules compare with."""


class Purpose(StrEnum):
    """What the evidence is for. A soak is urgent: its answers have threads of their own."""

    SOAK = "Soak"
    WATCH = "Watch"
    BASELINE = "Baseline"
    SHADOW = "Shadow"
    """Pairs, of who sends queries and of who is judged by them."""
    FIGURES = "Figures"
    """Numbers, of the installation's Prometheus: no searcher is asked."""


@dataclass(frozen=True, slots=True)
class Question:
    """Ask the ready searchers of `revision` for their counts `since` then (Unix seconds)."""

    revision: str
    since: float
    purpose: Purpose
    shadow: str = ""
    """Of which shadow, where it is asked for pairs: for all of them, whatever `since` is."""
    figures: tuple[FigureQuestion, ...] = ()
    """What Prometheus is asked about `revision` and whom it is compared with."""


def questions(obs: Observation, now: float) -> tuple[Question, ...]:
    """Nobody is asked where the answer could change nothing."""
    of_traffic = _of_traffic(obs, now)
    asked = {question.revision for question in of_traffic}
    return (*of_traffic, *_of_shadows(obs), *_of_mirrors(obs), *_of_steps(obs, now, asked))


def _of_steps(obs: Observation, now: float, asked: Set[str]) -> Iterator[Question]:
    """Whose share grows by steps, and who serves at the same time: that one is asked once, also where it is watched."""
    serving = obs.traffic.revision
    for name, view in obs.revisions.items():
        rollout = view.status.rollout
        if view.status.phase != Phase.SHIFTING or rollout is None or rollout.steps is None or view.foreign_features:
            continue
        since = min(to_unix(rollout.steps.asked_at), now)
        if name != serving:
            yield Question(name, _visible(since, now), Purpose.SOAK)
            yield from _figures(obs, view, rollout, now)
            if needs_baseline(rollout) and serving and serving not in asked:
                yield Question(serving, since, Purpose.BASELINE)


def _of_shadows(obs: Observation) -> Iterator[Question]:
    if obs.index.spec is None:
        return  # no rollout goes on
    for name, view in obs.revisions.items():
        shadow = shadow_of(view.status)
        if shadow is not None and shadow.reference == obs.traffic.revision and not view.foreign_features:
            yield Question(shadow.reference, 0.0, Purpose.SHADOW, shadow.id)
            yield Question(name, 0.0, Purpose.SHADOW, shadow.id)


def _of_mirrors(obs: Observation) -> Iterator[Question]:
    """Who soaks, and the prior that it is compared with."""
    name = obs.traffic.revision
    view = obs.revisions.get(name)
    mirror = soak_of(name, view.status) if view is not None and not view.foreign_features else None
    if mirror is not None and mirror.reference in obs.revisions:
        yield Question(name, 0.0, Purpose.SHADOW, mirror.id)
        yield Question(mirror.reference, 0.0, Purpose.SHADOW, mirror.id)


def _of_traffic(obs: Observation, now: float) -> tuple[Question, ...]:
    name = obs.traffic.revision
    view = obs.revisions.get(name)
    if view is None or view.status.rollout is None or tripped(view.status.rollout):
        return ()
    return tuple(_questions(obs, view, view.status.rollout, now))


def _questions(obs: Observation, view: RevisionView, rollout: RolloutStatus, now: float) -> Iterator[Question]:
    switched = _just_switched(obs, view, now)
    if switched is not None:
        if rollout.guardrails.rules or rollout.settings.soak.min_queries:
            yield Question(view.name, _visible(switched, now), Purpose.SOAK)
        if rollout.prior and rollout.baseline is None and needs_baseline(rollout):
            yield Question(rollout.prior, switched - BASELINE_SECONDS, Purpose.BASELINE)
        yield from _figures(obs, view, rollout, now)
        return
    since = watched_since(view.status)
    absolute = any(not _is_relative(rule) and _is_counted(rule) for rule in rollout.guardrails.rules)
    if view.status.phase == Phase.STABLE and since is not None and now - since <= STEADY_WATCH_SECONDS:
        if absolute:
            yield Question(view.name, _visible(started_at(since, now), now), Purpose.WATCH)
        yield from _figures(obs, view, rollout, now)


def _figures(obs: Observation, view: RevisionView, rollout: RolloutStatus, now: float) -> Iterator[Question]:
    asked = figures_subject(obs, view.name, view.status, now)
    rules = [rule_of(rule) for rule in rollout.guardrails.rules if not _is_counted(rule)]
    figures = tuple(figure_questions(rules, asked, now)) if rules and asked is not None else ()
    if figures:
        yield Question(view.name, 0.0, Purpose.FIGURES, figures=figures)


def figures_subject(obs: Observation, name: str, status: RevisionStatus, now: float) -> Subject | None:
    """Since when the numbers of a revision are judged, and against whom; None: they are not."""
    view, rollout = obs.index, status.rollout
    if rollout is None:
        return None
    if status.phase == Phase.SHIFTING:
        if rollout.steps is None:
            return None
        began = min(to_unix(rollout.steps.asked_at), now)
        return Subject(view.namespace, view.name, name, began, obs.traffic.revision)
    if status.phase in CANDIDATE:
        if rollout.switched_at is None:
            return None
        began = min(to_unix(rollout.switched_at), now)
        return Subject(view.namespace, view.name, name, began, rollout.prior, before=began)
    since = watched_since(status)
    # Not `started_at`: a query need not name the revision, and would be judged on what another one had to answer for.
    return None if since is None else Subject(view.namespace, view.name, name, min(since, now))


def tripped(rollout: RolloutStatus) -> bool:
    """Whether a guardrail has said Fail already. A person's wish to roll back is no verdict."""
    return rollout.trip is not None and rollout.trip.rule != MANUAL


def needs_baseline(rollout: RolloutStatus) -> bool:
    """Whether some rule compares with what stable counted."""
    return any(_is_relative(rule) and _is_counted(rule) for rule in rollout.guardrails.rules)


def watched_since(status: RevisionStatus) -> float | None:
    """When the watch of a stable revision began, Unix seconds."""
    at = status.restored_at or status.promoted_at
    return None if at is None else to_unix(at)


def started_at(since: float, now: float) -> float:
    """Since when evidence is judged. A time ahead of the clock was written before the clock was set back: everything
    that the searchers keep is judged then, or nothing would be until the clock had caught up."""
    return since if since <= now else now - RING_SECONDS


def _is_relative(rule: GuardrailRule) -> bool:
    return rule.max is None and rule.min is None


def _is_counted(rule: GuardrailRule) -> bool:
    """By searchers; else somebody else tells the number."""
    return rule.metric is not GuardrailMetric.PROMQL


def _just_switched(obs: Observation, view: RevisionView, now: float) -> float | None:
    """When a revision that soaks got the traffic. The Service knows it first, its status may lag behind."""
    if view.status.phase not in CANDIDATE:
        return None
    rollout, decision = view.status.rollout, obs.traffic.decision
    if rollout is not None and rollout.switched_at:
        return min(to_unix(rollout.switched_at), now)
    return min(decision.at, now) if decision is not None and decision.to_revision == view.name else now


def _visible(since: float, now: float) -> float:
    """From the bucket in which it began; the searchers keep an hour."""
    return max(since - BUCKET_SECONDS, now - RING_SECONDS)
