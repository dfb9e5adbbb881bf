"""Whether another artifact of this index is there: asked before somebody needs it, since a rollback is loaded from it.

Looks at one key, the manifest of a digest below the index's own prefix, with the keys that a searcher has anyway. On a
thread of its own, one at a time, and none when the last one is young enough: as the source is listed (source.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from .. import contract
from ..artifact.layout import Layout
from ..errors import TaskError
from ..storage.store import Role, Store, open_store
from .background import on_thread

SHORTEST_AGE_SECONDS = 1.0
"""Between the beginnings of two looks, whoever asks for them, and for whatever digest."""
WAIT_SECONDS = 1.0
"""For a look to end before the answer says that it is not known yet; the operator waits twice as long."""
NOT_YET = "NotYet"
_REASON_CHARACTERS, _MESSAGE_CHARACTERS = 64, 300
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Looked:
    """What one look came to, and when it began."""

    began: float
    found: contract.ArtifactLook


class Artifacts:
    """What a searcher knows of its index's other artifacts. To be called on the event loop only."""

    def __init__(self, task: contract.ServeTask, clock: Callable[[], float] = time.monotonic) -> None:
        """Makes no request yet."""
        self._task = task
        self._clock = clock
        self._store: Store | None = None
        self._last: _Looked | None = None
        self._looking: asyncio.Future[_Looked] | None = None

    async def look(self, digest: str, max_age: float) -> contract.ArtifactLook:
        """The last look at a digest (one of contract.ARTIFACT_DIGEST); one that is older than `max_age` seconds is
        made anew, and waited for a little."""
        if self._looking is None and self._is_due(digest, max_age):
            began = self._clock()
            self._looking = on_thread(lambda: self._look(digest, began), "artifact")
            self._looking.add_done_callback(self._end)
        if self._looking is not None:
            await asyncio.wait((self._looking,), timeout=WAIT_SECONDS)
        last = self._last
        if last is None or last.found.digest != digest or self._is_older(last, max_age):
            return _unknown(digest, NOT_YET, "the store was not asked yet, or has not answered")
        return last.found

    def _is_due(self, digest: str, max_age: float) -> bool:
        last = self._last
        if last is None:
            return True
        known = last.found.digest == digest and last.found.found != contract.Found.UNKNOWN
        return self._is_older(last, max_age if known else 0.0)

    def _is_older(self, last: _Looked, max_age: float) -> bool:
        return self._clock() - last.began >= max(SHORTEST_AGE_SECONDS, max_age)

    def _end(self, looking: asyncio.Future[_Looked]) -> None:
        self._looking = None
        self._last = looking.result()

    # ------------------------------------------------------------ on the thread

    def _look(self, digest: str, began: float) -> _Looked:
        try:
            found = self._find(digest)
        except TaskError as error:
            found = _unknown(digest, error.reason, error.failure.message)
        except Exception as error:  # whatever it is, the index is served
            found = _unknown(digest, type(error).__name__, str(error))
        if found.found == contract.Found.UNKNOWN:
            _log.error("artifact not looked at", extra={"reason": found.reason, "problem": found.message})
        return _Looked(began, found)

    def _find(self, digest: str) -> contract.ArtifactLook:
        """Nobody says "it is gone" by mistake: 404 to a HEAD has no word of its cause, and may mean the bucket, or come
        from a proxy. What lists the key and finds none has seen the bucket."""
        if self._store is None:
            self._store = open_store(self._task.artifacts, Role.ARTIFACTS)
        store = self._store
        key = Layout(store.prefix, self._task.identity).manifest(digest)
        if store.head(key) is None:
            first = next(iter(store.list(key)), None)  # in the order of keys, and what lies below one is another
            if first is None or first.key != key:
                return contract.ArtifactLook(digest=digest, found=contract.Found.ABSENT)
        return contract.ArtifactLook(digest=digest, found=contract.Found.PRESENT)


def _unknown(digest: str, reason: str, message: str) -> contract.ArtifactLook:
    return contract.ArtifactLook(
        digest=digest,
        found=contract.Found.UNKNOWN,
        reason=reason[:_REASON_CHARACTERS] or "Unknown",
        message=" ".join(message.split())[:_MESSAGE_CHARACTERS],
    )
