"""Finalizers on the revisions of a VectorIndex that is there: on all of them with `artifacts.deletionPolicy: Delete`.

With them goes how their artifacts are reached, into their statuses: when they are needed, the VectorIndex is gone
(leftovers.py). A revision that is deleted while its VectorIndex stays, by hand or because it fell out of the history,
is let go at once: its artifact is no matter of this.
"""

from __future__ import annotations

from vectorindex_operator.api.v1alpha1 import Reach
from vectorindex_operator.core.plan import HoldRevision
from vectorindex_operator.core.state import ReconcileState


def step(state: ReconcileState) -> None:
    mine = {hold.name: hold for hold in state.obs.holds if hold.owner == state.obs.index.uid}
    spec = state.known_spec
    retains = spec is not None and spec.artifacts.deletion_policy == "Retain"
    for name, hold in sorted(mine.items()):
        # Also of a revision that is left as it is otherwise: what is to be retained is.
        if hold.deleted_at is not None or retains:
            state.act(HoldRevision(name, ""))
    if spec is None:
        return  # what it last asked for stays
    for name, status in sorted(state.statuses.items()):
        reach = None
        if not retains:
            place = state.revision(name).spec.artifacts.reached_by(spec.artifacts.place)
            reach = Reach(artifacts=place, pod=spec.build.pod)
            if name not in mine or mine[name].finalizers != {state.settings.finalizer}:
                state.act(HoldRevision(name, state.settings.finalizer))
        if status.reach != reach:
            state.update(name, reach=reach)
