"""A cluster of recorded objects: what the plugin reads of it is what record_objects.py wrote."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from vectorindex_operator.reconcile.errors import ConflictError, RefusedError, UnreachableError

Json = dict[str, Any]
FOLDER = Path(__file__).parent / "unit" / "golden" / "plugin"


@cache
def _read(moment: str) -> str:
    """As JSON, which is read again in no time: the YAML takes half a second."""
    return json.dumps(list(yaml.safe_load_all((FOLDER / f"{moment}.yaml").read_text(encoding="utf-8"))))


@dataclass
class Recorded:
    """The objects of one namespace. `refused`: kinds that may not be read. `on_merge`: what happens after a write."""

    objects: list[Json]
    now: float
    refused: frozenset[str] = frozenset()
    down: bool = False
    """Whether the API server gives no answer."""
    logs: dict[str, str] = field(default_factory=dict)
    """Name of a pod -> what it said last."""
    asked: list[str] = field(default_factory=list)
    """Kinds that were read, in order."""
    written: list[Json] = field(default_factory=list)
    on_merge: Callable[[Json], None] = lambda index: None

    @classmethod
    def at(cls, moment: str) -> Recorded:
        """As it was at a moment of record_objects.py."""
        now, *objects = json.loads(_read(moment))
        return cls(objects, now["unix"])

    def get(self, kind: str, namespace: str, name: str) -> Json | None:
        self._allow(kind)
        mine = (one for one in self.objects if one["kind"] == kind and one["metadata"]["namespace"] == namespace)
        return next((copy.deepcopy(one) for one in mine if one["metadata"]["name"] == name), None)

    def children(self, kind: str, namespace: str, selector: str) -> list[Json]:
        self._allow(kind)
        wanted = dict(pair.split("=") for pair in selector.split(","))
        found = (one for one in self.objects if one["kind"] == kind and one["metadata"]["namespace"] == namespace)
        return [one for one in found if wanted.items() <= one["metadata"].get("labels", {}).items()]

    def every(self, kind: str, namespace: str) -> list[Json]:
        return [one for page in self.pages(kind, namespace, "", metadata_only=False) for one in page]

    def events(self, namespace: str, name: str) -> list[Json]:
        self._allow("Event")
        return [one for one in self.objects if one["kind"] == "Event" and one["regarding"]["name"] == name]

    def words(self, namespace: str, pod: str) -> str:
        self._allow("log")
        return self.logs.get(pod, "")

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
        self.asked.append(kind)
        if self.down:
            raise UnreachableError("connection refused")
        if kind in self.refused:
            raise RefusedError(f"403 Forbidden: {kind} may not be listed")
