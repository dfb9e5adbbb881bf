"""The source, listed when the operator asks whether it is as it was: by the code of `resolve`, without its headers.

Lists on a thread of its own; the event loop only ever sees whole answers. At most one listing at a time, and none when
the last one is young enough, however often somebody asks.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from pydantic import ValidationError

from .. import contract
from ..dataset.listing import source_fingerprint
from ..dataset.places import no_data
from ..errors import TaskError
from ..storage.store import Role, Store, open_store
from .evidence.metrics import Gauges

SHORTEST_AGE_SECONDS = 1.0
"""Between the beginnings of two listings, whoever asks for them."""
WAIT_SECONDS = 1.0
"""For a listing to end before the answer says that it is under way; the operator waits twice as long."""
_REASON_CHARACTERS, _MESSAGE_CHARACTERS = 64, 300
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Listed:
    """How one listing ended: with a fingerprint, or with a reason and a message."""

    began: float
    fingerprint: str = ""
    reason: str = ""
    message: str = ""


class SourceListing:
    """What a searcher knows of its index's source. To be called on the event loop only."""

    def __init__(
        self, task: contract.ResolveTask, source: str, gauges: Gauges, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`source`: the name of what is listed (contract.source_id). Makes no request yet."""
        self._task = task
        self._source = source
        self._gauges = gauges
        self._clock = clock
        self._store: Store | None = None
        self._good: _Listed | None = None
        self._last: _Listed | None = None
        self._listing: asyncio.Future[None] | None = None
        gauges.source_errors = 0

    @classmethod
    def told(cls, text: str, gauges: Gauges) -> SourceListing | None:
        """Of contract.SOURCE_ENV. None without it, and for a text that this image does not understand: a Job lists."""
        if not text:
            return None
        try:
            return cls(contract.ResolveTask.model_validate_json(text), contract.source_id(text), gauges)
        except ValidationError as error:
            _log.warning(
                "the source is not listed here", extra={"problem": f"{error.error_count()} errors in its task"}
            )
            return None

    async def look(self, pod: str, revision: str, max_age: float) -> contract.SourceLook:
        """The last listing; one that is older than `max_age` seconds is made anew, and waited for a little."""
        if self._listing is None and self._is_due(max_age):
            self._listing = self._begin()
        if self._listing is not None:
            await asyncio.wait((self._listing,), timeout=WAIT_SECONDS)
        good, last = self._good, self._last
        return contract.SourceLook(
            pod=pod,
            revision=revision,
            source=self._source,
            fingerprint=good.fingerprint if good else "",
            age_seconds=max(0.0, self._clock() - good.began) if good else 0.0,
            under_way=self._listing is not None,
            reason=last.reason if last else "",
            message=last.message if last else "",
        )

    def _is_due(self, max_age: float) -> bool:
        if self._last is None:
            return True
        allowed = SHORTEST_AGE_SECONDS if self._last.reason else max(SHORTEST_AGE_SECONDS, max_age)
        return self._clock() - self._last.began >= allowed

    def _begin(self) -> asyncio.Future[None]:
        """List on a thread that does not keep the process alive: a store may take minutes to say nothing."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        began = self._clock()

        def end(listed: _Listed) -> None:
            self._listing, self._last = None, listed
            self._tell(listed)
            if not ended.done():
                ended.set_result(None)

        def run() -> None:
            listed = self._list(began)
            with suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(end, listed)

        threading.Thread(target=run, name="source", daemon=True).start()
        return ended

    def _list(self, began: float) -> _Listed:
        """On the thread."""
        try:
            if self._store is None:
                self._store = open_store(self._task.source, Role.SOURCE)
            return _Listed(began, source_fingerprint(self._store, no_data(self._task)))
        except TaskError as error:
            return _failed(began, error.reason, error.failure.message)
        except Exception as error:  # whatever it is, the index is served
            return _failed(began, type(error).__name__, str(error))

    def _tell(self, listed: _Listed) -> None:
        if listed.reason:
            self._gauges.source_errors = (self._gauges.source_errors or 0) + 1
            _log.error("source not listed", extra={"reason": listed.reason, "problem": listed.message})
            return
        if self._good is None or self._good.fingerprint != listed.fingerprint:
            _log.info("source listed", extra={"fingerprint": listed.fingerprint})
        self._good = listed
        self._gauges.source_checked = time.time()


def _failed(began: float, reason: str, message: str) -> _Listed:
    return _Listed(began, "", reason[:_REASON_CHARACTERS] or "Unknown", " ".join(message.split())[:_MESSAGE_CHARACTERS])
