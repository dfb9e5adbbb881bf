"""What follows from a verdict: one table, situation by worst enforced verdict. Pure; who carries it out is safety's.

A revision that has the traffic is judged whatever else goes on: another one that surges, a rollback that a person asked
for and that waits for its target. Nothing but a trip, the end of the watch, or rules that are not there ends judging.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType

from vectorindex_operator.core.judging.rules import Verdict


class Situation(StrEnum):
    """What the revision that is judged is doing."""

    SHADOWING = "Shadowing"
    """It answers live queries that another one answered; nobody gets its answers."""
    SHIFTING = "Shifting"
    """It has a share of what comes through a gateway."""
    SOAKING = "Soaking"
    """It got the traffic, and is not proven by it yet."""
    STEADY = "Steady"
    """It is stable, and was promoted (or restored by a rollback) within the last 24 h."""


class Act(StrEnum):
    """What is done about a verdict."""

    REJECT = "Reject"
    """It never gets the traffic, and is remembered."""
    HOLD_OR_REJECT = "HoldOrReject"
    """The shadow goes on until `maxDuration`; then it is rejected: nobody knows what users would get."""
    HOLD_OR_ASK = "HoldOrAsk"
    """The shadow goes on until `maxDuration`; then `onInconclusive` says what becomes of it."""
    SWITCH = "Switch"
    """It gets the traffic once `shadow.duration` and `shadow.minQueries` are reached."""
    WITHDRAW = "Withdraw"
    """It loses its share in this very pass, and is remembered."""
    NEXT_STEP = "NextStep"
    """It gets a larger share, or the traffic, once `duration` is reached and nobody holds it."""
    ROLL_BACK = "RollBack"
    """The traffic goes back in this very pass."""
    STEADY_STATE = "SteadyState"
    """By `guardrails.steadyState`: back once, or said only. A revision that was restored is never sent back."""
    HOLD = "Hold"
    """The soak goes on, without end, and promotes nothing: it is not known what users get."""
    HOLD_FOR_A_TIME = "HoldForATime"
    """The soak goes on until `maxDuration`; from then on the candidate makes room for the next one."""
    PROMOTE = "Promote"
    """It becomes stable once `soak.duration` and `soak.minQueries` are reached."""
    NOTHING = "Nothing"
    """It is shown, no more."""


ACTS = MappingProxyType(
    {
        (Situation.SHADOWING, Verdict.FAIL): Act.REJECT,
        (Situation.SHADOWING, Verdict.ERROR): Act.HOLD_OR_REJECT,
        (Situation.SHADOWING, Verdict.INCONCLUSIVE): Act.HOLD_OR_ASK,
        (Situation.SHADOWING, Verdict.PASS): Act.SWITCH,
        (Situation.SHIFTING, Verdict.FAIL): Act.WITHDRAW,
        (Situation.SHIFTING, Verdict.ERROR): Act.HOLD,
        (Situation.SHIFTING, Verdict.INCONCLUSIVE): Act.HOLD_FOR_A_TIME,
        (Situation.SHIFTING, Verdict.PASS): Act.NEXT_STEP,
        (Situation.SOAKING, Verdict.FAIL): Act.ROLL_BACK,
        (Situation.SOAKING, Verdict.ERROR): Act.HOLD,
        (Situation.SOAKING, Verdict.INCONCLUSIVE): Act.HOLD_FOR_A_TIME,
        (Situation.SOAKING, Verdict.PASS): Act.PROMOTE,
        (Situation.STEADY, Verdict.FAIL): Act.STEADY_STATE,
        (Situation.STEADY, Verdict.ERROR): Act.NOTHING,
        (Situation.STEADY, Verdict.INCONCLUSIVE): Act.NOTHING,
        (Situation.STEADY, Verdict.PASS): Act.NOTHING,
    }
)
"""The table of docs/guardrails.md, "From verdicts to a decision". Every pair has its row."""
