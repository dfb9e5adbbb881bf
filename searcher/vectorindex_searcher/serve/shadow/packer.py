"""Queries that were put aside (mirror.py), as they are sent (wire.py): many at once, since what is done for all of them
together costs the pods with the traffic a fraction of what it costs for each."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt
import orjson

from ...errors import TaskError
from ...index.engine import Engine
from ...index.parameters import tells_exact_scores
from .answers import ExactScores, Floats, Rows
from .mirror import Answered
from .wire import Packed, query_hash

SCORED = 64
"""Queries of those that were gathered, of which exact scores are read where the index tells others: what is sent beyond
that is compared by all but its answers, of which the judged pod could look at no more either."""


class Packer:
    """Belongs to one thread. `exact`: that thread's own."""

    def __init__(self, engine: Engine, exact: ExactScores) -> None:
        self._engine, self._exact = engine, exact
        self._told_exactly = tells_exact_scores(engine.manifest.index_type)
        """Most kinds of index do, and nothing need be read."""

    def packed(self, some: Sequence[Answered], *, scored: bool = True) -> list[Packed]:
        """Each of them, in order. `scored`: with exact scores of their answers, if they can be known."""
        if not some:
            return []
        nothing: list[Floats | None] = [None] * len(some)
        exact, rows = self.exact_scores(some) if scored else nothing, _rows_of(some)
        told = np.frombuffer(b"".join([one.scores for one in some]), np.float32)
        scores, lines = told.astype("<f8"), [0, *accumulate([len(one.rows) // rows.itemsize for one in some])]
        for number, found in enumerate(exact):
            if found is not None:
                scores[lines[number] : lines[number + 1]] = found
        there = rows >= 0
        # Of each query, where its answers begin among all, and where those of the one after it.
        starts = np.concatenate(([0], np.cumsum(there)))[lines].tolist()
        told, ids, written = told[there], self._engine.raw_ids(rows[there]), scores[there].tobytes()
        numbers, width = ids.numbers.tobytes(), ids.numbers.itemsize
        return [
            Packed(
                head=orjson.dumps(self._asked(one, told[start:stop], exact=found is not None)),
                vector=one.vector,
                name=query_hash(one.vector, one.k, one.asked),
                scores=written[8 * start : 8 * stop],
                numbers=numbers[width * start : width * stop],
                text=ids.text_of(start, stop),
            )
            for one, found, (start, stop) in zip(some, exact, pairwise(starts), strict=True)
        ]

    def _asked(self, one: Answered, told: npt.NDArray[np.float32], *, exact: bool) -> dict[str, object]:
        """The fields of a wire.Asked, which nobody needs to check. `told`: scores of the answers that there are."""
        answers = len(told)
        return {
            "segment": one.segment,
            "k": one.k,
            "fields": one.asked,
            "seconds": one.seconds,
            "overall": one.overall,
            "deleted": one.deleted,
            "first": float(told[0]) if answers else None,
            "hits": answers if one.min_score is None else int(np.count_nonzero(told >= one.min_score)),
            "answers": answers,
            "exact": self._told_exactly or exact,
        }

    def exact_scores(self, some: Sequence[Answered]) -> list[Floats | None]:
        """Those of the answers of each query [m], -inf where there is none; None: those that were told are exact, or
        nobody knows. Of many queries together, in a third of the time."""
        scores: list[Floats | None] = [None] * len(some)
        if self._told_exactly:
            return scores
        with contextlib.suppress(TaskError):
            if not self._exact.possible:
                return scores
            alike: defaultdict[int, list[int]] = defaultdict(list)
            for number, query in enumerate(some[:SCORED]):
                alike[len(query.rows)].append(number)
            for numbers in alike.values():
                of = [some[number] for number in numbers]
                vectors = np.frombuffer(b"".join([one.vector for one in of]), np.float32).reshape(len(of), -1)
                for number, found in zip(
                    numbers, self._exact.of(vectors, _rows_of(of).reshape(len(of), -1)), strict=True
                ):
                    scores[number] = found
        return scores

    def close(self) -> None:
        """Give back the file of vectors."""
        self._exact.close()


def _rows_of(some: Sequence[Answered]) -> Rows:
    return np.frombuffer(b"".join([one.rows for one in some]), np.int64)
