"""Which key signs the requests to a revision's pods. Pure; signing itself is contract/internal.py.

A revision remembers the name of the master key it was made with, in an annotation of its frozen pod template: one that
was made without a key is never given one later, because that would restart its pods. The annotation is no field of the
revision, so an operator that does not know it still reads the revision, and serves it without a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vectorindex_operator.api.v1alpha1 import GROUP
from vectorindex_operator.core.observation import Observation
from vectorindex_searcher import contract

ANNOTATION = f"{GROUP}/internal-key"
"""On a pod template: the name of the master key that the pods' key is made from."""


@dataclass(frozen=True, slots=True)
class Addressee:
    """The pods of one revision. `key_id`: the master key it was made with; empty: they have no key."""

    target: contract.Target
    revision_uid: str
    key_id: str = ""


def addressee(obs: Observation, revision: str) -> Addressee:
    """Whom a request to the pods of `revision` is for. From the objects as they are, so that also a revision whose spec
    cannot be read is spoken to."""
    stored = obs.objects.get(("VectorIndexRevision", revision), {})
    deployment = obs.objects.get(("Deployment", revision), {})
    shard: int | str = contract.ROUTER if _part(stored, "spec", "indexSpec").get("shards") else 0
    return Addressee(
        target=contract.Target(obs.index.uid, revision, shard),
        revision_uid=str(_part(stored, "metadata").get("uid", "")),
        key_id=key_id_of(_part(deployment, "spec", "template")),
    )


def key_id_of(pod_template: Mapping[str, Any]) -> str:
    """The name of the master key in a pod template; empty: none."""
    return str(_part(pod_template, "metadata", "annotations").get(ANNOTATION, ""))


def _part(raw: object, *path: str) -> Mapping[str, Any]:
    """A mapping inside an object that anybody may have written; empty where there is none."""
    for name in path:
        raw = raw.get(name) if isinstance(raw, Mapping) else None
    return raw if isinstance(raw, Mapping) else {}


@dataclass(frozen=True, slots=True)
class InternalKeys:
    """The master keys that the operator was given. Never written anywhere, not even into a log by accident."""

    current: str = field(default="", repr=False)
    """What new revisions' keys are made from; empty: they get none."""
    previous: str = field(default="", repr=False)
    """Stays until no revision that it was made for is left."""

    def master_of(self, key_id: str) -> str:
        """The master key for a revision made with `key_id`: the one of that name or, if it is gone, the current one.

        Empty when there is none. Another key than before restarts the revision's pods, one by one.
        """
        if not key_id:
            return ""
        known = (key for key in (self.current, self.previous) if key and contract.key_id(key) == key_id)
        return next(known, self.current)

    def revision_key(self, revision_uid: str, key_id: str) -> str:
        """The key that the pods of a revision made with `key_id` have; empty: none."""
        master = self.master_of(key_id)
        return contract.revision_key(master, revision_uid) if master else ""

    def has_all(self, *addressees: Addressee) -> bool:
        """Whether the pods of each of these revisions have a key: without, none takes or sends what users ask."""
        return all(self.revision_key(one.revision_uid, one.key_id) for one in addressees)
