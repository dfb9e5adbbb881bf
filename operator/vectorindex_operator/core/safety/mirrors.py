"""Who sends the queries that it answered to whom: the revision with the traffic, to the one that is in shadow; and
after the switch, where `shadow.afterSwitch` says so, to the prior, as long as it soaks.

A lease that is renewed at each look and runs out by itself, so that an operator that dies leaves nothing behind. What
is over is told to end at once: whoever gets the traffic next should have its CPU for users.
"""

from __future__ import annotations

from dataclasses import dataclass

from vectorindex_operator.api.timestamps import to_unix
from vectorindex_operator.api.v1alpha1 import RevisionStatus, ShadowStatus
from vectorindex_operator.core.internal_keys import addressee
from vectorindex_operator.core.judging.rules import rule_of
from vectorindex_operator.core.judging.same_moment import SameMoment, is_paired
from vectorindex_operator.core.judging.shadow import Side, is_half, of_before, same_moment
from vectorindex_operator.core.observation import RevisionView
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.plan import RenewMirrors
from vectorindex_operator.core.safety.roll_back import MANUAL
from vectorindex_operator.core.state import ReconcileState

NOT_COMPARED = "NotCompared"
"""Rule of a row in status.blockedBy."""
TOLD_SECONDS = 30.0
"""So long after a switch every pod has been told to send."""


@dataclass(frozen=True, slots=True)
class SoakMirror:
    """A soak that is compared with what the prior answers meanwhile."""

    id: str
    """What its pairs are counted under: another one for each switch, so nothing of before it counts."""
    reference: str
    """The prior."""
    max_per_second: float


def step(state: ReconcileState) -> None:
    """Begin what soaks, and end what was going on when this pass began, and is not any more."""
    for name, view in sorted(state.obs.revisions.items()):
        before, now = shadow_of(view.status), shadow_of(state.statuses.get(name, view.status))
        if before is not None and (now is None or now.id != before.id):
            _end(state, before.reference, name, before.id)
        if not view.foreign_features:
            _after_switch(state, name, view)


def shadow_of(status: RevisionStatus) -> ShadowStatus | None:
    """The shadow that a revision is in; None: it is in none."""
    shadow = status.rollout.shadow if status.rollout is not None else None
    on = status.phase == Phase.SHADOWING and shadow is not None and shadow.ended_at is None
    return shadow if on else None


def soak_of(name: str, status: RevisionStatus) -> SoakMirror | None:
    """The mirror of the soak that revision `name` is in. None: it is in none, it tripped, or no rule looks at it."""
    rollout = status.rollout
    if status.phase != Phase.SOAKING or rollout is None or not rollout.prior or rollout.switched_at is None:
        return None
    settings, over = rollout.settings, rollout.trip is not None and rollout.trip.rule != MANUAL
    if over or not settings.mirrors_after_switch or not any(is_paired(rule_of(r)) for r in rollout.guardrails.rules):
        return None
    shadow_id = f"{name}@{to_unix(rollout.switched_at):.0f}"
    return SoakMirror(shadow_id, rollout.prior, float(settings.shadow.max_per_second))


def compared(state: ReconcileState, name: str) -> SameMoment | None:
    """What its pods and the prior's told of queries that both answered since the switch. None: nothing is mirrored."""
    mirror = soak_of(name, state.statuses[name])
    return same_moment(name, _side(state, name), _side(state, mirror.reference)) if mirror is not None else None


def renew(state: ReconcileState, name: str, shadow: ShadowStatus, max_per_second: float) -> None:
    """Have the ready pods of the reference send so many queries a second, all together, to those of `name`."""
    senders = _ready(state, shadow.reference)
    if senders:
        each = max_per_second / len(senders)
        state.act(RenewMirrors(shadow.reference, senders, name, _ready(state, name), shadow.id, each))


def _after_switch(state: ReconcileState, name: str, view: RevisionView) -> None:
    mirror = soak_of(name, state.statuses.get(name, view.status))
    if mirror is None or state.serving != name:
        before = soak_of(name, view.status)
        if before is not None:
            _end(state, name, before.reference, before.id)
        return
    _say_what_is_not_compared(state, name, mirror)
    senders, receivers = _ready(state, name), _ready(state, mirror.reference)
    if not senders:
        return
    if state.settings.internal_keys.has_all(addressee(state.obs, name), addressee(state.obs, mirror.reference)):
        each = mirror.max_per_second / len(senders)
        act = RenewMirrors(name, senders, mirror.reference, receivers, mirror.id, each, sender_judged=True)
        state.act(act)


def _say_what_is_not_compared(state: ReconcileState, name: str, mirror: SoakMirror) -> None:
    """Searchers of mixed images: nobody must take that for a comparison. The row stands in the conditions as well."""
    rollout, sender, reference = state.statuses[name].rollout, _side(state, name), _side(state, mirror.reference)
    begun = rollout is not None and state.age(rollout.switched_at) >= TOLD_SECONDS
    quiet = begun and not (sender.mute or reference.mute or sender.counts() or reference.counts())
    refused = quiet and not any(pod.reference for pod in sender.pods)
    of_sender, of_reference = of_before(name, sender, reference)
    if refused or of_sender or of_reference:
        who = name if refused or of_sender else mirror.reference
        how = "as images of before, so rules against stable compare with the time before it"
        state.block(NOT_COMPARED, name, f"searchers of {who} know no mirror after the switch, {how}")
    elif begun and is_half(sender):
        how = "nobody judges rules against stable until they do: are they of one image?"
        state.block(NOT_COMPARED, name, f"some of its searchers send nothing to {mirror.reference}, and {how}")


def _end(state: ReconcileState, sender: str, receiver: str, shadow: str) -> None:
    senders = _ready(state, sender)
    if senders:
        state.act(RenewMirrors(sender, senders, receiver, (), shadow, 0.0))


def _side(state: ReconcileState, name: str) -> Side:
    return Side(state.obs.pairs.get(name, ()), state.loaded(name).ready)


def _ready(state: ReconcileState, name: str) -> tuple[str, ...]:
    return tuple(sorted(pod.address for pod in state.loaded(name).answering if pod.serves and pod.address))
