"""The condition FreshRows: whether new rows are answered before they are built in, and if not, what to do."""

from __future__ import annotations

from vectorindex_operator.core.fresh_looks import UNKNOWN_TO_IMAGE
from vectorindex_operator.core.progress.fresh_rows import REFUSAL_MEANS, full_means
from vectorindex_operator.core.safety.fresh_off import is_off
from vectorindex_operator.core.state import ReconcileState


def condition(state: ReconcileState) -> tuple[str, str, str] | None:
    """Status, reason and message; None: no fresh rows were asked for."""
    if state.live is None or state.live.fresh is None:
        return None
    name, fresh = state.serving, state.fresh
    status = state.statuses.get(name)
    if status is not None and status.fresh_off is not None and is_off(state, name):
        words = f"{name} answers its artifact alone: {status.fresh_off.message}"
        return "False", "SwitchedOff", f"{words}; `retry` has fresh rows answered again, and so does the next revision"
    if fresh is None or fresh.revision != name:
        return "Unknown", "NotHeard", "no searcher has told of the fresh rows yet"
    if fresh.reason == UNKNOWN_TO_IMAGE:
        return "False", UNKNOWN_TO_IMAGE, f"{name}: {fresh.message}; `refresh` replaces an image of before"
    answered = f"{fresh.rows} rows of {fresh.files} files, snapshot {fresh.number}"
    if fresh.refused:
        first = fresh.refused[0]
        more = f" (and {len(fresh.refused) - 1} more)" if len(fresh.refused) > 1 else ""
        words = f"{first.object}: {first.reason}: {first.message}{more}; {REFUSAL_MEANS}; answered are {answered}"
        return "False", "FileRefused", words
    if fresh.full:
        return "False", "Full", f"{full_means(fresh)}; answered are {answered}"
    if fresh.reason:
        return "False", fresh.reason, f"{fresh.message}; answered are {answered}"
    return "True", "Answered", answered
