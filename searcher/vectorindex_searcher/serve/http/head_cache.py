"""Heads of requests that were parsed before: a client that keeps its connection sends the same bytes again and again.

A head is known by the SHA-256 of all its bytes; nothing is ever guessed from a part, and nothing of what a client sent
is kept but what Head holds: no token, no cookie, no header that nobody here reads.
"""

from __future__ import annotations

from .head import Head

MAX_HEADS = 1024
MAX_HEAD_BYTES = 2048
"""Longer ones are not looked for."""


class HeadCache:
    """A bounded number of heads, of all connections of a port, in two generations: those in use outlive any number of
    heads that come once (clients that put an id into every head).
    """

    def __init__(self) -> None:
        self._young: dict[bytes, Head] = {}
        self._old: dict[bytes, Head] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def find(self, key: bytes) -> Head | None:
        """The head whose bytes have this SHA-256, if it is known."""
        head = self._young.get(key)
        if head is None:
            head = self._old.pop(key, None)
            if head is not None:
                self._add(key, head)
        return head

    def learn(self, key: bytes, head: Head) -> None:
        """Remember a head that was parsed, if it says all about its request."""
        if head.length is not None and head.keep_alive and not head.expects_continue:
            self._add(key, head)

    def _add(self, key: bytes, head: Head) -> None:
        if len(self._young) >= MAX_HEADS // 2:
            self._old, self._young = self._young, {}
        self._young[key] = head
