"""Rules that are always on, and need no evidence: what Kubernetes says about the pods. Pure; time comes in."""

from __future__ import annotations

from vectorindex_operator.core.judging.evidence import OVERALL
from vectorindex_operator.core.judging.rules import RuleVerdict, Verdict

UNAVAILABLE_SECONDS = 10.0
"""How long the candidate may be without a ready pod while stable has one."""
UNAVAILABLE = "unavailable"
"""Name of the rule that a revision without a ready pod breaks."""
UNREADY = frozenset({"Unready", "NothingReady"})
"""Reasons that say: the candidate has no ready pod. The stored verdict tells since when."""


def unavailable(candidate_ready: int, stable_ready: int, unready_since: float | None, now: float) -> RuleVerdict:
    """The rule that is always on: no ready pod of the candidate for 10 s while stable has one.

    It sees what counts nothing: a crash loop. `unready_since`: when the operator first saw the candidate without a
    ready pod, Unix seconds. Both times are the operator's own: what kubelets write on pods is by their nodes' clocks,
    and ten seconds between two clocks are nothing unusual. None: not known.
    """
    seconds = 0.0 if unready_since is None else max(0.0, now - unready_since)
    pods = f"the candidate has {candidate_ready} ready pods, stable {stable_ready}"
    if candidate_ready > 0:
        verdict, reason, text = Verdict.PASS, "Available", pods
    elif stable_ready <= 0:
        verdict, reason, text = Verdict.ERROR, "NothingReady", f"{pods}: nowhere to go back to"
    elif seconds < UNAVAILABLE_SECONDS:
        verdict, reason, text = Verdict.INCONCLUSIVE, "Unready", f"{pods}, for {seconds:.0f} s"
    else:
        verdict, reason, text = Verdict.FAIL, "Unavailable", f"{pods}, for {seconds:.0f} s"
    return RuleVerdict(
        rule=UNAVAILABLE,
        metric="Unavailable",
        segment=OVERALL,
        verdict=verdict,
        reason=reason,
        message=f"{UNAVAILABLE}: {text}",
        value=float(candidate_ready),
        limit=1.0,
        window_seconds=seconds,
    )
