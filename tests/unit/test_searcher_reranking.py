"""Answers in the order of a cross-encoder: verified before it is opened, in its budget or not at all, no evidence."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnx_files
import orjson
import pyarrow as pa
import pytest
from onnx_files import WORDS, field, judge, mean_of, tensor, weights_of, write_encoder, write_reranker
from searcher_process import started
from served import write_rows

from vectorindex_client import Client
from vectorindex_client.answers import Answer
from vectorindex_client.results import results_of
from vectorindex_searcher import contract
from vectorindex_searcher.artifact.layout import SERVED_FILES, Layout
from vectorindex_searcher.artifact.manifest import Manifest, describe_file
from vectorindex_searcher.artifact.publish import publish
from vectorindex_searcher.cli.commands import serve_task
from vectorindex_searcher.cli.flags import parser
from vectorindex_searcher.errors import BadData, BadSpec, TaskError
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.index.parameters import index_type
from vectorindex_searcher.serve.evidence.feedback import Feedback
from vectorindex_searcher.serve.evidence.live_sample import LiveSample
from vectorindex_searcher.serve.evidence.recorder import Outcome
from vectorindex_searcher.serve.evidence.ring import EvidenceRing
from vectorindex_searcher.serve.http.messages import Problem, Response, overload
from vectorindex_searcher.serve.load import load
from vectorindex_searcher.serve.search.asked import Encoding
from vectorindex_searcher.serve.search.plan import Planner, QuerySchema, candidates_of
from vectorindex_searcher.serve.search.policies import ALL_ROWS, Policy
from vectorindex_searcher.serve.search.pool import SearchPool, deadline_exceeded
from vectorindex_searcher.serve.search.reranking import Reranking
from vectorindex_searcher.serve.search.service import SearchService
from vectorindex_searcher.storage.store import Role, open_store
from vectorindex_searcher.text import reordering as reordering_module
from vectorindex_searcher.text import reranker as reranker_module
from vectorindex_searcher.text.encoder import EncoderError
from vectorindex_searcher.text.open import open_reranker
from vectorindex_searcher.text.reranker import CALL_TOKENS, CrossEncoder
from vectorindex_searcher.text.shown import reranker_lines

IDENTITY = contract.Identity(namespace="shop", name="products")
NEVER = float("inf")


# ---------------------------------------------------------------- the model


def task(path: Path, sha256: str, **told: Any) -> contract.RerankTask:
    return contract.RerankTask(
        onnx=contract.OnnxFolder(location=contract.Location(folder=str(path)), sha256=sha256), **told
    )


def opened(path: Path, weights: np.ndarray, cache: Path, **made: Any) -> CrossEncoder:
    model, held = open_reranker(task(path, write_reranker(path, weights, **made)), cache, 0)
    held.close()
    return model


def test_a_pair_gets_a_number(tmp_path: Path) -> None:
    model = opened(tmp_path / "m", weights_of(sea=5, car=3, red=1), tmp_path / "cache")
    found = model.judge("blue", ["red car", "the sea", "red", ""], NEVER)
    assert found is not None
    assert found.tolist() == [3, 5, 1, -9]
    assert model.judge("blue sea", ["red"], NEVER) == [5.0], "the query is read too"


def test_texts_beyond_the_models_length_are_cut(tmp_path: Path) -> None:
    model = opened(tmp_path / "m", weights_of(sea=5, red=1), tmp_path / "cache", max_tokens=9)
    assert model.judge("red", ["red " * 20 + "sea", "red sea"], NEVER).tolist() == [1, 5]  # type: ignore[union-attr]
    assert opened(tmp_path / "n", weights_of(), tmp_path / "cache", max_tokens=1e30).max_tokens == 512


def test_time_is_looked_at_between_two_calls(tmp_path: Path) -> None:
    now = iter(range(100))
    model, held = open_reranker(task(tmp_path / "m", write_reranker(tmp_path / "m", weights_of())), tmp_path / "c", 0)
    held.close()
    model._clock = lambda: float(next(now))
    many = ["red " * 100] * (3 * CALL_TOKENS // 100)
    assert model.judge("red", many, 2.0) is None
    assert next(now) == 3, "what was begun was ended, no more"


def test_no_call_has_more_tokens_than_one_may() -> None:
    lengths = np.random.default_rng(0).integers(1, 512, 300).tolist()
    calls = reranker_module._calls(lengths)
    assert sorted(number for call in calls for number in call) == list(range(300))
    assert all(len(call) * max(lengths[n] for n in call) <= CALL_TOKENS for call in calls if len(call) > 1)


EXTERNAL = tensor("x", weights_of(), field(13, field(1, "location") + field(2, "/etc/passwd")) + field(14, 1))
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "two labels": ({"weights": np.zeros((len(WORDS), 2))}, "RerankerUnknown"),
    "no number": ({"weights": np.full((len(WORDS), 1), np.nan)}, "RerankerUnknown"),
    "no model": ({"weights": weights_of(), "onnx": b"not ONNX"}, "RerankerUnsafe"),
    "other files": (
        {
            "weights": weights_of(),
            "onnx": judge(weights_of()) + field(7, field(5, EXTERNAL)),
        },
        "RerankerUnsafe",
    ),
    "no length": ({"weights": weights_of(), "max_tokens": "long"}, "RerankerUnknown"),
}


@pytest.mark.parametrize(("made", "reason"), BAD.values(), ids=BAD)
def test_what_is_no_cross_encoder_is_refused(tmp_path: Path, made: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadData) as refused:
        opened(tmp_path / "m", cache=tmp_path / "cache", **made)
    assert refused.value.reason == reason
    assert refused.value.failure.field == "spec.searcher.rerank.onnx"


def test_files_that_were_exchanged_are_never_opened(tmp_path: Path) -> None:
    sha256 = write_reranker(tmp_path / "m", weights_of())
    (tmp_path / "m" / "model.onnx").write_bytes(judge(weights_of(sea=1)))
    with pytest.raises(TaskError) as refused:
        open_reranker(task(tmp_path / "m", sha256), tmp_path / "cache", 0)
    assert (refused.value.reason, refused.value.failure.field) == (
        "RerankerMismatch",
        "spec.searcher.rerank.onnx.sha256",
    )
    (tmp_path / "m" / "tokenizer.json").unlink()
    with pytest.raises(TaskError, match=r"lacks tokenizer\.json"):
        open_reranker(task(tmp_path / "m", sha256), tmp_path / "cache", 0)


# ---------------------------------------------------------------- answers

TEXTS = tuple(f"{one} {other}" for one in WORDS[1:8] for other in WORDS[1:8])
VECTORS = np.stack([mean_of(text) for text in TEXTS])


def make_engine(folder: Path) -> Engine:
    index = faiss.IndexFlatL2(onnx_files.DIMENSION)
    index.add(VECTORS)
    folder.mkdir(parents=True)
    faiss.write_index(index, str(folder / "index.faiss"))
    write_rows(folder / "ids.arrow", pa.table({"id": range(len(TEXTS))}))
    shown = [None if text == "sea sea" else text for text in TEXTS]
    colour = [text.split()[0] for text in TEXTS]
    write_rows(folder / "metadata.arrow", pa.table({"text": shown, "first": colour}))
    manifest = Manifest(
        digest="d1",
        attempt="local",
        identity=IDENTITY,
        fingerprint="f1",
        embedding=contract.Embedding(dimension=onnx_files.DIMENSION),
        dimension=onnx_files.DIMENSION,
        count=len(TEXTS),
        vector_dtype="float32",
        id_type="int64",
        metadata_columns=("text", "first"),
        factory="Flat",
        index_type=index_type(index),
        default_point=contract.OperatingPoint(params={}, recall=1, recall_low=1, latency_us=1),
        faiss_version=faiss.__version__,
        device=contract.Device.CPU,
        duration_seconds=1,
        peak_memory_bytes=1,
        files=tuple(describe_file(folder / name) for name in SERVED_FILES),
    )
    return Engine.open(folder, manifest)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return make_engine(tmp_path_factory.mktemp("index") / "files")


class Judge:
    """Likes texts with many letters r, when its gate is open."""

    nbytes = 0

    def __init__(self) -> None:
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()
        self.read: list[str] = []
        self.fails = False

    def judge(self, query: str, texts: Sequence[str], until: float) -> Any:
        self.begun.set()
        assert self.gate.wait(20)
        if time.monotonic() >= until:
            return None
        self.read += texts
        if self.fails:
            raise EncoderError("secret detail")
        return np.array([text.count("r") for text in texts], np.float32)


class Running:
    """A service with a reranker; `plain` answers as if there were none."""

    def __init__(self, engine: Engine, live: LiveSample | None = None, **told: Any) -> None:
        self.judge, self.pool = Judge(), SearchPool(1)
        options = {"queue_requests": told.pop("queue_requests")} if "queue_requests" in told else {}
        ring = EvidenceRing(())
        self.service = SearchService(engine, self.pool, "rev", [], live, Feedback("rev", ring))
        self.columns = engine.filter_columns
        schema = QuerySchema(engine.dimension, engine.metric, {}, columns=self.columns, texts=True)
        self.planner = Planner(schema, self.service.group)
        told = {"budget_seconds": 5.0, "candidates": 20} | told
        self.reranking = Reranking(
            self.service, self.pool, engine, self.judge, task(Path("/m"), "0" * 64, **told), 1, **options
        )

    def plan(self, fields: Mapping[str, Any], policy: Policy = ALL_ROWS, *, binary: bool = False) -> Any:
        return self.planner.plan(fields, binary=binary, policy=policy)

    async def ask(
        self,
        text: str | Sequence[str],
        fields: Mapping[str, Any] = {},
        *,
        plain: bool = False,
        seconds: Any = None,
        **more: Any,
    ) -> tuple[Any, Outcome]:
        """The answer's document, or the Response of a binary one."""
        texts = (text,) if isinstance(text, str) else tuple(text)
        vectors = np.stack([mean_of(one) for one in texts]).astype(np.float32)
        vectors = vectors[0] if isinstance(text, str) else vectors
        outcome = Outcome("other", len(texts))
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        how = self.service.ask if plain else self.reranking.ask
        encoding = Encoding(0.001, texts=texts, holder=more.pop("holder", b""))
        how(self.plan(fields, **more), vectors, outcome, time.monotonic(), seconds, encoding).then(future.set_result)
        said = await future
        assert isinstance(said, Response), said
        header = dict(said.headers).get(contract.RERANKED_HEADER.encode())
        assert header == (None if plain else str(outcome.reranked).lower().encode())
        body = said.body + b"".join(said.rest)
        return (body if more.get("binary") else orjson.loads(body)), outcome


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


def ids(document: Any, number: int = 0) -> list[int]:
    found: list[int] = document["results"][number]["ids"]
    return found


def exact(text: str) -> list[int]:
    return np.argsort(-(VECTORS @ mean_of(text)), kind="stable").tolist()


def test_the_first_candidates_of_a_query_in_words_are_reordered(engine: Engine) -> None:
    async def test() -> None:
        one = Running(engine)
        answer, outcome = await one.ask("blue sea", {"k": 5, "include": ["metadata"]})
        found, first = ids(answer), exact("blue sea")[:20]
        letters = [(TEXTS[row] if TEXTS[row] != "sea sea" else "").count("r") for row in first]
        wanted = [first[place] for place in np.argsort(-np.array(letters), kind="stable")][:5]
        assert found == wanted != first[:5]
        assert (answer["reranked"], outcome.reranked, answer["zeroResults"]) == (True, True, 0)
        assert answer["rerankMs"] >= 0
        assert answer["encodeMs"] == 1.0
        for row, score, metadata in zip(found, *(answer["results"][0][n] for n in ("scores", "metadata")), strict=True):
            assert score == pytest.approx(float(VECTORS[row] @ mean_of("blue sea")), abs=1e-5), "of the vectors"
            assert metadata["text"] == TEXTS[row]
        one.reranking.close()

    run(test)


def test_evidence_is_that_of_the_vectors(engine: Engine) -> None:
    async def test() -> None:
        samples = [LiveSample((), live=lambda: None) for _ in range(2)]  # type: ignore[arg-type, return-value]
        for sample in samples:
            sample.offer = lambda *offered, to=sample: setattr(to, "offered", offered)  # type: ignore[method-assign, misc]
        noted = []
        for sample, plain in zip(samples, (True, False), strict=True):
            one = Running(engine, sample)
            _, outcome = await one.ask("blue sea", {"k": 3, "minScore": 0.2}, plain=plain)
            noted.append((list(outcome.top_scores), list(outcome.hits)))
            one.reranking.close()
        assert noted[0] == noted[1]
        plain, reranked = (sample.offered for sample in samples)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(plain[3], reranked[3])
        assert plain[2] == reranked[2] == 3

    run(test)


def test_a_bound_of_scores_holds_whatever_the_order(engine: Engine) -> None:
    async def test() -> None:
        one = Running(engine, candidates=40)
        bound = float(np.sort(VECTORS @ mean_of("green"))[-9])
        answer, outcome = await one.ask("green", {"k": 30, "minScore": bound - 1e-6})
        assert sorted(ids(answer)) == sorted(exact("green")[:9])
        assert outcome.hits == [9]
        none, outcome = await one.ask("green", {"minScore": 2})
        assert (ids(none), none["zeroResults"], none["reranked"]) == ([], 1, True)
        one.reranking.close()

    run(test)


def test_what_is_no_candidate_keeps_its_place_behind(engine: Engine) -> None:
    async def test() -> None:
        one = Running(engine, candidates=4)
        answer, _ = await one.ask("red car", {"k": 9})
        first = exact("red car")[:9]
        assert ids(answer)[4:] == first[4:]
        assert sorted(ids(answer)[:4]) == sorted(first[:4])
        one.reranking.close()

    run(test)


@pytest.mark.parametrize("policy", [True, False], ids=["policy", "filter"])
def test_only_rows_that_the_query_may_see_are_read(engine: Engine, policy: bool) -> None:
    async def test() -> None:
        one = Running(engine, candidates=40)
        seen = Policy.of({"first": "red"}, one.columns)
        fields = {"k": 3} if policy else {"k": 3, "filter": {"first": "red"}}
        answer, _ = await one.ask("blue sea", fields, policy=seen if policy else ALL_ROWS)
        assert answer["reranked"] is True
        assert sorted(one.judge.read) == sorted(text for text in TEXTS if text.startswith("red"))
        assert all(TEXTS[row].startswith("red") for row in ids(answer))
        one.reranking.close()

    run(test)


def test_several_texts_and_binary_answers(engine: Engine) -> None:
    async def test() -> None:
        one = Running(engine)
        answer, outcome = await one.ask(["red", "sea"], {"k": 4})
        singles = [ids((await one.ask(text, {"k": 4}))[0]) for text in ("red", "sea")]
        assert [ids(answer, number) for number in (0, 1)] == singles
        assert outcome.queries == 2
        binary, _ = await one.ask("red", {"k": 4}, binary=True)
        assert binary[:4] == b"VXA1"
        assert np.frombuffer(binary, "<i8", 4, 16).tolist() == singles[0]
        tracked, outcome = await one.ask("red", {"k": 4, "track": True})
        assert tracked["results"][0]["queryId"]
        assert outcome.tracked is not None
        one.reranking.close()

    run(test)


def test_without_time_the_order_of_vectors_is_answered_and_says_so(engine: Engine) -> None:
    async def test() -> None:
        one = Running(engine, budget_seconds=0.02)
        one.judge.gate.clear()
        before = time.monotonic()
        late, outcome = await one.ask("blue sea", {"k": 5})
        assert time.monotonic() - before < 10
        plain, _ = await one.ask("blue sea", {"k": 5}, plain=True)
        assert late["results"] == plain["results"]
        assert (late["reranked"], outcome.reranked) == (False, False)
        assert late["rerankMs"] >= 19
        one.judge.gate.set()
        one.reranking.close()

    run(test)


def test_a_client_that_waits_shorter_than_the_budget_has_its_answer(engine: Engine) -> None:
    async def test() -> None:
        one = Running(engine, budget_seconds=5.0)
        one.judge.gate.clear()
        before = time.monotonic()
        answer, outcome = await one.ask("blue sea", seconds=1.0)
        assert (len(ids(answer)), outcome.reranked) == (10, False)
        assert time.monotonic() - before < 10, "not because the model gave up"
        one.judge.gate.set()
        one.reranking.close()

    run(test)


def test_a_model_that_fails_or_is_busy_costs_nobody_an_answer(engine: Engine) -> None:
    async def test() -> None:
        one = Running(engine, queue_requests=1)
        plain, _ = await one.ask("blue sea", plain=True)
        one.judge.fails = True
        answer, _ = await one.ask("blue sea")
        assert (answer["results"], answer["reranked"]) == (plain["results"], False)
        one.judge.fails = False
        one.judge.gate.clear()
        one.judge.begun.clear()
        first = asyncio.ensure_future(one.ask("blue sea"))
        assert await asyncio.to_thread(one.judge.begun.wait, 60)
        second = asyncio.ensure_future(one.ask("red"))
        while not len(one.reranking._queue):
            await asyncio.sleep(0.001)
        third, _ = await one.ask("green")
        assert third["reranked"] is False, "another one waits"
        one.judge.gate.set()
        assert [(await answer)[0]["reranked"] for answer in (first, second)] == [True, True]
        one.reranking.close()

    run(test)


def test_a_flooder_costs_no_other_tenant_its_order(engine: Engine) -> None:
    """Neither does it fill the queue, nor does everything that it sent come first."""

    async def test() -> None:
        one = Running(engine, queue_requests=4)
        one.judge.gate.clear()
        order: list[str] = []

        async def ask(name: str, holder: bytes) -> bool:
            answer, _ = await one.ask("blue sea", holder=holder)
            order.append(name)
            return bool(answer["reranked"])

        first = asyncio.ensure_future(ask("first", b"flood"))
        assert await asyncio.to_thread(one.judge.begun.wait, 60)
        flood = [asyncio.ensure_future(ask(f"flood {n}", b"flood")) for n in range(8)]
        while sum(one.done() for one in flood) < 4:
            await asyncio.sleep(0.001)
        mine = asyncio.ensure_future(ask("mine", b"mine"))
        while sum(one.done() for one in flood) < 5:
            await asyncio.sleep(0.001)
        assert not mine.done(), "the newest of the flood gave way"
        one.judge.gate.set()
        assert await mine
        assert await first
        assert sum([await one for one in flood]) == 3
        assert order.index("mine") <= order.index("first") + 2, order
        one.reranking.close()

    run(test)


def test_long_texts_are_read_one_by_one_and_cut(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reordering_module, "TEXT_BYTES", 10)
    monkeypatch.setattr(reordering_module, "_MOST_CHARACTERS", 3)

    async def test() -> None:
        one = Running(engine)
        await one.ask("blue sea")
        assert {len(text) for text in one.judge.read} == {3}
        one.reranking.close()

    run(test)


def test_more_candidates_book_what_they_take(engine: Engine) -> None:
    """Rows for each of k, lists once: also where the default point says how many."""

    async def test() -> None:
        one, named = Running(engine), {"nprobe": 4096, "quantizer_k_factor": 2}
        for default in ({}, {"k_factor": 3}):
            limits = {"nprobe": (1, 65536), "quantizer_k_factor": (1, 8)}
            schema = QuerySchema(engine.dimension, engine.metric, limits, default_params=default, texts=True)
            plan = Planner(schema, one.service.group).plan({"k": 1, "params": named}, binary=False).wider(200)
            assert (plan.k, plan.candidates) == (200, candidates_of(200, {**default, **named}))
            assert plan.candidates == 200 * default.get("k_factor", 1) + 8192
        one.reranking.close()

    run(test)


@pytest.mark.parametrize("problem", [overload("others search"), deadline_exceeded()], ids=["503", "504"])
@pytest.mark.parametrize("k", [1, 5])
def test_without_room_for_candidates_the_order_of_the_vectors_is_answered(
    engine: Engine, problem: Problem, k: int
) -> None:
    async def test() -> None:
        one = Running(engine)
        plain, _ = await one.ask("blue sea", {"k": k}, plain=True)
        search = one.service._searched

        def searched(plan: Any, *more: Any) -> Any:
            if plan.k == 20:
                raise problem
            return search(plan, *more)

        one.service._searched = searched  # type: ignore[method-assign]
        answer, outcome = await one.ask("blue sea", {"k": k})
        assert (answer["results"], answer["reranked"], outcome.reranked) == (plain["results"], False, False)
        assert one.judge.read == []
        one.reranking.close()

    run(test)


def test_a_search_that_is_refused_is_refused(engine: Engine) -> None:
    async def test() -> None:
        one = Running(engine)
        with pytest.raises(Problem):
            await one.ask("red", seconds=1e-9)
        one.reranking.close()

    run(test)


# ---------------------------------------------------------------- pods


def published(root: Path) -> contract.ServeTask:
    engine = make_engine(root / "files")
    (root / "store").mkdir()
    store = open_store(contract.Location(folder=str(root / "store")), Role.ARTIFACTS)
    _, sha256, _ = publish(store, Layout(store.prefix, IDENTITY), engine.manifest, root / "files")
    return contract.ServeTask(
        identity=IDENTITY,
        revision="products-d1",
        digest="d1",
        manifest_sha256=sha256,
        artifacts=contract.Location(folder=str(root / "store")),
        cache_dir=str(root / "cache"),
        encoder=contract.EncoderTask(
            onnx=contract.OnnxFolder(
                location=contract.Location(folder=str(root / "encoder")), sha256=write_encoder(root / "encoder")
            )
        ),
    )


def test_a_column_that_the_index_has_not_is_refused_before_any_model_is_fetched(tmp_path: Path) -> None:
    told = task(tmp_path / "nowhere", "0" * 64, text_column="title")
    with pytest.raises(BadSpec, match=r"column 'title', which the index has not") as refused:
        load(published(tmp_path).model_copy(update={"rerank": told}), lambda said: None)
    assert refused.value.failure.field == "spec.searcher.rerank.textColumn"


def test_two_processes_rerank_and_count(tmp_path: Path) -> None:
    """They share what one of them opened before the fork."""
    sha256 = write_reranker(tmp_path / "m", weights_of(house=5))
    rerank = task(tmp_path / "m", sha256, candidates=49, budget_seconds=5.0)
    told = published(tmp_path).model_copy(update={"rerank": rerank})
    with (
        started(told, VECTORINDEX_PROCESSES="2", VECTORINDEX_GRACE_SECONDS="0.05") as searcher,
        Client(f"http://127.0.0.1:{searcher.port()}", retries=0) as client,
    ):
        assert client.index()["reranker"] == {"candidates": 49, "budgetMs": 5000.0}
        for _ in range(4):
            found = client.search(text="red car", k=5)
            assert found.reranked is True
            assert all("house" in TEXTS[int(row)] for row in found.ids)
        assert client.search(mean_of("red car"), 5).reranked is None


# ---------------------------------------------------------------- by hand


def test_flags_of_serve_name_it(tmp_path: Path) -> None:
    """A folder of this machine as it is now; one that is elsewhere by its SHA-256."""
    published(tmp_path)
    sha256 = write_reranker(tmp_path / "m", weights_of(sea=1))

    def told(*flags: str) -> contract.RerankTask | None:
        serve = ["serve", "--artifact", str(tmp_path / "store"), "--namespace", "shop", "--name", "products"]
        return serve_task(parser().parse_args([*serve, *flags]), None).rerank

    words = ("--encoder", str(tmp_path / "encoder"))
    folder = ("--rerank", str(tmp_path / "m"))
    found = told(*words, *folder, "--rerank-column", "first", "--rerank-candidates", "30", "--rerank-budget", "20")
    assert found is not None
    assert (found.onnx.sha256, found.text_column, found.candidates, found.budget_seconds) == (sha256, "first", 30, 0.02)
    assert told(*words) is None
    for flags, blamed in (
        (folder, "--encoder"),
        ((*words, "--rerank", "s3://models/m"), "--rerank-sha256"),
        ((*words, *folder, "--rerank-candidates", "201"), "--rerank-candidates"),
        ((*words, *folder, "--rerank-budget", "0"), "--rerank-budget"),
    ):
        with pytest.raises(BadSpec) as refused:
            told(*flags)
        assert refused.value.failure.field == blamed


def test_a_person_sees_the_digest_and_what_it_makes_of_a_pair(tmp_path: Path) -> None:
    sha256 = write_reranker(tmp_path / "m", weights_of(sea=5, red=1))
    said = list(reranker_lines(contract.Location(folder=str(tmp_path / "m")), ["blue", "red car", "the sea"]))
    assert said[0] == f"sha256     {sha256}"
    assert [line.split() for line in said[-2:]] == [["1.0000", "red", "car"], ["5.0000", "the", "sea"]]


def test_the_client_tells_the_order_of_binary_answers(tmp_path: Path) -> None:
    """By the header: the answer itself has ids and scores."""
    body = struct.pack("<4sIIIqIf", b"VXA1", 1, 1, 0, 7, 1, 0.5)
    for text, wanted in (("true", True), ("false", False), (None, None)):
        headers = {"x-vectorindex-revision": "r"} | ({} if text is None else {"x-vectorindex-reranked": text})
        (one,) = results_of(Answer(200, headers, body), 1)
        assert (one.ids, one.reranked) == ([7], wanted)
