"""Fresh rows are switched off where a guardrail fails on a revision that is stable: they are what came last.

A candidate that fails goes back as ever: nothing delays that. What fails later, where there may be fresh rows, is
judged once more without them, from then on, before anything else is done about it: what was bad in them is gone, and
what the revision is to blame for fails again. It lasts until another revision has the traffic, or a person says
`retry`. Pods are told at each look, and the order runs out by itself: an operator that is away takes no rows away.
"""

from __future__ import annotations

from collections.abc import Iterable

from vectorindex_operator.api.timestamps import to_text, to_unix
from vectorindex_operator.api.v1alpha1 import FreshOff
from vectorindex_operator.core import recipe
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.fresh_looks import UNKNOWN_TO_IMAGE
from vectorindex_operator.core.judging.blocks import OVERALL
from vectorindex_operator.core.judging.evidence import RevisionEvidence, add_up
from vectorindex_operator.core.judging.rules import RuleVerdict, Verdict
from vectorindex_operator.core.plan import SwitchFreshOff
from vectorindex_operator.core.state import ReconcileState

TOLD_SECONDS = 10.0
"""After the decision pods have been told; from then on evidence is of the artifact alone."""
LONGEST_WORDS = 512
SHARE_BUCKETS = 120
"""Ten minutes, of which it is said how many queries found fresh rows."""


def step(state: ReconcileState) -> None:
    """Tell the pods of every loaded revision of which that was decided."""
    for name, loaded in sorted(state.obs.loaded.items()):
        if not is_off(state, name):
            continue
        addresses = tuple(sorted(pod.address for pod in loaded.pods if pod.address and not pod.deleting))
        if addresses:
            state.act(SwitchFreshOff(name, addresses))
        state.requeue_at(state.now + state.settings.watch_look_seconds)


def is_off(state: ReconcileState, name: str) -> bool:
    status = state.statuses.get(name)
    return status is not None and status.fresh_off is not None and not status.fresh_off.ended


def switch_off(state: ReconcileState, name: str, said: Iterable[RuleVerdict], evidence: RevisionEvidence) -> bool:
    """Enforced rules fail on the stable revision `name`. Whether that is what is done about it: it may have fresh rows
    among its answers, and they were not off yet. Where none are known there may be all the same: users meet them before
    anybody tells of them."""
    fresh = state.obs.index.status.fresh
    knows_none = fresh is not None and fresh.revision == name and fresh.reason == UNKNOWN_TO_IMAGE
    told = state.live is not None and recipe.fresh_place(state.revision(name).spec, state.live) is not None
    if knows_none or not told or is_off(state, name):
        return False
    failed = next(one for one in said if one.verdict is Verdict.FAIL and one.mode == "Enforce")
    number = fresh.number if fresh is not None and fresh.revision == name else 0
    share = _share(evidence, number)
    words = f"{failed.rule}: {failed.message}"[: LONGEST_WORDS - len(share)] + share
    state.update(name, fresh_off=FreshOff(at=to_text(state.now), rule=failed.rule, message=words))
    state.event(EventReason.FRESH_ROWS_OFF, f"{words}; it is judged without them from now on", revision=name)
    state.requeue_at(state.now + state.settings.soak_look_seconds)
    return True


def _share(evidence: RevisionEvidence, number: int) -> str:
    """How many of the last answers had a fresh row among their hits, in words. number: of the snapshot; 0: unknown."""
    last = range(evidence.complete_before - SHARE_BUCKETS, evidence.complete_before)
    cells = evidence.segments.get(OVERALL, {})
    total = add_up((cell for bucket, cell in cells.items() if bucket in last), latency=False)
    if not total.queries:
        return ""
    of = f" (snapshot {number})" if number else ""
    return f"; {total.fresh_queries / total.queries:.2%} of {total.queries} queries found fresh rows{of}"


def judged_from(state: ReconcileState, name: str, since: float) -> float:
    """From when on evidence is judged that else would be from `since`: none of before they were off, or on again."""
    off = state.statuses[name].fresh_off
    # A time ahead of the clock was written before the clock was set back.
    return max(since, to_unix(off.at) + TOLD_SECONDS) if off is not None and to_unix(off.at) <= state.now else since


def end(state: ReconcileState, name: str, nonce: str) -> bool:
    """A person asks for them again by a `retry`. Whether they were off, or this very request has ended that already."""
    status = state.statuses.get(name)
    off = status.fresh_off if status is not None else None
    if off is None or off.ended not in ("", nonce):
        return False
    if not off.ended:
        state.update(name, fresh_off=off.model_copy(update={"at": to_text(state.now), "ended": nonce}))
    return True
