"""A gate of another k than `build` asked for: the indexes without the left-out rows are built again, and asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..artifact.manifest import Manifest
from ..index.device import on_cpu
from ..index.engine import Engine
from ..index.vectors import VectorFile
from ..proof.exact import Truth
from ..proof.measured import MeasuredFile
from .fill import Order
from .held_out import Builder, ask, asked_of_few, engine_of, questions
from .left_out import Fold, LeftOut

FindTruth = Callable[[VectorFile, npt.NDArray[np.float32], int, npt.NDArray[np.int64]], Truth]


def ask_again(folder: Path, engine: Engine, measured: MeasuredFile, k: int, find: FindTruth) -> MeasuredFile:
    """What is known with the answers for `k` alone. engine: of the published files, which an exact index is asked by.

    The same rows, the same training sample and the same parameters as in the build; on the CPU, whatever that had.
    """
    manifest, asked = engine.manifest, measured.asked
    folds = tuple(
        Fold(out, np.empty(0, np.int64), asked.rows[asked.folds == fold]) for fold, out in sorted(measured.out.items())
    )
    plan = LeftOut(folds, measured.facts.last)
    order = _order(manifest)
    parts = questions(folder, order, plan, find, (np.empty(0, np.int64), asked.rows), k)
    builder = Builder(folder, order, measured.facts.training, on_cpu(), None)
    indexes = [builder.without(plan, part) for part in parts] if folds else []
    engines = [engine_of(folder, index, manifest) for index in indexes] or [engine]
    few_rows = asked_of_few(folder, engines, parts, [k], measured.facts.params)
    facts = replace(measured.facts, few_rows=few_rows)
    return replace(measured, asked=ask(engines, parts, [k], measured.facts.params), facts=facts)


def _order(manifest: Manifest) -> Order:
    return Order(
        factory=manifest.factory,
        metric=manifest.embedding.metric,
        rows=manifest.count,
        dimension=manifest.dimension,
        sample=np.empty(0, np.int64),
        fingerprints=(manifest.fingerprint, manifest.tombstones),
        vector_column="",
    )
