"""Who may ask this pod for evidence and tell it leases: whoever names it and signs with its revision's key.

Live queries and those of a shadow have keys of their own, made from it: the Job that reads the first, and the pods that
send the others, can do nothing else. Probes and metrics are not internal: the kubelet and Prometheus sign nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ... import contract
from .messages import Problem, Request

PUBLIC_PATHS = frozenset({b"/livez", b"/readyz", b"/metrics"})
"""Of the admin port, for whoever reaches it. A path that is not named here is internal: none is public by mistake."""
_LIVE_QUERIES = contract.LIVE_QUERIES_PATH.encode()
_SHADOW = contract.SHADOW_PATH.encode()
_OF_QUERIES = frozenset({_LIVE_QUERIES, _SHADOW, contract.MIRROR_PATH.encode(), contract.NEAREST_PATH.encode()})
"""What users ask goes this way, or where a lease says: never without a key, or whoever reaches the port had it."""
_TARGET = contract.TARGET_HEADER.lower().encode()
_SIGNATURE = contract.SIGNATURE_HEADER.lower().encode()
_log = logging.getLogger(__name__)


class InternalRequests:
    """Checks each request of the admin port. `key`: the revision's; empty (on a laptop): nobody has to sign."""

    def __init__(
        self, task: contract.ServeTask | contract.RouteTask, key: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        self._me = contract.Target(task.identity.uid, task.revision, task.shard or 0)
        self._key = key
        self._live_key = contract.live_key(key) if key else ""
        self._shadow_key = contract.shadow_key(key)
        self._clock = clock

    def announce(self) -> None:
        """Say once whether requests must be signed."""
        if self._key:
            _log.info("evidence and leases need the operator's signature", extra={"target": str(self._me)})
        else:
            _log.info("no key for internal requests: whoever reaches the admin port reads evidence and sends leases")

    def check(self, request: Request) -> None:
        """Raises Problem 421, 401 or 403 for a request that this pod must not take."""
        if request.path in PUBLIC_PATHS:
            return
        if request.path in _OF_QUERIES and not self._key:
            raise _keyless()
        keys = {_LIVE_QUERIES: self._live_key, _SHADOW: self._shadow_key}
        key = keys.get(request.path, self._key)
        target = request.headers.get(_TARGET, b"").decode("latin-1")
        signed = request.headers.get(_SIGNATURE, b"").decode("latin-1")
        asked = contract.InternalRequest(
            request.method.decode("latin-1"), request.target.decode("latin-1"), request.body
        )
        sender = contract.verify(key, asked, self._me, target, signed, self._clock())
        if sender is contract.Sender.MISDIRECTED:
            raise _misdirected(target, self._me)
        if key and sender is not contract.Sender.GENUINE:
            raise self._refusal(sender, signed)

    def _refusal(self, sender: contract.Sender, signed: str) -> Problem:
        field = contract.SIGNATURE_HEADER
        if sender is contract.Sender.UNSIGNED:
            return Problem(
                401,
                "SignatureNeeded",
                "this path is for the operator: the request must name its target and be signed with the revision's key",
                field=field,
                remedy=f"sign as docs/security.md says; {_paths()} need no signature",
                headers=((b"WWW-Authenticate", b"VectorIndex-HMAC-SHA256"),),
            )
        if sender is contract.Sender.STALE:
            return Problem(
                403,
                "StaleSignature",
                f"the request was signed more than {contract.SIGNATURE_SECONDS} s away from {self._clock():.0f}, "
                "this pod's clock",
                field=field,
                value=signed.split(" ")[1],
                remedy="set the clocks of the operator's and of this pod's node right",
            )
        return Problem(
            403,
            "ForgedSignature",
            "the signature does not fit the request and the key of this revision",
            field=field,
            remedy="the operator and this pod have different keys: see docs/security.md, rotation of the internal key",
        )


def _keyless() -> Problem:
    """What users ask is never told to whoever reaches the port."""
    return Problem(
        403,
        "KeyNeeded",
        "what users ask is told, sent and taken only with a signature, and this pod has no key to check one with",
        field=contract.SIGNATURE_HEADER,
        remedy="set the operator's internal key (docs/security.md); revisions made from then on have one",
    )


def _misdirected(target: str, me: contract.Target) -> Problem:
    return Problem(
        421,
        "MisdirectedRequest",
        f"this pod is {me}: its address belonged to another before, or the sender's list is old",
        field=contract.TARGET_HEADER,
        value=target,
        remedy="look up the address again",
    )


def _paths() -> str:
    return ", ".join(sorted(path.decode() for path in PUBLIC_PATHS))
