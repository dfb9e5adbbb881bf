"""Requests between the parts of one index (leases, evidence): whom they are for, and who sent them.

Addresses are reused and lists of pods lag behind, so each such request names its target, and a pod that is another one
answers 421 instead of passing for it. Each is signed with the key of its revision, which its pods find in their
environment. Standard library only; the functions are pure.

    revision key  hex(HMAC-SHA256(master key, "vectorindex revision key 1\\n" + uid of the revision object))
    text          "vectorindex request 1", method, path with query, target, unix seconds, hex(SHA-256(body)):
                  one a line, no line end after the last
    headers       X-VectorIndex-Target: INDEX_UID/REVISION/SHARD; a router's SHARD is "router"
                  X-VectorIndex-Signature: v1 UNIX_SECONDS hex(HMAC-SHA256(revision key, text))
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import StrEnum

TARGET_HEADER = "X-VectorIndex-Target"
SIGNATURE_HEADER = "X-VectorIndex-Signature"
INTERNAL_KEY_ENV = "VECTORINDEX_INTERNAL_KEY"
"""Environment variable with the key of a pod's revision. Without it the pod takes unsigned requests."""
MASTER_KEY_CHARACTERS = 32
"""A master key is at least this long: its revisions' keys can be read in pods, and must not let anybody guess it."""
SIGNATURE_SECONDS = 300
"""How far the sender's clock may be from the receiver's, and so how long a request that somebody heard can be
repeated. Generous: a pod that refuses its operator for a clock would be blind to guardrails. A lease ends by itself."""

ROUTER = "router"
"""In place of a shard's number: who asks all of them."""

_KEY_TEXT = b"vectorindex revision key 1\n"
_REQUEST_TEXT = "vectorindex request 1"
_SIGNATURE = re.compile(r"v1 ([0-9]{1,12}) ([0-9a-f]{64})")


class Sender(StrEnum):
    """What a receiver finds out about a request."""

    GENUINE = "Genuine"
    """Signed for this pod, lately, with its revision's key."""
    MISDIRECTED = "Misdirected"
    """Meant for another index, revision or shard."""
    UNSIGNED = "Unsigned"
    """Without a target, or without a signature of a known form."""
    FORGED = "Forged"
    """Signed with another key, or changed on its way."""
    STALE = "Stale"
    """Signed rightly, but too long ago or ahead: repeated by somebody, or the clocks differ."""


@dataclass(frozen=True, slots=True)
class Target:
    """The pods that a request is for."""

    index_uid: str
    revision: str
    shard: int | str = 0
    """Its number, or ROUTER."""

    def __str__(self) -> str:
        return f"{self.index_uid}/{self.revision}/{self.shard}"


@dataclass(frozen=True, slots=True)
class InternalRequest:
    """What of a request is signed. `path`: as it stands in the request line, with its query."""

    method: str
    path: str
    body: bytes = b""


def revision_key(master_key: str, revision_uid: str) -> str:
    """The key of one revision's pods. Whoever has it learns nothing about the master key or about other revisions."""
    return hmac.digest(master_key.encode(), _KEY_TEXT + revision_uid.encode(), "sha256").hex()


def key_id(master_key: str) -> str:
    """The name of a master key, to say which one a revision's key was made from. Tells nothing else about it."""
    return hmac.digest(master_key.encode(), b"vectorindex key id 1\n", "sha256").hex()[:12]


def sign(key: str, request: InternalRequest, target: Target, now: float) -> dict[str, str]:
    """The headers to send with `request`. `key`: the revision's; empty: they name the target only."""
    headers = {TARGET_HEADER: str(target)}
    if key:
        headers[SIGNATURE_HEADER] = f"v1 {int(now)} {_signature(key, request, str(target), int(now))}"
    return headers


def verify(key: str, request: InternalRequest, me: Target, target: str, signature: str, now: float) -> Sender:
    """Who sent `request`, by the values of its two headers (empty: absent). `key`: the receiver's.

    The target is looked at first: a request for another revision is signed with a key that this pod does not have.
    """
    if target and target != str(me):
        return Sender.MISDIRECTED
    found = _SIGNATURE.fullmatch(signature)
    if not target or found is None:
        return Sender.UNSIGNED
    at = int(found[1])
    if not hmac.compare_digest(_signature(key, request, target, at), found[2]):
        return Sender.FORGED
    return Sender.GENUINE if abs(now - at) <= SIGNATURE_SECONDS else Sender.STALE


def _signature(key: str, request: InternalRequest, target: str, at: int) -> str:
    digest = hashlib.sha256(request.body).hexdigest()
    text = "\n".join((_REQUEST_TEXT, request.method, request.path, target, str(at), digest))
    return hmac.digest(key.encode(), text.encode(), "sha256").hex()
