"""Heads of requests that were parsed before: a client sends the same again and again, but for what nobody here reads.

A head is known by the SHA-256 of all its bytes, or of all lines that say something here, byte for byte (the request
line, the token, what frames the body): a trace id in every head makes no other head of it. Nothing of what a client
sent is kept but what Head holds: no token, no cookie, no header that nobody here reads.
"""

from __future__ import annotations

from hashlib import sha256

from .head import Head
from .head_parser import without_unread

MAX_HEADS = 1024
MAX_HEAD_BYTES = 2048
"""Longer ones are not looked for."""
_OTHER_LINES = 2
"""Of a head: the request line, and the empty one."""


class HeadCache:
    """A bounded number of heads, of all connections of a port, in two generations: those in use outlive any number of
    heads that come once.
    """

    def __init__(self, header_lines: int) -> None:
        """`header_lines`: how many a head may have."""
        self._lines = header_lines + _OTHER_LINES
        self._young: dict[bytes, Head] = {}
        self._old: dict[bytes, Head] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def find(self, raw: bytes) -> Head | None:
        """What these bytes of a head mean, if it is known."""
        if len(raw) > MAX_HEAD_BYTES:
            return None
        key = sha256(raw).digest()
        head = self._recent(key)
        if head is not None:
            return head
        short, left_out = without_unread(raw)
        # Whoever sent the same before had fewer lines, perhaps.
        if not left_out or left_out + short.count(b"\r\n") > self._lines:
            return None
        head = self._recent(sha256(short).digest())
        if head is not None:
            self._add(key, head)
        return head

    def learn(self, raw: bytes, head: Head) -> None:
        """Remember a head that was parsed, if it says all about its request."""
        if len(raw) > MAX_HEAD_BYTES or head.length is None or not head.keep_alive or head.expects_continue:
            return
        for form in (raw, without_unread(raw)[0]):
            self._add(sha256(form).digest(), head)

    def _recent(self, key: bytes) -> Head | None:
        head = self._young.get(key)
        if head is None:
            head = self._old.pop(key, None)
            if head is not None:
                self._add(key, head)
        return head

    def _add(self, key: bytes, head: Head) -> None:
        if len(self._young) >= MAX_HEADS // 2:
            self._old, self._young = self._young, {}
        self._young[key] = head
