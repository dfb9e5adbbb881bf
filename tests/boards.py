"""The dashboard before recorded objects, for tests of what it reads and says."""

from __future__ import annotations

from pathlib import Path

from recorded import Recorded

from vectorindex_plugin.dashboard.looks import Looks
from vectorindex_plugin.verbs.browse import looks_of
from vectorindex_plugin.verbs.common import Session

PAGE = Path(__file__).resolve().parents[1] / "plugin" / "vectorindex_plugin" / "dashboard" / "page"


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def looks(cluster: Recorded, *, everywhere: bool = False, clock: Clock | None = None) -> Looks:
    """What the page of somebody reads who looks at this cluster. Time stands still."""
    session = Session(cluster, "search", "screen", lambda: cluster.now, flags=("--context=prod", "--namespace=search"))
    made = looks_of(session, all_namespaces=everywhere)
    made.monotonic = clock or Clock()
    return made
