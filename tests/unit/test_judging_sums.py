"""A look at a long soak adds up what changed, not everything anew; and what is kept for that changes no verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from observations import NOW, a_revision, run, seen, spec

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.core.judging import evidence as ev
from vectorindex_operator.core.judging.evidence import Counted, Counts, PodCounts, PodEvidence, merge
from vectorindex_operator.core.judging.sums import UNUSED_SECONDS, KeptSums, Sums
from vectorindex_searcher.contract import COUNTERS

NEW = spec(index={"factory": "HNSW32"})
NEWEST = int(NOW // 5)
ZEROS = dict.fromkeys(COUNTERS, 0)
SEGMENTS = ("a", "b", "other")
Rows = dict[tuple[int, str], Counted]


def counted(bucket: int, segment: str, queries: int = 100, **more: Any) -> Counted:
    values = ZEROS | {"requests": queries, "queries": queries, "top_count": queries, "top_sum": queries / 3} | more
    return Counted.of(bucket, segment, values, {140: queries // 2, 150: queries - queries // 2})


def told(pods: Iterable[Rows], revision: str, now: float) -> tuple[PodEvidence, ...]:
    return tuple(
        PodEvidence(f"p{n}", PodCounts(revision, now, None, list(rows.values())), now) for n, rows in enumerate(pods)
    )


def an_hour(pods: int = 2) -> list[Rows]:
    return [{(b, s): counted(b, s) for b in range(NEWEST - 700, NEWEST) for s in SEGMENTS} for _ in range(pods)]


@pytest.fixture
def additions(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many cells were added up since this was last asked."""
    count, add_up = 0, ev.add_up

    def counting(cells: Iterable[Counts], *, latency: bool = True) -> Counts:
        nonlocal count
        taken = list(cells)
        count += len(taken)
        return add_up(taken, latency=latency)

    def since() -> int:
        nonlocal count
        before, count = count, 0
        return before

    monkeypatch.setattr(ev, "add_up", counting)
    return since


def test_the_second_look_at_a_long_soak_adds_up_what_changed(additions: Callable[[], int]) -> None:
    stable, soaks = a_revision(spec(), "Stable", created=NOW - 9000), a_revision(NEW, "Soaking", created=NOW - 3600)
    rollout = soaks.status.rollout
    assert rollout is not None
    rollout = rollout.model_copy(update={"prior": stable.name, "switched_at": to_text(NOW - 3400)})
    soaks = replace(soaks, status=soaks.status.model_copy(update={"rollout": rollout}))
    obs, pods, kept = seen(NEW, stable, soaks, traffic=soaks), an_hour(), KeptSums()

    def look(now: float) -> int:
        evidence = {soaks.name: told(pods, soaks.name, now)}
        run(replace(obs, evidence=evidence, sums={soaks.name: kept.begin(soaks.name, now)}), now)
        return additions()

    first = look(NOW)
    for rows in pods:
        rows.update({(NEWEST, s): counted(NEWEST, s) for s in SEGMENTS})
    assert first > len(pods) * len(SEGMENTS) * 2 * 600
    assert look(NOW + 5) < first / 20


@pytest.mark.parametrize("seed", range(3))
def test_what_is_kept_changes_no_sum(seed: int) -> None:
    rng, pods, sums, now = Random(seed), an_hour(3), Sums(), NOW
    for _ in range(6):
        now += rng.choice((5.0, 7.5))
        newest = int(now // 5)
        for rows in pods:
            for bucket in (newest - 1, newest, newest - rng.randrange(2, 600)):
                segment = rng.choice(SEGMENTS)
                rows[bucket, segment] = counted(bucket, segment, rng.randrange(1, 200), top_sum=rng.random())
            rows.pop(rng.choice(list(rows)))
        rng.shuffle(pods)
        answers = told(pods[: rng.choice((2, 3))], "r", now)
        sums.begin()
        kept, anew = merge(answers, now, revision="r", sums=sums), merge(answers, now, revision="r")
        assert kept == anew
        for segment in ("", *SEGMENTS):
            first = newest - rng.randrange(50, 690)
            for latency in (True, False):
                assert kept.total(segment, first, latency=latency) == anew.total(segment, first, latency=latency)
                assert windows(kept, segment, first, latency=latency) == windows(anew, segment, first, latency=latency)


def windows(merged: ev.RevisionEvidence, segment: str, first: int, *, latency: bool) -> list[ev.Window]:
    found = ev.closed_windows(
        merged, segment, first=first, span=12, enough=50, size=lambda cell: cell.queries, latency=latency
    )
    return list(found)


def test_numbers_that_no_searcher_has_are_added_up_all_the_same() -> None:
    huge = {(1, "a"): Counted.of(1, "a", ZEROS | {"queries": 2**70}, {10**9: 2**70})}
    merged = merge(told([huge, huge], "r", NOW), NOW, revision="r", sums=Sums())
    assert dict(merged.segments["a"][1].latency) == {10**9: 2**71}


class One:
    def rest(self, *, cells: bool) -> int:
        return 1


def one(had: One | None) -> One:
    return had or One()


def test_what_is_kept_is_bounded_and_who_came_first_keeps_its_own() -> None:
    kept, names = KeptSums(most=4), [f"r{number}" for number in range(6)]

    def look(revision: str, now: float) -> Sums:
        sums = kept.begin(revision, now)
        for number in range(2):
            sums.of(number, one)
        sums.end()
        return sums

    rounds = [[look(name, NOW + 5 * turn) for name in names] for turn in range(10)]

    assert all(row[0] is rounds[0][0] and row[1] is rounds[0][1] for row in rounds)
    assert len({id(row[5]) for row in rounds}) > 1
    assert look("r0", NOW + 50 + UNUSED_SECONDS) is not rounds[0][0]


def test_what_is_watched_gives_way_to_what_soaks() -> None:
    kept = KeptSums(most=4)

    def look(revision: str, *, urgent: bool) -> Sums:
        sums = kept.begin(revision, NOW, urgent=urgent)
        for number in range(2):
            sums.of(number, one)
        sums.end()
        return sums

    for _ in range(2):
        watched = [look(f"watched-{number}", urgent=False) for number in range(2)]
    soaks = look("soaks", urgent=True)
    assert look("soaks", urgent=True) is soaks
    assert look("watched-0", urgent=False) is watched[0]
    assert look("watched-1", urgent=False) is not watched[1]
