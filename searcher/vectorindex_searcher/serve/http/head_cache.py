"""Heads of requests that were parsed before: a client that keeps its connection sends the same bytes again and again.

A head is known by all of its bytes, as the parser judged them; nothing is ever guessed from a part. So a known head
needs no parsing, which costs as much as a tenth of a search.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_HEADS = 1024
MAX_HEAD_BYTES = 2048
END = b"\r\n\r\n"


@dataclass(slots=True, eq=False)
class Head:
    """Request line and headers of a request that keeps its connection, with a body of `length` bytes."""

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    """Shared by all requests with this head; never changed."""
    length: int
    plan: object = None
    """What the application has worked out from this head and wants to see again."""


class HeadCache:
    """A bounded number of heads, of all connections of a port."""

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}

    def find(self, data: bytes) -> tuple[Head | None, int]:
        """The known head that `data` begins with, and where that head ends; 0 when it does not end in there."""
        end = data.find(END, 0, MAX_HEAD_BYTES) + len(END)
        return (self._heads.get(data[:end]), end) if end >= len(END) else (None, 0)

    def learn(self, raw: bytes, method: bytes, target: bytes, headers: dict[bytes, bytes], body_bytes: int) -> None:
        """Remember a head that was parsed, if it says all about its request: how long it is, and nothing unusual."""
        if b"transfer-encoding" in headers or b"expect" in headers or b"upgrade" in headers or method == b"CONNECT":
            return
        if int(headers.get(b"content-length", b"0")) != body_bytes:
            return
        if len(self._heads) >= MAX_HEADS:
            self._heads.clear()  # clients that put an id into every head: as good as any other choice
        self._heads[raw] = Head(method, target, headers, body_bytes)
