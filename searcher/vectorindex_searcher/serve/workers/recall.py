"""Live recall of a pod of several processes: one sample of what all of them were asked, and one judge, in the first
process, which has the index and no users."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ... import contract
from ...index.selection.rowset import RowSet
from ..evidence.live_recall import LiveRecall
from ..evidence.live_sample import Sampled
from ..evidence.ring import LiveTally
from ..load import Loaded, noting
from .memory import read
from .samples import LiveStates, Rounds, tallies_wire, unpacked

SAMPLE_SECONDS = 2.0
"""How long the judge waits for the samples of all workers; what comes later is of the next round."""
TALLIES_AT_ONCE = 200


class PodRecall:
    """`tell`: takes a message for the front process."""

    def __init__(
        self, task: contract.ServeTask, loaded: Loaded, live: RowSet | None, tell: Callable[[dict[str, object]], None]
    ) -> None:
        """live: the rows that may be answered at the start."""
        self._task, self._loaded, self._tell = task, loaded, tell
        self._sampled = threading.Condition()
        """Guards states and rounds."""
        self._states = LiveStates(live)
        self._rounds = Rounds(0, 0, ())
        self._live: LiveRecall | None = None

    def start(self, workers: int) -> None:
        """Begin to measure, on a thread that ends with the process. After the last fork."""
        self._rounds = Rounds(workers, int(time.time()) // contract.BUCKET_SECONDS, self._task.segments)
        points = list(self._loaded.points.params.values()) if self._loaded.points else []
        self._live = LiveRecall(
            self._task, self._loaded.engine, points, self._take_sample, self._deliver, self.note_origin
        )
        self._live.start()

    def note_origin(self, fetched: int, found: int) -> None:
        """Bytes of vectors.npy, by where they came from."""
        noting(self._loaded.origins)(fetched, found)
        self._tell({"do": "gauges", "gauges": {"origins": self._loaded.origins}})

    @property
    def vectors(self) -> Path | None:
        """Where vectors.npy is, once it is there: only live recall fetches it."""
        return self._live.vectors if self._live is not None else None

    def learn(self, live: RowSet | None) -> int:
        """Other rows may be answered from now on; the number under which all processes know them."""
        with self._sampled:
            number = self._states.newest + 1
            self._states.learn(number, live)
        return number

    def add_sample(self, message: dict[str, Any], descriptor: int) -> None:
        """What a worker was asked in its round."""
        with self._sampled:
            sample = unpacked(read(descriptor), self._loaded.engine.dimension, self._states)
            self._rounds.add(message["worker"], message["since"], sample)
            self._sampled.notify_all()

    def _take_sample(self) -> tuple[list[Sampled], int]:
        """What all workers were asked in the round that ends; on the judge's thread."""
        self._tell({"do": "sample"})
        with self._sampled:
            self._sampled.wait_for(lambda: self._rounds.whole, SAMPLE_SECONDS)
            return self._rounds.take()

    def _deliver(self, tallies: list[LiveTally], next_bucket: int, cpu_seconds: float) -> None:
        wire = tallies_wire(tallies)
        for at in range(0, len(wire), TALLIES_AT_ONCE):
            self._tell({"do": "live", "tallies": wire[at : at + TALLIES_AT_ONCE], "next": None})
        self._tell({"do": "live", "tallies": [], "next": next_bucket, "cpu": cpu_seconds})
