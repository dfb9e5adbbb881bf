"""The proof that deleted ids are not answered: they are hidden as a searcher hides them, then searched for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..contract import ValidateTask
from ..dataset.source import deleted_rows
from ..dataset.tombstones import current_tombstones
from ..index.engine import Engine
from ..index.selection.restricted import check_hidable
from ..index.selection.rowset import RowSet
from ..index.vectors import VectorFile

MAX_SEARCHED = 1000
BATCH = 64


@dataclass(frozen=True, slots=True)
class Deleted:
    """What was listed, what of it the index still has, and what of that a search answered (must be 0)."""

    listed: int = 0
    in_index: int = 0
    found: int = 0


def search_deleted(engine: Engine, vectors: Path, task: ValidateTask) -> Deleted:
    """Hide the deleted ids of `task.tombstones`, search for up to 1,000 of their vectors, count what is answered.

    A deleted vector is its own nearest neighbour, so a search that could answer it would. Every answer must have k rows
    as long as the index has so many others. Leaves the rows hidden. Raises BadSpec/CannotHide, TaskError of the store.
    """
    if task.tombstones is None:
        return Deleted()
    kind = pa.string() if engine.manifest.id_type == "string" else pa.int64()
    tombstones = current_tombstones(task.tombstones, task.id_column, kind)
    rows = deleted_rows(engine.id_chunks(), tombstones.ids)
    if not len(rows):
        return Deleted(len(tombstones.ids))
    check_hidable(engine.supports_filter, engine.manifest.index_type)
    engine.hide(RowSet.of_rows(rows, engine.count))
    chosen = np.sort(np.random.default_rng(0).choice(rows, min(MAX_SEARCHED, len(rows)), replace=False))
    found = 0
    with VectorFile(vectors, engine.metric) as file:
        for start in range(0, len(chosen), BATCH):
            queries = file.gather(chosen[start : start + BATCH], prepared=False)
            _, answered = engine.search(queries, task.k)
            found += int(np.isin(answered, rows).sum())
    return Deleted(len(tombstones.ids), len(rows), found)
