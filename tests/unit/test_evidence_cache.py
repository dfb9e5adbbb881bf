"""What the operator keeps of what pods told: little of each row, and where there is no room for all, what it can."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from played_pods import Pods, Revision

from vectorindex_operator.adapters.evidence_cache import UNUSED_SECONDS, EvidenceCache, PodKey
from vectorindex_operator.core.judging.evidence import Counted
from vectorindex_operator.core.judging.packed import Packed
from vectorindex_searcher.contract import COUNTERS, EvidenceBucket, EvidenceColumns


class Watching:
    """Looks at indexes, each of which has so many pods that have counted for `age` seconds."""

    def __init__(self, cache: EvidenceCache, pods: int = 1, age: float = 600.0) -> None:
        self.cache, self.pods = cache, pods
        self.now = time.time()
        self.since = self.now - age
        self.told, self.revision = Pods(clock=lambda: self.now), Revision()
        self.whole = 0
        """Pods that were asked for everything."""

    def look(self, index: str, *, urgent: bool = False) -> None:
        self.cache.begin(index, urgent=urgent)
        for number in range(self.pods):
            key = PodKey(index, "r", f"p{number}")
            cursor, more = self.cache.cursor(key, self.since), True
            self.whole += not cursor
            while more:
                told = self.told.evidence("r", self.revision, self.since, cursor)
                page = EvidenceColumns.model_validate(told)
                self.cache.take(key, page, self.since)
                cursor, more = page.cursor, page.more
        self.cache.end(index)


def test_what_a_pod_counts_goes_on_with_its_counts() -> None:
    """A searcher of before names nothing: that its later counters are 0 says nothing."""
    cache, now = EvidenceCache(), time.time()
    key, pods = PodKey("index", "r", "p"), Pods(clock=lambda: now)
    for tells in ((), ("filteredQueries", "of another release")):
        told = pods.evidence("r", Revision(), now - 600, "") | ({"tells": list(tells)} if tells else {})
        page = EvidenceColumns.model_validate(told)
        cache.take(key, page, now - 600)
        assert cache.counts(key, page, now - 600).tells == set(tells)


def test_where_there_is_no_room_for_all_those_that_came_first_stay() -> None:
    """If what was told longest ago went, everybody would be asked for everything at each look."""
    one = Watching(EvidenceCache())
    one.look("alone")
    room = one.cache.held * 10 + 100
    displaced: list[int] = []
    watching = Watching(EvidenceCache(most=room, on_displaced=displaced.append))
    names = [f"index-{number}" for number in range(20)]
    for _ in range(3):
        for name in names:
            watching.look(name)
    watching.whole = 0
    for name in names[:9]:
        watching.look(name)
    assert watching.whole == 0
    for name in names[9:]:
        watching.look(name)
    assert watching.whole >= 10
    assert watching.cache.held <= room
    assert sum(displaced) >= 10


def test_who_is_watched_gives_way_to_who_soaks() -> None:
    one = Watching(EvidenceCache())
    one.look("alone")
    watching = Watching(EvidenceCache(most=one.cache.held * 4))
    for name in ("a", "b", "c", "d", "e"):
        watching.look(name)
    watching.look("soaks", urgent=True)
    watching.look("f")
    watching.whole = 0
    watching.look("soaks", urgent=True)
    assert watching.whole == 0


def test_what_nobody_asks_for_any_more_makes_room() -> None:
    now = [1000.0]
    watching = Watching(EvidenceCache(clock=lambda: now[0]))
    for name in ("a", "b"):
        watching.look(name)
    held = watching.cache.held
    now[0] += UNUSED_SECONDS + 1
    watching.look("b")
    assert watching.cache.held <= held / 2 + 1
    watching.whole = 0
    watching.look("a")
    assert watching.whole == 1


def test_a_row_takes_little_memory_and_as_much_as_is_said_of_it() -> None:
    """Before: 800 bytes, so that there was room for the hour of seventy watched indexes."""
    watching = Watching(EvidenceCache(), pods=20, age=3600.0)
    watching.look("warm")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        held, rows = watching.cache.held, watching.cache.rows
        for name in ("a", "b"):
            watching.look(name)
        took = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    each = took / (watching.cache.rows - rows)
    print(f"{each:.0f} bytes a row")
    assert each < 175
    assert took < 1.5 * (watching.cache.held - held)


whole = st.integers(0, 2**53)
FLOATS = {name for name, one in EvidenceBucket.model_fields.items() if one.annotation is float}
values = st.fixed_dictionaries({name: st.floats() if name in FLOATS else whole for name in COUNTERS})
latencies = st.dictionaries(st.integers(0, 300), whole)


@given(st.lists(st.tuples(st.integers(0, 2**40), st.text(max_size=5), values, latencies)))
def test_what_is_packed_is_what_it_was(given_rows: list[tuple[int, str, dict[str, Any], dict[int, int]]]) -> None:
    rows = [Counted.of(*row) for row in given_rows]
    packed = Packed(rows)
    assert [plain(one) for one in packed] == [plain(one) for one in rows]
    assert len(packed) == len(rows)
    assert all(one.overall is one.cell for one, row in zip(packed, rows, strict=True) if row.overall is row.cell)


def plain(one: Counted) -> str:
    """As text: no number differs from itself there."""
    cells = [repr(replace(cell, latency=dict(sorted(cell.latency.items())))) for cell in (one.cell, one.overall)]
    return f"{one.bucket} {one.segment} {cells}"
