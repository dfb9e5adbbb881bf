"""What a searcher of a shard tells its routers of the canary: how its hits compare, and no query, row or id."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from .model import Model
from .shards import ShardNumber

CANARY_PATH = "/v1/canary"
"""Of the admin port of a searcher of a shard."""
CANARY_HITS = 1 << 19
"""Hits of all shards together, k of each for a query: more of them have fewer queries."""
_Hits = Annotated[tuple[Annotated[float, Field(allow_inf_nan=False)], ...], Field(max_length=1000)]
_Places = Annotated[tuple[Annotated[int, Field(ge=0, lt=1000)], ...], Field(max_length=1000)]


class ShardCanary(Model):
    """What one shard answered to the n canary queries when it was loaded, before any id was deleted."""

    gate_hash: str
    shard: ShardNumber
    k: Annotated[int, Field(ge=1, le=1000)]
    recall: Annotated[float, Field(ge=0.0, le=1.0)]
    """Of the merged answers, as `validate` measured it."""
    available: tuple[Annotated[int, Field(ge=0, le=1000)], ...]
    """[n]: nearest rows of all shards that there are, at most k."""
    scores: tuple[_Hits, ...]
    """[n]: of at most k hits, best first."""
    right: tuple[_Places, ...]
    """[n]: places of the hits that are among the k nearest rows of all shards."""

    @model_validator(mode="after")
    def _is_of_as_many_queries(self) -> ShardCanary:
        if not len(self.available) == len(self.scores) == len(self.right):
            raise ValueError("it is not of as many queries everywhere")
        if max(map(len, self.scores), default=0) > self.k or max(self.available, default=0) > self.k:
            raise ValueError(f"more than {self.k} hits")
        if any(places and max(places) >= len(hits) for places, hits in zip(self.right, self.scores, strict=True)):
            raise ValueError("right hits that are not there")
        return self
