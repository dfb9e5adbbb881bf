"""Deleted ids while serving: listed every few minutes, and hidden from every search from then on.

Reads the store on a thread; the event loop and searches only ever see one whole set of rows. What cannot be listed or
read leaves the last known set in place, and shows in the metrics and the log.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

import pyarrow as pa

from .. import contract
from ..dataset.source import deleted_rows
from ..dataset.tombstones import list_tombstones, read_tombstones
from ..errors import TaskError
from ..index.engine import Engine
from ..index.selection.restricted import check_hidable
from ..index.selection.rowset import RowSet
from ..storage.store import Role, open_store
from . import load
from .evidence.metrics import Gauges
from .settings import Settings

AGAIN_SECONDS = 5.0
"""Between two looks, however often somebody finds that ours is another list than theirs."""
_log = logging.getLogger(__name__)


def load_without_deleted(
    task: contract.ServeTask, tell: Callable[[str], None], settings: Settings, gauges: Gauges
) -> tuple[load.Loaded, Deletions | None]:
    """The proven artifact, with deleted ids hidden: a searcher that cannot know them does not become ready."""
    loaded = load.load(task, tell, settings.cache_bytes, huge_pages=settings.huge_pages)
    if task.tombstones is None:
        return loaded, None
    try:
        tell("reading tombstones")
        deletions = Deletions(loaded.engine, task.tombstones, task.id_column, gauges)
        deletions.refresh()
    except BaseException:
        loaded.release()
        raise
    return loaded, deletions


class Deletions:
    """The deleted ids of one engine. `refresh` raises; `try_refresh` and `watch` do not."""

    def __init__(self, engine: Engine, place: contract.Location, id_column: str, gauges: Gauges) -> None:
        """Raises BadSpec/CannotHide. Reads nothing yet."""
        check_hidable(engine.supports_filter, engine.manifest.index_type)
        self._engine = engine
        self._store = open_store(place, Role.TOMBSTONES)
        self._id_column = id_column
        self._gauges = gauges
        self._gauges.tombstone_errors = 0
        self._seen: object = None
        self._looked, self._wanted = -math.inf, False
        self.fingerprint = ""
        """Of the listing whose ids are hidden now; empty without files."""

    def refresh(self) -> bool:
        """List again, and read and hide if the listing changed; whether it did.

        Raises TaskError: StoreUnavailable, SourceMissing (no such bucket), BadData (not ids of this index).
        """
        self._looked = time.monotonic()
        listed = list_tombstones(self._store)
        changed = listed != self._seen
        if changed:
            kind = pa.string() if self._engine.manifest.id_type == "string" else pa.int64()
            found = read_tombstones(self._store, listed, self._id_column, kind)
            rows = deleted_rows(self._engine.id_chunks(), found.ids)
            self._engine.hide(RowSet.of_rows(rows, self._engine.count) if len(rows) else None)
            self._seen, self.fingerprint = listed, found.fingerprint
            self._gauges.tombstones = len(rows)
            facts = {"files": len(listed), "ids": len(found.ids), "hidden": len(rows)}
            _log.info("tombstones read", extra=facts)
        self._gauges.tombstones_checked = time.time()
        return changed

    def try_refresh(self) -> bool:
        """As `refresh`. A failure is counted and logged, and leaves hidden what was."""
        try:
            return self.refresh()
        except TaskError as error:
            self._failed(error.reason, error.failure.message)
        except Exception as error:  # the searcher goes on with what it knows
            self._failed(type(error).__name__, " ".join(str(error).split())[:300])
        return False

    def look_again(self) -> None:
        """Somebody has another list than ours: the next look is not waited for. From any thread."""
        self._wanted = True

    def is_due(self, seconds: float) -> bool:
        """Whether to list again where that is done every `seconds`, at the latest. Ask it every `pause` seconds."""
        due, self._wanted = self._wanted or time.monotonic() - self._looked >= seconds, False
        return due

    @staticmethod
    def pause(seconds: float) -> float:
        """Between two looks, at least."""
        return min(seconds, AGAIN_SECONDS)

    async def watch(self, seconds: float) -> None:
        """Refresh every `seconds`, for ever; sooner where somebody asked for it."""
        while True:
            await asyncio.sleep(self.pause(seconds))
            if self.is_due(seconds):
                await asyncio.to_thread(self.try_refresh)

    def _failed(self, reason: str, message: str) -> None:
        self._gauges.tombstone_errors = (self._gauges.tombstone_errors or 0) + 1
        _log.error("tombstones not read, the last known stay hidden", extra={"reason": reason, "problem": message})
