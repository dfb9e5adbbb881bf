"""The sender of a pod of several search processes, in the first one, which has the index and no users.

One for all: each of them would begin a request of its own for a query or two, and so many at once that a pod that is
judged refuses them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ... import contract
from ...index.engine import Engine
from ..shadow.answers import ExactScores
from ..shadow.mirror import Mirror
from ..shadow.sender import MirrorSender
from .memory import read
from .mirrored import unpacked
from .pairs import pairs_messages


class PodSender:
    """In the pod's first process, once all others are forked: the sender has a thread. `vectors`: where vectors.npy is,
    once it is there; `differ`: told that the judged pod has other deleted ids, or that a process of ours found so of
    its sender; `tell`: takes a message for the front process."""

    def __init__(
        self,
        task: contract.ServeTask,
        engine: Engine,
        vectors: Callable[[], Path | None],
        differ: Callable[[], None],
        tell: Callable[[dict[str, object]], None],
    ) -> None:
        self._task, self._engine = task, engine
        self._vectors, self._differ, self._tell = vectors, differ, tell
        self._told_vectors = False
        self._mirror = Mirror(task.segments, engine.dimension)
        exact = ExactScores(engine, vectors)
        self._sender = MirrorSender(task.identity.uid, task.revision, self._mirror, engine, exact, differ)

    def hear(self, message: Mapping[str, Any], descriptor: int) -> None:
        """What the front process says of shadows."""
        match message["say"]:
            case "mirror":
                lease = contract.MirrorLease.model_validate(message["lease"])
                self._mirror.take(lease, message["key"], self._task.revision)
                self._sender.start()
            case "mirrored" if descriptor >= 0:
                for query in unpacked(read(descriptor), self._engine.dimension):
                    self._mirror.put(query)
            case "other deleted":
                self._differ()
            case "report":
                self._report(message["number"])
            case _:
                pass

    def _report(self, number: int) -> None:
        """What is new since the last time."""
        self._mirror.count_left_out()
        if self._mirror.counts is not None:
            for message in pairs_messages("mirrored", self._mirror.counts):
                self._tell({"do": "pairs", **message})
        path = self._vectors()
        if path is not None and not self._told_vectors:
            self._told_vectors = True
            self._tell({"do": "vectors", "path": str(path)})
        self._tell({"do": "told", "number": number, "results": {"mirrored": self._mirror.results}})
