"""Rules that are always on, and need no evidence: what Kubernetes says about the pods. Pure; time comes in."""

from __future__ import annotations

from dataclasses import dataclass

from vectorindex_operator.core.judging.blocks import OVERALL
from vectorindex_operator.core.judging.rules import RuleVerdict, Verdict
from vectorindex_operator.core.judging.statistics import ratio_at_least

UNAVAILABLE_SECONDS = 10.0
"""How long the candidate may be without a ready pod while stable has one."""
UNAVAILABLE = "unavailable"
"""Name of the rule that a revision without a ready pod breaks."""
UNREADY = frozenset({"Unready", "NothingReady"})
"""Reasons that say: the candidate has no ready pod. The stored verdict tells since when."""


RESTARTS = "restarts"
"""Name of the rule that pods break which restart more than stable's do."""
FEWEST_RESTARTS = 3
"""Fewer prove nothing, whatever the arithmetic says: a node reboots, a limit is met once."""
RESTARTS_ALPHA = 1e-4
"""Chance, at each look, that pods which restart no more than stable's look like this by accident. A hundredth of the
default budget, since restarts come in clusters and a soak has many looks at the same ones."""


def unavailable(
    candidate_ready: int,
    stable_ready: int,
    unready_since: float | None,
    now: float,
    who: tuple[str, str] = ("the candidate", "stable"),
) -> RuleVerdict:
    """The rule that is always on: no ready pod of the candidate for 10 s while stable has one. `who`: what the two are,
    in words: of the stable revision and the prior that is kept loaded the same is asked.

    It sees what counts nothing: a crash loop. `unready_since`: the end of the look that first saw the candidate without
    a ready pod (None: not known); `now`: the beginning of this one, Unix seconds. A look may take longer than the ten
    seconds, and what is seen at its beginning says nothing of its end. Both times are the operator's own: what kubelets
    write on pods is by their nodes' clocks, and ten seconds between two clocks are nothing unusual.
    """
    seconds = 0.0 if unready_since is None else max(0.0, now - unready_since)
    pods = f"{who[0]} has {candidate_ready} ready pods, {who[1]} {stable_ready}"
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


@dataclass(frozen=True, slots=True)
class Restarts:
    """Restarts of a revision's pods and the time in which they happened, added up over pods. `pods`: that restarted."""

    count: int
    pods: int
    of: int
    """Pods there are."""
    pod_seconds: float


def restarts(candidate: Restarts, stable: Restarts) -> RuleVerdict:
    """The second rule that is always on: the candidate's pods restart more than stable's, since the switch.

    A query of death kills the process that counts it, so no other evidence tells of it. Fail: at least three restarts,
    on more than one pod where there are more (one bad node is no bad revision), that would happen with probability
    1e-4 if the pods of both restarted at the same rate (as ErrorRate against stable: the conditional binomial test).
    """
    chance = ratio_at_least(
        candidate.count, max(1, round(candidate.pod_seconds)), stable.count, max(1, round(stable.pod_seconds)), 1.0
    )
    spread = candidate.pods > 1 or candidate.of == 1
    failed = candidate.count >= FEWEST_RESTARTS and spread and chance <= RESTARTS_ALPHA
    text = (
        f"{candidate.count} restarts of {candidate.pods} of {candidate.of} pods in {candidate.pod_seconds / 60:.0f} "
        f"minutes of pods; stable's pods: {stable.count} in {stable.pod_seconds / 60:.0f}"
    )
    return RuleVerdict(
        rule=RESTARTS,
        metric="Restarts",
        segment=OVERALL,
        verdict=Verdict.FAIL if failed else Verdict.PASS,
        reason="Restarting" if failed else "FewRestarts",
        message=f"{RESTARTS}: {text}",
        value=float(candidate.count),
        samples=candidate.of,
    )
