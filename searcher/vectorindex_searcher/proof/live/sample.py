"""A bounded sample of queries, spread over a day: the smallest names of each hour, few of any one sender.

A query's name is a keyed hash of what is asked (serve/evidence/live_queries.py), so it is its draw, too: the smallest
names of an hour are a uniform sample of what was asked in it, each query once however often it came, and those of
several pods together are the sample that one pod would have. Searchers keep one, and the gate's Job makes one of all
of theirs by the same rules. Knows no clock, no threads, no wire.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...contract import LIVE_HOURS, LIVE_SENDER_SHARE

NAME_BYTES = 16
SENDER_BYTES = 8
_EVERY = b"\xff" * (NAME_BYTES + 1)
"""Greater than any name."""


@dataclass(frozen=True, slots=True)
class LiveQuery:
    """What one user asked."""

    name: bytes
    """NAME_BYTES; the same for the same vector and segment."""
    sender: bytes
    """SENDER_BYTES; the same for the same token or address, which it does not tell."""
    hour: int
    """Of the first time it was asked, since 1970."""
    k: int
    segment: str
    vector: bytes
    """float32, little-endian, as the user gave it."""


@dataclass(slots=True)
class _Sender:
    """What one sender has in the sample."""

    queries: dict[bytes, int] = field(default_factory=dict)
    """Name -> hour."""
    limits: dict[int, bytes] = field(default_factory=dict)
    """Hour -> names from here on have no place in it."""


class LiveSample:
    """At most `room` queries: as many of each hour, and of each sender one in LIVE_SENDER_SHARE places."""

    def __init__(self, room: int) -> None:
        self._of_hour = max(1, room // LIVE_HOURS)
        self.of_sender = max(1, room // LIVE_SENDER_SHARE)
        """Queries of one sender, at most."""
        self._hours: dict[int, list[bytes]] = {}
        """Names, rising."""
        self._queries: dict[bytes, LiveQuery] = {}
        self._senders: dict[bytes, _Sender] = {}

    def __len__(self) -> int:
        return len(self._queries)

    def __iter__(self) -> Iterator[LiveQuery]:
        """By hour and name."""
        return (self._queries[name] for hour in sorted(self._hours) for name in self._hours[hour])

    def __contains__(self, name: bytes) -> bool:
        return name in self._queries

    def hour(self, hour: int) -> list[LiveQuery]:
        """Those of one hour, by name."""
        return [self._queries[name] for name in self._hours.get(hour, ())]

    def limit(self, hour: int) -> bytes:
        """Names from here on have no place in this hour."""
        names = self._hours.get(hour, [])
        return names[-1] if len(names) >= self._of_hour else _EVERY

    def senders(self) -> list[int]:
        """How many queries each sender has, the most first."""
        return sorted((len(one.queries) for one in self._senders.values()), reverse=True)

    def forget_before(self, hour: int) -> None:
        """Hours before this one are over a day old."""
        for old in [one for one in self._hours if one < hour]:
            for name in list(self._hours[old]):
                self._remove(name)

    def full_for(self, sender: bytes, hour: int, name: bytes) -> bool:
        """Whether the sender has so many already that this one has no place."""
        mine = self._senders.get(sender)
        return mine is not None and len(mine.queries) >= self.of_sender and name >= mine.limits.get(hour, _EVERY)

    def add(self, query: LiveQuery) -> None:
        """Take the query in if it has a place; it may take that of another."""
        name, hour = query.name, query.hour
        if name in self._queries or name >= self.limit(hour) or self.full_for(query.sender, hour, name):
            return
        mine = self._senders.get(query.sender)
        if mine is not None and len(mine.queries) >= self.of_sender:
            loser = self._of_fullest_hour(mine, name, hour)
            if loser == name:
                return
            self._remove(loser)
        names = self._hours.setdefault(hour, [])
        if len(names) >= self._of_hour:
            self._remove(names[-1])
        bisect.insort(self._hours.setdefault(hour, []), name)
        self._queries[name] = query
        self._senders.setdefault(query.sender, _Sender()).queries[name] = hour

    def _of_fullest_hour(self, mine: _Sender, name: bytes, hour: int) -> bytes:
        """The name that a sender loses for another: the greatest of the hour it has most of, so that it is spread over
        the day and drawn evenly in each hour. The new one counts as well."""
        counts = Counter(mine.queries.values())
        counts[hour] += 1
        fullest = max(counts, key=lambda one: (counts[one], one))
        there = max((one for one, of in mine.queries.items() if of == fullest), default=b"")
        if fullest == hour and name > there:
            mine.limits = {hour: there or name}
            return name
        return there

    def _remove(self, name: bytes) -> None:
        query = self._queries.pop(name)
        names = self._hours[query.hour]
        del names[bisect.bisect_left(names, name)]
        if not names:
            del self._hours[query.hour]
        mine = self._senders[query.sender]
        del mine.queries[name]
        mine.limits = {}
        if not mine.queries:
            del self._senders[query.sender]
