"""Moves rows to the end of the staged files, so that they can be added to an index last: labels follow insertion.

Only as many other rows change their places; which row has which number is known to ids.arrow alone.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..artifact.layout import IDS_FILE, METADATA_FILE, VECTORS_FILE
from ..index import rows as row_files
from ..index import vectors as vector_files
from .left_out import Fold, LeftOut

Rows = npt.NDArray[np.int64]


def move_last(folder: Path, count: int, plan: LeftOut) -> LeftOut:
    """Move the rows of the one fold to the end of ids, metadata and vectors in `folder`; the plan with their new
    numbers. count: rows in all. A plan whose rows need not be moved is answered as it is."""
    if not plan.last:
        return plan
    (fold,) = plan.folds
    behind = count - len(fold.out)
    inside = fold.out[fold.out < behind]
    places = np.setdiff1d(np.arange(behind, count), fold.out)
    for name in (IDS_FILE, METADATA_FILE):
        if (folder / name).exists():
            row_files.swap_rows(folder / name, inside, places)
    vector_files.swap_rows(folder / VECTORS_FILE, inside, places)

    def moved(rows: Rows) -> Rows:
        new = rows.copy()
        away = rows < behind
        new[away] = places[np.searchsorted(inside, rows[away])]
        return np.sort(new)

    return replace(plan, folds=(Fold(*map(moved, (fold.out, fold.tuning, fold.gate))),), moved=fold.out)
