"""How many shards `Auto` comes to: the fewest of which each fits the memory that its searcher may ask for.

The formulas are those of index/memory.py. `kubectl vectorindex plan` and the page of large indexes (hack/how_large.py)
ask the same functions.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from typing import Any

from ..contract import LEAST_SHARDS, MAX_SHARDS, PartitionTask, memory_bytes
from ..errors import BadSpec
from ..index.choose.auto import AUTO
from ..index.choose.families import lists_for, lists_in, with_lists
from ..index.factory import make_index
from ..index.memory import footprint
from ..index.selection.subset import restricted_bytes

MEMORY_FIELD = "spec.searcher.memoryPerShard"
ID_BYTES = 8
"""Of an int64 id, before a row is read."""
GUESS = "HNSW32,SQ8"
"""What the factory Auto mostly chooses: rows are shared out for it, and once more where something else is chosen that
takes another number of shards."""
SPREADS = 6.0
"""Standard deviations by which a shard has more rows than its share: one in a hundred million."""
_MIB = 1 << 20


def held_bytes(empty: Any, rows: int, beside: int) -> int | None:
    """Bytes that a searcher holds of the index `empty` (a faiss.Index without rows) once it has so many: the file, what
    is made of it, and `beside` (ids and metadata). None: a kind of index for which there is no formula."""
    size = footprint(empty, rows)
    return None if size is None else size.resident + beside + restricted_bytes(empty, rows)


def largest_share(rows: int, shards: int) -> int:
    """Rows of the largest of so many shards: they are shared out by a hash."""
    mean = rows / shards
    return min(rows, math.ceil(mean + SPREADS * math.sqrt(mean)))


def fewest(fits: Callable[[int], bool], least: int = LEAST_SHARDS) -> int | None:
    """The fewest shards, `least` or more, that fit; None: MAX_SHARDS do not. More shards must fit where fewer do."""
    shards = bisect.bisect_left(range(MAX_SHARDS + 1), True, lo=least, key=fits)
    return shards if shards <= MAX_SHARDS else None


def for_rows(factory: str, chosen_for: int, rows: int) -> str:
    """What a factory string that was chosen for so many rows is for others: with lists in proportion."""
    lists = lists_in(factory)
    return with_lists(factory, max(1, lists * lists_for(rows) // lists_for(chosen_for))) if lists else factory


def guessed(task: PartitionTask, rows: int, dimension: int) -> int:
    """How many shards it may come to, before a row is read. Raises BadSpec where a named factory never fits."""
    if task.index.factory != AUTO:
        return needed(task, rows, dimension, lambda _: task.index.factory, ID_BYTES)
    try:
        return needed(task, rows, dimension, lambda _: GUESS, ID_BYTES)
    except BadSpec:
        return MAX_SHARDS  # what is chosen may be smaller


def needed(task: PartitionTask, rows: int, dimension: int, factory: Callable[[int], str], beside: float) -> int:
    """The fewest shards of these rows. factory: of a shard of so many rows; beside: bytes of id and metadata of a row.

    Raises BadSpec: NoFormula, TooManyShards.
    """
    room = memory_bytes(task.memory_per_shard) - task.searcher_bytes

    def held(shards: int) -> int:
        share = largest_share(rows, shards)
        empty = make_index(factory(share), share, dimension, task.embedding.metric)
        size = held_bytes(empty, share, math.ceil(beside * share))
        if size is None:
            message = f"how much memory {factory(share)!r} takes, no formula tells"
            remedy = "Say how many shards there are, or take another factory."
            raise BadSpec("NoFormula", message, field="spec.index.shards", remedy=remedy)
        return size

    def fits(shards: int) -> bool:
        try:
            return held(shards) <= room
        except BadSpec as error:
            if error.reason == "NoFormula":
                raise
            return True  # too few rows for it: said by name once the number is known

    found = fewest(fits)
    if found is None:
        least = math.ceil((held(MAX_SHARDS) + task.searcher_bytes) / _MIB)
        raise BadSpec(
            "TooManyShards",
            f"memoryPerShard is {task.memory_per_shard}: {rows:,} rows of {dimension} numbers as "
            f"{factory(largest_share(rows, MAX_SHARDS))!r} take more than {MAX_SHARDS} shards of that",
            field=MEMORY_FIELD,
            remedy=f"Give {least}Mi or more, or choose an index that takes less (spec.index.factory, or "
            "spec.index.objective.memoryLimit with Auto).",
        )
    return found
