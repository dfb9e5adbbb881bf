"""What was decided about a revision, as it is kept beside the artifacts: the operator says it, Jobs write and read it.

So it outlives the objects of the cluster. It is read back by another release, and in another cluster: see model.Stored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from .model import Stored
from .places import Location
from .results import BuildResult, ValidateResult
from .spec import Columns, Embedding, IndexSpec, MemoryText
from .tasks import ClusterUid, Identity, Name

PROMOTED, REJECTED = "Promoted", "Rejected"
OUTCOMES_WRITTEN = 16
"""At most, by one Job: its task is a variable of a pod."""
Moment = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z$")]
Reason = Annotated[str, Field(pattern=r"^([A-Za-z][A-Za-z0-9]{0,62})?$")]


class Outcome(Stored):
    """How one revision ended, with what it takes to make it again: nothing of where its pods run, or of who may do
    what, since whoever may write to the bucket may write this."""

    kind: Literal["Outcome"] = "Outcome"
    version: Annotated[int, Field(ge=1, le=1)]
    """Of what follows. One that has another meaning has another number, and is not read."""
    identity: Identity
    """Of the index whose revision it was; the uid is that of then."""
    cluster: str = ""
    """Where it was decided, if that was told."""
    revision: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
    """Its name."""
    outcome: str
    """Promoted or Rejected."""
    at: Moment
    digest: Name
    fingerprint: Annotated[str, Field(max_length=128)]
    rebuild: Annotated[int, Field(ge=1)] | None = None
    """Which build of the same spec and data; None: the first."""
    rebuild_nonce: Annotated[str, Field(max_length=128)] = ""
    columns: Columns = Columns()
    embedding: Embedding = Embedding()
    index: IndexSpec = IndexSpec()
    segments: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=64)] = ()
    min_score: float | None = None
    memory_per_shard: MemoryText | None = None
    """What its digest says that a shard might take; None: nobody asked for as many shards as fit."""
    refresh: Annotated[str, Field(max_length=128)] = ""
    """Nonce of the `refresh` that asked for it."""
    image: Annotated[str, Field(max_length=512)] = ""
    """Which it was proven with. It is compared, never run."""
    encoder: Annotated[str, Field(max_length=64)] = ""
    """Which encoder it was proven with, by a hash of what serves; empty: none. It is compared, never fetched."""
    proof_salt: Annotated[str, Field(max_length=512)] = ""
    """Part of the hash of its gate."""
    phase: Annotated[str, Field(max_length=32)] = ""
    """Of what was rejected: Rejected or RolledBack."""
    stage: Reason = ""
    reason: Reason = ""
    message: Annotated[str, Field(max_length=1024)] = ""
    gate: dict[str, Any] | None = None
    """The verdict of its gate, as the operator keeps it."""
    build: BuildResult | None = None
    report: ValidateResult | None = None


class OutcomesTask(Stored):
    """Write what was decided beside the artifacts, or answer what stands there. Read as what is stored is: it holds
    results of Jobs, of any release."""

    identity: Identity
    artifacts: Location
    write: Annotated[tuple[Outcome, ...], Field(max_length=OUTCOMES_WRITTEN)] = ()
    restore: bool = False
    """Answer with what an index of this name is to begin with."""
    cluster: ClusterUid = ""
    """Who is going to use the artifacts that are answered: they are marked."""


class OutcomesResult(Stored):
    kind: Literal["Outcomes"] = "Outcomes"
    written: int = 0
    """How many were not there yet."""
    found: Annotated[tuple[Outcome, ...], Field(max_length=100)] = ()
    """The last that was promoted, what was promoted before it, and what was rejected, the newest first: as much as a
    result can hold."""
    left_out: int = 0
    """How many of them it cannot hold."""
    unusable: int = 0
    """Documents there that say nothing this version can use, or are of a time to come."""
    too_many: bool = False
    """More than are listed: nothing is answered, since the last word may be among the others."""
