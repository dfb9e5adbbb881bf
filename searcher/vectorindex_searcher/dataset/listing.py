"""What a source holds: its listing and the fingerprint that names one state of it. Reads no object's content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import ValidationError

from ..artifact.layout import Layout
from ..artifact.manifest import encode
from ..contract import Model
from ..errors import BadData, RetryableError, SourceMissing
from ..storage.store import ObjectInfo, Store
from .formats import FORMATS, SUFFIXES, find_format, format_of
from .objects import ListedObject


class Listing(Model):
    """The data objects of a source in key order. Stored by `resolve`, read by `build`."""

    format_version: Literal[1] = 1
    fingerprint: str
    objects: tuple[ListedObject, ...]

    @property
    def bytes(self) -> int:
        return sum(item.size for item in self.objects)


def fingerprint(objects: Sequence[ObjectInfo | ListedObject]) -> str:
    """64 hex characters over the sorted (key, size, etag) of the objects: equal exactly when nothing changed."""
    facts = sorted((item.key, item.size, item.etag) for item in objects)
    return hashlib.sha256(json.dumps(facts, separators=(",", ":"), ensure_ascii=True).encode()).hexdigest()


def list_source(store: Store, exclude: str = "") -> Listing:
    """List the data objects below the store's prefix: those with a suffix of formats.py.

    Below it, names and folders that begin with `_` or `.` are not data (_SUCCESS, _delta_log/, checksums); `_a=b` is.
    `exclude`: a key, or a folder of keys, that is no data either. Raises SourceMissing/EmptySource when nothing is
    left, BadData/MixedFormats when two formats are there.
    """
    listed = list(store.list(store.prefix))
    data = sorted(
        (item for item in listed if is_data(item.key, store.prefix, SUFFIXES) and not _within(item.key, exclude)),
        key=lambda item: item.key,
    )
    if not data:
        seen = f"; {len(listed)} of other formats, for example {listed[0].key}" if listed else ""
        raise SourceMissing(
            "EmptySource",
            f"{store.describe(store.prefix)} holds no object of a known format ({', '.join(SUFFIXES)}){seen}",
            field="spec.source",
            remedy="Point spec.source at the prefix of the vectors, or upload them.",
        )
    first = format_of(data[0].key)
    if other := next((item.key for item in data if find_format(item.key) is not first), None):
        names = " and ".join(found.name for found in FORMATS if found in (first, format_of(other)))
        raise BadData(
            "MixedFormats",
            f"{store.describe(store.prefix)} holds {names} objects, for example {data[0].key} and {other}",
            object=other,
            remedy="Keep one format per source.",
        )
    objects = tuple(ListedObject(key=item.key, size=item.size, etag=item.etag) for item in data)
    return Listing(fingerprint=fingerprint(data), objects=objects)


def is_data(key: str, prefix: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a listed key below `prefix` is data of these suffixes: nothing hidden, none of the writers' own files."""
    # The prefix may itself name one object, whose name counts then.
    below = key.removeprefix(prefix).strip("/") or key.rpartition("/")[2]
    hidden = any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in below.split("/"))
    return not hidden and key.endswith(suffixes)


def _within(key: str, exclude: str) -> bool:
    return bool(exclude) and (key == exclude or key.startswith(exclude + "/"))


def with_counts(listing: Listing, rows: Mapping[str, int]) -> Listing:
    """The listing with the rows of objects whose format does not say them, so that `build` need not count again."""
    objects = tuple(
        item.model_copy(update={"rows": rows.get(item.key, 0)}) if format_of(item.key).counted else item
        for item in listing.objects
    )
    return listing.model_copy(update={"objects": objects})


def save_listing(artifacts: Store, layout: Layout, listing: Listing) -> None:
    """Store a listing under its fingerprint; whoever stores it, it is the same."""
    artifacts.put(layout.listing(listing.fingerprint), encode(listing))


def load_listing(artifacts: Store, layout: Layout, wanted: str) -> Listing | None:
    """The stored listing of a fingerprint, or None. Raises Retry/BadListing when it does not match its own name."""
    key = layout.listing(wanted)
    try:
        listing = Listing.model_validate_json(artifacts.read(key))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise RetryableError(
            "BadListing", f"{artifacts.describe(key)} is no listing: {error.error_count()} errors"
        ) from None
    if fingerprint(listing.objects) != wanted or listing.fingerprint != wanted:
        raise RetryableError("BadListing", f"{artifacts.describe(key)} does not match its fingerprint", object=key)
    return listing
