"""Sends notices as CloudEvents (1.0, structured, JSON), signed by the Standard Webhooks specification.

The receiver is the installation's: nobody who writes a VectorIndex chooses it. It may be slow or hostile: each request
is bounded as a whole, no answer is read, no redirect is followed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from vectorindex_operator.adapters.shares import Pool
from vectorindex_operator.core.notices import Notice

DEADLINE_SECONDS = 10.0
"""Of one request, with the time that it waits for its turn."""
PARALLEL = 16
KEY_PREFIX = "whsec_"
Start = Callable[[Coroutine[Any, Any, str]], Future[str]]


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where notices go. `secret`: a folder with `key`, the secret of the signature as Standard Webhooks write it
    (`whsec_` and base64), read anew each time; empty: nothing is signed. `cluster`: told with each notice."""

    url: str
    secret: str = ""
    cluster: str = ""

    def key(self) -> bytes:
        """Raises ValueError without the value."""
        text = (Path(self.secret) / "key").read_text(encoding="ascii").strip()
        try:
            return base64.b64decode(text.removeprefix(KEY_PREFIX), validate=True)
        except ValueError:
            raise ValueError("the key is not base64") from None


@dataclass(slots=True)
class Webhook:
    """Implements reconcile.ports.Courier. `start` runs a coroutine on an event loop, always the same one."""

    receiver: Receiver
    start: Start
    _turns: Pool = field(default_factory=lambda: Pool(PARALLEL))

    def send(self, notice: Notice) -> Future[str]:
        return self.start(self._send(notice))

    async def _send(self, notice: Notice) -> str:
        try:
            async with asyncio.timeout(DEADLINE_SECONDS), self._turns.share().one():
                return await self._post(notice)
        except TimeoutError:
            return f"no answer within {DEADLINE_SECONDS:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # No text of it: an address may hold what lets one in.
            return f"the receiver cannot be reached ({type(error).__name__})"

    async def _post(self, notice: Notice) -> str:
        body = cloud_event(notice, self.receiver.cluster)
        headers = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
        if self.receiver.secret:
            headers |= signed(body, notice.id, self.receiver.key(), time.time())
        async with (
            aiohttp.ClientSession(trust_env=True) as session,
            session.post(self.receiver.url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            return "" if 200 <= answer.status < 300 else f"the receiver answers with status {answer.status}"


def cloud_event(notice: Notice, cluster: str) -> bytes:
    """The body of a request."""
    data = {
        "cluster": cluster,
        "namespace": notice.namespace,
        "name": notice.name,
        "revision": notice.revision,
        "before": notice.before,
        "outcome": notice.outcome,
        "rule": notice.rule,
        "reason": notice.reason,
        "message": notice.message,
    }
    event = {
        "specversion": "1.0",
        "id": notice.id,
        "source": f"/apis/vectorindex.dev/namespaces/{notice.namespace}/vectorindexes/{notice.name}",
        "type": notice.kind,
        "subject": notice.revision,
        "time": notice.at,
        "datacontenttype": "application/json",
        "data": {name: value for name, value in data.items() if value},
    }
    return json.dumps(event, separators=(",", ":")).encode()


def signed(body: bytes, notice_id: str, key: bytes, now: float) -> dict[str, str]:
    """The headers of Standard Webhooks (standardwebhooks.com): id, time, and the HMAC-SHA256 of both and the body."""
    at = str(int(now))
    content = b".".join((notice_id.encode(), at.encode(), body))
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return {"webhook-id": notice_id, "webhook-timestamp": at, "webhook-signature": f"v1,{signature}"}
