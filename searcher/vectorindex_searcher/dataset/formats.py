"""The formats a source can have: suffix -> reader. A further format is one module and one line here."""

from __future__ import annotations

from . import bigann, hdf5, jsonl, npy, parquet, vecs
from .reader import Format

FORMATS: tuple[Format, ...] = (parquet.FORMAT, npy.FORMAT, vecs.FORMAT, bigann.FORMAT, hdf5.FORMAT, jsonl.FORMAT)
SUFFIXES: tuple[str, ...] = tuple(suffix for found in FORMATS for suffix in found.suffixes)


def find_format(key: str) -> Format | None:
    """The format of a key by its suffix, in small letters or capitals, or None for what is not data."""
    return next((found for found in FORMATS if key.lower().endswith(found.suffixes)), None)


def format_of(key: str) -> Format:
    """The format of a listed object. Raises KeyError for a key that no listing holds."""
    found = find_format(key)
    if found is None:
        raise KeyError(key)
    return found
