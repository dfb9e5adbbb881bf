"""Before the switch the candidate answers live queries of the revision that serves, unseen, and the pairs are judged.

It begins when all its pods are ready. What began, and how it ended, stands in `status.rollout.shadow`: an operator
that dies goes on where it was. Without anything to compare with there is no shadow, and an Event says so: what serves
badly, or not at all, must not hold up its own cure.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from vectorindex_operator.api.quantities import duration_seconds, share
from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import RolloutStatus, Shadow, ShadowStatus
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.internal_keys import addressee
from vectorindex_operator.core.judging.acts import ACTS, Act, Situation
from vectorindex_operator.core.judging.pairs import UNANSWERED
from vectorindex_operator.core.judging.rules import RuleVerdict, Verdict, rule_of
from vectorindex_operator.core.judging.shadow import (
    PAIRS,
    Side,
    compared,
    is_incomparable,
    is_out_of_reach,
    is_unanswered,
    is_unreached,
    judge_shadow,
    worst_in_shadow,
)
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.progress.shadow_time import elapsed, lasted, looked
from vectorindex_operator.core.safety import mirrors, verdicts
from vectorindex_operator.core.safety.give_up import SHADOW, give_up
from vectorindex_operator.core.safety.roll_back import is_dead, pending_trip
from vectorindex_operator.core.state import ReconcileState

UNREADY_SECONDS = 10.0
"""A reference without a ready pod for so long is none: its users wait for what takes its place."""
IN_VAIN_SECONDS = 120.0
"""Pods that have read other lists of deleted ids have read the same ones long before."""


class Outcome(StrEnum):
    """How a shadow ended."""

    PASSED = "Passed"
    INCONCLUSIVE = "Inconclusive"
    NO_REFERENCE = "NoReference"
    CANNOT_MIRROR = "CannotMirror"
    FAILED = "Failed"


def step(state: ReconcileState, name: str, *, complete: bool) -> bool:
    """Whether the traffic may go to the candidate once all its pods are ready. Begins, judges and ends its shadow.

    `complete`: they are. While pods are away nothing is held against it that they would have told.
    """
    rollout = state.statuses[name].rollout
    if rollout is None or (rollout.shadow is None and not _has_one(rollout)):
        return True
    if "shadow" in rollout.unread:
        state.block(
            "ForeignRollout", name, "status.rollout.shadow is of another release: it waits for one that reads it"
        )
        return False
    shadow = rollout.shadow
    if shadow is not None and shadow.ended_at is not None:
        return True
    if rollback_waits(state, name):
        return False  # a person, or a guardrail, wants the traffic elsewhere: keep_loaded.py gives this place to that
    missing = _no_reference(state, name)
    if missing is not None:
        _end(state, name, rollout, *missing, EventReason.SHADOW_SKIPPED)
        return True
    ahead = shadow is not None and to_unix(shadow.started_at) > state.now + 1  # the clock was set back since
    going_on = mirrors.shadow_of(state.statuses[name]) is not None
    if shadow is None or not going_on or shadow.reference != state.serving or ahead:
        _begin(state, name, rollout)
        return False
    if (now := looked(shadow, state.now)) is not shadow:
        shadow, rollout = now, rollout.model_copy(update={"shadow": now})
        state.update(name, rollout=rollout)
    passes = _look(state, name, rollout, shadow, complete=complete)
    if mirrors.shadow_of(state.statuses[name]) is not None:
        _renew(state, name, rollout, shadow)
    return passes


def _has_one(rollout: RolloutStatus) -> bool:
    """A rollout that a release began which knew no shadow goes on without: the settings that it froze name none."""
    return rollout.settings.shadows and "shadow" in rollout.settings.model_fields_set


def holds_on(state: ReconcileState, name: str) -> bool:
    """Whether a candidate is undecided past its time, and `onInconclusive` says that it waits."""
    status = state.statuses[name]
    shadow, rollout = mirrors.shadow_of(status), status.rollout
    if shadow is None or rollout is None or rollout.settings.shadow.on_inconclusive != "Hold":
        return False
    return elapsed(shadow, state.now) >= duration_seconds(rollout.settings.shadow.max_duration)


def rollback_waits(state: ReconcileState, name: str) -> bool:
    """Whether what has the traffic is to lose it to a revision that is being loaded."""
    waited_for = state.keep_loaded - {name, state.serving}
    return pending_trip(state, state.serving) is not None and any(not is_dead(state, one) for one in waited_for)


def _no_reference(state: ReconcileState, name: str) -> tuple[Outcome, str] | None:
    """Why there is nothing to compare with; None: there is."""
    serving = state.serving
    if not serving:
        return Outcome.NO_REFERENCE, "nothing serves yet that it could be compared with"
    status, loaded = state.statuses.get(serving), state.loaded(serving)
    if serving == name or status is None or status.phase != Phase.STABLE:
        return Outcome.NO_REFERENCE, f"what serves ({serving}) is no stable revision that it could be compared with"
    if pending_trip(state, serving) is not None:
        return Outcome.NO_REFERENCE, f"{serving} tripped: it is no measure of anything"
    if not loaded.serving():
        since = loaded.unready_since if loaded.exists else 0.0
        if since is not None and state.seen_at - since >= UNREADY_SECONDS:
            return Outcome.NO_REFERENCE, f"{serving} has no ready pod"
    in_shards = [one for one in (serving, name) if state.revision(one).spec.in_shards]
    if in_shards:
        return Outcome.CANNOT_MIRROR, f"{in_shards[0]} is in shards, and routers know no shadow"
    if not state.settings.internal_keys.has_all(addressee(state.obs, serving), addressee(state.obs, name)):
        return Outcome.CANNOT_MIRROR, f"{serving} and {name} need an internal key each: what users ask is sent signed"
    unable = [one for one in (serving, name) if any(pod.unable for pod in state.obs.pairs.get(one, ()))]
    if unable:
        return Outcome.CANNOT_MIRROR, f"searchers of {unable[0]} know no shadow: their image is from before"
    return None


def _begin(state: ReconcileState, name: str, rollout: RolloutStatus) -> None:
    """`progressDeadline` begins anew when pods are lost from here on."""
    shadow = ShadowStatus(id=f"{name}-{state.now:.0f}", reference=state.serving, started_at=to_text(state.now))
    rollout = rollout.model_copy(update={"shadow": shadow, "progress_since": None})
    state.update(name, phase=Phase.SHADOWING, rollout=rollout)
    _renew(state, name, rollout, shadow)


def _renew(state: ReconcileState, name: str, rollout: RolloutStatus, shadow: ShadowStatus) -> None:
    mirrors.renew(state, name, shadow, float(rollout.settings.shadow.max_per_second))
    state.requeue_at(state.now + state.settings.soak_look_seconds)


def _look(state: ReconcileState, name: str, rollout: RolloutStatus, shadow: ShadowStatus, *, complete: bool) -> bool:
    """Whether what was told until now gives it the traffic."""
    if not state.obs.pairs.keys() >= {name, shadow.reference}:
        return False  # it has just begun: nobody was asked
    judged = Side(state.obs.pairs[name], state.loaded(name).ready)
    sender = Side(state.obs.pairs[shadow.reference], state.loaded(shadow.reference).ready)
    apart = is_unreached(sender)
    if apart:
        sender = sender.uncounted()  # what never got there is no error of who was not asked
    settings = rollout.settings.shadow
    said = judge_shadow(
        tuple(rule_of(rule) for rule in rollout.guardrails.rules),
        judged,
        sender,
        false_trip_budget=share(rollout.guardrails.false_trip_budget),
        min_queries=settings.min_queries,
    )
    gone_on, longest = elapsed(shadow, state.seen_at), duration_seconds(settings.max_duration)
    least = min(duration_seconds(settings.duration), longest)
    act, over = ACTS[Situation.SHADOWING, worst_in_shadow(said)], gone_on >= longest
    final = over and act is Act.HOLD_OR_REJECT and complete and _has_lasted(state, shadow, said, longest)
    if act is Act.REJECT or final:
        _reject(state, name, rollout, said)
    elif act is Act.SWITCH and gone_on >= least:
        queries = f"{compared(judged):,} live queries of {shadow.reference} in {gone_on:.0f} s"
        message = f"{name} is within every guardrail on {queries}"
        _end(state, name, rollout, Outcome.PASSED, message, EventReason.SHADOW_PASSED, said)
        return True
    elif apart and complete and act is not Act.HOLD_OR_REJECT and _told_for(state, shadow) >= least:
        why = f"{shadow.reference} finds no connection to the admin port of {name}: does a NetworkPolicy forbid it?"
        _end(state, name, rollout, Outcome.CANNOT_MIRROR, why, EventReason.SHADOW_SKIPPED)
        return True
    elif act is not Act.HOLD_OR_REJECT and (over or _is_in_vain(state, settings, shadow, judged, sender)):
        return _undecided(state, name, rollout, said, gone_on)
    else:
        _keep(state, name, rollout, said)
        _say_what_holds(state, name)
    return False


def _has_lasted(state: ReconcileState, shadow: ShadowStatus, said: tuple[RuleVerdict, ...], longest: float) -> bool:
    """Whether what holds it is no matter of a while: what was not answered adds up, and what nobody could judge is
    stored with its time. Pods that are silent for some minutes prove nothing."""
    errors = [row for row in shadow.verdicts if row.verdict == Verdict.ERROR]
    long = any(lasted(shadow, row.at, state.seen_at) >= longest for row in errors)
    return long or any(is_unanswered(one) for one in said)


def _is_in_vain(state: ReconcileState, settings: Shadow, shadow: ShadowStatus, judged: Side, sender: Side) -> bool:
    """Whether it would only wait for its time to be over: nothing is compared, and nothing will be, or too little."""
    gone_on, least = elapsed(shadow, state.seen_at), duration_seconds(settings.duration)
    if settings.on_inconclusive != "Switch":
        return False
    if gone_on >= max(least, IN_VAIN_SECONDS) and is_incomparable(judged):
        return True
    seen, left = _told_for(state, shadow), max(0.0, duration_seconds(settings.max_duration) - gone_on)
    return seen >= least and is_out_of_reach(judged, sender, min_queries=settings.min_queries, seen=seen, left=left)


def _told_for(state: ReconcileState, shadow: ShadowStatus) -> float:
    """Seconds since the first look that both sides answered: until then nobody may have told them to send."""
    told = next((row.at for row in shadow.verdicts if row.rule == PAIRS and row.verdict == Verdict.PASS), None)
    return lasted(shadow, told, state.seen_at) if told is not None else 0.0


def _undecided(
    state: ReconcileState, name: str, rollout: RolloutStatus, said: tuple[RuleVerdict, ...], gone_on: float
) -> bool:
    """Its time is over without proof of anything. Whether it gets the traffic."""
    settings = rollout.settings.shadow
    if settings.on_inconclusive == "Hold":
        _keep(state, name, rollout, said)
        why = f"there is too little evidence for a verdict after {settings.max_duration}, and onInconclusive is Hold"
        state.block("ShadowInconclusive", name, why)
        return False
    open_ = [one.message for one in said if one.mode == "Enforce" and one.verdict is Verdict.INCONCLUSIVE]
    message = f"switched to after {gone_on:.0f} s without a verdict on: {'; '.join(open_)}"[:1024]
    _end(state, name, rollout, Outcome.INCONCLUSIVE, message, EventReason.SHADOW_INCONCLUSIVE, said)
    return True


def _reject(state: ReconcileState, name: str, rollout: RolloutStatus, said: tuple[RuleVerdict, ...]) -> None:
    """By the first verdict that forbids the traffic: a Fail, else what was not answered, else what nobody told."""
    enforced = [one for one in said if one.mode == "Enforce"]
    failed = [one for one in enforced if one.verdict is Verdict.FAIL and not is_unanswered(one)]
    held = [one for one in enforced if is_unanswered(one) or one.verdict is Verdict.ERROR]
    first = next(iter((*failed, *sorted(held, key=is_unanswered, reverse=True))))
    _end(state, name, rollout, Outcome.FAILED, first.message, None, said)
    reason = first.metric if failed else first.reason
    give_up(state, name, Phase.REJECTED, stage=SHADOW, reason=reason, message=first.message)


def _end(
    state: ReconcileState,
    name: str,
    rollout: RolloutStatus,
    outcome: Outcome,
    message: str,
    event: EventReason | None,
    said: Iterable[RuleVerdict] = (),
) -> None:
    at = to_text(state.now)
    begun = rollout.shadow or ShadowStatus(id="", reference=state.serving, started_at=at)
    rows = verdicts.fresh_rows(begun.verdicts, said, state.now, at_once=True) if said else None
    changes = {"ended_at": at, "outcome": outcome.value, "message": message, "verdicts": rows or begun.verdicts}
    shadow = begun.model_copy(update=changes)
    state.update(name, rollout=rollout.model_copy(update={"shadow": shadow}))
    if event is not None:
        state.event(event, f"{outcome}: {message}", revision=name)


def _keep(state: ReconcileState, name: str, rollout: RolloutStatus, said: Iterable[RuleVerdict]) -> None:
    """Store the verdicts when one of them has changed, not at each look."""
    assert rollout.shadow is not None
    rows = verdicts.fresh_rows(rollout.shadow.verdicts, said, state.now, at_once=False)
    if rows is not None:
        shadow = rollout.shadow.model_copy(update={"verdicts": rows})
        state.update(name, rollout=rollout.model_copy(update={"shadow": shadow}))


def _say_what_holds(state: ReconcileState, name: str) -> None:
    """In the words that are stored: others at each look would be a write at each look."""
    shadow = mirrors.shadow_of(state.statuses[name])
    for row in shadow.verdicts if shadow is not None else ():
        if row.verdict == Verdict.ERROR or (row.rule == UNANSWERED and row.reason == "Unanswered"):
            state.block("ShadowHolds", name, row.message)
            return
