"""One object of a listing. A module of its own, so that readers and the listing itself can name it."""

from __future__ import annotations

from ..contract import Model


class ListedObject(Model):
    """One object of a listing; `etag` pins the content that was listed."""

    key: str
    size: int
    etag: str
    rows: int | None = None
    """Rows, once counted, of a format whose header does not say them (JSON lines)."""


class FreshObject(ListedObject):
    """A file of fresh rows, or of ids deleted beside them."""

    stored_at: float
    """By the store's own clock, Unix seconds: of two rows with one id the later one counts."""
