"""The gate's proof of a cross-encoder: what its order gains on labelled queries in words, and what users get by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx_files import WORDS, weights_of, write_reranker

from vectorindex_searcher import contract
from vectorindex_searcher.artifact.inspection import report_lines, verdicts
from vectorindex_searcher.build.task import build
from vectorindex_searcher.cli.main import main
from vectorindex_searcher.contract import ExitCode, Gain, RerankTask
from vectorindex_searcher.errors import BadData, BadSpec
from vectorindex_searcher.proof import reranking
from vectorindex_searcher.proof.page import page
from vectorindex_searcher.proof.report import Report
from vectorindex_searcher.proof.task import prove, validate

IDENTITY = contract.Identity(namespace="shop", name="products")
ROWS, QUERIES = 300, 80
RNG = np.random.default_rng(3)
DATA = RNG.normal(size=(ROWS, 8)).astype(np.float32)
ASKED = RNG.normal(size=(QUERIES, 8)).astype(np.float32)
TEXTS = [None if n % 17 == 0 else " ".join(RNG.choice(WORDS[1:8], 2)) for n in range(ROWS)]
NEAREST = np.argsort(((ASKED[:, None] - DATA[None]) ** 2).sum(-1), axis=1)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter timing than in earnest; one OpenMP thread."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr("vectorindex_searcher.proof.timing.LATENCY_CALLS", 5)


@dataclass(frozen=True)
class Made:
    """An artifact of rows with texts, and a cross-encoder that likes the sea."""

    folder: Path
    rerank: RerankTask


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    (folder / "rows").mkdir()
    flat = pa.FixedSizeListArray.from_arrays(pa.array(DATA.ravel()), 8)
    half = ["low" if n < ROWS // 2 else "high" for n in range(ROWS)]
    pq.write_table(
        pa.table({"id": range(ROWS), "vector": flat, "text": TEXTS, "half": half}), folder / "rows" / "a.parquet"
    )
    build(
        contract.BuildTask(
            identity=IDENTITY,
            digest="d1",
            source=contract.Location(folder=str(folder / "rows")),
            artifacts=contract.Location(folder=str(folder / "out")),
            columns=contract.Columns(metadata=("text", "half")),
            embedding=contract.Embedding(metric=contract.Metric.L2),
            index=contract.IndexSpec(factory="Flat"),
        )
    )
    sha256 = write_reranker(folder / "model", weights_of(sea=5))
    place = contract.Location(folder=str(folder / "model"))
    return Made(folder, RerankTask(onnx=contract.OnnxFolder(location=place, sha256=sha256), candidates=50))


def first(number: int, fits: Callable[[str], bool], rows: np.ndarray | None = None) -> int:
    """The nearest row whose text is so."""
    return next(int(row) for row in (NEAREST if rows is None else rows)[number] if fits(TEXTS[row] or ""))


def by_the_sea(number: int) -> int:
    return first(number, lambda text: "sea" in text)


def inland(number: int) -> int:
    return first(number, lambda text: bool(text) and "sea" not in text)


def gate(made: Made, place: Path, right: list[Any], rerank: RerankTask | None = None, **columns: Any) -> Report:
    """The report by labelled queries with a text each."""
    table = {"vector": list(ASKED), "right": right, "said": ["red"] * QUERIES} | columns
    (place / "queries").mkdir()
    pq.write_table(pa.table(table), place / "queries" / "q.parquet")
    more = {"filter": "only"} if "only" in columns else {}
    report, _ = prove(
        contract.ValidateTask(
            identity=IDENTITY,
            digest="d1",
            manifest_sha256="",
            gate_hash=place.name.replace("_", "-")[:40],
            artifacts=contract.Location(folder=str(made.folder / "out")),
            queries=contract.Location(folder=str(place / "queries")),
            query_columns=contract.QueryColumns(relevant="right", text="said", **more),
            rerank=rerank or made.rerank,
        )
    )
    return report


# ---------------------------------------------------------------- figures


def test_ndcg_is_that_of_the_books() -> None:
    right = np.zeros((3, 12), np.bool_)
    right[0, 0] = right[1, 2] = right[1, 11] = True  # beyond the tenth nothing counts
    right[2, :10] = True
    found = reranking.ndcg(right, np.array([1, 2, 40]))
    assert found.tolist() == pytest.approx([1, 0.5 / (1 + 1 / np.log2(3)), 1])
    assert reranking.ndcg(right[:, :3], np.array([1, 2, 2])).tolist() == pytest.approx(
        [1, 0.5 / (1 + 1 / np.log2(3)), (1 + 1 / np.log2(3) + 0.5) / (1 + 1 / np.log2(3))]
    )


def test_the_interval_is_of_the_pairs_and_says_nothing_of_few() -> None:
    rng = np.random.default_rng(0)
    ranks = rng.choice([1, 0.5, 0.25, 0.0], 400)
    better = np.clip(ranks + 0.1, 0, 1)
    found = reranking.gain(ranks, better)
    difference = float((better - ranks).mean())
    assert 0 < found.low < difference < found.high < 0.2, "as wide as the differences differ, not as the ranks do"
    turned = reranking.gain(better, ranks)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    few = reranking.gain(ranks[:3], better[:3] * 0)
    assert few.high > 0, "three are too few to say that it harms"
    assert reranking.gain(ranks, ranks).low < 0 < reranking.gain(ranks, ranks).high
    none = reranking.gain(np.empty(0), np.empty(0))
    assert (none.without, none.low, none.high) == (0, -1, 1)


def test_the_interval_holds() -> None:
    """Of 400 measurements of an order that changes nothing on average, one in forty at most is called harmful."""
    rng = np.random.default_rng(1)
    called = 0
    for _ in range(400):
        before, after = rng.choice([1, 0.5, 0.0], 40), rng.choice([1, 0.5, 0.0], 40)
        called += reranking.gain(before, after).high < 0
    assert called <= 10


# ---------------------------------------------------------------- the gate


def test_an_order_that_is_better_is_measured_and_is_what_is_judged(made: Made, tmp_path: Path) -> None:
    report = gate(made, tmp_path, [by_the_sea(n) for n in range(QUERIES)])
    proof = report.rerank
    assert proof is not None
    assert (proof.queries, proof.mrr.reranked, proof.ndcg.reranked) == (QUERIES, 1, 1), "the sea comes first"
    assert proof.mrr.without < 0.7
    assert 0 < proof.mrr.low < proof.mrr.reranked - proof.mrr.without < proof.mrr.high
    assert proof.ndcg.low > 0
    assert proof.bytes > 0
    assert not proof.harms
    assert report.overall.relevance_mrr == 1, "gate.relevance judges what users get"
    assert report.overall.recall == 1, "recall is of the vectors"
    assert report.result("x").rerank == proof
    shown = "\n".join(report_lines(report))
    assert "MRR" in shown
    assert f"{QUERIES} labelled queries" in shown
    assert "labelled queries, 95% confidence" in page(report).decode()
    assert verdicts(report, 0.5, {})[1]


def test_an_order_that_harms_is_seen(made: Made, tmp_path: Path) -> None:
    report = gate(made, tmp_path, [inland(n) for n in range(QUERIES)])
    assert report.rerank is not None
    assert report.rerank.harms
    assert report.rerank.mrr.high < 0
    assert report.overall.relevance_mrr == pytest.approx(report.rerank.mrr.reranked, abs=1e-6)
    lines, proven = verdicts(report, 0.5, {})
    assert not proven
    assert "worse in its order" in lines[-1]


def test_only_candidates_are_reordered_and_rows_without_a_text_come_after_them(made: Made, tmp_path: Path) -> None:
    """As pods do: the right one is at its place where it is no candidate."""
    right = [int(NEAREST[n][4]) for n in range(QUERIES)]
    report = gate(made, tmp_path, right, made.rerank.model_copy(update={"candidates": 3}))
    assert report.rerank is not None
    assert report.rerank.mrr.without == report.rerank.mrr.reranked == 0.2
    bare = [first(n, lambda text: not text) for n in range(QUERIES)]
    (tmp_path / "bare").mkdir()
    report = gate(made, tmp_path / "bare", bare)
    assert report.rerank is not None
    assert report.rerank.mrr.reranked == 0, "forty candidates with a text come before it"


def test_queries_without_a_text_are_answered_by_their_vectors(made: Made, tmp_path: Path) -> None:
    said = [None if n % 2 else "red" for n in range(QUERIES)]
    report = gate(made, tmp_path, [by_the_sea(n) for n in range(QUERIES)], said=said)
    assert report.rerank is not None
    assert report.rerank.queries == QUERIES // 2
    ranks = [1 / (1 + int(np.flatnonzero(NEAREST[n] == by_the_sea(n))[0])) for n in range(1, QUERIES, 2)]
    ranks = [rank if rank >= 0.1 else 0 for rank in ranks]
    assert report.overall.relevance_mrr == pytest.approx((sum(ranks) + QUERIES / 2) / QUERIES)


def test_candidates_are_those_that_the_filter_keeps(made: Made, tmp_path: Path) -> None:
    """The nearest by the sea are all kept; the right one is the nearest of the upper half."""
    upper = NEAREST[NEAREST >= ROWS // 2].reshape(QUERIES, -1)
    right = [first(n, lambda text: "sea" in text, upper) for n in range(QUERIES)]
    report = gate(made, tmp_path, right, only=['{"half": "high"}'] * QUERIES)
    assert report.rerank is not None
    assert (report.rerank.queries, report.rerank.mrr.reranked) == (QUERIES, 1)


def test_more_than_are_reordered_are_sampled(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reranking, "MOST", 30)
    report = gate(made, tmp_path, [by_the_sea(n) for n in range(QUERIES)])
    assert report.rerank is not None
    assert report.rerank.queries == 30
    assert report.overall.relevance_mrr == 1, "of those that were reordered, as users get it"


def test_no_text_and_no_label_tell_nothing(made: Made, tmp_path: Path) -> None:
    report = gate(made, tmp_path, [None] * QUERIES)
    assert report.rerank is not None
    assert (report.rerank.queries, report.rerank.harms) == (0, False)
    assert "not measured" in "\n".join(report_lines(report))


@pytest.mark.parametrize(
    ("columns", "changes", "reason", "field"),
    [
        ({"said": list(range(QUERIES))}, {}, "BadQueryText", "spec.gate.queries.textColumn"),
        ({}, {"text_column": "prose"}, "RerankColumn", "spec.searcher.rerank.textColumn"),
    ],
)
def test_what_cannot_be_measured_is_said(
    made: Made, tmp_path: Path, columns: dict[str, Any], changes: dict[str, Any], reason: str, field: str
) -> None:
    with pytest.raises((BadData, BadSpec)) as caught:
        gate(made, tmp_path, [1] * QUERIES, made.rerank.model_copy(update=changes), **columns)
    assert (caught.value.reason, caught.value.failure.field) == (reason, field)


def test_another_folder_is_refused(made: Made, tmp_path: Path) -> None:
    other = made.rerank.model_copy(update={"onnx": made.rerank.onnx.model_copy(update={"sha256": "0" * 64})})
    with pytest.raises(BadData) as caught:
        gate(made, tmp_path, [1] * QUERIES, other)
    assert caught.value.reason == "RerankerMismatch"


def test_by_hand(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The flags of a laptop; a harmful order misses the floor."""
    (tmp_path / "q").mkdir()
    told = {"vector": list(ASKED), "right": [inland(n) for n in range(QUERIES)], "said": ["red"] * QUERIES}
    pq.write_table(pa.table(told), tmp_path / "q" / "q.parquet")
    words = ["validate", "--artifact", str(made.folder / "out"), "--namespace", "shop", "--name", "products"]
    cross = ["--rerank", str(made.folder / "model"), "--rerank-candidates", "50"]
    labels = ["--queries", str(tmp_path / "q"), "--relevant-column", "right", "--query-text-column", "said"]
    assert main([*words, *labels, *cross, "--floor", "0.5"]) == ExitCode.BELOW_FLOOR
    assert "worse in its order" in capsys.readouterr().err
    assert main([*words, *labels, "--floor", "0.5"]) == ExitCode.OK, "another gate: without it"
    assert main([*words, *labels[:4], *cross]) == ExitCode.BAD_SPEC
    assert "--query-text-column" in capsys.readouterr().err


def test_the_result_is_told(made: Made, tmp_path: Path) -> None:
    """It goes to the operator in a termination message."""
    report = gate(made, tmp_path, [by_the_sea(n) for n in range(QUERIES)])
    task = contract.ValidateTask(
        identity=IDENTITY,
        digest="d1",
        manifest_sha256="",
        gate_hash=report.gate_hash,
        artifacts=contract.Location(folder=str(made.folder / "out")),
    )
    result = contract.ValidateResult.read(validate(task).wire())
    assert result.rerank == report.rerank
    assert isinstance(result.rerank and result.rerank.mrr, Gain)
