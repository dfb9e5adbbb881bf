"""Filters of a user's queries: in the language of searches, checked against the columns that this index has.

A filter that the index refuses here is one that its searchers would refuse, so it ends the gate instead of the queries.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from ..artifact.layout import METADATA_FILE
from ..artifact.manifest import Manifest
from ..errors import BadData
from ..index.filters import FilterColumns, FilterError, Predicate, memory_of, parse
from ..index.json_values import json_values
from ..index.rows import RowFile

FIELD = "spec.gate.queries.filterColumn"
MAX_BYTES = 64 << 20
"""What the filters of all queries may hold in memory, each different one counted once."""
_SHOWN = 120
Filters = list[Predicate | None]


def columns_of(folder: Path, manifest: Manifest) -> FilterColumns:
    """The metadata columns of a downloaded artifact that filters may name."""
    there = manifest.file(METADATA_FILE) is not None
    return FilterColumns(RowFile(folder / METADATA_FILE).schema if there else pa.schema([]))


@dataclass(slots=True)
class FilterReader:
    """Reads the filters of all files of queries. Equal filters are one object."""

    columns: FilterColumns
    _known: dict[Predicate, Predicate] = field(default_factory=dict)
    _nbytes: int = 0

    def read(self, column: pa.Array, name: str, key: str, first_row: int) -> Filters:
        """The filter of each row: JSON text, or a struct (whose nulls are members that are not there). None
        for null and for empty text. Raises BadData that names the row."""
        return [self._one(value, name, key, first_row + at) for at, value in enumerate(json_values(column))]

    def _one(self, value: Any, name: str, key: str, row: int) -> Predicate | None:
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        try:
            document = orjson.loads(value) if isinstance(value, str) else _without_nulls(value)
            found = parse(document, self.columns)
        except orjson.JSONDecodeError as error:
            remedy = 'Write each filter as in a search, for example {"section": {"eq": "home"}}; null for none.'
            raise _refused(f"it is not JSON: {error.msg}", value, name, key, row, remedy) from None
        except FilterError as error:
            remedy = f"A search with it would be refused: {error.remedy or 'see docs/filters.md'}."
            raise _refused(str(error), value, name, key, row, remedy) from None
        return self._kept(found, name, key, row)

    def _kept(self, found: Predicate, name: str, key: str, row: int) -> Predicate:
        known = self._known.get(found)
        if known is not None:
            return known
        self._nbytes += memory_of(found)
        if self._nbytes > MAX_BYTES:
            message = f"{key} row {row}: the filters in column {name!r} up to here take more than {MAX_BYTES} bytes"
            remedy = "Sample the queries, or give filters with fewer values."
            raise BadData("TooManyFilters", message, object=key, row=row, field=FIELD, remedy=remedy)
        self._known[found] = found
        return found


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


def _refused(why: str, value: Any, name: str, key: str, row: int, remedy: str) -> BadData:
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    message = f"{key} row {row}: the filter {shown} in column {name!r} is refused: {why}"
    return BadData("BadFilter", message, object=key, row=row, field=FIELD, remedy=remedy)
