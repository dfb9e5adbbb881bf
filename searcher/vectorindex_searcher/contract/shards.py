"""An index in several parts: which part a row belongs to, and how a part is named.

The hash is named in every plan and is for ever: a row stays in its shard whatever the order of files, so that whoever
knows an id knows where its row is.

    integer  splitmix64 of its 64 bits
    text     splitmix64 of the sum of (byte + 1) * B**position over its UTF-8 bytes, modulo 2**64
    shard    hash modulo the number of shards
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .model import Model

MAX_SHARDS = 64
"""A query waits for the slowest of them, and asks each: beyond it nothing was simulated."""
COMPLETION_INDEX_ENV = "JOB_COMPLETION_INDEX"
"""Which pod of an Indexed Job one is, as Kubernetes tells it: the number of the shard that it builds."""
SHARD_HASH = "splitmix64-1"
ShardNumber = Annotated[int, Field(ge=0, lt=MAX_SHARDS)]
LEAST_SHARDS = 2
ShardCount = Annotated[int, Field(ge=LEAST_SHARDS, le=MAX_SHARDS)]
AUTO_SHARDS: Literal["Auto"] = "Auto"
"""As many as are needed for one to fit the memory that it may take."""
Shards = ShardCount | Literal["Auto"]
MEMORY_PER_SHARD = "16Gi"
"""Of Auto, where nobody says how much."""
_BASE = 0x9E3779B97F4A7C15
_BITS = (1 << 64) - 1


def shard_of(row_id: int | str, shards: int) -> int:
    """The shard of a row. Partitions compute the same for many ids at once (dataset/duplicates.py)."""
    if isinstance(row_id, int):
        value = row_id & _BITS
    else:
        value, power = 0, 1
        for byte in row_id.encode():
            value = (value + (byte + 1) * power) & _BITS
            power = power * _BASE & _BITS
    return _mixed(value) % shards


def _mixed(value: int) -> int:
    value = (value + _BASE) & _BITS
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _BITS
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _BITS
    return value ^ (value >> 31)


class Shard(Model):
    """One part of an index. As text: 0/3 is the first of three."""

    number: ShardNumber
    of: ShardCount

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Shard:
        if self.number >= self.of:
            raise ValueError(f"there are the shards 0 to {self.of - 1}, and no {self.number}")
        return self

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"
