"""Judging by what `build` asked of the index before it held the rows that were asked."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..artifact.layout import MEASURED_FILE
from ..build.again import ask_again
from ..contract import ASKED_KS, CANARY_TOLERANCE
from ..index.choose.tuning import batch_engine
from ..index.engine import Engine
from ..index.selection.rowset import RowSet
from ..index.vectors import VectorFile
from .bound import lower_bound
from .canary import canary_numbers
from .case import Case, MeasuredCase, Published
from .exact import Truth
from .filtered import FewRows
from .groundtruth import Source
from .measure import NO_PARAMS, Measured, answers, measure, served_answers
from .measured import NOT_LEFT_OUT, MeasuredFile, read_measured
from .points import split
from .queries import Queries
from .report import HeldOut, RecallAtK

_log = logging.getLogger(__name__)


def as_built(case: Case, engine: Engine, vectors: VectorFile, queries: Queries, folder: Path) -> MeasuredCase:
    """The figures of what `build` asked of the index before it held these rows.

    queries: rows that are asked of the published files, for the canary.
    """
    built = read_measured(folder / MEASURED_FILE)
    other_k: tuple[RecallAtK, ...] = tuple(
        _at(case, built, vectors, k) for k in built.asked.answers if k != case.task.k
    )
    source: Source = "reused"
    if case.task.k not in built.asked.answers:

        def find(rows: VectorFile, asked: npt.NDArray[np.float32], k: int, own: npt.NDArray[np.int64]) -> Truth:
            return case.truth(rows, Queries(asked, own), k)[0]

        built, source = ask_again(folder, engine, built, case.task.k, find), "computed"
    asked = built.asked
    judged = Queries(vectors.gather(asked.rows, prepared=False), asked.own)
    halves = split(None, np.arange(len(asked.rows), dtype=np.uint64), {})
    truth = built.truth(vectors, case.task.k)
    points, points_file = case.publish_points(case.tuned(engine, vectors, judged, truth, halves))
    held_out = HeldOut(
        left_out=sum(map(len, built.out.values())),
        tuning=len(built.tuning),
        indexes=len(built.out),
        duplicates=round(built.facts.duplicates, 6),
    )
    measured = built.figures(vectors, case.task.k)
    published = _published(case, engine, vectors, queries)
    few_rows: tuple[FewRows, ...] | None = tuple(FewRows(**one) for one in built.facts.few_rows)
    before = built.facts.published.get(str(case.task.k), 0.0)
    if len(asked.rows) and (now := float(published.measured.recall.mean())) < before - CANARY_TOLERANCE:
        # Another FAISS, or another CPU, than the build had: what it measured proves nothing of what serves.
        _log.warning("judged by the published files: here they answer worse", extra={"recall": now, "built": before})
        judged, truth, measured = published.queries, published.truth, published.measured
        halves = split(None, np.arange(len(judged.vectors), dtype=np.uint64), {})
        other_k, few_rows = (), None
    elif _is_worse(hidden := _with_rows_hidden(engine, vectors, built, truth, case.task.k), measured):
        _log.warning("judged by the published files: they answer worse than what was measured in the build")
        measured, other_k, few_rows = hidden, (), None
    exact = built.facts.exact
    return MeasuredCase(
        judged,
        truth,
        source,
        halves,
        points,
        points_file,
        measured,
        None,
        published,
        exact,
        held_out,
        other_k,
        few_rows,
    )


def _with_rows_hidden(engine: Engine, vectors: VectorFile, built: MeasuredFile, truth: Truth, k: int) -> Measured:
    """What the published files answer when the rows that were left out are hidden: the same questions as the build
    asked before it added them, and the same right answers. It is told apart from the build's own figures only where the
    files are not what was measured.
    """
    asked, everything = built.asked, batch_engine(engine)
    queries = vectors.gather(asked.rows, prepared=False)
    found = np.full((len(asked.rows), k), -1, np.int64)
    for fold in np.unique(asked.folds).tolist():
        mine = asked.folds == fold
        if fold == NOT_LEFT_OUT:
            found[mine] = answers(everything, queries[mine], k, asked.rows[mine], built.facts.params)
        elif engine.supports_filter:
            others = ~RowSet.of_rows(built.out[fold], engine.count)
            found[mine] = everything.search(queries[mine], k, built.facts.params, allowed_rows=others)[1]
        else:  # nothing can be hidden from this kind: what it answered then
            found[mine] = asked.answers[k][mine]
    return measure(truth, found, vectors, queries)


def _is_worse(now: Measured, then: Measured) -> bool:
    """Beyond what two searches of one index may differ by: the tolerance of pods, and two standard errors of the
    difference of the same queries."""
    if len(now.recall) < 2:
        return False
    lost = then.recall - now.recall
    return bool(lost.mean() > CANARY_TOLERANCE + 2 * lost.std(ddof=1) / np.sqrt(len(lost)))


def _at(case: Case, built: MeasuredFile, vectors: VectorFile, k: int) -> RecallAtK:
    recall = built.figures(vectors, k).recall
    if not len(recall):
        return RecallAtK(k=k, recall=0.0, recall_low=0.0)
    certain = built.facts.exact and bool((recall == 1).all())
    low = 1.0 if certain else lower_bound(recall, case.task.sure)
    return RecallAtK(k=k, recall=float(recall.mean()), recall_low=low)


def _published(case: Case, engine: Engine, vectors: VectorFile, queries: Queries) -> Published:
    """What the published files answer to some of the rows."""
    chosen = canary_numbers(len(queries.vectors))
    some = Queries(queries.vectors[chosen], queries.own_rows[chosen])
    deep, _ = case.truth(vectors, some, max(*ASKED_KS, case.task.k))  # as `build` kept it
    truth = deep.at(vectors, some.vectors, case.task.k, some.own_rows)
    rows = served_answers(batch_engine(engine), some.vectors, case.task.k, some.own_rows, None, NO_PARAMS)
    return Published(some, truth, measure(truth, rows, vectors, some.vectors))
