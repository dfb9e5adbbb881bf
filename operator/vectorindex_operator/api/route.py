"""VectorIndex.spec.rollout.steps and .route as pydantic models: shares of the traffic that comes through a gateway.

See spec.py for the rules; docs/operations.md, "Canary weights", for what they do.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from vectorindex_operator.api.fields import CelRule, ObjectName, ObjectNameOrNone, PositiveDuration
from vectorindex_searcher.contract import Model

HostName = Annotated[str, Field(pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
                                max_length=253)]  # fmt: skip


class Step(Model):
    """A share of the traffic that comes through the gateway, and what ends it. Guardrails judge each step by itself."""

    weight: Annotated[int, Field(ge=1, le=99)]
    """So many of a hundred queries go to the new revision."""
    duration: PositiveDuration | None = None
    """At least this long, and until every enforced guardrail passes."""
    pause: bool = False
    """The step does not end by itself: it waits for the command `resume`."""
    cel: ClassVar[tuple[CelRule, ...]] = (
        CelRule(
            "has(self.duration) || (has(self.pause) && self.pause)",
            "a step needs duration, or pause: true to wait for the command `resume`",
            ".duration",
        ),
    )


class ParentRef(Model):
    """A Gateway that the route is attached to."""

    name: ObjectName
    """Of the Gateway."""
    namespace: ObjectNameOrNone = ""
    """Empty: that of the VectorIndex. The Gateway must allow routes from there (`allowedRoutes`)."""
    section_name: ObjectNameOrNone = ""
    """A listener of the Gateway; empty: all of them."""


class Route(Model):
    """The HTTPRoute that the operator keeps: named like the VectorIndex, to its Service, on every path."""

    parent_refs: Annotated[tuple[ParentRef, ...], Field(min_length=1, max_length=8)]
    """A step begins when each of them says that it routes so."""
    hostnames: Annotated[tuple[HostName, ...], Field(max_length=16)] = ()
    """Names that clients ask for; empty: those of the listeners."""
