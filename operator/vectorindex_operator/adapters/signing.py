"""Signs requests to searchers with the key of their revision, and seals the key of a shadow for who sends to it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from vectorindex_operator.core.internal_keys import Addressee, InternalKeys
from vectorindex_searcher.contract import (
    SHADOW_NONCE_BYTES,
    InternalRequest,
    seal_shadow_key,
    shadow_key,
    sign,
)


@dataclass(frozen=True, slots=True)
class Signer:
    """Gives each request the headers that say whom it is for and, where the revision has a key, who sent it."""

    keys: InternalKeys = field(default_factory=InternalKeys)
    clock: Callable[[], float] = time.time

    def headers(self, to: Addressee, method: str, path: str, body: bytes = b"") -> dict[str, str]:
        """What to send beside a request. `path`: with its query, exactly as it is sent."""
        return sign(self._key(to), InternalRequest(method, path, body), to.target, self.clock())

    def seal(self, receiver: Addressee, sender: Addressee) -> str:
        """The key that queries are sent with to the pods of `receiver`, for the pods of `sender` only."""
        return seal_shadow_key(shadow_key(self._key(receiver)), self._key(sender), os.urandom(SHADOW_NONCE_BYTES))

    def _key(self, of: Addressee) -> str:
        return self.keys.revision_key(of.revision_uid, of.key_id)
