"""measured.arrow of an artifact: what `build` asked an index without these rows, and what it answered.

So a gate of any floor or confidence is judged without another build. One line for each row that was left out: its
number, the fold (which index; -1: of an exact index nothing was left out), whether it tuned or judges or was only kept
away with a near-duplicate; for those that judge, the exact neighbours in that index and its answers for each k.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import BadData
from ..index.arrow_files import read_table
from ..index.vectors import VectorFile
from .exact import Truth, truth_among
from .measure import Measured, measure

TUNING, GATE, BESIDE = "tuning", "gate", "beside"
NOT_LEFT_OUT = -1
_FACTS = b"facts"

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Facts:
    """About all lines."""

    params: Mapping[str, int]
    """Search parameters of the answers: the default point."""
    training: int = 0
    """Rows of the training sample."""
    exact: bool = False
    """The index is exact by its kind: its own rows were asked, and what is right for all of them is right."""
    last: bool = False
    """The rows are the last of the index, in which everything else was added before them."""
    duplicates: float = 0.0
    """Share of the drawn rows that equal another row."""
    published: Mapping[str, float] = field(default_factory=dict)
    """k (as text) -> recall of the whole index on the canary's queries: what a gate in another image must find, too."""
    few_rows: Sequence[Mapping[str, Any]] = ()
    """What some of the queries found when only some rows might be answered: filtered.FewRows as JSON."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The n queries that judge, in the order of their rows."""

    rows: Rows
    """[n]: row numbers in the artifact."""
    folds: Rows
    """[n]"""
    sizes: Rows
    """[n]: rows of the index that was asked, without the query itself."""
    neighbours: Rows
    """[n, c]: exact neighbours there, best first, -1 behind the last."""
    answers: Mapping[int, Rows]
    """k -> [n, k], -1 where there is none."""
    scores: Mapping[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    """k -> [n, k], what the index said of its answers: kept of shards alone, whose answers are merged by them."""

    @property
    def own(self) -> Rows:
        """[n]: the query's own row where it was in the index, else -1."""
        return np.where(self.folds == NOT_LEFT_OUT, self.rows, -1)


@dataclass(frozen=True, slots=True)
class MeasuredFile:
    """measured.arrow."""

    facts: Facts
    asked: Asked
    tuning: Rows
    out: Mapping[int, Rows]
    """Fold -> all rows that were left out of its index, rising."""

    def figures(self, vectors: VectorFile, k: int) -> Measured:
        """Recall@k and ranks of the n queries, by distances computed anew; k is one that there are answers for."""
        queries = vectors.gather(self.asked.rows, prepared=False)
        return measure(self.truth(vectors, k), self.asked.answers[k], vectors, queries)

    def truth(self, vectors: VectorFile, k: int) -> Truth:
        """What was right, for any k that there are answers for."""
        queries = vectors.gather(self.asked.rows, prepared=False)
        depths = np.minimum(k, self.asked.sizes)
        return truth_among(vectors, queries, self.asked.neighbours, k, vectors.metric, self.asked.own, depths=depths)


def write_measured(path: Path, measured: MeasuredFile) -> None:
    """Write the file."""
    rows, folds, roles = _lines(measured)
    asked = measured.asked
    judging = np.flatnonzero(roles == GATE)
    place = np.argsort(asked.rows, kind="stable")
    order = place[np.searchsorted(asked.rows[place], rows[judging])]
    columns: dict[str, pa.Array] = {
        "row": pa.array(rows),
        "fold": pa.array(folds),
        "role": pa.array(roles, pa.string()),
    }
    columns["size"] = _spread(asked.sizes[order], judging, len(rows))
    columns["neighbours"] = _spread(asked.neighbours[order], judging, len(rows))
    for k, answers in asked.answers.items():
        columns[f"answers_{k}"] = _spread(answers[order], judging, len(rows))
    for k, scores in asked.scores.items():
        columns[f"scores_{k}"] = _spread(scores[order], judging, len(rows))
    facts = {name: getattr(measured.facts, name) for name in Facts.__dataclass_fields__}
    table = pa.table(columns).replace_schema_metadata({_FACTS: json.dumps(facts).encode()})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _lines(measured: MeasuredFile) -> tuple[Rows, Rows, npt.NDArray[np.str_]]:
    """Row, fold and role of every line, by rows."""
    asked = measured.asked
    inside = np.empty(0, np.int64) if measured.out else np.union1d(measured.tuning, asked.rows)
    rows = np.concatenate([inside, *measured.out.values()])
    folds = np.concatenate(
        [np.full(len(inside), NOT_LEFT_OUT), *(np.full(len(out), fold) for fold, out in measured.out.items())]
    )
    order = np.argsort(rows, kind="stable")
    rows, folds = rows[order], folds[order]
    roles = np.where(np.isin(rows, measured.tuning), TUNING, BESIDE)
    return rows, folds, np.where(np.isin(rows, asked.rows), GATE, roles)


def _spread(values: Rows | npt.NDArray[np.float32], at: Rows, count: int) -> pa.Array:
    """`values`, numbers or lists of them, on the lines `at` of `count`; null on the others."""
    places = np.full(count, -1)
    places[at] = np.arange(len(at))
    if values.ndim == 2:
        ends = values.shape[1] * np.arange(len(values) + 1, dtype=np.int32)
        given = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(np.ascontiguousarray(values).ravel()))
    else:
        given = pa.array(values, pa.int64())
    return given.take(pa.array(places, mask=places < 0))


def read_measured(path: Path) -> MeasuredFile:
    """Read it. Raises BadData/BadArtifact."""
    try:
        table = read_table(path).combine_chunks()
        facts = Facts(**json.loads(table.schema.metadata[_FACTS]))
        return _parse(table, facts)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise BadData("BadArtifact", f"{path.name}: {error}", object=path.name) from error


def _parse(table: pa.Table, facts: Facts) -> MeasuredFile:
    rows, folds = table.column("row").to_numpy(), table.column("fold").to_numpy()
    judging, tuning = (
        np.flatnonzero(pc.equal(table.column("role"), role).to_numpy(zero_copy_only=False)) for role in (GATE, TUNING)
    )
    chosen = table.take(pa.array(judging))

    def matrix(name: str, dtype: type[np.generic] = np.int64) -> npt.NDArray[Any]:
        lists = chosen.column(name).to_pylist()
        return np.array(lists, dtype).reshape(len(lists), len(lists[0]) if lists else 1)

    def by_k(kind: str, dtype: type[np.generic]) -> dict[int, npt.NDArray[Any]]:
        names = [name for name in table.column_names if name.startswith(kind)]
        return {int(name.removeprefix(kind)): matrix(name, dtype) for name in names}

    asked = Asked(
        rows=rows[judging],
        folds=folds[judging],
        sizes=chosen.column("size").to_numpy(),
        neighbours=matrix("neighbours"),
        answers=by_k("answers_", np.int64),
        scores=by_k("scores_", np.float32),
    )
    out = {int(fold): rows[folds == fold] for fold in np.unique(folds[folds != NOT_LEFT_OUT])}
    return MeasuredFile(facts, asked, rows[tuning], out)
