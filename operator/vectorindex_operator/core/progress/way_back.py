"""Whether the artifact that a rollback would load is there: a searcher looks, and people are told before they need it.

With each poll of the source one of stable's searchers is asked for it as well (poll.py), once its image has said that
it can be. Nothing is decided by the answer. The revision's status holds that it is gone, so that an operator that
begins anew neither forgets it nor tells it again.
"""

from __future__ import annotations

from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import ArtifactSeen, RevisionStatus
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.safety.roll_back import rollback_target
from vectorindex_operator.core.source_poll import Heard
from vectorindex_operator.core.state import ReconcileState
from vectorindex_searcher.contract import ARTIFACT_DIGEST, Found

CLOCKS_DIFFER_SECONDS = 60.0
"""At most: a look that is further ahead was made before the clock was set back, and holds nothing up."""


def step(state: ReconcileState) -> None:
    """Note what was heard of it, where it says something new."""
    target = _looked_at(state)
    if not target:
        return
    status = state.statuses[target]
    if not state.spec.source.looked_at:
        if status.artifact_seen is not None:
            state.update(target, artifact_seen=None)  # nobody looks any more, so it must not be said for ever
        return
    heard, gone = _heard(state, target, status), bool(status.artifact_gone_at)
    news = Found.PRESENT if gone else Found.ABSENT
    if heard is None or heard.found is not news:
        return
    state.update(target, artifact_seen=ArtifactSeen(found=news.value, at=to_text(heard.asked_at)))
    if gone:
        message = f"the artifact of {target}, which a rollback would go to, is there again"
        state.event(EventReason.WAY_BACK_ARTIFACT_BACK, message, revision=target)
    else:
        state.event(EventReason.WAY_BACK_ARTIFACT_GONE, _gone(state, target), revision=target)


def artifact_to_ask_for(state: ReconcileState) -> tuple[str, bool]:
    """Digest of the artifact that one of stable's searchers is asked for (empty: of none), and whether it is said to be
    gone. An image is asked once it has said that it can be: an earlier one refuses the whole question."""
    heard, target = state.obs.heard, _looked_at(state)
    if heard is None or heard.question.revision != state.stable or not heard.able or not target:
        return "", False
    return state.revision(target).spec.digest, bool(state.statuses[target].artifact_gone_at)


def _looked_at(state: ReconcileState) -> str:
    """What a rollback would go to, where stable's searchers see its artifact; else empty.

    They look below their own place. In another one the artifact of a revision from before an edit is not, and that
    would not mean that it is gone.
    """
    target = rollback_target(state, state.serving) if state.serving else ""
    if not target or state.stable not in state.statuses or state.live is None:
        return ""
    asked, wanted = state.revision(state.stable).spec, state.revision(target).spec
    places = [one.artifacts.reached_by(state.live.artifacts).location() for one in (asked, wanted)]
    # Anybody with the right to write revisions chose it, and it goes into the line of a request.
    return target if places[0] == places[1] and ARTIFACT_DIGEST.fullmatch(wanted.digest) else ""


def _heard(state: ReconcileState, target: str, status: RevisionStatus) -> Heard | None:
    """What was heard last, if it is about this artifact, and later than what the status says: an operator that was
    paused, or that is one of two, must not take back what another has heard since."""
    heard, seen = state.obs.heard, status.artifact_seen
    seen_at = to_unix(seen.at) if seen is not None else 0.0
    if heard is None or heard.asked_at <= seen_at <= state.now + CLOCKS_DIFFER_SECONDS:
        return None
    about = heard.question
    same = (about.revision, about.artifact) == (state.stable, state.revision(target).spec.digest)
    return heard if same else None


def _gone(state: ReconcileState, target: str) -> str:
    index, frozen = state.obs.index, state.revision(target).spec
    place = frozen.artifacts
    key = "/".join(filter(None, (place.root.strip("/"), index.namespace, index.name, frozen.digest, "manifest.json")))
    warm = state.loaded(target).ready > 0
    how = "its pods that run go on, and one that starts fails" if warm else "its searchers would be loaded from it"
    return f"{target} is what a rollback would go to, and {place.url(key)} is gone: {how}. Restore what lay there"
