"""What a router asks of a shard for live recall: how near its nearest rows are to queries that users asked, and how
near the rows that were answered.

    request  a line of JSON, NearestQuestion; then the n queries, float32 [n, d], little-endian
    answer   NearestRows as JSON
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from .model import Model

NEAREST_PATH = "/v1/nearest"
"""Of the admin port of a searcher of a shard; never without a key."""
NEAREST_BYTES = 6 << 20
"""Of a request."""
NEAREST_WAITING = 4
"""Requests that wait in a pod, beside the one that is scanned for: a router has one at a time."""
NEAREST_QUERIES, NEAREST_DEPTH = 1000, 100
"""In a request, and nearest rows of each."""
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Id = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | str
_Ids = Annotated[tuple[_Id, ...], Field(max_length=NEAREST_DEPTH)]
_Numbers = Annotated[tuple[_Number, ...], Field(max_length=NEAREST_DEPTH)]
_Depth = Annotated[int, Field(ge=1, le=NEAREST_DEPTH)]


class NearestQuestion(Model):
    """About n queries."""

    depths: Annotated[tuple[_Depth, ...], Field(min_length=1, max_length=NEAREST_QUERIES)]
    """[n]: how many of its nearest rows."""
    ids: tuple[_Ids, ...]
    """[n]: of this shard's rows in the merged answer."""

    @model_validator(mode="after")
    def _is_of_as_many_queries(self) -> NearestQuestion:
        if len(self.ids) != len(self.depths):
            raise ValueError("ids are not of as many queries as depths")
        return self


class NearestRows(Model):
    """What a scan of all rows of a shard found. Scores are exact: minus squared L2, or inner product."""

    times: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    """More than 0: nothing was found, since the scan would cost so many times what it may."""
    steady_seconds: Annotated[float, Field(ge=0, le=1e12)] = 0.0
    """How long the rows that may be answered had been the same when the request came."""
    scores: tuple[_Numbers, ...] = ()
    """[n]: of the nearest rows, at most as many as were asked for, best first."""
    widths: tuple[_Numbers, ...] = ()
    """[n]: how much lower than each of them is still a tie."""
    hits: tuple[Annotated[tuple[_Number | None, ...], Field(max_length=NEAREST_DEPTH)], ...] = ()
    """[n]: of the ids, in their order; None for one that may not be answered any more."""

    @model_validator(mode="after")
    def _is_of_as_many_queries(self) -> NearestRows:
        if not len(self.scores) == len(self.widths) == len(self.hits):
            raise ValueError("it is not of as many queries everywhere")
        if any(len(one) != len(other) for one, other in zip(self.scores, self.widths, strict=True)):
            raise ValueError("scores and widths are not as many")
        return self
