"""Live recall: the sample is uniform, the judgement exact, the budget kept, and the evidence that of the query."""

from __future__ import annotations

import http.client
import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import uvloop
from clocks import Clock
from waiting import until

from vectorindex_searcher import contract
from vectorindex_searcher.artifact.layout import SERVED_FILES, VECTORS_FILE, Layout
from vectorindex_searcher.artifact.manifest import load_manifest
from vectorindex_searcher.artifact.publish import cache_name, download_verified
from vectorindex_searcher.build.task import build
from vectorindex_searcher.cli.commands import serve_task
from vectorindex_searcher.cli.flags import parser
from vectorindex_searcher.contract import BUCKET_SECONDS, RING_SECONDS, EvidenceBucket, Metric
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.index.selection.rowset import RowSet
from vectorindex_searcher.serve.evidence import live_recall
from vectorindex_searcher.serve.evidence.live_recall import CpuBudget, LiveJudge, PacedVectors
from vectorindex_searcher.serve.evidence.live_sample import DEPTH, LiveSample, Sampled, smaller
from vectorindex_searcher.serve.evidence.recorder import Outcome
from vectorindex_searcher.serve.evidence.ring import EvidenceRing, LiveTally
from vectorindex_searcher.serve.load import load
from vectorindex_searcher.serve.server import Server
from vectorindex_searcher.serve.settings import Settings
from vectorindex_searcher.storage.cache import NodeCache, partial_prefix
from vectorindex_searcher.storage.store import Role, open_store

COUNT, DIMENSION = 4000, 16


def buckets_of(ring: EvidenceRing) -> list[EvidenceBucket]:
    return [EvidenceBucket.model_validate_json(orjson.dumps(bucket)) for bucket in ring.buckets(0)]


def offer(sample: LiveSample, segment: str, number: int, k: int = 3) -> None:
    sample.offer(segment, np.full((1, 2), number, np.float32), k, np.full((1, k), number, np.int64))


def test_the_sample_is_bounded_and_every_segment_has_its_part() -> None:
    sample = LiveSample(("rare", "common"), capacity=60, clock=Clock())
    for number in range(3000):
        offer(sample, "rare" if number % 100 == 0 else "common", number)
    taken, _ = sample.take()
    assert len(taken) <= 60
    counts = Counter(item.segment for item in taken)
    assert counts["rare"] >= 10  # its own part, though it is a hundredth of the traffic
    overall = [item for item in taken if item.overall]
    assert len(overall) == 30
    assert all(item.draw < 0.05 for item in overall)
    assert sample.take()[0] == []


def test_the_sample_is_the_smallest_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = (np.random.default_rng(2).permutation(500) / 500).tolist()
    drawn = iter(draws)
    monkeypatch.setattr("random.random", lambda: next(drawn))
    sample = LiveSample((), capacity=40, clock=Clock())
    for number in range(500):
        offer(sample, "other", number)
    assert sorted(item.draw for item in sample.take()[0]) == sorted(draws)[:40]


def test_both_samples_are_uniform() -> None:
    """Of all queries: early and late ones, rare and common ones alike. Of a segment: all its queries alike."""
    early, rare, of_all, late_in_segment, in_segment = 0, 0, 0, 0, 0
    for _ in range(150):
        sample = LiveSample(("rare",), capacity=40, clock=Clock())
        for number in range(400):
            offer(sample, "rare" if number % 10 == 0 else "other", number)
        taken, _ = sample.take()
        overall = [item for item in taken if item.overall]
        early += sum(item.rows[0] < 200 for item in overall)
        rare += sum(item.segment == "rare" for item in overall)
        of_all += len(overall)
        mine = [item for item in taken if item.segment == "rare"]
        late_in_segment += sum(item.rows[0] >= 200 for item in mine)
        in_segment += len(mine)
    assert of_all == 150 * 20
    assert early / of_all == pytest.approx(0.5, abs=0.05)  # standard deviation 0.009
    assert rare / of_all == pytest.approx(0.1, abs=0.03)
    assert in_segment >= 150 * 10
    assert late_in_segment / in_segment == pytest.approx(0.5, abs=0.07)


def test_a_part_of_a_sample_is_the_smallest_draws_of_each_kind() -> None:
    items = [
        Sampled(0, "a" if n % 2 else "b", np.zeros(1, np.float32), np.zeros(1, np.int64), n / 100, n % 4 < 2)
        for n in range(100)
    ]
    kept = smaller(items, 0.2)
    assert [item.draw for item in kept if item.overall] == [n / 100 for n in range(20) if n % 4 < 2] or sorted(
        item.draw for item in kept if item.overall
    ) == [n / 100 for n in range(20) if n % 4 < 2]
    for name in ("a", "b"):
        assert (
            sorted(i.draw for i in kept if i.segment == name)[:10] == [i.draw for i in items if i.segment == name][:10]
        )


def test_a_round_begins_where_the_last_ended_and_answers_keep_their_time() -> None:
    clock = Clock(1_000_000.0)
    sample = LiveSample((), clock=clock)
    offer(sample, "other", 1)
    clock.now += 17
    offer(sample, "other", 2)
    taken, following = sample.take()
    assert sorted(item.bucket for item in taken) == [200_000, 200_003]
    assert following == 200_003
    assert len(sample.take()[0]) == 0


# ---------------------------------------------------------------- judging


@dataclass(frozen=True)
class Served:
    """An artifact as `build` made it: an approximate index of clustered vectors."""

    task: contract.ServeTask
    engine: Engine
    vectors: np.ndarray
    path: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    root = tmp_path_factory.mktemp("live")
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((50, DIMENSION))[rng.integers(0, 50, COUNT)] + rng.standard_normal((COUNT, DIMENSION))
    vectors = vectors.astype(np.float32)
    (root / "source").mkdir()
    np.save(root / "source" / "0.npy", vectors)
    artifacts = contract.Location(folder=str(root / "out"))
    identity = contract.Identity(name="docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.sched_getaffinity", lambda pid: {0})
        build(
            contract.BuildTask(
                identity=identity,
                digest="d1",
                source=contract.Location(folder=str(root / "source")),
                index=contract.IndexSpec(factory="IVF64,Flat", objective=contract.Objective(recall=0.7)),
                artifacts=artifacts,
            )
        )
    store = open_store(artifacts, Role.ARTIFACTS)
    layout = Layout(store.prefix, identity)
    manifest, _ = load_manifest(store, layout, "d1", "")
    folder = download_verified(store, layout, manifest, root / "copy", (*SERVED_FILES, VECTORS_FILE))
    task = contract.ServeTask(
        identity=identity, revision="docs-d1", digest="d1", manifest_sha256="", artifacts=artifacts,
        segments=("keyword",), live_recall=True, cache_dir=str(root / "cache"),
    )  # fmt: skip
    return Served(task, Engine.open(folder, manifest), vectors, folder / VECTORS_FILE)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)


def judge_of(served: Served, affordable: float = 1e9) -> LiveJudge:
    budget = CpuBudget(1.0, lambda _seconds: None)
    vectors = PacedVectors(served.path, Metric.COSINE, budget, affordable)
    return LiveJudge(served.engine, vectors, budget, affordable)


def queries_with_answers(vectors: np.ndarray, count: int = 40) -> tuple[list[Sampled], list[float]]:
    """Answers of every quality, k from 1 to 12, some with fewer rows than k; with their recall by brute force."""
    rng = np.random.default_rng(5)
    sample, recalls = [], []
    for number in range(count):
        query = rng.standard_normal(vectors.shape[1]).astype(np.float32) * 7
        order = np.argsort(-(unit(vectors) @ query))
        k = int(rng.integers(1, 13))
        rows = order[:k].astype(np.int64)
        wrong = rng.random(k) < rng.random()
        rows[wrong] = order[200 : 200 + wrong.sum()]
        if number % 5 == 0:
            rows[-1] = -1
        sample.append(Sampled(number, "other", query, rows, number / count, overall=number % 2 == 0))
        recalls.append(len(set(rows.tolist()) & set(order[:k].tolist())) / k)
    return sample, recalls


def test_recall_is_that_of_brute_force(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_recall, "_BLOCK_BYTES", 64 * DIMENSION * 4)  # 63 blocks
    sample, recalls = queries_with_answers(served.vectors)
    judged = judge_of(served).judge(sample)
    assert [one.recall for one in judged] == pytest.approx(recalls)
    assert 0 < min(recalls) + 0.2 < max(recalls)
    assert not any(one.wide for one in judged)
    assert [(one.bucket, one.overall) for one in judged] == [(n, n % 2 == 0) for n in range(40)]


def test_deleted_rows_are_not_missed(served: Served) -> None:
    """A searcher that answers rightly without them has a recall of 1, by an exact and by a wider search."""
    rng = np.random.default_rng(8)
    gone = np.zeros(COUNT, np.bool_)
    sample = []
    for number in range(70):
        query = rng.standard_normal(DIMENSION).astype(np.float32)
        order = np.argsort(-(unit(served.vectors) @ query))
        gone[order[[0, 3, 4]]] = True
        sample.append((number, query, order))
    items = [Sampled(number, "other", query, order[~gone[order]][:10], number / 70) for number, query, order in sample]
    served.engine.hide(RowSet.of_mask(gone))
    try:
        for affordable in (1e9, 1e-9):
            judged = judge_of(served, affordable).judge([replace(one, live=served.engine.live) for one in items])
            assert [one.recall for one in judged] == pytest.approx([1.0] * len(judged))
            assert judged[0].wide == (affordable < 1)
    finally:
        served.engine.hide(None)
    assert np.mean([one.recall for one in judge_of(served).judge(items)]) < 0.8


def test_more_deleted_rows_than_candidates_hide_no_miss(served: Served) -> None:
    """The 40 nearest are deleted: answers far behind the next ten are wrong, and those ten are right."""
    rng = np.random.default_rng(9)
    queries = rng.standard_normal((12, DIMENSION)).astype(np.float32)
    orders = np.argsort(-(queries @ unit(served.vectors).T), axis=1)
    gone = np.zeros(COUNT, np.bool_)
    gone[orders[:, :40].ravel()] = True
    live = RowSet.of_mask(~gone)
    items, expected = [], []
    for number, (query, order) in enumerate(zip(queries, orders, strict=True)):
        left = order[~gone[order]]
        rows = left[:10] if number % 2 else left[200:210]
        items.append(Sampled(number, "other", query, rows, number / 12, live=live))
        expected.append(float(number % 2))
    served.engine.hide(RowSet.of_mask(gone))
    try:
        judged = judge_of(served).judge(items)
        assert [one.recall for one in judged] == expected
    finally:
        served.engine.hide(None)


def test_fewer_rows_than_answers_are_all_there_is(served: Served) -> None:
    """Six rows are left of the index and ten were asked for: a searcher that found five of them has a recall of 5/6."""
    live = RowSet.of_rows(np.arange(6), COUNT)
    query = np.random.default_rng(1).standard_normal(DIMENSION).astype(np.float32)
    rows = np.array([0, 1, 2, 3, 4, *[-1] * 5])
    served.engine.hide(~live)
    try:
        (one,) = judge_of(served).judge([Sampled(0, "other", query, rows, 0.5, live=live)])
        assert one.recall == pytest.approx(5 / 6)
    finally:
        served.engine.hide(None)


def test_answers_are_judged_by_the_rows_there_were_when_they_were_given(served: Served) -> None:
    """Rows deleted afterwards were right then; rows that came back afterwards could not be found."""
    rng = np.random.default_rng(10)
    query = rng.standard_normal(DIMENSION).astype(np.float32)
    order = np.argsort(-(unit(served.vectors) @ query))
    before = RowSet.of_rows(order[5:], COUNT)  # the five nearest were deleted
    asked = [Sampled(n, "other", query, order[5:15], n / 4, live=before) for n in range(4)]
    after = Sampled(9, "other", query, np.array([*order[:9], order[14]]), 0.9)
    for hidden in (None, RowSet.of_rows(order[:12], COUNT)):
        served.engine.hide(hidden)
        try:
            judged = judge_of(served).judge([*asked, after])
        finally:
            served.engine.hide(None)
        # Of the two states the one that more queries saw is judged.
        assert [(one.bucket, one.recall) for one in judged] == [(n, 1.0) for n in range(4)]


def test_the_sample_remembers_what_was_hidden_and_drops_answers_that_crossed_a_change(served: Served) -> None:
    live = RowSet.of_rows(np.arange(10), COUNT)
    sample = LiveSample(("keyword",), live=lambda: live)
    for answered in (3, 700):  # the second was answered before row 700 was hidden
        sample.offer("other", np.zeros((1, DIMENSION), np.float32), 1, np.array([[answered]]))
    taken, _ = sample.take()
    assert [(item.live, item.rows.tolist()) for item in taken] == [(live, [3])]


def test_a_scan_beyond_the_budget_takes_fewer_queries(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cost is made exactly one unit a query: half of 400 are affordable, then nearly half; never more."""
    monkeypatch.setattr(live_recall, "_BLOCK_BYTES", 64 * DIMENSION * 4)
    sample = [replace(item, bucket=n) for n, item in enumerate(queries_with_answers(served.vectors)[0] * 10)]
    judge = judge_of(served, affordable=200.0)
    asked: list[int] = []

    def exact(some: list[Sampled]) -> object:
        asked.append(len(some))
        if len(some) > 200:
            raise live_recall.BeyondBudgetError(len(some) / 200)
        return LiveJudge._exact(judge, some)

    monkeypatch.setattr(judge, "_exact", exact)
    judged = judge.judge(sample)
    assert 150 <= len(judged) <= 200
    assert asked[0] == 400
    assert not any(one.wide for one in judged)
    assert len(judge.judge(sample)) >= 150


def test_what_cannot_be_scanned_is_judged_against_a_wider_search(served: Served) -> None:
    sample, recalls = queries_with_answers(served.vectors, 100)
    judge = judge_of(served, affordable=1e-9)
    points = (served.engine.manifest.default_point, served.engine.manifest.conservative_point)
    widest = max(point.params["nprobe"] for point in points if point is not None)
    assert judge.wide_params == {"nprobe": min(64, 4 * widest)}
    judged = judge.judge(sample)
    assert judged
    assert all(one.wide for one in judged)
    assert all(one.recall >= recalls[one.bucket] - 1e-9 for one in judged), "never too low"
    assert np.mean([one.recall - recalls[one.bucket] for one in judged]) < 0.02


def test_the_budget_sleeps_for_what_was_used() -> None:
    slept: list[float] = []
    budget = CpuBudget(0.05, slept.append)
    end = time.thread_time() + 0.02
    while time.thread_time() < end:
        pass
    used = budget.pay()
    assert used == pytest.approx(budget.spent)
    assert used >= 0.02
    assert slept == [pytest.approx(19 * used)]


def test_a_scan_pays_after_every_block(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_recall, "_BLOCK_BYTES", 64 * DIMENSION * 4)
    slept: list[float] = []
    budget = CpuBudget(0.05, slept.append)
    with PacedVectors(served.path, Metric.COSINE, budget, 1e9) as vectors:
        assert sum(len(block) for _, block in vectors.blocks()) == COUNT
    assert len(slept) == 1 + 63


# ---------------------------------------------------------------- evidence


def test_live_recall_belongs_to_the_bucket_of_its_query() -> None:
    clock = Clock(1_700_000_000.0)
    ring = EvidenceRing(("keyword",), clock)
    then = int(clock.now) // BUCKET_SECONDS
    ring.record(Outcome("keyword", hits=[1]), 200, 0.001)
    clock.now += 300
    ring.record(Outcome("keyword", hits=[1]), 200, 0.001)
    ring.record_live(LiveTally(then, "keyword", 4, 3.5, 1, 2, 1.75))
    ring.record_live(LiveTally(then, "keyword", 1, 0.25, 0, 0, 0.0))
    first, second = buckets_of(ring)
    assert (first.bucket, first.queries, first.live_queries, first.live_recall_sum) == (then, 1, 5, 3.75)
    assert (first.live_wide, first.live_overall_queries, first.live_overall_recall_sum) == (1, 2, 1.75)
    assert second.live_queries == 0
    assert next(total.live_queries for total in ring.totals() if total.segment == "keyword") == 5
    clock.now += RING_SECONDS - 300
    ring.record(Outcome("keyword", hits=[1]), 200, 0.001)  # the slot of `then`, an hour later
    ring.record_live(LiveTally(then, "keyword", 7, 7.0))
    assert [bucket.live_queries for bucket in buckets_of(ring)] == [0, 0]


def test_answers_deeper_than_the_limit_are_judged_up_to_it() -> None:
    sample = LiveSample((), clock=Clock())
    offer(sample, "other", 1, k=DEPTH + 50)
    assert len(sample.take()[0][0].rows) == DEPTH


def test_a_searcher_measures_the_recall_of_its_own_answers(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The whole process: what its clients got is judged as brute force judges it, and told on the admin port."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(live_recall, "ROUND_SECONDS", 0.3)
    found: dict[str, Any] = {}

    def ask(connection: http.client.HTTPConnection, method: str, path: str, body: object = None) -> Any:
        connection.request(method, path, None if body is None else orjson.dumps(body))
        return connection.getresponse().read()

    def scenario() -> None:
        ports = [until(lambda name=name: port_of(caplog, name)) for name in ("ready", "admin port open")]
        users, admin = (http.client.HTTPConnection("127.0.0.1", port, timeout=60) for port in ports)
        rng = np.random.default_rng(9)
        recalls = []
        for query in served.vectors[:60] + rng.standard_normal((60, DIMENSION)).astype(np.float32):
            body = {"vector": query.tolist(), "k": 10, "segment": "keyword"}
            ids = orjson.loads(ask(users, "POST", "/v1/search", body))["results"][0]["ids"]
            right = np.argsort(-(unit(served.vectors) @ query))[:10]
            recalls.append(len(set(ids) & set(right.tolist())) / 10)
        # A client's own parameters say nothing about the revision.
        ask(users, "POST", "/v1/search", {"vector": query.tolist(), "params": {"nprobe": 1}, "segment": "keyword"})

        def all_judged() -> contract.Evidence | None:
            evidence = contract.Evidence.model_validate_json(ask(admin, "GET", "/v1/evidence"))
            return evidence if sum(bucket.live_queries for bucket in evidence.buckets) >= 60 else None

        found["evidence"] = until(all_judged)
        found["recalls"] = recalls
        found["metrics"] = ask(admin, "GET", "/metrics").decode()
        users.close()
        admin.close()

    live(served.task, Settings(host="127.0.0.1", http_port=0, admin_port=0, grace_seconds=0.05), scenario)
    buckets, mean = found["evidence"].buckets, float(np.mean(found["recalls"]))
    assert 0.3 < mean < 1
    assert sum(bucket.live_queries for bucket in buckets) == 60
    assert sum(bucket.live_recall_sum for bucket in buckets) == pytest.approx(60 * mean)
    assert {bucket.segment for bucket in buckets if bucket.live_queries} == {"keyword"}
    assert found["evidence"].live_before >= min(bucket.bucket for bucket in buckets)
    labels = '{revision="docs-d1",segment="keyword"}'
    assert f"vectorindex_live_recall_count{labels} 60.0" in found["metrics"]
    assert "vectorindex_live_recall_cpu_seconds_total" in found["metrics"]


def test_what_a_killed_searcher_left_of_the_vectors_is_removed(served: Served, tmp_path: Path) -> None:
    """Else every container that is killed while it fetches them takes their size from the pod's disk, for good."""
    task = served.task.model_copy(update={"cache_dir": str(tmp_path)})
    folder = tmp_path / cache_name(served.engine.manifest)
    folder.mkdir()
    leftover = folder / f"{partial_prefix(VECTORS_FILE)}0badf00d"
    leftover.write_bytes(b"half of it")
    path = live_recall.fetch_vectors(task, served.engine, threading.Event(), lambda *_: None)
    assert path == folder / VECTORS_FILE
    assert path.stat().st_size == served.path.stat().st_size
    assert not leftover.exists()


@pytest.mark.parametrize("live_recall", [True, False])
def test_room_is_made_for_the_vectors_that_live_recall_will_fetch(
    served: Served, tmp_path: Path, live_recall: bool
) -> None:
    """They come into the same folder later: the cache kept to --cache-limit without them only."""
    size = sum(file.size for file in served.engine.manifest.files if file.name in SERVED_FILES)
    limit = size + served.path.stat().st_size + 99
    other = NodeCache(tmp_path, limit).hold("other", 100)
    (other.folder / "index.faiss").write_bytes(b"x" * 100)
    other.close()
    os.utime(tmp_path / ".locks" / "other.use", (1, 1))  # nobody has used it for long
    task = served.task.model_copy(update={"cache_dir": str(tmp_path), "live_recall": live_recall})
    load(task, lambda said: None, limit).held.close()
    assert other.folder.exists() is not live_recall


def port_of(caplog: pytest.LogCaptureFixture, message: str) -> int | None:
    return next((record.port for record in caplog.records if record.getMessage() == message), None)  # type: ignore[attr-defined]


def live(task: contract.ServeTask, settings: Settings, scenario: Callable[[], None]) -> None:
    """Run a whole searcher here, with `scenario` on a thread beside it; SIGTERM when that ends."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            scenario()
        except BaseException as error:
            errors.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        uvloop.run(Server(task, settings).run())
        thread.join()
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert not errors, errors


def test_the_command_line_can_ask_for_it(served: Served) -> None:
    arguments = ["serve", "--artifact", str(served.task.artifacts.folder), "--name", "docs"]
    assert not serve_task(parser().parse_args(arguments), None).live_recall
    assert serve_task(parser().parse_args([*arguments, "--live-recall"]), None).live_recall
