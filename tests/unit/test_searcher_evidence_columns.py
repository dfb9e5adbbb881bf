"""Evidence as columns: the same counts as the rows, page by page, and of later answers what changed only."""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

import numpy as np
import pytest
from clocks import Clock

from vectorindex_operator.core.judging.columns import counted_of
from vectorindex_operator.core.judging.evidence import PodCounts
from vectorindex_searcher import contract
from vectorindex_searcher.serve.admin import AdminApp
from vectorindex_searcher.serve.evidence.recorder import Outcome
from vectorindex_searcher.serve.evidence.ring import SLOTS, EvidenceRing, LiveTally
from vectorindex_searcher.serve.http.messages import Request, Response
from vectorindex_searcher.serve.settings import Settings
from vectorindex_searcher.serve.traffic import Traffic

COLUMNS = contract.EVIDENCE_COLUMNS_TYPE.encode()


class Pod:
    """The admin port of a searcher without an index."""

    def __init__(self, segments: tuple[str, ...] = ("keyword",)) -> None:
        self.clock = Clock()
        self.ring = EvidenceRing(segments, self.clock)
        task: Any = _Task()
        nothing: Any = None
        self.app = AdminApp(task, Settings(pod="p"), Traffic(), self.ring, nothing, lambda: "")

    def ask(self, cursor: str = "", since: float = 0, accept: bytes = COLUMNS) -> Response:
        headers = {b"accept": accept}
        if cursor:
            headers[contract.EVIDENCE_CURSOR_HEADER.lower().encode()] = cursor.encode()
        target = f"/v1/evidence?since={since}".encode()

        async def answer() -> Response:
            coming: Any = self.app.handle(Request(b"GET", target, headers, b"", True, 0.0))
            done: Response = await coming
            return done

        return asyncio.run(answer())

    def page(self, cursor: str = "", since: float = 0) -> contract.EvidenceColumns:
        answer = self.ask(cursor, since)
        assert answer.content_type == COLUMNS
        assert len(answer.body) <= contract.EVIDENCE_ANSWER_BYTES
        return contract.EvidenceColumns.model_validate_json(answer.body)

    def rows(self, since: float = 0) -> contract.Evidence:
        answer = self.ask(since=since, accept=b"*/*")
        assert answer.content_type == b"application/json"
        return contract.Evidence.model_validate_json(answer.body)


class _Task:
    class identity:  # noqa: N801 - stands for a task's field
        uid = "u"

    revision = "r"
    shard = None


def told(pages: list[contract.EvidenceColumns]) -> dict[tuple[int, str], Any]:
    """What a reader of these pages knows: a later row takes the place of an earlier one."""
    known = {}
    for page in pages:
        for one in counted_of(page):
            known[one.bucket, one.segment] = one
    return known


def traffic(pod: Pod, rng: random.Random, requests: int) -> None:
    for _ in range(requests):
        pod.clock.now += rng.expovariate(1.0)
        segment = rng.choice(("keyword", "other"))
        scores = [rng.uniform(-1, 1) for _ in range(2)]
        outcome = Outcome(segment, 2, hits=[rng.choice((0, 3)), 10], top_scores=scores)
        pod.ring.record(outcome, rng.choice((200, 200, 200, 500, 400)), rng.lognormvariate(-7, 1.0))
        bucket = int(pod.clock.now // 5) - rng.randrange(40)
        if rng.random() < 0.1:
            pod.ring.record_tracked(bucket, segment, 10, 1)
        if rng.random() < 0.1:
            pod.ring.record_click(bucket, segment, 10, 3)
        if rng.random() < 0.05:
            pod.ring.record_live(LiveTally(bucket, segment, 3, 2.5, 1, 2, 1.5))


def test_columns_say_what_the_rows_say() -> None:
    pod = Pod()
    traffic(pod, random.Random(1), 2000)
    expected = {(one.bucket, one.segment): one for one in PodCounts.of(pod.rows()).counted}
    assert told([pod.page()]) == expected
    assert len(expected) > 500


def test_a_client_with_another_model_is_told_apart_and_only_in_columns() -> None:
    """Operators of before refuse rows with a counter that they do not know."""
    pod = Pod()
    for _ in range(3):
        pod.ring.record(Outcome("keyword", 4), 422, 0.001)
    (row,) = counted_of(pod.page())
    assert (row.cell.mismatched, row.cell.requests, row.cell.failed_requests, row.cell.refused) == (3, 0, 0, 0)
    assert pod.rows().buckets == ()
    assert b"mismatched" not in pod.ask(accept=b"*/*").body


def test_later_answers_tell_what_changed_and_nothing_is_missed() -> None:
    """Clicks and live recall change old buckets; a reader with the cursor knows all that the rows say."""
    pod, rng = Pod(), random.Random(2)
    pages: list[contract.EvidenceColumns] = []
    for look in range(40):
        traffic(pod, rng, rng.randrange(30))
        pages.append(pod.page(pages[-1].cursor if pages else ""))
        assert pages[-1].whole == (look == 0)
        assert told(pages) == {(one.bucket, one.segment): one for one in PodCounts.of(pod.rows()).counted}
    assert pod.page(pages[-1].cursor).bucket == []
    assert len(pages[-1].bucket) < len(told(pages)) / 4


def test_a_cursor_of_another_process_gets_everything() -> None:
    pod, rng = Pod(), random.Random(3)
    traffic(pod, rng, 50)
    cursor = pod.page().cursor
    reborn = Pod()
    traffic(reborn, rng, 50)
    for wrong in (cursor, "", "nonsense", f"{reborn.ring.incarnation}.9999999999", f"{reborn.ring.incarnation}.-1"):
        assert reborn.page(wrong).whole, wrong


def test_since_bounds_columns_as_it_bounds_rows() -> None:
    pod = Pod()
    traffic(pod, random.Random(4), 300)
    since = pod.clock.now - 60
    assert {one.bucket for one in counted_of(pod.page(since=since))} == {row.bucket for row in pod.rows(since).buckets}


BUSY_BUCKETS = int(os.environ.get("EVIDENCE_BUCKETS", "90"))
"""719 are the hour that docs/guardrails.md speaks of; that takes a minute."""


def busy(segments: int) -> Pod:
    """`segments` segments, each busy in each bucket, with live recall and clicks."""
    pod = Pod(tuple(f"segment-{number}" for number in range(segments)))
    ring, rng = pod.ring, np.random.default_rng(5)
    pod.clock.now += contract.RING_SECONDS
    ring.record(Outcome("other", hits=[1]), 200, 0.001)
    newest = int(pod.clock.now // contract.BUCKET_SECONDS)
    for bucket in range(newest - BUSY_BUCKETS, newest):
        slot = bucket % SLOTS
        ring._bucket_of[slot] = bucket
        ring._counts[slot] = rng.integers(0, 500, ring._counts[slot].shape)
        ring._sums[slot] = rng.random(ring._sums[slot].shape) * 300
        ring._later[slot] = rng.integers(0, 30, ring._later[slot].shape) + rng.random(ring._later[slot].shape)
        bins = np.floor(np.log(rng.lognormal(9.1, 0.5, (segments + 1, 400))) / np.log(1.05)).astype(int)
        ring._latency[slot] = 0
        for number, row in enumerate(bins):
            np.add.at(ring._latency[slot, number], row, 1)
        ring._mark(slot)
    return pod


def test_an_hour_of_everything_comes_in_pages_that_fit(capsys: pytest.CaptureFixture[str]) -> None:
    """32 declared segments, LiveRecall and clicks: rows of 20 MB before, which were cut and counted as silence."""
    pod = busy(32)
    pages, sizes = [], []
    cursor = ""
    while not pages or pages[-1].more:
        answer = pod.ask(cursor)
        sizes.append(len(answer.body))
        pages.append(contract.EvidenceColumns.model_validate_json(answer.body))
        cursor = pages[-1].cursor
    rows = len(pod.ask(accept=b"*/*").body)
    with capsys.disabled():
        print(f"\n{BUSY_BUCKETS} buckets: {len(pages)} pages, {sum(sizes) / 1e6:.1f} MB; as rows {rows / 1e6:.1f} MB")
    assert max(sizes) <= contract.EVIDENCE_ANSWER_BYTES
    assert [page.whole for page in pages] == [True, *[False] * (len(pages) - 1)]
    assert len(told(pages)) == BUSY_BUCKETS * 33 + 1
    assert sum(sizes) < 0.65 * rows
    pod.clock.now += 30
    pod.ring.record(Outcome("other", hits=[1]), 200, 0.001)
    assert len(pod.ask(cursor).body) < 4096, "a later look asks for little"
