"""What a source holds: its listing and the fingerprint that names one state of it. Reads no object's content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Literal

from pydantic import ValidationError

from ..artifact import Layout, encode
from ..contract import Model
from ..errors import BadData, Retry, SourceMissing
from ..store import ObjectInfo, Store

SUFFIXES = (".parquet", ".npy")


class ListedObject(Model):
    """One object of a listing; `etag` pins the content that was listed."""

    key: str
    size: int
    etag: str


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


def list_source(store: Store) -> Listing:
    """List the Parquet and NPY objects below the store's prefix.

    Objects whose name begins with `_` or `.` and other suffixes are not data (_SUCCESS, checksums, a README). Raises
    SourceMissing/EmptySource when nothing is left, BadData/MixedFormats when both formats are there.
    """
    listed = list(store.list(store.prefix))
    data = sorted((item for item in listed if _is_data(item.key)), key=lambda item: item.key)
    if not data:
        seen = f"; {len(listed)} other objects are there, for example {listed[0].key}" if listed else ""
        raise SourceMissing(
            "EmptySource",
            f"{store.describe(store.prefix)} holds no {' or '.join(SUFFIXES)} object{seen}",
            field="spec.source",
            remedy="Point spec.source at the prefix of the vectors, or upload them.",
        )
    suffixes = {item.key[item.key.rindex(".") :] for item in data}
    if len(suffixes) > 1:
        first = next(item.key for item in data if item.key.endswith(".npy"))
        raise BadData(
            "MixedFormats",
            f"{store.describe(store.prefix)} holds both Parquet and NPY objects, for example {first}",
            object=first,
            remedy="Keep one format per source.",
        )
    objects = tuple(ListedObject(key=item.key, size=item.size, etag=item.etag) for item in data)
    return Listing(fingerprint=fingerprint(data), objects=objects)


def _is_data(key: str) -> bool:
    return not key.rpartition("/")[2].startswith(("_", ".")) and key.endswith(SUFFIXES)


def save_listing(artifacts: Store, layout: Layout, listing: Listing) -> None:
    """Store a listing under its fingerprint. Writing it again changes nothing."""
    artifacts.put(layout.listing(listing.fingerprint), encode(listing), exclusive=True)


def load_listing(artifacts: Store, layout: Layout, wanted: str) -> Listing | None:
    """The stored listing of a fingerprint, or None. Raises Retry/BadListing when it does not match its own name."""
    key = layout.listing(wanted)
    try:
        listing = Listing.model_validate_json(artifacts.read(key))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise Retry("BadListing", f"{artifacts.describe(key)} is no listing: {error.error_count()} errors") from None
    if fingerprint(listing.objects) != wanted or listing.fingerprint != wanted:
        raise Retry("BadListing", f"{artifacts.describe(key)} does not match its fingerprint", object=key)
    return listing
