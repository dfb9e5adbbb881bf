"""A pod of several search processes in a shadow: what it sends and what it counts is what one process would."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from searcher_process import Searcher, started
from served import DIMENSION, Published, publish_all
from shadows import MASTER, SHADOW, UID, Pod
from unit.test_searcher_serve_workers import Asking, asking, children, metric, stopped
from waiting import until

from vectorindex_searcher import contract
from vectorindex_searcher.serve.http.messages import Problem, Request
from vectorindex_searcher.serve.settings import Settings
from vectorindex_searcher.serve.shadow.counts import PairRows
from vectorindex_searcher.serve.shadow.mirror import Answered
from vectorindex_searcher.serve.shadow.rates import Draw
from vectorindex_searcher.serve.shadow.receiver import Part, Told
from vectorindex_searcher.serve.shadow.wire import query_hash
from vectorindex_searcher.serve.workers.mirrored import packed, unpacked
from vectorindex_searcher.serve.workers.rates import SharedRates
from vectorindex_searcher.serve.workers.shadowing import PodShadows

SEGMENTS = ("rare", "other")
WARMING = 20
PATIENT = (
    "-c",
    # A machine that is busy makes no error of a query.
    f"""
import runpy
from vectorindex_searcher import contract
contract.SHADOW_SECONDS, contract.SHADOW_WARMING = 60.0, {WARMING}
from vectorindex_searcher.serve.workers import front, shadowing
front.STALLED_SECONDS = shadowing.REPORT_SECONDS = 60.0
runpy.run_module("vectorindex_searcher", run_name="__main__")
""",
)


# ---------------------------------------------------------------- one budget


def test_all_processes_draw_from_one_budget_and_the_sample_is_of_all_together() -> None:
    shared = SharedRates(len(SEGMENTS))
    workers = [shared.rates(10.0, SEGMENTS, 0.0) for _ in range(4)]
    drawn = [one.draw("other", 1000.0) for _ in range(50) for one in workers]
    assert sum(one is not None for one in drawn) == 10
    # One of them is asked a hundred times as much: the whole rate is there for it.
    later = [workers[0].draw("other", 1001.0 + at / 1000) for at in range(4000)]
    assert 35 <= sum(one is not None for one in later) <= 50
    assert {one for one in later if one} == {Draw.OVERALL, Draw.SEGMENT}


def test_who_finds_another_process_drawing_does_not_wait_and_a_dead_one_holds_nobody_up() -> None:
    shared = SharedRates(len(SEGMENTS))
    mine = shared.rates(10.0, SEGMENTS, 0.0)
    holds, holding = os.pipe()
    pid = os.fork()
    if not pid:
        os.lockf(shared._descriptor, os.F_LOCK, 0)
        os.write(holding, b"!")
        signal.pause()
    try:
        os.read(holds, 1)
        assert mine.draw("other", 1000.0) is None
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert mine.draw("other", 1000.0) is Draw.OVERALL


# ---------------------------------------------------------------- what they hand on


def test_a_query_goes_from_process_to_process_as_it_was() -> None:
    def answered(number: int) -> Answered:
        return Answered(
            segment="rare",
            k=number,
            asked={"filter": {"colour": "red"}} if number else {},
            min_score=0.5 if number else None,
            vector=np.full(DIMENSION, number, np.float32).tobytes(),
            rows=np.arange(number, dtype=np.int64).tobytes(),
            scores=np.linspace(1, 0, number, dtype=np.float32).tobytes(),
            seconds=0.25,
            bucket=7,
            overall=bool(number),
            deleted="listing-2",
        )

    sent = [answered(number) for number in (0, 3, 1)]
    for before, after in zip(sent, unpacked(b"".join(packed(sent)), DIMENSION), strict=True):
        for name in Answered.__slots__:
            assert getattr(after, name) == getattr(before, name), name


def test_what_several_count_adds_up_to_what_one_would_have_counted() -> None:
    alone, whole = PairRows("s"), PairRows("s")
    workers = [PairRows("s") for _ in range(3)]
    for number in range(60):
        counts = {"pairs": 1, "c_sum": 0.5 * number}
        for rows in (alone, workers[number % 3]):
            rows.add(number // 7, "rare", counts, overall=number % 2 == 0)
        if number % 10 == 9:
            whole.merge((bucket, name, row.tolist()) for bucket, name, row in workers[number % 3].take())
    for worker in workers:
        whole.merge(worker.take())
        assert worker.take() == []
    assert sorted(whole.rows()) == sorted(alone.rows())


def test_each_query_is_one_processes_and_none_has_many_more_than_another() -> None:
    names = [query_hash(np.float32(n).tobytes(), 10, {}) for n in range(900)]
    of = [[Part(number, 3).has(name) for number in range(3)] for name in names]
    assert {sum(one) for one in of} == {1}
    assert min(sum(column) for column in zip(*of, strict=True)) > 250
    assert all(Part().has(name) for name in names)


# ---------------------------------------------------------------- the front process


class Front:
    """What it tells the others, and when they have told everything."""

    def __init__(self) -> None:
        self.to_first: list[Mapping[str, object]] = []
        self.to_workers: list[Mapping[str, object]] = []
        self.settled = 0
        task = contract.ServeTask(
            identity=contract.Identity(name="docs"), revision="docs-new", digest="d", manifest_sha256="",
            artifacts=contract.Location(folder="/nowhere"),
        )  # fmt: skip
        self.shadows = PodShadows(
            task,
            Settings(),
            "i",
            first=lambda message, _: self._first(message),
            workers=lambda message, _: self.to_workers.append(message),
            ready=lambda: 2,
            settled=self._settled,
        )

    def _first(self, message: Mapping[str, object]) -> None:
        self.to_first.append(message)
        if message["say"] == "report":
            self.shadows.hear_first({"do": "told", "number": message["number"], "results": {}})

    async def _settled(self) -> float:
        self.settled += 1
        return 0.0

    def counted(self, worker: int, shadow: str, pairs: int, side: str = "shadowed") -> None:
        row = [float(pairs if name == "pairs" else 0) for name in contract.PAIR_COUNTERS]
        rows = [[7, "other", row]]
        known = {"side": side, "shadow": shadow, "reference": "docs-old", "judged": "docs-new"}
        message = {"say": "pairs", **known, "rows": rows}
        self.shadows.hear(worker, message, -1)

    def pairs(self, shadow: str) -> float:
        _, counts = asyncio.run(self.shadows.counts_of(shadow))
        place = contract.PAIR_COUNTERS.index("pairs")
        return sum(row[place] for _, _, row in counts.rows()) if counts is not None else 0


def test_counts_of_a_shadow_that_is_over_do_not_bring_it_back() -> None:
    front = Front()
    front.counted(0, "docs-new@1", 3)
    front.counted(1, "docs-new@2", 4)
    front.counted(0, "docs-new@1", 5)
    front.counted(0, "docs-new@2", 6)
    assert (front.pairs("docs-new@1"), front.pairs("docs-new@2")) == (0, 10)
    front.counted(0, "docs-new@9", 1, side="mirrored")  # nobody was asked to send for that one
    assert front.pairs("docs-new@9") == 0


def test_a_pod_says_whom_the_pairs_of_its_processes_are_about() -> None:
    front = Front()
    front.counted(0, "docs-new@1", 3)
    judged, counts = asyncio.run(front.shadows.counts_of("docs-new@1"))
    assert counts is not None
    assert (judged, counts.judged, counts.reference) == ("docs-new", "docs-new", "docs-old")


def test_pairs_wait_for_what_every_process_has_counted() -> None:
    front = Front()
    front.pairs("docs-new@1")
    assert front.settled == 1
    assert [message["say"] for message in front.to_first] == ["report"]


def test_a_request_is_answered_when_each_process_has_answered_its_part() -> None:
    front, problems = Front(), []

    async def ask(*parts: Mapping[str, object]) -> Any:
        request = Request(b"POST", b"/v1/shadow", {}, b"queries", keep_alive=True, completed=time.monotonic())
        asked = asyncio.ensure_future(front.shadows.answer(request))
        await asyncio.sleep(0)
        number = front.to_workers[-1]["number"]
        for worker, part in enumerate(parts):
            assert not asked.done()
            front.shadows.hear(worker, {"say": "shadowed", "number": number} | part, -1)
        try:
            return orjson.loads((await asked).body)
        except Problem as problem:
            problems.append((problem.status, problem.kind))

    told = asyncio.run(ask(Told(3, [7]).wire(), Told(4, [1, 0], other_deleted=True).wire()))
    assert told == {"counted": 7, "unanswered": [0, 1, 7], "otherDeleted": True}
    asyncio.run(ask(Told(3).wire(), {"problem": [409, "ShadowEnded", "another has begun"]}))
    assert problems == [(409, "ShadowEnded")]


# ---------------------------------------------------------------- real pods


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_all(tmp_path_factory.mktemp("shadowed"), ef_search=300)


@contextmanager
def pods(published: Published, *, old: int, new: int, deleted: Path | None = None) -> Iterator[tuple[Pod, Pod, int]]:
    """Stable and candidate, of so many processes, and the first process of the candidate. `deleted`: of its ids."""
    more = {"tombstones": contract.Location(folder=str(deleted)), "tombstone_poll_seconds": 1} if deleted else {}
    with ExitStack() as stack:
        made: list[Pod] = []
        searchers: list[Searcher] = []
        for revision, processes, update in (("docs-old", old, {}), ("docs-new", new, more)):
            key = contract.revision_key(MASTER, revision)
            identity = published.task.identity.model_copy(update={"uid": UID})
            changes = {"identity": identity, "revision": revision, "segments": ("rare",), "live_recall": True} | update
            environment = {contract.INTERNAL_KEY_ENV: key, contract.PROCESSES_ENV: str(processes)}
            task = published.task.model_copy(update=changes)
            searchers.append(stack.enter_context(started(task, program=PATIENT, **environment)))
            made.append(Pod(revision, key, None))
        for one, searcher in zip(made, searchers, strict=True):
            one.users, one.admin = searcher.port(), searcher.port("admin port open")
        yield made[0], made[1], searchers[1].process.pid


def asked(users: list[Asking], vectors: np.ndarray, **fields: object) -> None:
    for number, vector in enumerate(vectors):
        assert users[number % len(users)]({"vector": vector.tolist(), "k": 5} | fields)[0] == 200


def queries(count: int, seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)


def total(pod: Pod, shadow: str, counter: str) -> float:
    """Of all that it counted by segment."""
    return sum(getattr(one, counter) for one in pod.pairs(shadow).rows if one.segment)


def test_pods_of_several_processes_are_one_sender_and_one_judge(published: Published, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n')
    with (
        pods(published, old=2, new=3, deleted=tmp_path) as (stable, candidate, _),
        asking(stable.users, 4) as users,
    ):
        assert stable.mirror([candidate], shadow="docs-new@0", ttlSeconds=300) == 200
        rounds: list[int] = []

        def counted(name: str) -> float:
            """After a round of queries that all were sent."""
            rounds.append(100 + len(rounds))
            asked(users, queries(20, rounds[-1]))
            until(lambda: total(stable, "docs-new@0", "mirrored") == 20 * len(rounds))
            return total(candidate, "docs-new@0", name)

        # Each process of the candidate hides an id that the other does not, until nobody does any more.
        assert counted("other_deleted") == 20
        (tmp_path / "a.jsonl").unlink()
        # Each warms with its part, rounded up.
        until(lambda: counted("warming") == 3 * -(-WARMING // 3))
        # Where vectors.npy is, they learn when pairs are asked for.
        until(lambda: counted("answers_judged"))

        assert stable.mirror([candidate], ttlSeconds=300) == 200
        some = queries(60)
        asked(users, np.concatenate([some, some]), segment="rare")
        until(lambda: stable.row()["mirrored"] == 120)
        until(lambda: candidate.row()["answers_judged"] == 60)
        row, sent = candidate.row(), stable.row()
        # What is asked again comes to the process that knows it.
        assert (row["pairs"], row["repeated"], row["warming"], row["void"]) == (60, 60, 0, 0)
        assert (sent["unanswered"], sent["dropped"]) == (0, 0)
        assert (row["kept"], row["missed"] + row["changed"]) == (300, 0)
        assert row == candidate.row("rare")
        assert row["cs_sum"] == pytest.approx(row["s_squares"])
        until(lambda: metric(stable.admin, "vectorindex_mirrored_queries_total").get(("Answered",), 0) >= 120)
        until(lambda: metric(candidate.admin, "vectorindex_shadow_answers_total").get(("Kept",), 0) >= 300)
        assert metric(candidate.admin, "vectorindex_shadow_queries_total")[("Repeated",)] == 60

        # The rate is the pod's, whatever process is asked.
        began = time.monotonic()
        assert stable.mirror([candidate], rate=10, shadow="docs-new@2", ttlSeconds=300) == 200
        asked(users, queries(200, 3))
        most = 10 + 10 * (time.monotonic() - began) + 1
        until(lambda: sum(total(stable, "docs-new@2", one) for one in ("dropped", "mirrored")) == 200)
        assert 10 <= total(stable, "docs-new@2", "mirrored") <= min(200, most)
        assert stable.pairs(SHADOW).rows == ()


def test_a_process_of_the_judged_that_hangs_leaves_queries_unanswered_and_its_pod_silent(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "PATIENT", (PATIENT[0], PATIENT[1].replace("60.0", "3.0")))
    with pods(published, old=1, new=2) as (stable, candidate, first):
        assert stable.mirror([candidate], ttlSeconds=300) == 200
        with asking(stable.users, 1) as users, stopped(children(first)[1]):
            asked(users, queries(20))
            until(lambda: stable.row()["unanswered"] == 20)
            status, problem = candidate.ask("GET", f"{contract.PAIRS_PATH}?shadow={SHADOW}")
            assert (status, problem["type"].rpartition(":")[2]) == (503, "Stalled")
