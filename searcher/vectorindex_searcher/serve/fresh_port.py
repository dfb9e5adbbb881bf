"""Fresh rows on the admin port: what is known of them, and the order to answer without them for a while."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from .. import contract
from .fresh import Seen

_log = logging.getLogger(__name__)


class FreshPort:
    """Belongs to the event loop. `seen`: what the last look came to; `switch`: told whether they are off."""

    def __init__(
        self, seen: Callable[[], Seen], switch: Callable[[bool], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seen, self._switch, self._clock = seen, switch, clock
        self._ending: asyncio.TimerHandle | None = None

    @property
    def off(self) -> bool:
        return self._ending is not None

    def look(self) -> contract.FreshLook:
        return self._seen().told(off=self.off, now=self._clock())

    def take(self, order: contract.FreshOrder) -> contract.FreshLook:
        """Obey, until the order runs out: an operator that is away keeps no rows from anybody."""
        before = self.off
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        if order.off:
            self._ending = asyncio.get_running_loop().call_later(order.ttl_seconds, self._end)
        if self.off != before:
            self._tell()
        return self.look()

    def _end(self) -> None:
        self._ending = None
        self._tell()

    def _tell(self) -> None:
        _log.warning("fresh rows are switched off" if self.off else "fresh rows are answered again")
        self._switch(self.off)
