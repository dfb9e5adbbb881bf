"""Who removes live queries from the store: never later than a day after they were written, as long as any Job runs.

The gate's Job removes its own with its report. What it leaves behind when it is killed goes with the next gate of the
index, and once it is a day old with the next look at the source, which polling takes every few minutes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..contract import LIVE_HOURS
from ..errors import TaskError
from ..storage.store import ObjectInfo, Store
from .layout import Layout

KEPT_SECONDS = LIVE_HOURS * 3600.0
_log = logging.getLogger(__name__)


def forget(store: Store, layout: Layout, digest: str = "", now: float | None = None) -> None:
    """Remove all live queries but those of `digest`, and these, too, when they are a day old."""
    mine = layout.live_queries(digest) if digest else ""
    _remove(store, layout, lambda item: item.key != mine or _old(item, now))


def forget_old(store: Store, layout: Layout, now: float | None = None) -> None:
    """Remove those that are a day old, whoever measures with them."""
    _remove(store, layout, lambda item: _old(item, now))


def _old(item: ObjectInfo, now: float | None) -> bool:
    return bool(item.modified) and (time.time() if now is None else now) - item.modified > KEPT_SECONDS


def _remove(store: Store, layout: Layout, chosen: Callable[[ObjectInfo], bool]) -> None:
    """Says why it cannot, and goes on: nothing else is wrong then."""
    try:
        found = [item for item in store.list(layout.live_queries()) if chosen(item)]
    except (TaskError, OSError) as error:
        _log.info("what live queries are left could not be listed", extra={"why": str(error)[:300]})
        return
    try:
        for item in found:
            store.delete(item.key)
    except (TaskError, OSError) as error:
        _log.warning("live queries could not be removed", extra={"why": str(error)[:300]})
