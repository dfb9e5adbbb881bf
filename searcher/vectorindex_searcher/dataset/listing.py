"""What a source holds: its listing and the fingerprint that names one state of it. Reads no object's content."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import ValidationError

from ..artifact.layout import Layout
from ..artifact.manifest import encode
from ..contract import Model
from ..errors import BadData, RetryableError, SourceMissing
from ..storage.store import MAX_OBJECTS, ObjectInfo, Store, list_all
from .formats import FORMATS, SUFFIXES, find_format, format_of
from .objects import FreshObject, ListedObject
from .places import artifact_keys, refuse_broken_links, refuse_tables

STORED_BYTES = 1500 * MAX_OBJECTS
"""Of a stored listing: a key has 1,024 bytes at most."""
_log = logging.getLogger(__name__)


class Listing(Model):
    """The data objects of a source in key order. Stored by `resolve`, read by `build`."""

    format_version: Literal[1] = 1
    fingerprint: str
    objects: tuple[ListedObject, ...]
    fresh: tuple[FreshObject, ...] | None = None
    """Files of fresh rows that are built in with the objects: searchers of the artifact read them no more. None: none,
    and what images of before write and read."""

    @property
    def bytes(self) -> int:
        return sum(item.size for item in self.objects)


def fingerprint(objects: Sequence[ObjectInfo | ListedObject]) -> str:
    """64 hex characters over the sorted (key, size, etag) of the objects: equal exactly when nothing changed."""
    digest, encode, comma = hashlib.sha256(b"["), json.JSONEncoder(separators=(",", ":")).encode, b""
    # Object by object: of very many the text would take as much memory again, in one call that holds up all threads.
    for item in sorted(objects, key=lambda one: (one.key, one.size, one.etag)):
        digest.update(comma + encode((item.key, item.size, item.etag)).encode())
        comma = b","
    digest.update(b"]")
    return digest.hexdigest()


def fingerprint_with(source: str, fresh: Sequence[FreshObject]) -> str:
    """Of a source with this fingerprint and of fresh files; of the source alone where there are none."""
    if not fresh:
        return source
    told = [source, [(item.key, item.size, item.etag, item.stored_at) for item in fresh]]
    return hashlib.sha256(json.dumps(told, separators=(",", ":")).encode()).hexdigest()


def list_source(store: Store, exclude: Sequence[str] = ()) -> Listing:
    """List the data objects below the store's prefix: those with a suffix of formats.py.

    Below it, names and folders that begin with `_` or `.` are not data (_SUCCESS, checksums); `_a=b` is. Neither are
    artifacts of an index. `exclude`: keys, or folders of keys, that are no data either. Raises
    SourceMissing/EmptySource when nothing is left, BadData/{TooManyObjects, TableFormat, MixedFormats, BrokenLink}.
    """
    data = _data(store, exclude, tell=True)
    objects = tuple(ListedObject(key=item.key, size=item.size, etag=item.etag) for item in data)
    return Listing(fingerprint=fingerprint(data), objects=objects)


def source_fingerprint(store: Store, exclude: Sequence[str] = ()) -> str:
    """The fingerprint of `list_source`, for who only looks whether it changed, again and again. Raises as that does."""
    return fingerprint(_data(store, exclude, tell=False))


def _data(store: Store, exclude: Sequence[str], *, tell: bool) -> list[ObjectInfo]:
    """The data objects in key order, of one format; at least one. `tell`: what else lies there."""
    listed = [item for item in list_all(store) if not _within(item.key, exclude)]
    refuse_tables(store, (item.key for item in listed), above=True)
    named = [item for item in listed if not _hidden(item.key, store.prefix)]
    artifacts = artifact_keys(item.key for item in named)
    data = [item for item in named if find_format(item.key) is not None and item.key not in artifacts]
    refuse_broken_links(store, data)
    if tell:
        _tell_left_out(store, [item.key for item in named if find_format(item.key) is None], artifacts)
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
    return data


def _tell_left_out(store: Store, others: Sequence[str], artifacts: frozenset[str]) -> None:
    """What was left out though nothing in its name says that it is no data: a person may have meant it to be read."""
    place = store.describe(store.prefix)
    if others:
        _log.warning(
            "objects of other formats are not read",
            extra={"place": place, "objects": len(others), "example": others[0]},
        )
    if artifacts:
        _log.warning(
            "artifacts of an index are not read",
            extra={"place": place, "objects": len(artifacts), "example": min(artifacts)},
        )


def is_data(key: str, prefix: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a listed key below `prefix` is data of these suffixes: nothing hidden, none of the writers' own files."""
    return not _hidden(key, prefix) and key.lower().endswith(suffixes)


def _hidden(key: str, prefix: str) -> bool:
    # The prefix may itself name one object, whose name counts then.
    below = key.removeprefix(prefix).strip("/") or key.rpartition("/")[2]
    return any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in below.split("/"))


def _within(key: str, exclude: Sequence[str]) -> bool:
    return any(key == one or key.startswith(one + "/") for one in exclude)


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
        data = artifacts.read(key, length=STORED_BYTES + 1)
        if len(data) > STORED_BYTES:
            raise RetryableError(
                "BadListing", f"{artifacts.describe(key)} is larger than {STORED_BYTES} bytes", object=key
            )
        listing = Listing.model_validate_json(data)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise RetryableError(
            "BadListing", f"{artifacts.describe(key)} is no listing: {error.error_count()} errors"
        ) from None
    made = fingerprint_with(fingerprint(listing.objects), listing.fresh or ())
    if made != wanted or listing.fingerprint != wanted:
        raise RetryableError("BadListing", f"{artifacts.describe(key)} does not match its fingerprint", object=key)
    return listing
