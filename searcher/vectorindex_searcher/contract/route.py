"""What a router is told: which shards there are and where their pods are, and what it does without one of them."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, model_validator

from .encoder import EncoderTask
from .internal import ROUTER
from .model import Model
from .shards import MAX_SHARDS
from .tasks import Identity

SHARDS_MISSING_HEADER = "X-VectorIndex-Shards-Missing"
"""Of an answer that lacks shards: their numbers, with commas."""
SHARD_ADDRESSES = 64
"""Of one shard at most, and pods that its names may stand for."""
SHARD_TOKEN_ENV = "VECTORINDEX_SHARD_TOKEN_FILE"  # noqa: S105 - names a file
_ADDRESS = re.compile(r"http://(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9][A-Za-z0-9.-]{0,252}):([0-9]{1,5})/?")


class Partial(StrEnum):
    """What becomes of a query that not every shard has answered. It is an error in the evidence either way."""

    REFUSE = "Refuse"
    """503."""
    ALLOW = "Allow"
    """The answer of the others, which says that it is one."""


def shard_address(text: str) -> tuple[str, int]:
    """Host, without brackets, and port of http://HOST:PORT. Raises ValueError."""
    found = _ADDRESS.fullmatch(text)
    if found is None or not 1 <= int(found[2]) <= 65535:
        raise ValueError(f"{text[:100]!r} is not http://HOST:PORT")
    return found[1].strip("[]"), int(found[2])


def _is_address(text: str) -> str:
    shard_address(text)
    return text


Address = Annotated[str, Field(max_length=300), AfterValidator(_is_address)]
Pods = Annotated[tuple[Address, ...], Field(min_length=1, max_length=SHARD_ADDRESSES)]


class RouteTask(Model):
    """Ask every shard of one revision, and answer with the best of all. No artifact is read."""

    identity: Identity
    revision: str = ""
    """Pods of another one are not asked. Empty: that of the pods, which must agree."""
    digest: str = ""
    """Of the whole; empty: as the revision."""
    shards: Annotated[tuple[Pods, ...], Field(min_length=1, max_length=MAX_SHARDS)]
    """In the order of their numbers: where the pods of each are, as http://HOST:PORT. A name stands for a pod at each
    address that it resolves to, again and again."""
    partial: Partial = Partial.REFUSE
    segments: tuple[str, ...] = ()
    """Those that are counted apart, as the shards' own tasks name them."""
    min_score: float | None = None
    """None: what the shards say."""
    gate_hash: str = ""
    """Of the gate whose merged canary recall must be reached before this is ready. Empty: none has to be."""
    admin_ports: Annotated[tuple[Annotated[int, Field(ge=1, le=65535)], ...], Field(max_length=MAX_SHARDS)] = ()
    """Of the pods of each shard, in their order: there a router asks what it signs. Empty: it asks nothing there."""
    encoder: EncoderTask | None = None
    """Takes queries in words, and asks shards for their vectors; None: queries are vectors."""
    cache_dir: str = "/var/cache/vectorindex"
    """Where its files are kept."""
    live_recall: bool = False
    """Have a sample of the live queries answered again exactly by the shards, whose tasks say so, too."""
    shard: ClassVar[str] = ROUTER
    """Whom signed requests name, in place of a shard's number."""

    @model_validator(mode="after")
    def _knows_where_to_ask(self) -> RouteTask:
        if len(self.admin_ports) not in {0, len(self.shards)}:
            raise ValueError("adminPorts are of all shards, or of none")
        if (self.gate_hash or self.live_recall) and not self.admin_ports:
            raise ValueError("canary and live recall are asked for at the admin ports of shards: name adminPorts")
        return self
