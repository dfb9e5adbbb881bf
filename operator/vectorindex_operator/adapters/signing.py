"""Signs requests to searchers with the key of their revision."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from vectorindex_operator.core.internal_keys import Addressee, InternalKeys
from vectorindex_searcher.contract import InternalRequest, sign


@dataclass(frozen=True, slots=True)
class Signer:
    """Gives each request the headers that say whom it is for and, where the revision has a key, who sent it."""

    keys: InternalKeys = field(default_factory=InternalKeys)
    clock: Callable[[], float] = time.time

    def headers(self, to: Addressee, method: str, path: str, body: bytes = b"") -> dict[str, str]:
        """What to send beside a request. `path`: with its query, exactly as it is sent."""
        key = self.keys.revision_key(to.revision_uid, to.key_id)
        return sign(key, InternalRequest(method, path, body), to.target, self.clock())
