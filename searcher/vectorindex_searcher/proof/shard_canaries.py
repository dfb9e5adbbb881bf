"""The canary of a sharded artifact: a file for each shard, in the form of any canary, so that its searchers prove
themselves by its own nearest rows; and in it what of these is right in merged answers, which its routers are told.

`validate` has one shard at a time, so what may be right of each is kept until all were asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..contract import CANARY_HITS, Metric, ShardCanary
from ..index.engine import Engine
from ..index.vectors import VectorFile
from .canary import CANARY_QUERIES, canary_numbers, canary_queries, is_right, make_canary, recalls_of
from .measure import measure, scored_answers
from .merged_canary import PartAnswers, merged_recall
from .merging import Merger, Rows, ShardAnswers

_OF_ALL, _AVAILABLE = "right_of_all", "available_of_all"


@dataclass(frozen=True, slots=True)
class _Part:
    table: pa.Table
    recall: float
    """Of its own nearest rows."""
    answers: ShardAnswers


class ShardCanaries:
    """The canary queries, asked of one shard after the other."""

    def __init__(self, queries: npt.NDArray[np.float32], k: int, shards: int, metric: Metric) -> None:
        """queries: float32 [m, d], of which canary queries are drawn."""
        self.numbers = canary_numbers(len(queries), min(CANARY_QUERIES, max(1, CANARY_HITS // (k * shards))))
        """Which of them, rising."""
        self._queries, self._merger = queries[self.numbers], Merger(queries[self.numbers], k, metric)
        self._parts: list[_Part] = []

    def add(self, found: ShardAnswers, own: Rows, vectors: VectorFile) -> float:
        """What the next shard answers to them, as it is served; own [n]: the row of it that a query is, or -1. Its
        recall of its own nearest rows, in [0, 1]."""
        recall = measure(found.truth, found.rows, vectors, self._queries).recall
        hits = np.rint(recall * found.truth.available).astype(np.int64)
        table = make_canary(self._queries, own, found.truth, hits)
        own_recall = float(recalls_of(table, found.rows).mean()) if len(own) else 0.0
        self._parts.append(_Part(table, own_recall, found))
        self._merger.add(found, vectors)
        return own_recall

    def tables(self) -> list[pa.Table]:
        """What is right in merged answers in them, too: once every shard was added."""
        threshold, available = self._merger.threshold()[:, None], self._merger.available
        whole = []
        for part in self._parts:
            truth = part.answers.truth
            right = (truth.scores >= threshold) & (truth.rows >= 0)
            lists = [rows[some] for rows, some in zip(truth.rows, right, strict=True)]
            table = part.table.append_column(_OF_ALL, pa.array(lists, pa.list_(pa.int64())))
            whole.append(table.append_column(_AVAILABLE, pa.array(available, pa.int32())))
        return whole

    def recall(self, tables: Sequence[pa.Table]) -> float:
        """Of the merged answers, in [0, 1]; 0 without queries."""
        if not len(self.numbers):
            return 0.0
        found = [part.answers for part in self._parts]
        parts = [
            PartAnswers(_scores(one.scores, one.rows), is_right(table, _OF_ALL, one.rows))
            for one, table in zip(found, tables, strict=True)
        ]
        return merged_recall(parts, self._merger.available)


def answer_canary(
    engine: Engine, table: pa.Table, k: int, gate_hash: str, shard: int, measured: float
) -> tuple[float, ShardCanary]:
    """The engine's recall of its own nearest rows, and what routers are told. `measured`: recall of merged answers."""
    queries, own = canary_queries(table)
    found, rows = scored_answers(engine, queries, k, own)
    scores, right = _scores(found, rows), is_right(table, _OF_ALL, rows)
    told = ShardCanary(
        gate_hash=gate_hash,
        shard=shard,
        k=k,
        recall=measured,
        available=tuple(table.column(_AVAILABLE).to_pylist()),
        scores=tuple(tuple(line[line > -np.inf].tolist()) for line in scores),
        right=tuple(tuple(np.flatnonzero(line).tolist()) for line in right),
    )
    return float(recalls_of(table, rows).mean()) if len(rows) else 0.0, told


def _scores(scores: npt.NDArray[np.float32], rows: Rows) -> npt.NDArray[np.float32]:
    """[n, k]: -inf where there is no row."""
    return np.where(rows >= 0, scores, np.float32(-np.inf))
