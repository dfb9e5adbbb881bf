"""Snapshots of fresh rows beside an index's artifacts: numbered lists of files, each written once.

A list and no rows: an index has one row of numbers for all of its revisions, of which each leaves out what it holds
itself, and whoever has a snapshot reads of the next one only the files that are new in it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationError

from ..contract import Model
from ..dataset.objects import FreshObject
from ..errors import BadData
from ..storage.store import Store, UnsupportedByStore
from .layout import Kind, Layout
from .manifest import encode

KEPT = 5
"""Snapshots that stay: somebody may be reading the one before the newest."""
_MOST_BYTES = 32 << 20


class Refusal(Model):
    """A file that cannot stand beside the index, as the pod saw it that published the snapshot."""

    key: str
    etag: str
    reason: str
    message: str = ""
    model: str = ""
    """Of what compared the file with its own vectors (`model_id`): all pods leave it out, since few have that model.
    Empty: each sees beside its own artifact whether it is to be left out."""


class Snapshot(Model):
    """What makes up one number."""

    format_version: Literal[1] = 1
    number: Annotated[int, Field(ge=1, lt=10**12)]
    files: tuple[FreshObject, ...]
    """All files of rows, in key order, whether they are refused or not."""
    deleted: tuple[FreshObject, ...] = ()
    """Files of deleted ids that may name rows of `files`: those that were stored after the oldest of them."""
    refused: tuple[Refusal, ...] = ()
    """In key order."""
    pod: str = ""
    """That listed them."""

    @property
    def by_model(self) -> tuple[Refusal, ...]:
        """Of the refused ones those that every pod leaves out."""
        return tuple(one for one in self.refused if one.model)

    def same_as(self, other: Snapshot | None) -> bool:
        """Whether both are of the same rows."""
        mine = (self.files, self.deleted, self.by_model)
        return other is not None and mine == (other.files, other.deleted, other.by_model)


def newest(store: Store, layout: Layout) -> int:
    """The highest number that is published; 0 without any. One listing, of few objects."""
    return max(_numbers(store, layout), default=0)


def load(store: Store, layout: Layout, number: int) -> Snapshot | None:
    """None when it is not there (any more). Raises BadData/BadSnapshot."""
    key = layout.fresh(number)
    try:
        data = store.read(key, length=_MOST_BYTES + 1)
        found = Snapshot.model_validate_json(data)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        message = f"{store.describe(key)} is no snapshot: {error.error_count()} errors"
        raise BadData("BadSnapshot", message, object=key, remedy="Remove it.") from None
    if found.number != number:
        message = f"{store.describe(key)} calls itself number {found.number}"
        raise BadData("BadSnapshot", message, object=key, remedy="Remove it.")
    return found


def publish(store: Store, layout: Layout, snapshot: Snapshot) -> bool:
    """Write it, unless there is one of its number; whether it was written. Then old ones are removed."""
    try:
        written = store.put(layout.fresh(snapshot.number), encode(snapshot), exclusive=True)
    except UnsupportedByStore as error:
        message = f"{store.describe(store.prefix)}: no conditional writes ({error})"
        remedy = "Keep artifacts in a store that has them (docs/stores.md)."
        raise BadData("NoConditionalWrites", message, field="spec.artifacts", remedy=remedy) from error
    if written:
        old = [number for number in _numbers(store, layout) if number <= snapshot.number - KEPT]
        store.delete_many([layout.fresh(number) for number in old])
    return written


def _numbers(store: Store, layout: Layout) -> list[int]:
    found = (layout.parse(item.key) for item in store.list(layout.fresh()))
    return [int(owned.name) for owned in found if owned is not None and owned.kind is Kind.FRESH]
