"""Live queries in the gate: written once, tuned with one half, judged by the other, gone when the report is there."""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from observations import spec
from searcher_process import started
from unit.test_internal_requests import KEY, ME
from unit.test_searcher_live_queries import answering, search
from unit.test_searcher_validate import DIMENSION, IDENTITY, clustered, stored

from vectorindex_operator.core import gate
from vectorindex_searcher import contract
from vectorindex_searcher.artifact.live_queries import forget
from vectorindex_searcher.build import task as build_module
from vectorindex_searcher.build.task import build
from vectorindex_searcher.contract import (
    LIVE_KEY_ENV,
    LIVE_QUERIES,
    LIVE_QUERIES_ENV,
    LIVE_SAME_AS_A_ROW,
    RESULT_LIMIT_BYTES,
    BuildTask,
    IndexSpec,
    LiveSource,
    Location,
    Metric,
    ResolveTask,
    ValidateResult,
    ValidateTask,
    live_key,
)
from vectorindex_searcher.dataset.resolve import resolve
from vectorindex_searcher.errors import StoreUnavailable, TaskError
from vectorindex_searcher.index.vectors import VectorFile
from vectorindex_searcher.proof import same
from vectorindex_searcher.proof import task as proof_module
from vectorindex_searcher.proof.live.judge import Live, LiveQueries, live_queries
from vectorindex_searcher.proof.live.kept import KeptQueries
from vectorindex_searcher.proof.live.report import LiveReport
from vectorindex_searcher.proof.live.sample import LiveQuery
from vectorindex_searcher.proof.live.wire import HEAD_BYTES, encode, record_bytes
from vectorindex_searcher.proof.page import page
from vectorindex_searcher.proof.report import Report, load_report
from vectorindex_searcher.proof.task import validate
from vectorindex_searcher.storage.folder import FolderStore

COUNT = 3000
NOWHERE = LiveSource(index_uid="u-1", revision="old", addresses=("127.0.0.255",), port=1, min_queries=200)
"""Pods that do not answer: what is judged was written by an earlier try."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "HELD_OUT", 150)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr("vectorindex_searcher.index.choose.tuning.LATENCY_QUERIES", 3)
    monkeypatch.setattr("vectorindex_searcher.proof.timing.LATENCY_CALLS", 5)


@pytest.fixture(scope="module")
def rows() -> npt.NDArray[np.float32]:
    return clustered(COUNT, seed=2)


@pytest.fixture
def out(tmp_path: Path, rows: npt.NDArray[np.float32]) -> Path:
    return publish(tmp_path, rows, IndexSpec(factory="IVF64,Flat", search_params={"nprobe": 2}))


def publish(folder: Path, rows: npt.NDArray[np.float32], index: IndexSpec) -> Path:
    np.save(folder / "a.npy", rows)
    out = folder / "out"
    build(
        BuildTask(
            identity=IDENTITY,
            digest="digest1",
            source=Location(folder=str(folder / "a.npy")),
            artifacts=Location(folder=str(out)),
            index=index,
        )
    )
    return out


def far(count: int, seed: int = 4) -> npt.NDArray[np.float32]:
    """Between the clusters: harder than any row."""
    return np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)


def live(vectors: npt.NDArray[np.float32], segment: str = "other", k: int = 10, seed: int = 0) -> list[LiveQuery]:
    names = np.random.default_rng(seed).bytes(16 * len(vectors))
    hour = int(time.time()) // 3600
    return [
        LiveQuery(names[16 * n : 16 * n + 16], (n % 50).to_bytes(8, "big"), hour - n % 3, k, segment, row.tobytes())
        for n, row in enumerate(vectors)
    ]


def kept(out: Path, digest: str = "digest1") -> KeptQueries:
    return KeptQueries(*stored(out), digest, DIMENSION, Metric.COSINE)


def judged(
    out: Path,
    source: LiveSource | None = NOWHERE,
    gate_hash: str = "gate1",
    asked: list[LiveQuery] | None = None,
    **changes: Any,
) -> tuple[Report, ValidateResult]:
    """asked: as an earlier try wrote it."""
    if asked is not None:
        kept(out).write(asked)
    fields: dict[str, Any] = {
        "identity": IDENTITY,
        "digest": "digest1",
        "manifest_sha256": "",
        "gate_hash": gate_hash,
        "artifacts": Location(folder=str(out)),
        "objective": 0.96,
        "live": source,
    }
    result = validate(ValidateTask(**(fields | changes)))
    return load_report(*stored(out), "digest1", gate_hash)[0], result


def files(out: Path, part: str) -> set[str]:
    return {path.name for path in out.rglob("*") if path.is_file() and part in str(path.relative_to(out))}


def test_what_users_ask_widens_the_point_and_is_judged_by_its_other_half(out: Path) -> None:
    before, _ = judged(out, None, "without")
    truths = files(out, "groundtruth")
    kept(out).write(live(far(1000)))
    report, result = judged(out)
    assert report.live is not None
    assert report.live.recall is not None
    assert (report.live.judged, report.live.queries, report.live.senders, report.live.hours) == (True, 1000, 50, 3)
    assert 400 < report.live.tuning < 600
    assert report.live.recall.queries == 1000 - report.live.tuning
    assert before.default_point is not None
    assert report.default_point is not None
    assert report.default_point.params["nprobe"] > before.default_point.params["nprobe"]
    assert report.live.recall.recall > 0.95
    # What the gate asked else is judged as before, at the point that the build measured it with.
    assert (report.overall, report.held_out) == (before.overall, before.held_out)
    (told,) = result.live or ()
    assert (told.segment, told.queries) == (LIVE_QUERIES, report.live.recall.queries)
    assert result.live_note == f"1000 live queries of 50 senders, {report.live.tuning} of them tuned"
    assert len(result.model_dump_json(by_alias=True, exclude_none=True)) < RESULT_LIMIT_BYTES
    assert b"live queries" in page(report)
    assert f"without the one answered worst they show {report.live.recall.recall_high:.4f} at most".encode() in page(
        report
    )
    # Nothing of them is kept, nor of their neighbours.
    assert files(out, "live/") == set()
    assert files(out, "groundtruth") == truths


def test_no_vector_of_a_user_is_in_any_file_or_log_once_the_report_is_there(
    out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    asked_live = far(600)
    kept(out).write(live(asked_live))
    (lies,) = (out / path for path in [*out.rglob("*.queries")])
    assert asked_live[0].tobytes() in lies.read_bytes()
    report, _ = judged(out)
    for path in out.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not [number for number in range(0, 600, 37) if asked_live[number].tobytes() in data], path
    with pa.OSFile(str(next(out.rglob("canary.arrow")))) as source:
        canary = pa.ipc.open_file(source).read_all()
    flat = np.stack(canary.column("vector").to_pylist()).astype(np.float32)
    assert not (flat[:, None] == asked_live[None]).all(axis=2).any()
    shown = caplog.text + json.dumps(report.wire())
    assert str(float(asked_live[0, 0]))[:7] not in shown


def test_live_queries_that_equal_a_row_are_apart_and_tune_nothing(out: Path, rows: npt.NDArray[np.float32]) -> None:
    kept(out).write(live(np.concatenate([far(400), rows[:300]])))
    report, result = judged(out)
    assert report.live is not None
    assert report.live.same_as_a_row is not None
    assert report.live.recall is not None
    assert report.live.same_as_a_row.queries == 300
    assert report.live.same_as_a_row.recall > 0.93, "a row's own is no neighbour of it, else nothing would be above .9"
    assert report.live.tuning + report.live.recall.queries == 400
    assert [row.segment for row in result.live or ()] == [LIVE_QUERIES, LIVE_SAME_AS_A_ROW]


def test_a_query_is_in_the_same_half_whenever_it_is_asked(out: Path) -> None:
    asked = live(far(300))
    halves = [_tuning(out, some)[0] for some in (asked, asked[::-1][:120])]
    assert 100 < len(halves[0]) < 200
    assert halves[1] == halves[0] & {query.vector for query in asked[::-1][:120]}


def test_what_two_segments_ask_or_is_asked_at_another_length_is_in_one_half_and_counts_once_in_each(out: Path) -> None:
    vectors = far(200)
    asked = live(vectors, "keyword") + live(vectors, "other", seed=1) + live(2 * vectors, "other", seed=2)
    tunes, judges = _tuning(out, asked)
    once = {row.tobytes() for row in vectors} | {row.tobytes() for row in 2 * vectors}
    assert tunes | judges <= once
    directions = [{_direction(vector) for vector in half} for half in (tunes, judges)]
    assert not directions[0] & directions[1]
    assert len(directions[0]) + len(directions[1]) == 200
    report, _ = judged(out, NOWHERE.model_copy(update={"min_queries": 300}), asked=asked, segments=("keyword",))
    assert report.live is not None
    assert report.live.recall is not None
    assert report.live.recall.queries + report.live.tuning == 400


def test_who_asks_for_more_answers_than_the_gate_has_a_figure_at_its_own_k(out: Path) -> None:
    asked = live(far(300)) + live(far(200, seed=8), k=40, seed=1) + live(far(50, seed=9), k=1000, seed=2)
    report, result = judged(out, asked=asked)
    assert report.live is not None
    assert report.live.at_own_k is not None
    assert (report.live.deeper, len(result.live or ())) == (250, 1)
    assert report.live.at_own_k.queries == 250 - sum(one.name[-1] & 1 for one in asked if one.k > 10)
    assert report.live.recall is not None
    assert report.live.at_own_k.recall < report.live.recall.recall
    assert b"at their own k" in page(report)


def test_an_exact_index_answers_whatever_is_asked(tmp_path: Path, rows: npt.NDArray[np.float32]) -> None:
    asked = live(far(150)) + live(far(100, seed=8), k=40, seed=1) + live(far(20, seed=9), k=1000, seed=2)
    report, _ = judged(publish(tmp_path, rows, IndexSpec(factory="Flat")), asked=asked)
    assert report.live is not None
    assert report.live.recall is not None
    assert report.live.at_own_k is not None
    assert (report.live.tuning, report.live.recall.queries, report.live.recall.recall_low) == (0, 270, 1.0)
    assert (report.live.at_own_k.queries, report.live.at_own_k.recall) == (120, 1.0)


def test_what_was_given_too_is_asked_as_given(out: Path) -> None:
    """Else what tuned would judge, or the other way round."""
    vectors = far(700)
    np.save(out / "given.npy", vectors[:300])
    given: dict[str, Any] = {"queries": Location(folder=str(out / "given.npy"))}
    before, _ = judged(out, None, "without", **given)
    report, _ = judged(out, asked=live(3 * vectors), **given)
    assert report.live is not None
    assert report.live.recall is not None
    assert (report.live.queries, report.live.given) == (700, 300)
    assert report.live.recall.queries + report.live.tuning == 400
    assert report.overall.queries == before.overall.queries
    few, _ = judged(out, gate_hash="few", asked=live(vectors[:450]), **given)
    assert few.live is not None
    assert few.live.judged is False
    assert few.live.reason == "150 live queries besides those that were given, gate.queries.live.minQueries is 200"


def test_what_was_given_with_a_filter_is_another_question(tmp_path: Path, rows: npt.NDArray[np.float32]) -> None:
    (tmp_path / "source").mkdir()
    lists = pa.array(list(rows), pa.list_(pa.float32()))
    table = pa.table({"id": range(COUNT), "vector": lists, "colour": ["red", "blue"] * (COUNT // 2)})
    pq.write_table(table, tmp_path / "source" / "a.parquet")
    out, vectors = tmp_path / "out", far(500)
    build(
        BuildTask(
            identity=IDENTITY,
            digest="digest1",
            source=Location(folder=str(tmp_path / "source")),
            columns=contract.Columns(metadata=("colour",)),
            artifacts=Location(folder=str(out)),
            index=IndexSpec(factory="Flat"),
        )
    )
    filters = ['{"colour": "red"}' if number < 200 else None for number in range(400)]
    pq.write_table(
        pa.table({"vector": pa.array(list(vectors[:400]), pa.list_(pa.float32())), "only": filters}),
        tmp_path / "given.parquet",
    )
    report, _ = judged(
        out,
        asked=live(vectors),
        queries=Location(folder=str(tmp_path / "given.parquet")),
        query_columns=contract.QueryColumns(filter="only"),
    )
    assert report.live is not None
    assert report.live.recall is not None
    assert (report.live.given, report.live.recall.queries) == (200, 300)


def _direction(vector: bytes) -> tuple[float, ...]:
    numbers = np.frombuffer(vector, "<f4")
    return tuple(np.round(numbers / np.linalg.norm(numbers), 4).tolist())


def _tuning(out: Path, queries: list[LiveQuery]) -> tuple[set[bytes], set[bytes]]:
    """Vectors of those that tune and of those that judge."""
    path = next(out.rglob("vectors.npy"))
    task = ValidateTask(
        identity=IDENTITY, digest="d", manifest_sha256="", gate_hash="g", artifacts=Location(folder=str(out))
    )
    with VectorFile(path, Metric.COSINE) as vectors:
        found = Live.of(LiveQueries(LiveReport(), tuple(queries)), vectors, task)
    rows = [row.tobytes() for row in found.queries.vectors]
    tunes = {row for row, tunes in zip(rows, found.tunes, strict=True) if tunes}
    return tunes, {row for row, tunes in zip(rows, found.tunes, strict=True) if not tunes}


def test_too_few_are_reported_and_change_nothing(out: Path) -> None:
    before, _ = judged(out, None, "without")
    kept(out).write(live(far(199)))
    report, result = judged(out)
    assert report.live is not None
    assert report.live.recall is not None
    assert (report.live.judged, report.live.tuning, report.live.recall.queries) == (False, 0, 199)
    assert report.live.reason == "199 live queries, gate.queries.live.minQueries is 200"
    assert (result.live, result.live_note) == (None, report.live.reason)
    assert report.params == before.params
    assert report.live.reason.encode() in page(report)


@pytest.mark.parametrize("senders", [5, 6])
def test_of_too_few_senders_they_are_reported_and_change_nothing(out: Path, senders: int) -> None:
    before, _ = judged(out, None, "without")
    asked = [
        replace(query, sender=(number % senders).to_bytes(8, "big")) for number, query in enumerate(live(far(400)))
    ]
    report, result = judged(out, asked=asked)
    assert report.live is not None
    assert (report.live.senders, report.live.judged) == (senders, senders == 6)
    assert (report.params != before.params) == (result.live is not None) == (senders == 6)
    if senders == 5:
        assert report.live.reason == "not enough senders: live queries of 5, 6 at least judge, so that no one decides"
        assert result.live_note == report.live.reason


def test_enough_senders_of_whom_too_few_are_in_the_half_that_judges(out: Path) -> None:
    vectors = far(300)
    odd, even = ([query for query in live(vectors) if query.name[-1] & 1 == half] for half in (1, 0))
    # Five ask what tunes alone, one what judges as well.
    asked = [replace(query, sender=(number % 6).to_bytes(8, "big")) for number, query in enumerate(odd)]
    asked += [replace(query, sender=bytes(8)) for query in even]
    report, result = judged(out, asked=asked)
    assert report.live is not None
    assert (report.live.senders, report.live.judged, result.live) == (6, False, None)
    assert report.live.reason.startswith("not enough senders: live queries of 1, ")


def test_one_sender_of_hard_queries_neither_holds_a_revision_nor_widens_its_search(
    out: Path, rows: npt.NDArray[np.float32]
) -> None:
    """It has a twelfth of the places, and asks what lies between all clusters; the others are found well enough."""
    floor, rng = 0.85, np.random.default_rng(3)
    near = rows[rng.integers(0, COUNT, 1100)] + 0.01 * rng.standard_normal((1100, DIMENSION)).astype(np.float32)
    asked = [replace(query, sender=(number % 11).to_bytes(8, "big")) for number, query in enumerate(live(near, seed=1))]
    asked += [replace(query, sender=b"hostile!") for query in live(rows.mean(axis=0) + 0.05 * far(100), seed=2)]
    report, result = judged(out, asked=asked, objective=floor)
    assert report.live is not None
    assert report.live.recall is not None
    assert report.params == {"nprobe": 2}, "as it was built"
    assert (report.live.judged, report.live.recall.senders) == (True, 12)
    assert report.live.recall.recall < floor, "the mean of all misses it"
    proven = result.model_copy(update={"overall": contract.SegmentRecall(queries=500, recall=1.0, recall_low=1.0)})
    said = gate.judge(proven, spec(gate={"recall": {"min": floor}, "queries": {"live": {}}}), gate.Stable(), 0.0)
    assert said.verdict == "Pass", said.message


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (LiveSource(min_queries=200), "there is no stable revision"),
        (LiveSource(revision="old", min_queries=200), "no pod of old was there"),
        (NOWHERE, "no pod of old told its live queries: 127.0.0.255: "),
    ],
)
def test_nobody_to_ask_holds_nothing_up_and_is_said(out: Path, source: LiveSource, said: str) -> None:
    report, result = judged(out, source)
    assert report.live is not None
    assert (report.live.judged, report.live.queries, result.live) == (False, 0, None)
    assert said in report.live.reason
    assert result.live_note == report.live.note


def test_given_queries_decide_too_and_segments_get_what_their_users_ask(out: Path) -> None:
    table = pa.table(
        {
            "vector": pa.array(list(clustered(1300, seed=5)), pa.list_(pa.float32())),
            "kind": ["keyword", "question"] * 650,
        }
    )
    pq.write_table(table, out / "given.parquet")
    given: dict[str, Any] = {
        "queries": Location(folder=str(out / "given.parquet")),
        "query_columns": contract.QueryColumns(segment="kind"),
        "segments": ("keyword", "question"),
        "segment_targets": {"keyword": 0.96, "question": 0.96},
    }
    before, _ = judged(out, None, "without", **given)
    kept(out).write(live(far(800), "question"))
    report, _ = judged(out, **given)
    points, wider = ({row.segment: row.point.params["nprobe"] for row in one.points} for one in (before, report))
    assert wider["question"] > points["question"]
    assert wider["keyword"] == points["keyword"]
    assert report.live is not None
    assert [row.segment for row in report.live.segments] == ["question"]
    assert report.overall.recall >= before.overall.recall


def test_fixed_parameters_and_exact_indexes_are_judged_and_not_tuned(out: Path) -> None:
    kept(out).write(live(far(500)))
    report, result = judged(out, objective=None)
    assert report.live is not None
    assert report.live.recall is not None
    assert (report.live.tuning, report.live.recall.queries) == (0, 500)
    assert len(result.live or ()) == 1


# ---------------------------------------------------------------- in the store


def test_a_job_that_is_tried_again_asks_what_was_written(out: Path) -> None:
    first, second = live(far(300)), live(far(300, seed=9), seed=9)
    assert kept(out).write(first) == first
    assert kept(out).write(second) == first == kept(out).read()
    report, _ = judged(out)
    assert report.live is not None
    assert (report.live.queries, report.live.judged) == (300, True)
    # The report is there: nothing is asked or measured anew, and what is left behind goes.
    kept(out).write(second)
    again, _ = judged(out)
    assert again == report
    assert files(out, "live/") == set()


def test_segments_that_a_pod_makes_up_are_no_reason_to_draw_anew(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than what is written can name: it could not be read, and the next try asked for other queries."""
    made_up = tuple(f"made-up-{number}" for number in range(64))
    asked = [
        replace(query, hour=int(time.time()) // 3600, segment=made_up[number % 64])
        for number, query in enumerate(live(far(200)))
    ]
    monkeypatch.setenv(LIVE_KEY_ENV, "key")
    source = NOWHERE.model_copy(update={"addresses": ("127.0.0.1",), "min_queries": 120})
    fields = {"identity": IDENTITY, "digest": "digest1", "manifest_sha256": "", "gate_hash": "gate1"}
    place = Location(folder=str(out))
    task = ValidateTask(**fields, artifacts=place, segments=("keyword",), live=source)
    page, none = (encode(some, DIMENSION, made_up) for some in (asked, []))
    with answering(lambda path: page if "age=0&" in path else none) as port:
        found = live_queries(
            task.model_copy(update={"live": source.model_copy(update={"port": port})}),
            kept(out), DIMENSION, Metric.COSINE,
        )  # fmt: skip
    assert found.told.judged
    assert kept(out).read() == list(found.queries)
    assert {query.segment for query in found.queries} == {"other"}


def test_queries_beside_each_other_are_compared_by_one_call_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """One each pair took a quarter of an hour where a pod told 10,000 of them."""
    rng = np.random.default_rng(1)
    beside = rng.standard_normal((200, DIMENSION))
    beside *= 4e-6 / np.linalg.norm(beside, axis=1, keepdims=True)
    asked = (np.eye(DIMENSION)[0] + beside).astype(np.float32)
    calls: list[int] = []
    close = same._close

    def counted(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        calls.append(1)
        return close(one, other)

    monkeypatch.setattr(same, "_close", counted)
    assert len(np.unique(same.asking_the_same(asked, Metric.COSINE))) > 100
    assert len(calls) <= len(asked)
    assert same.asking_the_same(np.concatenate([asked[:1]] * 3), Metric.COSINE).tolist() == [0, 0, 0]


def test_what_jobs_left_behind_goes_with_the_next_one_also_when_live_queries_were_taken_back(out: Path) -> None:
    for digest in ("digest0", "digest1"):
        kept(out, digest).write(live(far(5)))
    store, layout = stored(out)
    forget(store, layout, "digest1")
    assert files(out, "live/") == {"digest1.queries"}
    forget(store, layout, "digest1", now=time.time() + 86_500)
    assert files(out, "live/") == set()
    kept(out).write(live(far(5)))
    judged(out, None)
    assert files(out, "live/") == set()


def test_what_a_killed_job_left_behind_is_gone_after_a_day_though_no_other_gate_runs(
    out: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at the source, as polling takes it, is enough; what a gate may still measure with stays."""
    for digest in ("digest0", "digest1"):
        kept(out, digest).write(live(far(5)))
    (old,) = out.rglob("digest0.queries")
    a_day_ago = time.time() - 86_500
    os.utime(old, (a_day_ago, a_day_ago))
    look = ResolveTask(
        identity=IDENTITY, source=Location(folder=str(tmp_path / "a.npy")), artifacts=Location(folder=str(out))
    )
    resolve(look)
    assert files(out, "live/") == {"digest1.queries"}
    (fresh,) = out.rglob("digest1.queries")
    os.utime(fresh, (a_day_ago, a_day_ago))

    def refused(*_: object) -> None:
        raise TaskError("AccessDenied", "no s3:DeleteObject")

    with monkeypatch.context() as store:
        store.setattr("vectorindex_searcher.storage.folder.FolderStore.delete", refused)
        resolve(look)
    assert "live queries could not be removed" in caplog.text
    resolve(look)
    assert files(out, "live/") == set()


def test_what_others_left_behind_goes_before_anything_is_measured(out: Path) -> None:
    """Also where this Job ends badly, too: its artifact cannot be read."""
    for digest in ("digest0", "digest1"):
        kept(out, digest).write(live(far(300)))
    next(out.rglob("index.faiss")).unlink()
    with pytest.raises(TaskError):
        judged(out)
    assert files(out, "live/") == {"digest1.queries"}
    with pytest.raises(TaskError):
        judged(out, None)
    assert files(out, "live/") == set()


def test_what_a_try_a_day_ago_wrote_is_asked_no_more(out: Path) -> None:
    kept(out).write(live(far(300)))
    (path,) = out.rglob("*.queries")
    os.utime(path, times=(time.time() - 86_500,) * 2)
    report, _ = judged(out)
    assert report.live is not None
    assert "no pod of old told" in report.live.reason


def test_a_try_that_dies_before_its_report_leaves_the_queries_to_the_next(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is tried again must not draw luckier ones."""
    asked = live(far(300))
    kept(out).write(asked)

    def dies(*given: object) -> None:
        raise StoreUnavailable("SlowDown", "later")

    with monkeypatch.context() as patch:
        patch.setattr(proof_module, "publish_report", dies)
        with pytest.raises(StoreUnavailable):
            judged(out)
    assert kept(out).read() == asked
    report, _ = judged(out)
    assert report.live is not None
    assert report.live.judged
    assert files(out, "live/") == set()


@pytest.mark.parametrize("data", [b"nonsense", b'{"dimension": 99, "segments": []}\n', b"x" * 100_000])
def test_what_cannot_be_read_there_is_asked_anew(out: Path, data: bytes) -> None:
    store, layout = stored(out)
    store.put(layout.live_queries("digest1"), data)
    assert kept(out).read() is None
    assert files(out, "live/") == set()
    store.put(layout.live_queries("digest1"), data)
    report, _ = judged(out)
    assert report.live is not None
    assert "no pod of old told" in report.live.reason


def test_what_is_kept_is_read_as_far_as_a_sample_can_be(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can write to the bucket could have the gate hold, or search exactly for, whatever they put there."""
    room, read = contract.live_room(DIMENSION), FolderStore.read
    most = HEAD_BYTES + room * record_bytes(DIMENSION)
    sizes: list[int] = []

    def spied(*given: Any, **asked: Any) -> bytes:
        data = read(*given, **asked)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(FolderStore, "read", spied)
    store, layout = stored(out)
    vectors = far(room + 1)
    store.put(layout.live_queries("digest1"), encode(live(vectors[:room]), DIMENSION, ("other",)))
    assert len(kept(out).read() or ()) == room
    for more in (encode(live(vectors), DIMENSION, ("other",)), encode([], DIMENSION, ("other",)) + bytes(4 * most)):
        store.put(layout.live_queries("digest1"), more)
        assert kept(out).read() is None
    assert max(sizes) <= most + 1


# ---------------------------------------------------------------- from a searcher to a verdict


def test_from_what_users_ask_of_a_searcher_to_a_report(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two real processes: one that serves, and keeps what it is asked; and the gate of the next revision."""
    first, result = judged(out, None, "first")
    task = contract.ServeTask(
        identity=IDENTITY.model_copy(update={"uid": ME.index_uid}),
        revision=ME.revision,
        digest="digest1",
        manifest_sha256=first.manifest_sha256,
        gate_hash="first",
        report_sha256=result.report_sha256,
        artifacts=Location(folder=str(out)),
        cache_dir=str(tmp_path / "cache"),
    )
    environment = {contract.INTERNAL_KEY_ENV: KEY, LIVE_QUERIES_ENV: "1"}
    with started(task, **environment) as searcher:
        searcher.port()
        for number in range(6):
            search(searcher, far(40, seed=number), address=f"127.0.0.{number + 1}")
        search(searcher, far(5, seed=9), params={"nprobe": 3})
        monkeypatch.setitem(os.environ, LIVE_KEY_ENV, live_key(KEY))
        source = LiveSource(
            index_uid=ME.index_uid,
            revision=ME.revision,
            addresses=("127.0.0.1",),
            port=searcher.port("admin port open"),
            min_queries=200,
        )
        report, result = judged(out, source, "second")
    assert report.live is not None
    assert (report.live.queries, report.live.senders, report.live.pods) == (240, 6, 1)
    assert report.live.judged
    assert report.live.recall is not None
    assert report.live.recall.queries + report.live.tuning == 240
    assert (report.live.searches, report.live.filtered, report.live.own_params) == (245, 0, 5)
    assert result.live_note == (
        f"240 live queries of 6 senders, {report.live.tuning} of them tuned; "
        "left out: of 245 searches 5 with parameters of their own"
    )
    assert files(out, "live/") == set()
