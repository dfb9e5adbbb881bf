"""What lies below a source without being its data: deleted ids, queries, artifacts, tables with a log, broken links."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ..artifact.layout import HELDOUT_FILE, IDS_FILE, INDEX_FILE, VECTORS_FILE, Layout
from ..contract import BuildTask, Identity, Location, ResolveTask
from ..errors import BadData, TaskError
from ..storage.store import ObjectInfo, Store, join_key
from .objects import ListedObject

_BESIDE_VECTORS = (INDEX_FILE, IDS_FILE, HELDOUT_FILE)
_PARENTS = 3
"""Folders above a source that are asked for a table's marker: partitions of a table lie that deep, or less."""
_MARKERS_SEEN = 100


def nested_key(source: Location, other: Location | None) -> str:
    """The key in the source's store below which another place is, or an empty string when it is not below it."""
    if other is None:
        return ""
    if source.place is not None and other.place is not None:
        return other.place.below(source.place)
    if source.folder is not None and other.folder is not None:
        inside, outside = Path(other.folder).resolve(), Path(source.folder).resolve()
        return inside.relative_to(outside).as_posix() if inside.is_relative_to(outside) and inside != outside else ""
    return ""


def no_data(task: ResolveTask | BuildTask) -> tuple[str, ...]:
    """Keys of the source's store below which nothing is its data: lists of deleted ids, the gate's queries, and what
    builds wrote there.

    Without it a second build reads the first one's vectors.npy as rows, and the gate asks for rows of the index.
    """
    places = (task.tombstones, task.queries, task.artifacts, _own(task.artifacts, task.identity))
    imported = task.index.imported if isinstance(task, BuildTask) else None
    ids = (imported.ids,) if imported is not None and imported.ids is not None else ()
    return (*(key for key in (nested_key(task.source, place) for place in places) if key), *ids)


def _own(artifacts: Location, identity: Identity) -> Location:
    """What the index itself wrote, where source and artifacts are one place."""
    if (place := artifacts.place) is not None:
        return Location.of(place.at(Layout(place.root.strip("/"), identity).base))
    return Location(folder=str(Path(artifacts.folder or "") / Layout("", identity).base))


def artifact_keys(keys: Iterable[str]) -> frozenset[str]:
    """Those of the keys that are vectors of an index's artifact, of whatever index: its other files lie beside them."""
    there = set(keys)
    vectors = (key for key in there if key.rpartition("/")[2] == VECTORS_FILE)
    return frozenset(
        key for key in vectors if any(join_key(key.rpartition("/")[0], name) in there for name in _BESIDE_VECTORS)
    )


# ---------------------------------------------------------------- tables


@dataclass(frozen=True, slots=True)
class _Table:
    """A table format that keeps its own list of which files count."""

    name: str
    folder: str
    suffixes: tuple[str, ...]
    """Of the files in its folder that make it one."""
    export: str


_TABLES = (
    _Table("a Delta table", "_delta_log", (".json", ".parquet", ".crc"), "delta_scan('TABLE')"),
    _Table("an Iceberg table", "metadata", (".metadata.json", "version-hint.text"), "iceberg_scan('TABLE')"),
    _Table("a Hudi table", ".hoodie", (".properties", ".commit", ".deltacommit"), "read_parquet(FILES)"),
)


def refuse_tables(store: Store, keys: Iterable[str], *, above: bool) -> None:
    """Raises BadData/TableFormat when the keys below the store's place, or folders `above` it, are a table's.

    Its folder also holds files that its log has removed: read as data, deleted rows come back.
    """
    for key in keys:
        if (table := _marked(key)) is not None:
            raise _refusal(store, table, key)
    for key in _above(store) if above else ():
        if (table := _marked(key)) is not None:
            raise _refusal(store, table, key)


def tables_within(store: Store, keys: Iterable[str]) -> dict[str, str]:
    """Folders below the store's place that are tables -> the first key that makes each one. Raises BadData/TableFormat
    where the place itself is one."""
    found: dict[str, str] = {}
    for key in keys:
        if (table := _marked(key)) is None:
            continue
        folder = "/".join(key.split("/")[:-2])
        if len(folder) <= len(store.prefix.strip("/")):
            raise _refusal(store, table, key)
        found.setdefault(folder, key)
    return found


def of_table(store: Store, key: str, tables: Mapping[str, str]) -> BadData | None:
    """Why a key is not read that lies within one of `tables_within`; None: it does not."""
    for folder, marker in tables.items():
        if key.startswith(f"{folder}/") and (table := _marked(marker)) is not None:
            return _refusal(store, table, marker)
    return None


def _marked(key: str) -> _Table | None:
    *folders, name = key.split("/")
    return next(
        (table for table in _TABLES if folders and folders[-1] == table.folder and name.endswith(table.suffixes)), None
    )


def _above(store: Store) -> Iterator[str]:
    """Keys in the folders of markers beside and above the store's place: it may be one partition of a table."""
    parts = store.prefix.split("/")[:-1]
    for depth in range(len(parts), max(0, len(parts) - _PARENTS), -1):
        for table in _TABLES:
            # Who may read the source only may not be allowed to look around.
            with contextlib.suppress(TaskError):
                found = store.list(join_key(*parts[:depth], table.folder))
                yield from (item.key for item in islice(found, _MARKERS_SEEN))


def _refusal(store: Store, table: _Table, key: str) -> BadData:
    place = store.describe(key.rpartition("/")[0])
    return BadData(
        "TableFormat",
        f"{place} makes this {table.name}: which of its files and rows count is told by its log, which is not read",
        object=key,
        field=store.role.field,
        remedy="Export its current rows to a place of their own, for example in DuckDB: "
        f"COPY (FROM {table.export}) TO 'rows.parquet'; in Spark: spark.table(...).write.parquet(...).",
    )


def refuse_broken_links(store: Store, listed: Iterable[ObjectInfo | ListedObject]) -> None:
    """Raises BadData/BrokenLink for a listed link that leads nowhere: what it stood for is not left out silently."""
    for item in listed:
        if item.size < 0:
            message = f"{store.describe(item.key)} is a link that leads nowhere"
            remedy = "Restore what it points to, or remove the link."
            raise BadData("BrokenLink", message, object=item.key, field=store.role.field, remedy=remedy)
