"""What is loaded at the same time, seen by a thread for as long as a story goes on."""

from __future__ import annotations

import threading
from types import TracebackType

from e2e.workspace import Workspace

from harness.errors import HarnessError
from harness.vix import REVISION_LABEL

LOOK_SECONDS = 0.5


class Sightings:
    """Looks at the searchers of an index twice a second, from the beginning of the block to its end."""

    def __init__(self, space: Workspace) -> None:
        self.space = space
        self.loaded: set[frozenset[str]] = set()
        """Revisions that had pods in one look; those that were told to end, and that nobody asks, do not count."""
        self.looks = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sightings", daemon=True)

    @property
    def most(self) -> int:
        """How many revisions were loaded at once."""
        return max((len(names) for names in self.loaded), default=0)

    def __enter__(self) -> Sightings:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        selector = "app.kubernetes.io/component=searcher"
        while not self._over.wait(LOOK_SECONDS):
            try:
                pods = self.space.kube.list("Pod", self.space.namespace, selector)
            except HarnessError:
                continue  # one look less
            self.looks += 1
            stay = [pod["metadata"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
            self.loaded.add(frozenset(meta["labels"][REVISION_LABEL] for meta in stay))
