"""Names that strangers gave, as messages show them; and the columns that the folders of a key name."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote

import pyarrow as pa

SHOWN_NAMES = 20
_NULL = "__HIVE_DEFAULT_PARTITION__"


def shown(text: str, limit: int = 64, *, quoted: bool = True) -> str:
    """The text on one line without control characters, cut at `limit`."""
    cut = text[:limit]
    clean = "".join(one if one.isprintable() else one.encode("unicode_escape", "replace").decode() for one in cut)
    end = "..." if len(text) > limit else ""
    return f"'{clean}{end}'" if quoted else clean + end


def listed(names: Iterable[str]) -> str:
    """The first names, separated by commas, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(shown(name, quoted=False) for name in names[:SHOWN_NAMES]) + more


def partition_values(key: str) -> dict[str, str | None]:
    """The columns in a key's folders, as Hive, Spark and Athena name them: `date=2024-01-01/part-0.parquet`.

    Always text: what looks like a number may be a postal code. None where the writer had no value.
    """
    pairs = (folder.partition("=") for folder in key.split("/")[:-1] if "=" in folder)
    return {unquote(name): None if value == _NULL else unquote(value) for name, _, value in pairs}


def partition_type(key: str, name: str) -> pa.DataType:
    """Of a column that the folders of the key name. KeyError: they do not."""
    return pa.null() if partition_values(key)[name] is None else pa.string()


def partition_column(key: str, name: str, rows: int) -> pa.Array:
    """The column that the folders of the key name, for so many rows. KeyError: they do not."""
    return pa.repeat(pa.scalar(partition_values(key)[name], pa.string()), rows)
