"""What one run of `validate` works on, and what it finds."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..artifact.document import DOCUMENT_LIMIT_BYTES
from ..artifact.layout import POINTS_FILE, VECTORS_FILE, Layout
from ..artifact.manifest import Manifest, ManifestFile, describe_bytes, encode
from ..contract import ValidateTask
from ..index.engine import Engine
from ..index.vectors import VectorFile
from ..storage.store import Store
from .exact import Truth
from .filtered import FewRows
from .groundtruth import Source, ground_truth
from .live.judge import Live
from .measure import Measured
from .points import Halves, Tuner
from .queries import Queries
from .report import HeldOut, Points, RecallAtK, read_points
from .reranking import Reordered

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Case:
    """The task, and the artifact that it names."""

    task: ValidateTask
    store: Store
    layout: Layout
    manifest: Manifest
    manifest_sha256: str
    live: Live | None = None
    """What stable's users ask, where the gate is to know it."""

    def truth(self, vectors: VectorFile, queries: Queries, k: int) -> tuple[Truth, Source]:
        """The exact neighbours among the rows that `vectors` shows, kept for the next gate."""
        file = self.manifest.file(VECTORS_FILE)
        assert file is not None  # it was downloaded
        found, source = ground_truth(
            self.store, self.layout, vectors, file.sha256, queries.vectors, k, queries.own_rows
        )
        _log.info("ground truth", extra={"source": source, "queries": len(queries.vectors), "k": k})
        return found, source

    def tuned(self, engine: Engine, vectors: VectorFile, queries: Queries, truth: Truth, halves: Halves) -> Points:
        """The points by these queries, those of the build where nothing tunes; as wide as live queries ask for."""
        task, targets = self.task, self.task.segment_targets if engine.param_limits else {}
        tuner = Tuner(engine, vectors, queries, truth, task.sure)
        default = self.manifest.default_point
        if task.objective is not None and engine.param_limits and halves.tuning:
            default = tuner.default(halves, task.segments, targets, task.objective)
        points = Points(
            digest=task.digest,
            gate_hash=task.gate_hash,
            manifest_sha256=self.manifest_sha256,
            k=task.k,
            default=default,
            segments=tuple(tuner.segment(name, halves, targets, default) for name in task.segments),
        )
        return points if self.live is None else self.live.widened(engine, vectors, points, task)

    def publish_points(self, points: Points) -> tuple[Points, ManifestFile]:
        """Publish points.json. One of this manifest that is there already (an earlier try died before its report) is
        kept: what is measured now must be what is served."""
        key = self.layout.report(points.digest, points.gate_hash, POINTS_FILE)
        data = encode(points)
        if not self.store.put(key, data, exclusive=True):
            there = self.store.read(key, length=DOCUMENT_LIMIT_BYTES + 1)
            found = read_points(there, points.digest, points.gate_hash)
            if found.manifest_sha256 == points.manifest_sha256:
                data, points = there, found
            else:
                self.store.put(key, data)
        return points, describe_bytes(POINTS_FILE, data)


@dataclass(frozen=True, slots=True)
class Published:
    """What the published files answer to queries of the canary. One that is a row does not count itself."""

    queries: Queries
    truth: Truth
    measured: Measured


@dataclass(frozen=True, slots=True)
class MeasuredCase:
    """What was measured on all queries, each at the point it is served with."""

    queries: Queries
    truth: Truth
    truth_source: Source
    halves: Halves
    points: Points
    points_file: ManifestFile
    measured: Measured
    relevance: npt.NDArray[np.float64] | None
    """[n]: reciprocal rank of the first right answer; NaN where it was not measured. None: no labels."""
    canary: Published
    exact: bool = False
    """The index finds every neighbour by its kind, so that no query more could say otherwise."""
    held_out: HeldOut | None = None
    other_k: tuple[RecallAtK, ...] = ()
    few_rows: tuple[FewRows, ...] | None = None
    """What the build asked of some rows of the index before it held the queries; None: it did not."""
    reranked: Reordered | None = None
    """What a cross-encoder makes of the labelled ones; None: there is none, or no label."""
