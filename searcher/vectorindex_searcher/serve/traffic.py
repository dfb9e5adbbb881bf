"""Whether this pod takes traffic: loading, serving, told to drain by a lease, or ending.

State only; it opens and closes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .. import contract


class Traffic:
    """One pod's state. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._loaded = False
        self._ending = False
        self._draining_until = 0.0

    def open(self) -> None:
        """Loaded and proven."""
        self._loaded = True

    def end(self) -> None:
        """SIGTERM came. There is no way back."""
        self._ending = True

    def take_lease(self, lease: contract.TrafficLease) -> None:
        """Draining for as long as the lease says; a Serving lease ends it at once."""
        draining = lease.state is contract.LeaseState.DRAINING
        self._draining_until = self._clock() + lease.ttl_seconds if draining else 0.0

    @property
    def lease(self) -> contract.LeaseState:
        """What the last lease says now; an expired one says Serving."""
        draining = self._clock() < self._draining_until
        return contract.LeaseState.DRAINING if draining else contract.LeaseState.SERVING

    def closing(self) -> bool:
        """Whether each connection is to be closed after its answer."""
        # Asked for every query: the clock only if there was a lease at all.
        return self._ending or (self._draining_until > 0.0 and self._clock() < self._draining_until)

    @property
    def ready(self) -> bool:
        """A Draining lease leaves the pod ready: traffic may come back, and a rollback needs ready pods."""
        return self._loaded and not self._ending

    @property
    def reason(self) -> str:
        """CamelCase: Loading, Ready or Terminating."""
        if self._ending:
            return "Terminating"
        return "Ready" if self._loaded else "Loading"
