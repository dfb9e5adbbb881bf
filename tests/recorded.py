"""A cluster of recorded objects: what the plugin reads of it is what record_objects.py wrote."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vectorindex_operator.reconcile.errors import ConflictError, RefusedError, UnreachableError

Json = dict[str, Any]
FOLDER = Path(__file__).parent / "unit" / "golden" / "plugin"


@dataclass
class Recorded:
    """The objects of one namespace. `refused`: kinds that may not be read. `on_merge`: what happens after a write."""

    objects: list[Json]
    now: float
    refused: frozenset[str] = frozenset()
    down: bool = False
    """Whether the API server gives no answer."""
    written: list[Json] = field(default_factory=list)
    on_merge: Callable[[Json], None] = lambda index: None

    @classmethod
    def at(cls, moment: str) -> Recorded:
        """As it was at a moment of record_objects.py."""
        now, *objects = yaml.safe_load_all((FOLDER / f"{moment}.yaml").read_text(encoding="utf-8"))
        return cls(objects, now["unix"])

    def get(self, kind: str, namespace: str, name: str) -> Json | None:
        self._allow(kind)
        mine = (one for one in self.objects if one["kind"] == kind and one["metadata"]["namespace"] == namespace)
        return next((copy.deepcopy(one) for one in mine if one["metadata"]["name"] == name), None)

    def children(self, kind: str, namespace: str, selector: str) -> list[Json]:
        self._allow(kind)
        return [one for one in self.objects if one["kind"] == kind and one["metadata"]["namespace"] == namespace]

    def pages(self, kind: str, namespace: str, selector: str, *, metadata_only: bool) -> Iterator[list[Json]]:
        self._allow(kind)
        yield [one for one in self.objects if one["kind"] == kind and namespace in ("", one["metadata"]["namespace"])]

    def merge(self, manifest: Json) -> Json:
        meta = manifest["metadata"]
        one = next((one for one in self.objects if one["metadata"]["name"] == meta["name"]), None)
        if one is None:
            raise ConflictError("it is gone")
        self.written.append(manifest)
        one["metadata"].setdefault("annotations", {}).update(meta.get("annotations", {}))
        if "spec" in manifest:
            merged = {**one["spec"], **manifest["spec"]}
            one["spec"] = {name: value for name, value in merged.items() if value is not None}
            one["metadata"]["generation"] += 1
        self.on_merge(one)
        return one

    def _allow(self, kind: str) -> None:
        if self.down:
            raise UnreachableError("connection refused")
        if kind in self.refused:
            raise RefusedError(f"403 Forbidden: {kind} may not be listed")
