"""Who sends the queries that it answered to whom: the revision with the traffic, to the one that is in shadow.

A lease that is renewed at each look and runs out by itself, so that an operator that dies leaves nothing behind. What
is over is told to end at once: whoever gets the traffic next should have its CPU for users.
"""

from __future__ import annotations

from vectorindex_operator.api.v1alpha1 import RevisionStatus, ShadowStatus
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.plan import RenewMirrors
from vectorindex_operator.core.state import ReconcileState


def step(state: ReconcileState) -> None:
    """End what was going on when this pass began, and is not any more."""
    for name, view in sorted(state.obs.revisions.items()):
        before, now = shadow_of(view.status), shadow_of(state.statuses.get(name, view.status))
        if before is not None and (now is None or now.id != before.id):
            _tell(state, name, before, (), 0.0)


def shadow_of(status: RevisionStatus) -> ShadowStatus | None:
    """The shadow that a revision is in; None: it is in none."""
    shadow = status.rollout.shadow if status.rollout is not None else None
    on = status.phase == Phase.SHADOWING and shadow is not None and shadow.ended_at is None
    return shadow if on else None


def renew(state: ReconcileState, name: str, shadow: ShadowStatus, max_per_second: float) -> None:
    """Have the ready pods of the reference send so many queries a second, all together, to those of `name`."""
    _tell(state, name, shadow, _ready(state, name), max_per_second)


def _tell(
    state: ReconcileState, name: str, shadow: ShadowStatus, receivers: tuple[str, ...], max_per_second: float
) -> None:
    senders = _ready(state, shadow.reference)
    if senders:
        each = max_per_second / len(senders)
        state.act(RenewMirrors(shadow.reference, senders, name, receivers, shadow.id, each))


def _ready(state: ReconcileState, name: str) -> tuple[str, ...]:
    return tuple(sorted(pod.address for pod in state.loaded(name).pods if pod.serves and pod.address))
