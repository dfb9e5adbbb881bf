"""What became of the answers of the revision with the traffic at the one that is judged, by exact scores.

Told scores are compared with nothing: an index of codes tells what the codes say, and the next one has other codes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ... import contract
from ...dataset.source import deleted_rows
from ...index.choose.recall import RELATIVE_TIE
from ...index.engine import Engine
from ...index.vectors import VectorFile
from ...proof.exact import exact_scores

SMALL_CHANGE = 0.001
"""Of the largest score of a query's answers: a smaller difference is no change, however near to 0 a score is."""
KINDS = ("kept", "gone", "changed", "displaced", "missed")
"""What may have become of an answer: each is of one."""
Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


class ExactScores:
    """Scores by vectors.npy as users know them: cosine, inner product, or minus squared L2. Belongs to one thread.

    `path`: where the file is, once it is there.
    """

    def __init__(self, engine: Engine, path: Callable[[], Path | None]) -> None:
        self._engine, self._path = engine, path
        self._file: VectorFile | None = None

    @property
    def possible(self) -> bool:
        """Whether the vectors are there. Raises BadData when their file is none."""
        if self._file is None and (path := self._path()) is not None:
            self._file = VectorFile(path, self._engine.metric)
        return self._file is not None

    def of(self, vectors: npt.NDArray[np.float32], rows: Rows) -> Floats:
        """Scores of rows (int64 [n, m], -1 for none) for vectors float32 [n, dimension]: [n, m]; -inf where there is no
        row. Only if `possible`."""
        file = self._file
        assert file is not None
        scores = exact_scores(file, file.prepared(vectors), rows, file.metric)
        # Cosine is searched as the squared distance of unit vectors.
        return 1 + scores / 2 if file.metric is contract.Metric.COSINE else scores

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


@dataclass(frozen=True, slots=True)
class Fates:
    """How many of a query's answers are of each kind."""

    kept: int
    gone: int
    changed: int
    displaced: int
    missed: int

    def counts(self) -> dict[str, float]:
        """As contract.PairCounts has them: those of the query, and its shares."""
        answers = self.kept + self.gone + self.changed + self.displaced + self.missed
        missed, changed = self.missed / answers, self.changed / answers
        return {
            "answers_judged": 1,
            "missed_sum": missed,
            "missed_squares": missed * missed,
            "changed_sum": changed,
            "changed_squares": changed * changed,
            "kept": self.kept,
            "gone": self.gone,
            "changed": self.changed,
            "displaced": self.displaced,
            "missed": self.missed,
        }


def fates(before: Floats, now: Floats, answered: npt.NDArray[np.bool_], last: float) -> Fates:
    """The kinds of a query's m answers, at least one.

    before: exact scores [m] at the revision that gave them. now: at the one that is judged; -inf: it has none such.
    answered: which of them it answered, too. last: exact score of the worst of its k answers; -inf where it found
    fewer than k, so that whatever is there has room.
    """
    there = now > -np.inf
    size = float(np.abs(before).max())
    with np.errstate(invalid="ignore"):
        far = np.abs(now - before) > contract.SHADOW_CHANGED * np.abs(before) + SMALL_CHANGE * size
        ties = np.abs(now - last) <= RELATIVE_TIE * max(size, abs(last)) if np.isfinite(last) else np.zeros_like(far)
    changed = there & far
    same = there & ~far
    kept = same & (answered | ties)
    missed = same & ~kept & (now > last)
    displaced = same & ~kept & ~missed
    found = (kept, ~there, changed, displaced, missed)
    return Fates(*(int(np.count_nonzero(kind)) for kind in found))


def rows_of_ids(engine: Engine, ids: list[int] | list[str]) -> dict[int | str, int]:
    """The row of each id that there is; one pass over all ids of the index."""
    text = engine.manifest.id_type == "string"
    wanted = [one for one in ids if isinstance(one, str) is text]
    if not wanted:
        return {}
    rows = deleted_rows(engine.id_chunks(), pa.array(wanted, pa.string() if text else pa.int64()))
    return dict(zip(engine.ids(rows), rows.tolist(), strict=True))
