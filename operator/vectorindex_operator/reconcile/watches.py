"""What is watched, and whether the watches live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from vectorindex_operator.api.v1alpha1 import GROUP, VERSION


@dataclass(frozen=True, slots=True)
class Watched:
    """A kind of object: its name, its group, the name of its collection. All are of the version given."""

    kind: str
    group: str
    version: str
    plural: str


WATCHED = (
    Watched("VectorIndex", GROUP, VERSION, "vectorindexes"),
    Watched("VectorIndexRevision", GROUP, VERSION, "vectorindexrevisions"),
    Watched("Job", "batch", "v1", "jobs"),
    Watched("Deployment", "apps", "v1", "deployments"),
    Watched("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets"),
    Watched("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies"),
    Watched("Pod", "", "v1", "pods"),
    Watched("Service", "", "v1", "services"),
)
"""The VectorIndexes first: children of one that is not known are not kept."""
BEAT_SECONDS = 1.0
WATCHER = "watcher for "
"""How kopf names the task of one watch: one for each kind, in each namespace."""


@dataclass(slots=True)
class Watches:
    """Whether kopf's watches live. kopf renews each one by itself, but one whose task ended (rights taken away, an
    error inside the stream) stays away in silence, and so do all when the event loop hangs."""

    expected: int
    clock: Callable[[], float] = time.monotonic
    _beat_at: float | None = None
    _running: set[str] = field(default_factory=set)
    _complete_at: float = 0.0
    """When all of them were last there."""

    async def beat(self) -> None:
        """Tell that the event loop turns, until cancelled."""
        self._complete_at = self.clock()
        while True:
            self._running = {name for task in asyncio.all_tasks() if (name := task.get_name()).startswith(WATCHER)}
            self._beat_at = self.clock()
            if len(self._running) >= self.expected:
                self._complete_at = self._beat_at
            await asyncio.sleep(BEAT_SECONDS)

    def running(self) -> int:
        """Watches that run."""
        return len(self._running)

    def stuck(self, longest: float) -> str:
        """Why watches are missed, for `longest` seconds by now; empty: none is, or they were not begun (a standby)."""
        if self._beat_at is None:
            return ""
        now = self.clock()
        if now - self._beat_at >= longest:
            return f"the watches' event loop has not turned for {now - self._beat_at:.0f} s"
        if now - self._complete_at >= longest:
            return f"{len(self._running)} of {self.expected} watches run"
        return ""


def watches(namespaces: tuple[str, ...]) -> Watches:
    """The watches of all kinds in all namespaces."""
    return Watches(expected=len(WATCHED) * max(1, len(namespaces)))
