"""`pause` and `resume`: what is on its way is held before its next step that a user would notice.

A build and a proof go on; what is proven is not loaded, what is loaded is not switched to, and what soaks is not
promoted. Guardrails, and every way back, work as ever.
"""

from __future__ import annotations

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Pause
from vectorindex_operator.core.commands import Command
from vectorindex_operator.core.safety.abort import is_on_its_way
from vectorindex_operator.core.safety.answers import answer
from vectorindex_operator.core.state import ReconcileState

BY_STEP = "rollout.steps["
"""How the nonce of a pause begins that a step asks for."""
PAUSED = "Paused"
"""Rule of its row in status.blockedBy."""


def holds(state: ReconcileState, name: str) -> bool:
    """Whether `name` is held; says so in the status."""
    pause = state.statuses[name].pause
    if pause is None or pause.resumed:
        return False
    by_step = pause.nonce.startswith(BY_STEP)
    asked = f"{pause.nonce}.pause asks for it" if by_step else f"a person asked for it: pause {pause.nonce}"
    state.block(PAUSED, name, f"since {pause.at}, for {asked}; it goes on with `resume`")
    return True


def obey_pause(state: ReconcileState, command: Command) -> None:
    """Hold everything that is on its way, or the one that is named."""
    for name in _named(state, command):
        pause = state.statuses[name].pause
        if pause is None or pause.resumed:
            state.update(name, pause=Pause(nonce=command.nonce, at=to_text(state.now)))
    held = [name for name in _named(state, command) if state.statuses[name].pause is not None]
    if held:
        return answer(state, command, done=True, message=f"holds {', '.join(held)}")
    return answer(state, command, done=False, message="nothing that could be held is on its way")


def obey_resume(state: ReconcileState, command: Command) -> None:
    """Let go on what is held. That it was this request stays, so that a second look finds what the first has done."""
    goes_on = []
    for name in _named(state, command):
        pause = state.statuses[name].pause
        if pause is not None and pause.resumed in ("", command.nonce):
            state.update(name, pause=pause.model_copy(update={"resumed": command.nonce}))
            goes_on.append(name)
    if goes_on:
        return answer(state, command, done=True, message=f"{', '.join(goes_on)} goes on")
    return answer(state, command, done=False, message="nothing is held")


def left(state: ReconcileState, name: str) -> Pause | None:
    """What holds `name` when it is prepared anew: nothing that was said before it ended."""
    return state.statuses[name].pause if is_on_its_way(state, name) else None


def _named(state: ReconcileState, command: Command) -> list[str]:
    return [name for name in sorted(state.statuses) if command.argument in ("", name) and is_on_its_way(state, name)]
