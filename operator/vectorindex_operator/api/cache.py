"""VectorIndex.spec.searcher.cache as a pydantic model: where searchers keep what they fetched.

No I/O and no Kubernetes client.
"""

from __future__ import annotations

from typing import ClassVar

from vectorindex_operator.api.fields import CelRule, ObjectName
from vectorindex_operator.api.quantities import memory_bytes
from vectorindex_searcher.contract import MemoryText, Model


class EphemeralVolume(Model):
    """A volume that is made for each pod, and goes with it (a generic ephemeral volume)."""

    size: MemoryText
    """How large it is: the artifact twice, since a file that is fetched again lies beside the one that it replaces."""
    storage_class_name: ObjectName | None = None
    """Absent: the cluster's default."""


class Cache(Model):
    """Where searchers keep the files of their artifact. An edit replaces the pods of every loaded revision, one by one.

    Absent: on the node's own disk (an emptyDir), gone with the pod.
    """

    ephemeral: EphemeralVolume | None = None
    """A volume for each pod: for artifacts that the disk of a node has no room for."""
    claim_name: ObjectName | None = None
    """A PersistentVolumeClaim of the namespace that all pods share: what one of them has fetched no other fetches.
    ReadWriteMany, or all pods on one node."""
    limit: MemoryText | None = None
    """How much may lie in the claim: beyond it goes what was used longest ago, and by no pod for ten minutes. Room for
    three revisions is what two that are loaded and the way back take."""
    cel: ClassVar[tuple[CelRule, ...]] = (
        CelRule(
            "has(self.ephemeral) != has(self.claimName)",
            "give one of ephemeral and claimName; without cache the node's own disk is taken",
        ),
        CelRule(
            "has(self.claimName) == has(self.limit)",
            "limit goes with claimName: how much of the claim the artifacts may take",
            ".limit",
        ),
    )

    @property
    def limit_bytes(self) -> int | None:
        """How much may lie there; None: as much as there is room for."""
        return memory_bytes(self.limit) if self.limit is not None else None
