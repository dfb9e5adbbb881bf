"""The lease of a pod with several search processes: the front process takes it, and the others learn it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ... import contract
from ..traffic import Traffic


class SharedTraffic(Traffic):
    """The pod's state, whose leases the workers learn, too."""

    def __init__(self, tell: Callable[[Mapping[str, object]], None]) -> None:
        super().__init__()
        self._tell = tell
        self._draining: contract.TrafficLease | None = None
        self._until = 0.0

    def take_lease(self, lease: contract.TrafficLease) -> None:
        """As Traffic."""
        super().take_lease(lease)
        self._draining = lease if self.lease is contract.LeaseState.DRAINING else None
        self._until = time.monotonic() + lease.ttl_seconds
        self._tell({"do": "lease", "lease": lease.wire()})

    def lease_left(self) -> dict[str, object] | None:
        """What a worker that begins now is to be told."""
        left = self._until - time.monotonic()
        if self._draining is None or left <= 0:
            return None
        return {"do": "lease", "lease": self._draining.model_copy(update={"ttl_seconds": left}).wire()}
