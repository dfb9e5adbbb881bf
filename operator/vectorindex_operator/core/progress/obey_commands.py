"""What a person asked for that needs the way forward: `retry`, `refresh`, `rebuild`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Rebuild, Serving
from vectorindex_operator.core import gate, recipe
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.observation import JobState, RevisionView
from vectorindex_operator.core.phase import FAILED, UNDER_WAY, Phase
from vectorindex_operator.core.progress import desired, pin
from vectorindex_operator.core.progress.forget import WORK
from vectorindex_operator.core.safety import fresh_off, operating_point, pause
from vectorindex_operator.core.safety.answers import answer, unanswered
from vectorindex_operator.core.safety.roll_back import pending_trip
from vectorindex_operator.core.state import ReconcileState


def step(state: ReconcileState) -> None:
    for command in unanswered(state):
        if command.name not in OBEYED:
            continue
        if state.suspended:
            answer(state, command, done=False, message="spec.suspend is true: nothing new begins; take it out first")
        elif state.pinned and command.name != "retry":
            answer(state, command, done=False, message="spec.pinRevision is set: nothing is made; take it out first")
        else:
            OBEYED[command.name](state, command)


def _retry(state: ReconcileState, command: Command) -> None:
    mark = f"retry {command.nonce}"
    if _ended_point(state, command.nonce):
        return answer(
            state, command, done=True, message=f"{state.serving} answers at its default operating point again"
        )
    failed = [n for n, s in state.statuses.items() if s.phase in FAILED and _is_wanted(state, n)]
    # One: of several of the same artifact (refreshes) the newest, or what was given up for a later one comes back.
    for name in sorted(failed, key=lambda n: (state.revision(n).created_at, n))[-1:]:
        said = state.statuses[name].gate
        look = said if said is not None and gate.let_none_pass(said) else None  # it counts all the same
        anew = {"rejected": None, "failure": None, "rollout": None, "pause": pause.left(state, name), "message": mark}
        if state.pinned:  # by the proof that it has: nothing is measured while a revision is pinned
            state.update(name, phase=Phase.VALIDATED, **anew)
        else:
            state.update(name, phase=Phase.PENDING, gate=look, report=None, **anew)
    # The mark outlives an operator that dies before the answer is written: the next one finds what it had begun.
    retried = [n for n, s in state.statuses.items() if s.message == mark]
    for name in retried:
        for work in WORK:
            state.delete_jobs(j for j in state.jobs(work, name) if j.state is not JobState.RUNNING)
    source_failed = not state.pinned and (state.obs.index.status.reason == "DatasetFailed" or _dataset_failed(state))
    if source_failed or retried:
        state.resolve_now = mark
    if retried:
        return answer(state, command, done=True, message=f"trying {', '.join(retried)} again")
    if source_failed:
        return answer(state, command, done=True, message="listing the source again")
    if _soak_again(state):
        return answer(state, command, done=True, message=f"{state.serving} soaks again from now on")
    if operating_point.is_conservative(state, state.serving):
        if operating_point.end(state, command.nonce):
            return answer(state, command, done=True, message=f"{state.serving} answers at its default operating point")
        return None  # asked again: the front Service cannot be written in this pass
    if fresh_off.end(state, state.serving, command.nonce):
        return answer(state, command, done=True, message=f"{state.serving} answers fresh rows again")
    return answer(state, command, done=False, message="nothing has failed")


def _ended_point(state: ReconcileState, nonce: str) -> bool:
    """Whether this request has ended a conservative point already, and nobody could say so."""
    status = state.statuses.get(state.serving)
    return status is not None and status.point is not None and status.point.nonce == nonce


def _is_wanted(state: ReconcileState, name: str) -> bool:
    if state.pinned:
        return name == state.spec.pin_revision and pin.is_proven(state, name)
    return recipe.is_desired(state, name)


def _refresh(state: ReconcileState, command: Command) -> None:
    """The artifact that serves, once more with today's image. Its name comes of the nonce, so it is made once."""
    status = state.statuses.get(state.serving)
    if status is None or status.build is None:
        return answer(state, command, done=False, message="no revision has the traffic: there is nothing to refresh")
    frozen = state.revision(state.serving).spec
    made = [
        name
        for name, view in state.obs.revisions.items()
        if view.spec.digest == frozen.digest and view.spec.served_as().refresh == command.nonce
    ]
    if made:
        return answer(state, command, done=True, message=f"{made[0]} is made with {state.revision(made[0]).spec.image}")
    if not recipe.is_desired(state, state.serving):
        why = f"{state.serving} is not what the spec asks for: what is being prepared has today's image anyway"
        return answer(state, command, done=False, message=why)
    desired.create(state, frozen.fingerprint, Serving.of(state.spec, command.nonce), frozen.rebuild)
    return None  # answered when it is there


def _rebuild(state: ReconcileState, command: Command) -> None:
    """The spec and the data that are there, built once more under another digest; made once, as its nonce tells."""
    made = [name for name, view in state.obs.revisions.items() if _asked_by(view, command)]
    if made:
        return answer(state, command, done=True, message=f"{made[0]} is built anew")
    under_way = [name for name, status in state.statuses.items() if status.phase in UNDER_WAY]
    if under_way:
        why = f"{under_way[0]} is {state.statuses[under_way[0]].phase}: it is decided first, or given up (`abort`)"
        return answer(state, command, done=False, message=why)
    before = state.statuses.get(desired.find(state))
    if before is None or state.source is None:
        why = "this spec and data were not built yet: they are built anyway"
        return answer(state, command, done=False, message=why)
    if before.build is None:
        return answer(state, command, done=False, message="its build failed: `retry` tries it again")
    rebuild = Rebuild(number=recipe.highest_build(state.obs) + 1, nonce=command.nonce)
    desired.create(state, state.source.fingerprint, Serving.of(state.spec), rebuild)
    return None  # answered when it is there


def _asked_by(view: RevisionView, command: Command) -> bool:
    return view.spec.rebuild is not None and view.spec.rebuild.nonce == command.nonce


def _soak_again(state: ReconcileState) -> bool:
    """A revision tripped and there was nothing to go back to: a person says that its cause is gone."""
    status = state.statuses.get(state.serving)
    if status is None or status.rollout is None or pending_trip(state, state.serving) is None:
        return False
    rollout = status.rollout.model_copy(update={"trip": None, "switched_at": to_text(state.now), "verdicts": ()})
    state.update(state.serving, rollout=rollout)
    return True


def _dataset_failed(state: ReconcileState) -> bool:
    return any(c.type == "DatasetResolved" and c.status == "False" for c in state.obs.index.status.conditions)


OBEYED: Mapping[str, Callable[[ReconcileState, Command], None]] = MappingProxyType(
    {"retry": _retry, "refresh": _refresh, "rebuild": _rebuild}
)
"""All of them begin something."""
