"""Who has the traffic, and the one write that changes it.

The decision travels with the shares in that write, so a crash right after it loses nothing: the next pass finds the
decision and writes what follows from it (safety/record_decision.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class DecisionKind(StrEnum):
    SWITCH = "Switch"
    ROLL_BACK = "RollBack"


@dataclass(frozen=True, slots=True)
class Decision:
    """Why the traffic is where it is: an annotation of the object that holds it, written together with the shares."""

    kind: DecisionKind
    from_revision: str
    to_revision: str
    rule: str
    reason: str
    message: str
    at: float
    nonce: str = ""
    serial: int = 0
    """Counts decisions, so that one is told from the next whatever clocks say; 0: written before there were serials."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """The object that users' queries go through: a Service with one revision's selector.

    `shares`: percent by revision. `owned` is False when an object of another owner has its name. `endpoints`: ready
    addresses behind it, None when unknown.
    """

    exists: bool = False
    shares: Mapping[str, int] = field(default_factory=dict)
    resource_version: str = ""
    owned: bool = True
    decision: Decision | None = None
    endpoints: int | None = None
    refused: str = ""
    """What the API server said when this pass tried to move it: it stays where it is, whatever is decided."""

    @classmethod
    def to(
        cls, revision: str, resource_version: str, decision: Decision | None, *, endpoints: int | None = None
    ) -> Traffic:
        """All of it to one revision; '' is a Service that selects none of ours."""
        shares = {revision: 100} if revision else {}
        return cls(True, shares, resource_version, decision=decision, endpoints=endpoints)

    @property
    def revision(self) -> str:
        """The revision with the largest share; '' when nobody has any."""
        return max(self.shares, key=lambda name: (self.shares[name], name), default="")


NO_TRAFFIC = Traffic()
"""Before the first switch: there is no Service."""
