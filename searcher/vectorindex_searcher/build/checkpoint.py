"""A trained, empty index kept beside the artifact: a preempted build goes on from there instead of training anew.

    <digest>/checkpoints/<hash of what determines training>/trained.faiss, checkpoint.json (written last)

A pod's disk goes with it, so a checkpoint lies in the artifacts' store, of a laptop as of a cluster. It is used only
when everything that determines training is the same and its SHA-256 is right; otherwise it is ignored with a warning.
It goes when the artifact is published, and so do those that other builds left a week before and never ended. Losing one
costs time, so nothing here fails a build.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import ValidationError

from ..artifact.layout import DESCRIPTION_FILE, TRAINED_FILE, Layout
from ..artifact.manifest import ManifestFile, describe_file, encode
from ..artifact.publish import fetch_files
from ..contract import Metric, Model
from ..errors import TaskError
from ..index.binding import faiss
from ..index.engine import read_index
from ..storage.store import Store

_DESCRIPTION_LIMIT_BYTES = 64 << 10
ABANDONED_SECONDS = 7 * 86_400.0
"""A checkpoint this much older than the newest object of the VectorIndex is of a build that was given up."""
_log = logging.getLogger(__name__)


class Training(Model):
    """Everything that determines the outcome of training. Two builds that agree in it train the same index."""

    format_version: Literal[1] = 1
    fingerprint: str
    tombstones: str
    """Fingerprint of the deleted ids: without their rows, other rows have the sampled numbers."""
    vector_column: str
    metric: Metric
    dimension: int
    count: int
    factory: str
    sample_rows: int
    sample_sha256: str
    """Of the sample's row numbers: how it is drawn may change."""
    moved: str = ""
    """Of the source's row numbers that were moved to the end of vectors.npy: they give every row its number."""
    faiss_version: str = faiss.__version__

    @property
    def key(self) -> str:
        """Name of its folder."""
        return hashlib.sha256(orjson.dumps(self.wire(), option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


class Description(Model):
    """checkpoint.json."""

    training: Training
    file: ManifestFile
    seconds: float
    """How long training took."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The checkpoints of one digest. keep_after_seconds: training that took less is not kept."""

    store: Store
    layout: Layout
    digest: str
    keep_after_seconds: float

    def load(self, training: Training, work: Path) -> Any | None:
        """The trained index of a CPU build, fit for adding rows, or None. `work`: folder to fetch it to."""
        key = self.layout.checkpoints(self.digest, training.key, DESCRIPTION_FILE)
        path = work / TRAINED_FILE
        try:
            described = Description.model_validate_json(self.store.read(key, length=_DESCRIPTION_LIMIT_BYTES))
            if described.training != training or described.file.name != TRAINED_FILE:
                return self._ignored(key, "it is of another training")
            fetch_files(
                self.store, [(self.layout.checkpoints(self.digest, training.key, TRAINED_FILE), described.file)], work
            )
            index = read_index(path, writable=True)
            if not index.is_trained or index.ntotal or index.d != training.dimension:
                return self._ignored(key, "it is no trained, empty index of this dimension")
        except FileNotFoundError:
            return None
        except (TaskError, ValidationError) as error:
            return self._ignored(key, str(error))
        finally:
            path.unlink(missing_ok=True)
        saved = {"checkpoint": training.key, "trainingSeconds": round(described.seconds, 1)}
        _log.info("going on from a checkpoint: training is not repeated", extra=saved)
        return index

    def save(self, training: Training, index: Any, seconds: float, work: Path) -> None:
        """Keep a trained, empty index whose training took `seconds`, if that was long enough."""
        if seconds < self.keep_after_seconds:
            return
        path = work / TRAINED_FILE
        try:
            faiss.write_index(index, str(path))
            described = Description(training=training, file=describe_file(path), seconds=seconds)
            self.store.upload(self.layout.checkpoints(self.digest, training.key, TRAINED_FILE), path)
            # Last: a description without its file does not exist.
            self.store.put(self.layout.checkpoints(self.digest, training.key, DESCRIPTION_FILE), encode(described))
        except (TaskError, OSError, RuntimeError) as error:
            _log.warning("no checkpoint could be kept; the build goes on", extra={"error": str(error)[:300]})
            return
        finally:
            path.unlink(missing_ok=True)
        _log.info("checkpoint kept", extra={"checkpoint": training.key, "bytes": described.file.size})

    def discard(self) -> None:
        """Remove every checkpoint of the digest, once its artifact is published, and abandoned ones of other digests.

        A build that reads one meanwhile trains anew. What cannot be removed stays.
        """
        try:
            items = list(self.store.list(self.layout.base))
            newest = max((item.modified for item in items), default=0.0)  # by the store's clock, not ours
            for item in items:
                digest = self.layout.digest_of_checkpoint(item.key)
                if digest == self.digest or (digest and newest - item.modified > ABANDONED_SECONDS):
                    self.store.delete(item.key)
        except (TaskError, OSError) as error:
            _log.warning("a checkpoint could not be removed", extra={"error": str(error)[:300]})

    @staticmethod
    def _ignored(key: str, why: str) -> Any | None:
        _log.warning("a checkpoint is ignored: training runs anew", extra={"object": key, "reason": why[:300]})
        return None
