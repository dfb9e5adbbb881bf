"""Measuring an index without its left-out rows: built, tuned with some of them, asked the others, then completed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..artifact.layout import IDS_FILE, VECTORS_FILE
from ..artifact.manifest import Manifest
from ..contract import IndexSpec, Metric
from ..errors import BadSpec
from ..index import heap
from ..index.choose.tuning import K, Tuning, batch_engine, tune
from ..index.device import DeviceFallback, on_cpu
from ..index.engine import Engine
from ..index.parameters import is_exact
from ..index.rows import Ids
from ..index.vectors import VectorFile
from ..progress import step
from ..proof.bound import lower_bound
from ..proof.exact import Truth, exact_search, no_truth
from ..proof.filtered import QUERIES, ask_few_rows, drawn, joined
from ..proof.measure import answers, measure, scored_answers
from ..proof.measured import NOT_LEFT_OUT, Asked, Facts, MeasuredFile
from .checkpoint import Checkpoints
from .fill import Order, add, filled
from .left_out import LeftOut

Rows = npt.NDArray[np.int64]
FindTruth = Callable[[VectorFile, npt.NDArray[np.float32], int, Rows], Truth]
"""The exact neighbours of queries among the rows that a VectorFile shows, as `proof.groundtruth` keeps them."""
SEED = 0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Questions:
    """Rows of vectors.npy that are asked, and what is right."""

    rows: Rows
    vectors: npt.NDArray[np.float32]
    truth: Truth


@dataclass(frozen=True, slots=True)
class Part:
    """One index to measure. kept: the artifact's number of each of its rows; None: they are the same."""

    fold: int
    kept: Rows | None
    tuning: Questions
    gate: Questions

    @property
    def own(self) -> Callable[[Rows], Rows]:
        """A query's own row in this index, -1 where it was left out."""
        return (lambda rows: rows) if self.fold == NOT_LEFT_OUT else (lambda rows: np.full(len(rows), -1))

    def answers(self, engine: Engine, asked: Questions, k: int, params: Mapping[str, int] | None) -> Rows:
        """Rows [n, k], by the artifact's numbers."""
        return self.scored(engine, asked, k, params)[1]

    def scored(
        self, engine: Engine, asked: Questions, k: int, params: Mapping[str, int] | None
    ) -> tuple[npt.NDArray[np.float32], Rows]:
        """As `answers`, and before them the engine's scores [n, k]."""
        scores, found = scored_answers(engine, asked.vectors, k, self.own(asked.rows), params)
        return scores, found if self.kept is None else np.where(found >= 0, self.kept[np.maximum(found, 0)], -1)


def questions(
    folder: Path, order: Order, plan: LeftOut, find: FindTruth, inside: tuple[Rows, Rows], k: int
) -> list[Part]:
    """What is asked of which index, with the exact neighbours: before an index takes the memory.

    inside: rows for tuning and gate that are asked while they are in the index, where nothing is left out. k: the
    largest that is asked.
    """
    with VectorFile(folder / VECTORS_FILE, order.metric) as whole:

        def asked(rows: Rows, k: int, kept: Rows | None, vectors: VectorFile, own: Rows) -> Questions:
            queries = whole.gather(rows, prepared=False)
            if not len(rows):
                return Questions(rows, queries, no_truth(k))
            if kept is None:
                return Questions(rows, queries, find(vectors, queries, k, own))
            return Questions(rows, queries, exact_search(whole, queries, k, whole.metric, among=kept))

        if not plan.folds:
            tuning, gate = inside
            return [Part(NOT_LEFT_OUT, None, asked(tuning, K, None, whole, tuning), asked(gate, k, None, whole, gate))]
        if plan.last:
            (fold,) = plan.folds
            with VectorFile(folder / VECTORS_FILE, order.metric, order.rows - len(fold.out)) as before:
                none = np.full(max(len(fold.tuning), len(fold.gate)), -1)
                tune_with = asked(fold.tuning, K, None, before, none[: len(fold.tuning)])
                return [Part(0, None, tune_with, asked(fold.gate, k, None, before, none[: len(fold.gate)]))]
        parts = []
        for number, fold in enumerate(plan.folds):
            kept = np.setdiff1d(np.arange(order.rows), fold.out)
            parts.append(
                Part(number, kept, asked(fold.tuning, K, kept, whole, kept), asked(fold.gate, k, kept, whole, kept))
            )
        return parts


def sampled(order: Order, count: int, rows: int, among: Rows | None = None) -> Order:
    """The order with a training sample of `count` rows at most, drawn from the first `rows` or from `among`."""
    rng = np.random.default_rng(SEED)
    drawn = rng.choice(rows if among is None else len(among), min(count, rows), replace=False)  # memory: of the sample
    return replace(order, sample=np.sort(drawn if among is None else among[drawn]))


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds the indexes of one artifact. order: without a sample. training: rows of that. imported: the index of all
    rows that was built elsewhere; nothing is left out of it."""

    folder: Path
    order: Order
    training: int
    fallback: DeviceFallback
    checkpoints: Checkpoints | None
    imported: Any = None

    def without(self, plan: LeftOut, part: Part) -> Any:
        """The index of `part`, without what was left out of it."""
        if part.kept is not None:
            order = sampled(self.order, self.training, len(part.kept), part.kept)
            with VectorFile(self.folder / VECTORS_FILE, order.metric) as vectors:
                return filled(order, vectors, self.fallback, None, self.folder, part.kept)
        behind = len(plan.folds[0].out) if plan.folds else 0
        return self._first(self.order.rows - behind)

    def whole(self) -> Any:
        """An index of all rows, from the start."""
        return self._first(self.order.rows)

    def complete(self, index: Any) -> Any:
        """The index with the rows that it lacks, which are the last ones; built anew where its kind takes no more."""
        first = index.ntotal
        if first == self.order.rows:
            return index

        def rest() -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
            yield from vectors.blocks_of(np.arange(first, self.order.rows))

        with VectorFile(self.folder / VECTORS_FILE, self.order.metric) as vectors:
            try:
                full = add(index, rest, self.order.rows, on_cpu())
            except BadSpec as error:
                _log.info("this kind takes no rows afterwards: built anew", extra={"reason": str(error)[:200]})
                full = None
        return full if full is not None and full.ntotal == self.order.rows else self.whole()

    def _first(self, rows: int) -> Any:
        if self.imported is not None:
            return self.imported
        with VectorFile(self.folder / VECTORS_FILE, self.order.metric, rows) as vectors:
            order = sampled(self.order, self.training, rows)
            return filled(order, vectors, self.fallback, self.checkpoints, self.folder)


@dataclass(frozen=True, slots=True)
class Built:
    """The index to publish, its operating points, and what was measured of it."""

    index: Any
    tuned: Tuning
    measured: MeasuredFile


def build_measured(
    builder: Builder, plan: LeftOut, parts: Sequence[Part], bare: Manifest, spec: IndexSpec, ks: Sequence[int]
) -> Built:
    """Build without the left-out rows, tune, ask, and complete. bare: a manifest without operating points.
    ks: what the gate's queries are asked for."""
    indexes = [builder.without(plan, part) for part in parts]
    engines = [engine_of(builder.folder, index, bare) for index in indexes]
    step("tuning")
    with VectorFile(builder.folder / VECTORS_FILE, bare.embedding.metric) as vectors:
        tuned = _tune(engines, parts, vectors, spec)
    heap.release()
    few_rows = asked_of_few(builder.folder, engines, parts, ks, tuned.default.params)
    asked = ask(engines, parts, ks, tuned.default.params, scored=bare.shard is not None)
    exact = is_exact(indexes[0])
    duplicates = plan.duplicates if plan.folds else _equal(parts[0].gate, bare.embedding.metric)
    facts = Facts(dict(tuned.default.params), builder.training, exact, plan.last, duplicates, few_rows=few_rows)
    out = {number: fold.out for number, fold in enumerate(plan.folds)}
    measured = MeasuredFile(facts, asked, np.concatenate([part.tuning.rows for part in parts]), out)
    del engines
    folded = parts[0].kept is not None
    index = indexes.pop(0)
    indexes.clear()
    if folded:
        del index
        heap.release()
        return Built(builder.whole(), tuned, measured)
    return Built(builder.complete(index), tuned, measured)


def _equal(asked: Questions, metric: Metric) -> float:
    """Share of the rows that equal another one, which is then at distance 0; by inner products nobody can tell."""
    scores = asked.truth.scores[:, 0] if asked.truth.scores.shape[1] else np.empty(0)
    return float((scores == 0).mean()) if len(scores) and metric is not Metric.INNER_PRODUCT else 0.0


def engine_of(folder: Path, index: Any, bare: Manifest) -> Engine:
    """The engine that will serve, over an index that is still in memory; its ids are those of the whole artifact."""
    return Engine(index, bare, Ids(folder / IDS_FILE))


def _tune(engines: Sequence[Engine], parts: Sequence[Part], vectors: VectorFile, spec: IndexSpec) -> Tuning:
    everything = [batch_engine(engine) for engine in engines]

    def recalls(params: Mapping[str, int]) -> npt.NDArray[np.float64]:
        found = []
        for engine, part in zip(everything, parts, strict=True):
            rows = part.answers(engine, part.tuning, K, params)
            found.append(measure(part.tuning.truth, rows, vectors, part.tuning.vectors).recall)
        return np.concatenate(found)

    queries = np.concatenate([part.tuning.vectors for part in parts])
    tuned = tune(engines[0], queries, recalls, lower_bound, spec.objective.recall, spec.search_params)
    _log.info("default operating point", extra=tuned.default.wire())
    return tuned


def shown_rows(parts: Sequence[Part]) -> Rows:
    """The rows that a gate asks of the published files: those that judge, or those that tuned where none do."""
    judging = np.concatenate([part.gate.rows for part in parts])
    return judging if len(judging) else np.concatenate([part.tuning.rows for part in parts])


def with_published(folder: Path, built: Built, bare: Manifest, canary: Questions, ks: Sequence[int]) -> Built:
    """What was measured, and what the whole index answers to the canary's rows, which do not count for themselves."""
    engine = batch_engine(engine_of(folder, built.index, bare))
    found: dict[str, float] = {}
    with VectorFile(folder / VECTORS_FILE, bare.embedding.metric) as vectors:
        for k in ks:
            rows = answers(engine, canary.vectors, k, canary.rows, built.tuned.default.params)
            truth = canary.truth.at(vectors, canary.vectors, k, canary.rows)
            found[str(k)] = float(measure(truth, rows, vectors, canary.vectors).recall.mean())
    facts = replace(built.measured.facts, published=found)
    return replace(built, measured=replace(built.measured, facts=facts))


def ask(
    engines: Sequence[Engine],
    parts: Sequence[Part],
    ks: Sequence[int],
    params: Mapping[str, int],
    *,
    scored: bool = False,
) -> Asked:
    """The answers to the queries that judge, for each k. scored: with their scores."""
    everything = [batch_engine(engine) for engine in engines]
    pairs = list(zip(everything, parts, strict=True))
    width = max(part.gate.truth.rows.shape[1] for part in parts)
    sizes = [engine.count - (part.fold == NOT_LEFT_OUT) for engine, part in pairs]
    found = {k: [part.scored(engine, part.gate, k, params) for engine, part in pairs] for k in ks}
    return Asked(
        rows=np.concatenate([part.gate.rows for part in parts]),
        folds=np.concatenate([np.full(len(part.gate.rows), part.fold) for part in parts]),
        sizes=np.concatenate([np.full(len(p.gate.rows), size) for p, size in zip(parts, sizes, strict=True)]),
        neighbours=np.concatenate([_wide(part.gate.truth.rows, width) for part in parts]),
        answers={k: np.concatenate([rows for _, rows in each]) for k, each in found.items()},
        scores={k: np.concatenate([scores for scores, _ in each]) for k, each in found.items()} if scored else {},
    )


def asked_of_few(
    folder: Path, engines: Sequence[Engine], parts: Sequence[Part], ks: Sequence[int], params: Mapping[str, int]
) -> list[dict[str, Any]]:
    """What some of the queries that judge find among few rows, as Facts keep it. The indexes are as they were."""
    found = []
    most = -(-QUERIES // len(parts))
    for engine, part in zip(engines, parts, strict=True):
        some = drawn(len(part.gate.rows), most)
        tuned, own = engine.with_default(params), part.own(part.gate.rows[some])
        shown = engine.count if part.kept is None else None
        with VectorFile(folder / VECTORS_FILE, engine.metric, shown) as vectors:
            found.append(list(ask_few_rows(tuned, vectors, part.gate.vectors[some], own, ks, part.kept)))
        tuned.release()
        heap.release()
    return [asdict(one) for one in joined(found)]


def _wide(rows: Rows, width: int) -> Rows:
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=-1)
