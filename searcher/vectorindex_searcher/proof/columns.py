"""The types of an artifact's metadata columns, as filters tell them apart: what the gate compares with stable.

Read from the head of the metadata file, so a report that was measured before, maybe by an older release, has them too.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pyarrow as pa

from ..artifact.layout import METADATA_FILE, Layout
from ..artifact.manifest import Manifest
from ..contract import COLUMN_TYPES
from ..index.filters import type_name
from ..storage.store import Store

_MAGIC_BYTES = 8  # of an Arrow file: "ARROW1" and padding; what follows is the schema
_HEAD_BYTES = 1 << 16
"""More than 32 columns with names of 128 characters need."""
_log = logging.getLogger(__name__)


def column_types(store: Store, layout: Layout, manifest: Manifest) -> str | None:
    """A letter for each metadata column, in their order (contract.COLUMN_TYPES); None without any, or unreadable."""
    if manifest.file(METADATA_FILE) is None:
        return None
    key = layout.file(manifest.digest, manifest.attempt, METADATA_FILE)
    try:
        head = store.read(key, length=_HEAD_BYTES)
        schema = pa.ipc.read_schema(pa.py_buffer(head[_MAGIC_BYTES:]))
        return "".join(_letter(schema.field(name).type) for name in manifest.metadata_columns)
    except (OSError, EOFError, KeyError, pa.ArrowException) as error:  # a store that fails is a TaskError
        # What was measured stands without them: the gate then compares nothing.
        _log.warning("column types not read", extra={"object": key, "error": str(error)})
        return None


def types_of_all(parts: Sequence[str | None]) -> str | None:
    """Those of an index whose parts say these: what parts do not have alike is no column for filters. None where one
    does not say."""
    told = [one for one in parts if one is not None]
    if len(told) < len(parts) or len({len(one) for one in told}) != 1:
        return None
    return "".join(letters[0] if len({*letters}) == 1 else COLUMN_TYPES["other"] for letters in zip(*told, strict=True))


def _letter(arrow: pa.DataType) -> str:
    name = type_name(arrow)
    item = name.removeprefix("list of ")
    letter = COLUMN_TYPES.get(item, COLUMN_TYPES["other"])
    return letter if item == name else letter.upper()
