"""What the shards say of themselves (GET /v1/index), and whether they are the parts of one index.

The first index of which every shard is there is the one; whoever differs is never asked. Not the first pod that answers
says which: an address that was used again would keep all others out. What is compared is what makes an answer wrong
without anybody seeing it: another revision, another plan, another part, another metric.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import orjson
from pydantic import ValidationError

from ... import contract
from ...index.filters import columns_of_names
from ..documents import Index
from ..search.plan import QuerySchema
from .link import Reply
from .pods import MOST_SAID

_SAME = (
    "revision", "namespace", "name", "digest", "fingerprint", "dimension", "metric", "embedding", "id_type",
    "metadata_columns", "factory", "segments", "min_score",
)  # fmt: skip
"""Of all shards."""
MOST_FOUND = 64
"""Indexes that pods may say they are of, before one is whole."""
MOST_REASONS = 5
"""That are told at once."""
_log = logging.getLogger(__name__)


class Facts:
    """What is known of the index. `check` raises for a pod that is not of it, and for all until there is one."""

    def __init__(self, task: contract.RouteTask) -> None:
        self._task = task
        self._found: dict[bytes, dict[int, Index]] = {}
        """By what must be the same: what each shard says."""
        self._of: bytes | None = None
        """The one that is routed to; None: none is whole yet."""
        self._seen: dict[int, bytes] = {}
        """The document of each that was believed last: most connections say the same again."""
        self.refused: set[str] = set()
        """Why pods are not asked."""
        self._last: dict[int, str] = {}
        """What was wrong with the pod of each shard that was looked at last."""

    def check(self, number: int, reply: Reply) -> None:
        """A pod at an address of shard `number` says this. Raises ValueError; where that is no matter of time the log
        says why."""
        if self._seen.get(number) == reply.body:
            return
        try:
            index = _index_of(reply)
            if (fault := self._fault(number, index)) is not None:
                raise ValueError(fault)
        except ValueError as error:
            self._say(number, str(error))
            raise
        self._last.pop(number, None)
        key = _key(index)
        if self._of is None:
            self._add(number, index, key)
        if self._of is None:
            raise ValueError("not all shards of its index have said what they are")
        difference = self._difference(index, self._found[self._of]) if key != self._of else self._lacks(index)
        if difference:
            self._say(number, difference)
            raise ValueError(difference)
        self._seen[number] = reply.body

    def _add(self, number: int, index: Index, key: bytes) -> None:
        if key not in self._found and len(self._found) >= MOST_FOUND:
            del self._found[next(iter(self._found))]
        parts = self._found.setdefault(key, {})
        parts[number] = index
        if len(parts) < len(self._task.shards):
            return
        if fault := columns_of_two_types(parts):
            self._say(number, fault)
            return
        self._of = key
        if left_out := _only_in_some(parts):
            _log.warning("columns cannot be filtered, as some shards lack them", extra={"columns": left_out})

    def _lacks(self, index: Index) -> str:
        """What filters may name already, and this pod does not have; empty: nothing."""
        there = index.filter_columns
        for name, kind in columns_of_all(self._whole_parts().values()).items():
            if there.get(name) != kind:
                return f"its column {name!r:.100} is {there.get(name, 'none that filters know')}, and {kind} elsewhere"
        return ""

    def _say(self, number: int, fault: str) -> None:
        self._last[number] = fault
        if fault not in self.refused and len(self.refused) < MOST_SAID:
            self.refused.add(fault)
            _log.error("a pod is not asked", extra={"shard": number, "problem": fault})

    def _fault(self, number: int, index: Index) -> str | None:
        """What is wrong with it, whatever the others say."""
        task, shards = self._task, len(self._task.shards)
        for what, wanted, found in (("revision", task.revision, index.revision), ("digest", task.digest, index.digest)):
            if wanted and found != wanted:
                return f"it has the {what} {found[:100]!r}, and not {wanted!r}"
        if index.index_bytes is None:
            return "it shows some of its rows only: the token for shards has a policy there that is not allRows: true"
        part = index.shard
        if shards == 1 and part is None:
            return None  # an index that is not sharded may be routed to, too
        if part is None or (part.number, part.of) != (number, shards):
            is_part = "all of an index" if part is None else f"shard {part.number} of {part.of}"
            return f"it is {is_part}, and not shard {number} of {shards}"
        return None

    def _difference(self, index: Index, others: Mapping[int, Index]) -> str:
        other = next(iter(others.values()))
        for name in _SAME:
            mine, theirs = getattr(index, name), getattr(other, name)
            if mine != theirs:
                return f"its {name} is {mine!r:.100}, and that of the others {theirs!r:.100}"
        return "it was built by another plan than the others"

    @property
    def missing(self) -> tuple[int, ...]:
        """Shards of which no pod has said what the others say."""
        if self._of is not None:
            return ()
        most = self._most()
        return tuple(number for number in range(len(self._task.shards)) if number not in most)

    @property
    def waiting(self) -> str:
        """What is waited for, and why, as far as that is known; empty: nothing."""
        if self._of is not None:
            return ""
        if not self.missing:
            return columns_of_two_types(self._most())
        reasons = [f"shard {number}: {why}" for number in self.missing if (why := self._why(number))]
        shards = f"waiting for shards {', '.join(map(str, self.missing))} of {len(self._task.shards)}"
        return "; ".join([shards, *reasons[:MOST_REASONS]])

    def _why(self, number: int) -> str:
        """Why a shard is missing, where a pod has said something."""
        for parts in self._found.values():
            if number in parts:
                return self._difference(parts[number], self._most())
        return self._last.get(number, "")

    def _most(self) -> Mapping[int, Index]:
        """The index of which most shards are there."""
        return max(self._found.values(), key=len, default={})

    def _whole_parts(self) -> Mapping[int, Index]:
        assert self._of is not None
        return self._found[self._of]

    def whole(self) -> Whole:
        """What is served, once nothing is missing."""
        parts = self._whole_parts()
        return Whole(tuple(parts[number] for number in sorted(parts)), self._task)


def columns_of_all(parts: Iterable[Index]) -> dict[str, str]:
    """Columns that filters may name in each of them -> type."""
    first, *others = parts
    return {name: kind for name, kind in first.filter_columns.items() if all(name in p.filter_columns for p in others)}


def columns_of_two_types(parts: Mapping[int, Index]) -> str:
    """Which column is of two types, and where; empty: none."""
    seen: dict[str, tuple[str, int]] = {}
    for number, part in sorted(parts.items()):
        for name, kind in part.filter_columns.items():
            other, where = seen.setdefault(name, (kind, number))
            if other != kind:
                return f"column {name!r:.100} is {other} in shard {where} and {kind} in shard {number}: build again"
    return ""


def _only_in_some(parts: Mapping[int, Index]) -> list[str]:
    every = columns_of_all(parts.values())
    return sorted({name[:100] for part in parts.values() for name in part.filter_columns} - {*every})[:MOST_REASONS]


@dataclass(frozen=True, slots=True)
class Whole:
    """All shards as one index."""

    parts: Sequence[Index]
    task: contract.RouteTask

    @property
    def revision(self) -> str:
        return self.parts[0].revision

    @property
    def min_score(self) -> float | None:
        own = self.task.min_score
        return self.parts[0].min_score if own is None else own

    @property
    def params(self) -> Mapping[str, tuple[int, int]]:
        """What every shard takes."""
        names = set.intersection(*(set(part.params) for part in self.parts))
        return {
            name: (max(p.params[name].min for p in self.parts), min(p.params[name].max for p in self.parts))
            for name in sorted(names)
        }

    def schema(self) -> QuerySchema:
        """What requests are checked against."""
        first = self.parts[0]
        default = first.operating_points.get("default")
        return QuerySchema(
            dimension=first.dimension,
            metric=first.metric,
            param_limits=self.params,
            default_params=default.params if default is not None else {},
            segments=frozenset(self.task.segments),
            embedding_model=first.embedding.model,
            embedding_version=first.embedding.version,
            min_score=self.min_score,
            columns=columns_of_names(columns_of_all(self.parts)),
        )

    def document(self) -> dict[str, object]:
        """GET /v1/index of a router. Operating points are each shard's own, and their recall is not that of a merged
        answer: there are none here."""
        told = self.parts[0].wire()
        for name in ("shard", "encoder", "reranker"):  # a shard's own, whom nobody asks in words
            told.pop(name, None)
        sizes = [part.index_bytes for part in self.parts if part.index_bytes is not None]
        return {
            **told,
            "count": sum(part.count for part in self.parts),
            "indexBytes": sum(sizes),
            "filterColumns": columns_of_all(self.parts),
            "operatingPoints": {},
            "segmentPoints": {},
            "params": {name: {"min": low, "max": high} for name, (low, high) in self.params.items()},
            "segments": list(self.task.segments),
            "minScore": self.min_score,
            "shards": len(self.parts),
        }


def _key(index: Index) -> bytes:
    """What must be the same of all shards."""
    told = index.model_dump(mode="json", include=set(_SAME))
    return orjson.dumps([told, index.shard.plan if index.shard is not None else ""], option=orjson.OPT_SORT_KEYS)


def _index_of(reply: Reply) -> Index:
    """Raises ValueError."""
    try:
        return Index.model_validate(orjson.loads(reply.body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"it is no searcher of this release: {where}: {first['msg']}") from None
