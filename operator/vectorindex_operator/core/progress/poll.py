"""Whether the source is as it was listed last: stable's searchers are asked, and a Job looks only where they say no.

What a searcher says is never built from: it decides whether a Job lists, once a turn at most (look_times.py). A Job
lists where nobody can be asked, where searchers were told to list something else than the spec says today, and where
those who were asked cannot tell. An index whose source does not change so costs a request, and no write.
"""

from __future__ import annotations

from vectorindex_operator.core.loaded import PodView
from vectorindex_operator.core.look_times import Polls, Times, look_times
from vectorindex_operator.core.progress.way_back import artifact_to_ask_for
from vectorindex_operator.core.source_poll import Heard, Said, SourceQuestion, told_text, wanted_text
from vectorindex_operator.core.state import ReconcileState
from vectorindex_searcher.contract import Identity, source_id

MOST_ASKS = 4
"""Of a poll: then a Job finds out what is wrong, and says so."""
FIRST_WAIT_SECONDS = 5.0
"""Before the second; doubled for each one more, so that a listing may take half a minute."""


def needs_job(state: ReconcileState, *, after: str, known: str, since: float) -> bool:
    """Whether a Job must list the source now. `known`, `since`: what the last one found, and when; `after`: its name.

    False: the source is as it was, a searcher is asked, or nobody is to look; the state says when to look again.
    """
    times = look_times(state.spec, state.obs.index.uid, state.now)
    if times is None:
        return False
    source = _common_source(state)
    heard = _heard(state, after, known, source)
    if heard is not None and heard.said is Said.CHANGED:
        return True
    if heard is not None and heard.said is Said.SAME:
        since, heard = max(since, heard.since), None
    due = times.due(since)
    if state.now < due:
        state.requeue_at(due)
        return False
    if heard is not None:
        again = heard.asked_at + FIRST_WAIT_SECONDS * 2.0 ** (heard.question.asks - 1)
        if heard.said is Said.UNABLE or heard.question.asks >= MOST_ASKS:
            return True
        if state.now < again:
            state.requeue_at(again)
            return False
    pod = _whose_turn(state, heard, times) if source else None
    if pod is None:
        return True
    asks = heard.question.asks + 1 if heard is not None else 1
    looks = artifact_to_ask_for(state)
    state.ask = SourceQuestion(state.stable, pod.name, pod.address, source, known, after, times.max_age, asks, *looks)
    state.requeue_at(times.next)
    return False


def _common_source(state: ReconcileState) -> str:
    """Name of what stable's searchers were told to list, if that is what the spec says today; else empty."""
    view = state.obs.revisions.get(state.stable)
    if view is None or state.live is None:
        return ""
    index = state.obs.index
    owner = Identity(namespace=index.namespace, name=index.name, uid=index.uid)
    told = told_text(owner, view.spec, state.live)
    return source_id(told) if told and told == wanted_text(owner, state.spec) else ""


def _heard(state: ReconcileState, after: str, known: str, source: str) -> Heard | None:
    """What was heard last, if it was asked about the same."""
    heard = state.obs.heard
    if heard is None:
        return None
    about = heard.question
    same = (about.revision, about.source, about.known, about.after) == (state.stable, source, known, after)
    return heard if same else None


def _whose_turn(state: ReconcileState, heard: Heard | None, times: Polls | Times) -> PodView | None:
    """One of stable's pods, another one in each turn and after each failure; who is listing is asked again."""
    pods = [pod for pod in state.loaded(state.stable).answering if pod.serves and pod.address]
    if heard is not None and heard.said is Said.UNDER_WAY:
        busy = next((pod for pod in pods if pod.name == heard.question.pod), None)
        if busy is not None:
            return busy
    if not pods:
        return None
    first = times.whose_turn([pod.name for pod in pods])
    return pods[(first + (heard.question.asks if heard is not None else 0)) % len(pods)]
