"""Fresh rows: one of the searchers that serve is asked what it knows of them, and a build is due where they are too
many.

What it says is never built from: a Job lists the files. It goes into the status, for people, when it changes.
"""

from __future__ import annotations

from vectorindex_operator.api.quantities import duration_seconds
from vectorindex_operator.api.timestamps import to_unix
from vectorindex_operator.api.v1alpha1 import FreshStatus
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.fresh_looks import FreshQuestion
from vectorindex_operator.core.look_times import Times, look_times
from vectorindex_operator.core.state import ReconcileState

SHORTEST_LOOK_SECONDS = 30.0
"""Between two questions, however short `poll` is: what is told may be a write."""
TAKES_IN = "fresh-"
"""In the key of a resolve Job whose listing is to be built although only fresh rows are new."""
REFUSAL_MEANS = "it is not answered until it is repaired, as other files are, and the next build leaves it out"


def step(state: ReconcileState) -> None:
    if state.spec.source.fresh is None:
        state.fresh = None
        return
    if not state.serving:
        return
    _note(state)
    _ask(state)


def ask_for_build(state: ReconcileState) -> None:
    """Have the source listed for a build where the fresh rows are too many, or its time of the schedule has come."""
    fresh = state.fresh
    if fresh is None or fresh.revision != state.serving or _listing_failed(state):
        return
    if fresh.full:
        # One listing follows, however many files come before its revision serves.
        state.resolve_now = state.resolve_now or f"{TAKES_IN}{fresh.full_since}"
        return
    times = look_times(state.spec, state.obs.index.uid, state.now)
    if isinstance(times, Times) and fresh.files and state.source is not None and to_unix(state.source.at) < times.last:
        state.resolve_now = state.resolve_now or f"{TAKES_IN}at-{times.last:.0f}"


def _note(state: ReconcileState) -> None:
    heard, before = state.obs.heard_fresh, state.fresh
    if before is not None and before.revision != state.serving:
        before = state.fresh = None
    if heard is None or heard.question.revision != state.serving or heard.says is None or heard.says == before:
        return
    state.fresh = now = heard.says
    known = {one.object for one in before.refused} if before is not None else set()
    for one in now.refused:
        if one.object not in known:
            message = f"{one.object}: {one.reason}: {one.message}; {REFUSAL_MEANS}"
            state.event(EventReason.FRESH_FILE_REFUSED, message, revision=state.serving)
    if now.full and not (before is not None and before.full):
        state.event(EventReason.FRESH_ROWS_FULL, full_means(now), revision=state.serving)


def full_means(fresh: FreshStatus) -> str:
    """What follows from too many fresh rows."""
    return f"more fresh rows than the bounds allow ({fresh.message}): the next revision is built"


def _ask(state: ReconcileState) -> None:
    heard, source = state.obs.heard_fresh, state.spec.source
    every = max(duration_seconds(source.poll), SHORTEST_LOOK_SECONDS)
    if heard is not None and heard.question.revision == state.serving and state.now < heard.asked_at + every:
        state.requeue_at(heard.asked_at + every)
        return
    pods = [pod for pod in state.loaded(state.serving).pods if pod.serves and pod.address]
    if pods:
        pod = pods[int(state.now // every) % len(pods)]
        state.ask_fresh = FreshQuestion(state.serving, pod.name, pod.address, state.fresh)
        state.requeue_at(state.now + every)


def _listing_failed(state: ReconcileState) -> bool:
    conditions = state.obs.index.status.conditions
    return any(one.type == "DatasetResolved" and one.status == "False" for one in conditions)
