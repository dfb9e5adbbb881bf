"""Where a revision stands. One enum and every set of phases that some rule speaks of.

```
in preparation:  Pending -> Building -> Validating -> Validated
                              |             |
                          BuildFailed    Rejected
candidate:       Surging -> [Shadowing] -> [Shifting] -> Soaking -> Stable -> Superseded -> Retired -> Removing
                    |            |             +------------+---- trip ---> RolledBack
               SurgeFailed   Rejected                       +---- superseded without a way back ---> Outgoing
                                                                                     -> Superseded or RolledBack
```

A status keeps a phase as plain text, since another release may have written one that this one does not know: such a
revision is left as it is (core/observation.py).
"""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """What a revision is doing, or how it ended."""

    PENDING = "Pending"
    """Its object is written; no Job has been started."""
    BUILDING = "Building"
    """A Job builds its artifact."""
    VALIDATING = "Validating"
    """Built; a Job measures its recall, or its report waits for a verdict."""
    VALIDATED = "Validated"
    """Proven; it waits for its turn."""
    SURGING = "Surging"
    """Its searchers are being loaded beside those that serve."""
    SHADOWING = "Shadowing"
    """It answers live queries beside the one that serves, unseen: its answers are compared, and no user gets them."""
    SHIFTING = "Shifting"
    """It has a share of the traffic that comes through a gateway, larger with each step; guardrails judge it."""
    SOAKING = "Soaking"
    """It has the traffic; what it replaced stays loaded, and guardrails judge it."""
    OUTGOING = "Outgoing"
    """It has the traffic until the next proven revision takes it: there is no ready pod to go back to."""
    STABLE = "Stable"
    """It passed its soak: what serves, and what is gone back to."""
    SUPERSEDED = "Superseded"
    """A later one took its place, or nobody wants it any more. No fault of its own."""
    RETIRED = "Retired"
    """Superseded, and its searchers are gone. It can still be gone back to, from its artifact."""
    REJECTED = "Rejected"
    """The gate, the canary queries of its own pods, or live queries in shadow, found it too bad to serve."""
    ROLLED_BACK = "RolledBack"
    """A guardrail tripped while it had the traffic."""
    BUILD_FAILED = "BuildFailed"
    """Its Job failed; tried again after a wait, or when the spec changes."""
    SURGE_FAILED = "SurgeFailed"
    """Its searchers did not become ready in time."""
    REMOVING = "Removing"
    """It fell out of the history, and a Job removes its artifact: never wanted again, never gone back to."""


KNOWN = frozenset(Phase)
IN_PREPARATION = frozenset({Phase.PENDING, Phase.BUILDING, Phase.VALIDATING, Phase.VALIDATED})
BEFORE_TRAFFIC = frozenset({Phase.SURGING, Phase.SHADOWING})
"""Loaded beside what serves: given up, it is gone and no user has noticed."""
BEFORE_SWITCH = BEFORE_TRAFFIC | {Phase.SHIFTING}
"""The front Service belongs to what serves: given up, it loses at most what a gateway sends it."""
CANDIDATE = BEFORE_SWITCH | {Phase.SOAKING}
UNDER_WAY = IN_PREPARATION | CANDIDATE | {Phase.OUTGOING}
REPLACED = frozenset({Phase.SUPERSEDED, Phase.RETIRED})
"""Done without any fault: wanted again, they are taken again."""
FAILED = frozenset({Phase.REJECTED, Phase.ROLLED_BACK, Phase.BUILD_FAILED, Phase.SURGE_FAILED})
"""People are told, and `retry` tries them again."""
GIVEN_UP = REPLACED | FAILED
"""May not be given the traffic as they are."""
ENDED = GIVEN_UP | {Phase.STABLE}
"""Rows of the history."""
