"""Searchers' admin ports, played: what honest pods that count queries would answer, whatever the time is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

from vectorindex_searcher.contract import (
    BUCKET_SECONDS,
    EVIDENCE_COLUMNS_TYPE,
    EVIDENCE_CURSOR_HEADER,
    RING_SECONDS,
    TARGET_HEADER,
)

QUERIES_PER_SECOND = 40
"""Of one pod, all segments together."""
PAGE_ROWS = 4000
"""Some 0.8 MB: about where a searcher ends a page."""
BINS, FIRST_BIN, SHAPES = 24, 140, 32
FAILING = 0.8
"""Share of requests that fail where a revision fails: so large that it is seen before a window is over."""


@dataclass(slots=True)
class Revision:
    """What its pods count. `since`: the first bucket that they know of."""

    segments: tuple[str, ...] = ("other",)
    since: int | None = None
    fails_from: float = float("inf")
    asked: list[float] = field(default_factory=list)


@cache
def latencies(queries: int, shape: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A histogram of so many queries: distances of its bins, and counts. Alike, but not the same in each bucket."""
    counts: dict[int, int] = {}
    for number in range(queries):
        spread = (number * 7 + shape * 5) % BINS
        counts[FIRST_BIN + spread * spread // BINS] = counts.get(FIRST_BIN + spread * spread // BINS, 0) + 1
    bins = sorted(counts)
    return tuple(b - a for a, b in zip([0, *bins], bins, strict=False)), tuple(counts[b] for b in bins)


@dataclass(slots=True)
class Pods:
    """All of them."""

    revisions: dict[str, Revision] = field(default_factory=dict)
    clock: Any = time.time

    def obey(self, line: str) -> dict[str, Any]:
        order = json.loads(line)
        if "load" in order:
            self.revisions.setdefault(order["load"], Revision()).segments = (*order["segments"], "other")
        elif "fail" in order:
            failing = self.revisions[order["fail"]]
            failing.fails_from = self.clock() // BUCKET_SECONDS + 1
        else:
            return {"asked": self.revisions[order["asked"]].asked}
        return {}

    def answer(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[str, bytes]:
        """Media type and body."""
        url = urlsplit(path)
        if (method, url.path) != ("GET", "/v1/evidence"):
            return "application/json", b"{}"
        name = headers[TARGET_HEADER.lower()].split("/")[1]
        revision = self.revisions.setdefault(name, Revision())
        if revision.fails_from < float("inf"):
            revision.asked.append(self.clock())
        since = float(parse_qs(url.query)["since"][0])
        page = self.evidence(name, revision, since, headers.get(EVIDENCE_CURSOR_HEADER.lower(), ""))
        return EVIDENCE_COLUMNS_TYPE, json.dumps(page, separators=(",", ":")).encode()

    def evidence(self, name: str, revision: Revision, since: float, cursor: str) -> dict[str, Any]:
        """A page from the cursor on, or from `since`."""
        now, wide = self.clock(), len(revision.segments)
        asked = int(max(since, now - RING_SECONDS) // BUCKET_SECONDS)
        revision.since = asked if revision.since is None else min(revision.since, asked)
        newest = int(now // BUCKET_SECONDS)
        first = int(cursor) if cursor.isdecimal() else max(asked, revision.since)
        last = min(newest, first + PAGE_ROWS // wide)
        rows = list(self._rows(revision, range(first, last + 1), now))
        counts = {"requests": 1, "failedRequests": 2, "queries": 1, "errors": 2, "topCount": 3}
        sums = {"topSum": 0.5, "topSumSquares": 0.26}
        told = [latencies(row[1], (row[0] + row[4]) % SHAPES) for row in rows]
        return {
            "pod": "pod",
            "revision": name,
            "incarnation": "one",
            "now": now,
            "cursor": str(last),
            "whole": not cursor.isdecimal(),
            "more": last < newest,
            "segments": revision.segments,
            "bucket": [row[0] for row in rows],
            "segment": [row[4] for row in rows],
            "counts": {key: [row[column] for row in rows] for key, column in counts.items()}
            | {key: [row[3] * mean for row in rows] for key, mean in sums.items()},
            "latencySizes": [len(bins) for bins, _ in told],
            "latencyBins": [one for bins, _ in told for one in bins],
            "latencyCounts": [one for _, numbers in told for one in numbers],
        }

    @staticmethod
    def _rows(revision: Revision, buckets: range, now: float) -> Iterator[tuple[int, int, int, int, int]]:
        """Bucket, queries, errors, answered, segment. The bucket of now grows by the second."""
        for bucket in buckets:
            seconds = min(BUCKET_SECONDS, int(now - bucket * BUCKET_SECONDS))
            queries = seconds * QUERIES_PER_SECOND // len(revision.segments)
            if not queries:
                continue
            errors = int(queries * FAILING) if bucket >= revision.fails_from else 0
            for segment in range(len(revision.segments)):
                yield bucket, queries, errors, queries - errors, segment
