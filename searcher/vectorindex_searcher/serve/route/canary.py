"""The canary of merged answers, before a router is ready: each shard tells what it answered to the gate's canary
queries when it was loaded, and merged that must be what `validate` measured.

Its answers and not its searches, since ids may have been deleted since; and no query, row or id has to travel.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import numpy as np
from pydantic import ValidationError

from ... import contract
from ...proof.merged_canary import PartAnswers, merged_recall, must_reach
from .admin_ports import AdminPorts
from .link import BrokenError, NoRoomError
from .pods import Shard

HIT_BYTES, OTHER_BYTES = 32, 64 << 10
"""Of an answer, as JSON: a score with its place, and all else."""
ASK_SECONDS, AGAIN_SECONDS = 10.0, 1.0
_log = logging.getLogger(__name__)


async def prove(shards: Sequence[Shard], ports: AdminPorts, gate_hash: str, tell: Callable[[str], None]) -> float:
    """The recall of merged answers, in [0, 1], once every shard has told its part. `tell`: takes a sentence about the
    progress. Raises BadData/CanaryRecall where it is below what the gate measured."""
    found: dict[int, contract.ShardCanary] = {}
    most = contract.CANARY_HITS // len(shards) * HIT_BYTES + OTHER_BYTES
    while missing := [shard for shard in shards if shard.number not in found]:
        tell(f"waiting for what shards {_numbers(missing)} of {len(shards)} answered to the canary queries")
        answers = await asyncio.gather(*(_ask(shard, ports, gate_hash, most) for shard in missing))
        for shard, told in zip(missing, answers, strict=True):
            if told is not None:
                found[shard.number] = told
        if len({(one.k, one.recall, one.available) for one in found.values()}) > 1:
            _log.error("shards tell of different canaries; all are asked again", extra={"gate": gate_hash})
            found = {}
        if len(found) < len(shards):
            await asyncio.sleep(AGAIN_SECONDS)
    parts = [found[number] for number in sorted(found)]
    first = parts[0]
    recall = merged_recall([PartAnswers.of(one) for one in parts], np.array(first.available, np.int64))
    facts = {"queries": len(first.available), "recall": recall, "gate": first.recall, "k": first.k}
    _log.info("merged answers to the canary queries", extra=facts)
    must_reach(recall, first.recall, len(first.available), first.k)
    return recall


async def _ask(shard: Shard, ports: AdminPorts, gate_hash: str, most: int) -> contract.ShardCanary | None:
    """What it tells; None where that is nothing of use, which the log says."""
    request = contract.InternalRequest("GET", contract.CANARY_PATH)
    try:
        told = contract.ShardCanary.of_peer(await ports.ask(shard, request, most, ASK_SECONDS))
        if (told.gate_hash, told.shard) != (gate_hash, shard.number):
            raise ValueError(f"it is of gate {told.gate_hash[:100]!r} and shard {told.shard}")
        return told
    except (OSError, BrokenError, NoRoomError, ValueError) as error:  # a ValidationError is a ValueError
        problem = "it is no canary" if isinstance(error, ValidationError) else str(error)[:200]
        _log.warning("a shard tells nothing of the canary", extra={"shard": shard.number, "problem": problem})
        return None


def _numbers(shards: Sequence[Shard]) -> str:
    return ", ".join(str(shard.number) for shard in shards)
