"""What a request wants besides its vectors, as one immutable value, worked out once and shared by all that want it.

Holds no vectors, no headers and no bodies: what a plan keeps in memory is what its fields say, and that is counted.
Knows no HTTP but the refusals, and no FAISS.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ... import contract
from ...index.filters import FilterColumns, FilterError, Predicate, memory_of, parse
from ..http.limits import CANDIDATES, MAX_VECTORS, PLAN_BYTES, PLAN_ENTRIES
from ..http.messages import Problem
from .fields import DEFAULT_K, search_fields
from .kinds import refuse_unknown
from .policies import ALL_ROWS, Policy
from .pool import Group

NO_LIMITS = contract.ParamLimits()
_OWN_WORDS = ("params", "filter", "minScore")


@dataclass(frozen=True, slots=True)
class QuerySchema:
    """What this revision accepts and assumes."""

    dimension: int
    metric: contract.Metric
    param_limits: Mapping[str, tuple[int, int]]
    """Search parameter that requests may name -> least and greatest value, both allowed."""
    limited: contract.ParamLimits = NO_LIMITS
    """What of these requests may use."""
    default_params: Mapping[str, int] = field(default_factory=dict)
    """Of the default point."""
    segments: frozenset[str] = frozenset()
    segment_params: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Declared segment -> search parameters of its own, instead of the default point's."""
    embedding_model: str = ""
    embedding_version: str = ""
    min_score: float | None = None
    columns: FilterColumns | None = None
    """What filters may name; None when this index cannot be searched with a filter."""
    columns_before: FilterColumns | None = None
    """What filters could name in the revision before this one; None: not known."""
    texts: bool = False
    """Whether queries may be texts."""
    fresh: bool = False
    """Whether there may be rows besides the artifact's."""


@dataclass(frozen=True, slots=True, eq=False)
class SearchPlan:
    """One way to search this revision, for any number of requests."""

    k: int
    params: tuple[tuple[str, int], ...]
    """Those of the segment's own point, and over them those the request named, sorted; the rest is the default's."""
    segment: str
    """A declared segment, or `other`."""
    include_metadata: bool
    min_score: float | None
    filter: Predicate | None
    """The request's own and that of the token's policy, as one."""
    filtered: bool
    """Whether the request has one of its own."""
    track: bool
    """Whether each answer gets a query id, for clicks."""
    dimension: int | None
    """What the client said of a binary body."""
    binary: bool
    """How the answer is written."""
    own: bool
    """Asked at the revision's own parameters, and without a filter of the request's own."""
    candidates: int
    """Rows that FAISS holds for each vector; see limits.py."""
    k_factor: int
    """How many of these are for each of k; the rest is for lists, whatever k is."""
    most_vectors: int
    """In one request, by its work."""
    group: Group
    """Searches that one call can answer together with this one."""
    ignored: tuple[str, ...] = ()
    """Parameters that the request named and this index has not, sorted."""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """What the request itself said of params, filter and minScore, in its own words, and in the filter what its token's
    policy says: another revision, to which the same is put, has other defaults and knows no token."""
    min_fresh: int = 0
    """The least number of the snapshot of fresh rows; 0: any, or none."""

    @property
    def nbytes(self) -> int:
        """What this plan holds in memory, about. A filter in its own words may take far more than what was made of it:
        that has each value once."""
        return 512 + memory_of(self.filter) + _held_by(self.asked)

    def wider(self, k: int) -> SearchPlan:
        """The same search for a larger k, and what that holds."""
        return replace(self, k=k, candidates=self.candidates + (k - self.k) * self.k_factor)


class Planner:
    """Makes the plans of one revision. `group`: that of a search by k, parameters, whether it wants metadata, its
    candidates, and the rows that its token may see."""

    def __init__(
        self,
        schema: QuerySchema,
        group: Callable[[int, tuple[tuple[str, int], ...], bool, int, Predicate | None], Group],
    ) -> None:
        self._schema = schema
        self._params = allowed_params(schema.param_limits, schema.limited)
        self._foreign = tuple(name for name in contract.SEARCH_PARAMS if name not in schema.param_limits)
        self._fields = search_fields(
            self._params, schema.segments, schema.limited.max, self._foreign, texts=schema.texts, fresh=schema.fresh
        )
        self._group = group

    @property
    def fields(self) -> Mapping[str, Any]:
        """The fields that a request may have."""
        return self._fields

    @property
    def foreign(self) -> tuple[str, ...]:
        """Search parameters that the index has not: a request may name them, in vain."""
        return self._foreign

    def segment_of(self, fields: Mapping[str, Any]) -> str:
        """The segment a request counts for: undeclared names count as `other`. Raises Problem 400."""
        name = fields.get("segment")
        if name is None:
            return contract.OTHER_SEGMENT
        name = self._fields["segment"].kind.read(name, "segment")
        return name if name in self._schema.segments else contract.OTHER_SEGMENT

    def plan(
        self, fields: Mapping[str, Any], *, binary: bool, from_query: bool = False, policy: Policy = ALL_ROWS
    ) -> SearchPlan:
        """Check everything but vectors. `from_query`: the fields stand beside a binary body. `policy`: one without a
        fault, whose rows are all that may be found.

        Raises Problem: 400 for what is malformed or out of range, 422 for another embedding.
        """
        schema = self._schema
        given = self._read(fields, from_query)
        self._check_embedding(given.get("embedding", {}))
        segment = self.segment_of(fields)
        k, params_given = given.get("k", DEFAULT_K), given.get("params", {})
        named = {name: value for name, value in params_given.items() if name in self._params}
        own = schema.segment_params.get(segment, {})
        params = tuple(sorted({**own, **named}.items()))
        metadata, track = "metadata" in given.get("include", ()), given.get("track", False)
        if binary and track:
            raise _no_query_ids()
        asked = {name: fields[name] for name in _OWN_WORDS if fields.get(name) is not None}
        filtered = given.get("filter") is not None
        predicate = self._filter(given.get("filter"))
        if policy.filter is not None:
            predicate, asked["filter"] = self._narrowed(policy, predicate, given.get("filter"))
        used = {**schema.default_params, **dict(params)}
        candidates = candidates_of(k, used)
        # What the revision's own parameters take is never too much: nobody chose them but the proof.
        usual = candidates_of(k, {**schema.default_params, **own})
        return SearchPlan(
            k=k,
            params=params,
            segment=segment,
            include_metadata=metadata,
            min_score=given.get("minScore", schema.min_score),
            filter=predicate,
            filtered=filtered,
            track=track,
            dimension=given.get("dimension"),
            binary=binary,
            own=not filtered and dict(params) == own,
            candidates=candidates,
            k_factor=_k_factor(used),
            most_vectors=max(CANDIDATES, usual * MAX_VECTORS) // candidates,
            group=self._group(k, params, metadata, candidates, None if filtered else predicate),
            ignored=tuple(sorted(params_given.keys() - named.keys())),
            asked=asked,
            min_fresh=given.get("minFresh", 0),
        )

    def _read(self, fields: Mapping[str, Any], from_query: bool) -> dict[str, Any]:
        known = {n: f for n, f in self._fields.items() if (f.in_query if from_query else f.in_body)}
        refuse_unknown(fields, known)
        self._refuse_closed(fields.get("params"))
        return {
            name: known[name].kind.read(value, name)
            for name, value in fields.items()
            if not (value is None and known[name].nullable)
        }

    def _refuse_closed(self, params: object) -> None:
        """Raises Problem 400 for a parameter that the index has and the VectorIndex's spec keeps from queries."""
        for name in params if isinstance(params, dict) else ():
            if name in self._schema.param_limits and name not in self._params:
                raise Problem(
                    400,
                    "InvalidField",
                    f"params.{name} may not be set by a query: searcher.params of the VectorIndex does not allow it",
                    field=f"params.{name}",
                    value=params[name] if isinstance(params, dict) else None,
                    remedy=f"leave it out; queries may set: {', '.join(self._params) or 'none'}",
                )

    def _check_embedding(self, named: Mapping[str, str]) -> None:
        schema = self._schema
        for member, served in (("model", schema.embedding_model), ("version", schema.embedding_version)):
            # An index that declares no model cannot contradict the client.
            if member in named and served and named[member] != served:
                said = named[member]
                raise Problem(
                    422,
                    "WrongEmbedding",
                    f"the index was built with embedding {member} {served!r}, the query was made with {said[:120]!r}",
                    field=f"embedding.{member}",
                    value=said,
                    remedy=f"embed the query with {member} {served}",
                    members={"expected": served},
                )

    def _filter(self, document: object) -> Predicate | None:
        if document is None:
            return None
        if self._schema.columns is None:
            remedy = "build the index with factory Flat, IVF or HNSW"
            raise Problem(400, "InvalidFilter", "this index type cannot be filtered", field="filter", remedy=remedy)
        try:
            return parse(document, self._schema.columns)
        except FilterError as error:
            raise Problem(
                400, "InvalidFilter", error.detail, field=error.where, value=error.value, remedy=error.remedy
            ) from None

    def _narrowed(self, policy: Policy, own: Predicate | None, document: object) -> tuple[Predicate | None, object]:
        """What matches both the policy and the request's own filter, and that in words: no row outside of the policy,
        whatever the request says. Raises Problem 400 when the two together are more than a filter may be."""
        both = _both(policy.filter, document)
        if own is None:
            return policy.predicate, both
        try:
            return self._filter(both), both
        except Problem:
            # Its words may be the policy's, which is not the client's to read.
            detail = "the filter is too large or too deep beside the one that the token's policy adds"
            remedy = "use fewer conditions, or nest them less deep"
            raise Problem(400, "InvalidFilter", detail, field="filter", remedy=remedy) from None

    def lost(self, fields: Mapping[str, Any], policy: Policy = ALL_ROWS) -> bool:
        """Whether a filter, with that of the token's policy, that is refused here was taken by the revision before: who
        sent it did nothing wrong."""
        before = self._schema.columns_before
        if before is None:
            return False
        try:
            parse(_both(policy.filter, fields.get("filter")), before)
        except FilterError:
            return False
        return True


def _both(one: object, other: object) -> object:
    """The filter that matches where both match; None matches all rows."""
    if one is None or other is None:
        return other if one is None else one
    return {"and": [one, other]}


def _held_by(words: object) -> int:
    """Bytes that decoded JSON holds, about: what is there once for all counts each time."""
    size = sys.getsizeof(words)
    if isinstance(words, Mapping):
        return size + sum(_held_by(name) + _held_by(one) for name, one in words.items())
    return size + sum(map(_held_by, words)) if isinstance(words, list) else size


def allowed_params(limits: Mapping[str, tuple[int, int]], limited: contract.ParamLimits) -> dict[str, tuple[int, int]]:
    """Search parameters that requests may name and are used, with their limits. What `limited` names and the index has
    not is as if it were not there: the next revision may be another kind of index."""
    return {
        name: (low, min(high, limited.max.get(name, high)))
        for name, (low, high) in limits.items()
        if (limited.allow is None or name in limited.allow) and limited.max.get(name, high) >= low
    }


def candidates_of(k: int, params: Mapping[str, int]) -> int:
    """Rows and lists that FAISS holds in memory for one vector of a search with all these parameters."""
    lists = params.get("nprobe", 0) * max(1, params.get("quantizer_k_factor", 1))
    return int(k * _k_factor(params) + lists)


def _k_factor(params: Mapping[str, int]) -> int:
    return int(max(1, params.get("k_factor", 1)))


def check_work(plan: SearchPlan, vectors: int) -> None:
    """Raises Problem 400 when this many vectors are more than one request may ask for."""
    if vectors <= plan.most_vectors:
        return
    most = plan.most_vectors
    factors = ", ".join(f"{name}={value}" for name, value in plan.params) or "the default parameters"
    fewer = f"send at most {most} vectors in one request, or " if most else ""
    raise Problem(
        400,
        "TooMuchWork",
        f"{vectors} vectors with k={plan.k} and {factors} keep {vectors * plan.candidates} candidates, "
        f"one request may keep {most * plan.candidates}",
        field="vectors" if most else "params",
        value=vectors * plan.candidates,
        remedy=f"{fewer}a smaller k or smaller params",
        members={"expected": most * plan.candidates},
    )


def _no_query_ids() -> Problem:
    return Problem(
        400,
        "InvalidField",
        "a binary answer holds no query ids",
        field="track",
        value=True,
        remedy="send Accept: application/json, or leave track out",
    )


Key = tuple[bool, bytes, bytes]
"""Whether the answer is binary; the fields as JSON, or the query string after a `?`; the key of the policy."""


class PlanCache:
    """Plans by what they were made from, bounded in entries and bytes. Reading takes no lock.

    Two generations instead of an order: what is asked for again moves to the young one, and when that is full the old
    one goes. So what stays is what was asked for lately.
    """

    def __init__(self, entries: int = PLAN_ENTRIES, nbytes: int = PLAN_BYTES) -> None:
        self._entries, self._bytes = entries // 2, nbytes // 2
        self._young: dict[Key, SearchPlan] = {}
        self._old: dict[Key, SearchPlan] = {}
        self._young_bytes = self._old_bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    @property
    def nbytes(self) -> int:
        """What is kept, about."""
        return self._young_bytes + self._old_bytes

    def get(self, key: Key) -> SearchPlan | None:
        """The plan that was made from this."""
        plan = self._young.get(key)
        if plan is None:
            plan = self._old.get(key)
            if plan is not None:
                self.put(key, plan)
        return plan

    def put(self, key: Key, plan: SearchPlan) -> None:
        """Remember it, unless it alone is a large part of what may be kept."""
        cost = plan.nbytes + sys.getsizeof(key[1])
        if cost > self._bytes // 8:
            return
        binary, text, policy = key
        key = binary, bytes(memoryview(text)), policy  # a copy: what orjson makes of a few bytes takes 4 KB
        with self._lock:
            if key in self._young:
                return
            if len(self._young) >= self._entries or self._young_bytes + cost > self._bytes:
                self._old, self._old_bytes = self._young, self._young_bytes
                self._young, self._young_bytes = {}, 0
            self._young[key] = plan
            self._young_bytes += cost
