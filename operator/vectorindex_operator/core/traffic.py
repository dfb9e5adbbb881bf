"""Who has the traffic, and the one write that changes it.

The decision travels with the shares in that write, so a crash right after it loses nothing: the next pass finds the
decision and writes what follows from it (safety/record_decision.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from vectorindex_searcher.contract import ServingPoint


class DecisionKind(StrEnum):
    SWITCH = "Switch"
    ROLL_BACK = "RollBack"


@dataclass(frozen=True, slots=True)
class PointDecision:
    """At which operating point a revision answers, and why (safety/operating_point.py). `at`: unix seconds; a later one
    takes the place of an earlier one. `nonce`: of the command that asked for it."""

    point: ServingPoint
    at: float
    message: str
    nonce: str = ""


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
    point: PointDecision | None = None
    """Of `to_revision`; None: nobody ever decided about it, so it is the default one."""


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


@dataclass(frozen=True, slots=True)
class RouteView:
    """The HTTPRoute that splits what comes through gateways, as it was read.

    `problem`: why it cannot be read at all (no Gateway API in the cluster, or no right); the rest says nothing then.
    `owned` is False when an object of another owner has its name. `weights`: by name of a Service, of all its rules.
    """

    exists: bool = False
    problem: str = ""
    owned: bool = True
    uid: str = ""
    resource_version: str = ""
    written_at: float = 0.0
    """When anybody last changed what it says, Unix seconds."""
    said_at: float = 0.0
    """When a gateway last changed what it says of it."""
    weights: Mapping[str, int] = field(default_factory=dict)
    accepted: bool = False
    """Whether each of its gateways has accepted it as it is now, and found all that it names."""
    behind: bool = False
    """Whether a gateway that it names, and that has said something of it, has not seen it as it is now."""
    left_behind: bool = False
    """The same of one that it names no more. Such a row may stay for ever: not every gateway takes its own away."""
    refused: str = ""
    """What the first gateway says that does not take it; empty: none says so."""
    unresolved: str = ""
    """What the first one says that takes it, and does not find what it names; empty: none says so."""
    unheard: str = ""
    """The first gateway that it names of which nothing was heard, namespace/name; empty: each has said something."""
    decision: Decision | None = None
    """The last step back, written together with the weights."""
    services: Mapping[str, str] = field(default_factory=dict)
    """Uid of each Service that is, or was, there for a candidate's share, by its name: the revision's."""
    endpoints: Mapping[str, int] = field(default_factory=dict)
    """Ready addresses behind each Service of the index, by its name."""

    @property
    def unknown(self) -> bool:
        """Whether there may be a route that cannot be read. Where the API itself is not there, there is none."""
        return bool(self.problem) and not self.problem.startswith("404")


NO_ROUTE = RouteView()
NO_TRAFFIC = Traffic()
"""Before the first switch: there is no Service."""
