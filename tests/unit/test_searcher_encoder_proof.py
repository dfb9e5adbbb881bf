"""The gate's proof of an encoder, and that of a pod: another model, pooling, prefix or normalisation is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_files
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from http_stub import Exchange, answering
from onnx_files import WORDS, mean_of, write_encoder
from scipy.stats import beta
from searcher_process import started

from vectorindex_client import Client
from vectorindex_searcher.build.task import build
from vectorindex_searcher.contract import (
    BuildTask,
    Columns,
    Embedding,
    EmbeddingsEndpoint,
    EncoderTask,
    Identity,
    IndexSpec,
    Location,
    Metric,
    OnnxFolder,
    ServeTask,
    ValidateResult,
    ValidateTask,
)
from vectorindex_searcher.errors import BadData, RetryableError, TaskError
from vectorindex_searcher.proof.encoder import compare, share_low
from vectorindex_searcher.proof.page import page
from vectorindex_searcher.proof.report import Report
from vectorindex_searcher.proof.task import prove, validate
from vectorindex_searcher.serve.load import load
from vectorindex_searcher.text.encoder import Side
from vectorindex_searcher.text.endpoint import Rechecked

IDENTITY = Identity(namespace="shop", name="products")
ROWS = 300


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter timing than in earnest; one OpenMP thread."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr("vectorindex_searcher.proof.timing.LATENCY_CALLS", 5)
    monkeypatch.setattr("vectorindex_searcher.index.choose.tuning.LATENCY_QUERIES", 3)


def texts() -> list[str]:
    rng = np.random.default_rng(1)
    return [" ".join(rng.choice(WORDS[1:8], rng.integers(1, 5))) for _ in range(ROWS)]


def built(folder: Path, metric: Metric = Metric.COSINE, *, normalize: bool = True) -> tuple[Path, list[str]]:
    """An artifact of texts and what a model makes of them."""
    said = texts()
    vectors = np.stack([mean_of(text, normalize=normalize) for text in said])
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), onnx_files.DIMENSION)
    (folder / "rows").mkdir(parents=True)
    # Some rows have no text, and some one that is too long for the model.
    shown = [None if n % 10 == 0 else "red " * 9 if n % 10 == 1 else text for n, text in enumerate(said)]
    pq.write_table(pa.table({"id": range(ROWS), "vector": flat, "text": shown}), folder / "rows" / "a.parquet")
    build(
        BuildTask(
            identity=IDENTITY,
            digest="d1",
            source=Location(folder=str(folder / "rows")),
            artifacts=Location(folder=str(folder / "out")),
            columns=Columns(metadata=("text",)),
            embedding=Embedding(metric=metric),
            index=IndexSpec(factory="Flat"),
        )
    )
    return folder / "out", said


def encoder(path: Path, **made: Any) -> EncoderTask:
    prefix = made.pop("document_prefix", None)
    sha256 = write_encoder(path, **made)
    place = OnnxFolder(location=Location(folder=str(path)), sha256=sha256)
    return EncoderTask(onnx=place, text_column="text", document_prefix=prefix)


def gate(out: Path, task: EncoderTask, gate_hash: str = "g1") -> ValidateTask:
    place = Location(folder=str(out))
    return ValidateTask(
        identity=IDENTITY, digest="d1", manifest_sha256="", gate_hash=gate_hash, artifacts=place, encoder=task
    )


# ---------------------------------------------------------------- figures


@pytest.mark.parametrize(("found", "count"), [(0, 200), (1, 200), (16, 200), (17, 200), (10, 10), (1, 1), (3, 20)])
def test_the_limit_of_a_share_is_that_of_clopper_and_pearson(found: int, count: int) -> None:
    exact = beta.ppf(0.05, found, count - found + 1) if found else 0.0
    assert share_low(found, count) == pytest.approx(exact, abs=1e-6)


def test_of_two_hundred_rows_fifteen_may_deviate() -> None:
    """What docs/proof.md says."""
    assert share_low(15, 200) <= 0.05 < share_low(16, 200)


def test_vectors_that_are_no_numbers_deviate() -> None:
    indexed = np.eye(4, dtype=np.float32)
    encoded = indexed.copy()
    encoded[1] = np.nan
    proof = compare(encoded, indexed, Metric.L2, 1)
    assert (proof.rows, proof.deviating, proof.cosine, proof.norm_ratio) == (4, 1, 1.0, 1.0)


def test_no_rows_are_no_proof() -> None:
    proof = compare(np.empty((0, 4), np.float32), np.empty((0, 4), np.float32), Metric.L2, 7)
    assert (proof.rows, proof.norm_ratio, proof.bytes) == (0, None, 7)


# ---------------------------------------------------------------- the gate


@pytest.fixture(scope="module")
def cosine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("cosine"))[0]


def measured(out: Path, task: EncoderTask, gate_hash: str) -> tuple[Report, ValidateResult]:
    report, _ = prove(gate(out, task, gate_hash))
    return report, validate(gate(out, task, gate_hash))


def test_the_right_model_is_proven_and_the_report_says_it(cosine: Path, tmp_path: Path) -> None:
    report, result = measured(cosine, encoder(tmp_path / "m"), "right")
    proof = report.encoder
    assert proof is not None
    assert result.encoder == proof
    assert (proof.rows, proof.deviating, proof.deviating_low) == (200, 0, 0.0)
    assert proof.cosine > 0.99999
    assert proof.norm_ratio is None, "lengths are no matter"
    assert b"0 of 200 rows deviate" in page(report)


WRONG: dict[str, dict[str, Any]] = {
    "another model": {"table": np.random.default_rng(5).standard_normal((len(WORDS), 8)).astype(np.float32)},
    "another pooling": {"pooling": "pooling_mode_max_tokens"},
    "another prefix": {"document_prefix": "passage: "},
    "a prefix of the folder": {"prompts": {"document": "passage: "}},
}


@pytest.mark.parametrize("made", WRONG.values(), ids=WRONG)
def test_a_wrong_model_shows(cosine: Path, tmp_path: Path, made: dict[str, Any]) -> None:
    name = next(key for key, value in WRONG.items() if value is made)
    _, result = measured(cosine, encoder(tmp_path / "m", **made), name.replace(" ", "-"))
    assert result.encoder is not None
    assert result.encoder.deviating_low > 0.05


def test_a_normalisation_too_many_shows_where_lengths_matter(tmp_path: Path) -> None:
    out, _ = built(tmp_path, Metric.INNER_PRODUCT, normalize=False)
    _, wrong = measured(out, encoder(tmp_path / "m"), "wrong")
    _, right = measured(out, encoder(tmp_path / "n", normalize=False), "right")
    assert wrong.encoder is not None
    assert right.encoder is not None
    assert wrong.encoder.deviating == 0, "no cosine sees it"
    assert abs((wrong.encoder.norm_ratio or 1) - 1) > 0.01
    assert right.encoder.norm_ratio == pytest.approx(1, abs=1e-5)


def test_an_artifact_without_the_texts_says_what_it_has(cosine: Path, tmp_path: Path) -> None:
    task = encoder(tmp_path / "m").model_copy(update={"text_column": "title"})
    with pytest.raises(TaskError, match=r"no metadata column .title.*it has text") as refused:
        validate(gate(cosine, task, "title"))
    assert refused.value.failure.field == "spec.embedding.encoder.textColumn"


# ---------------------------------------------------------------- pods


def served(out: Path, task: EncoderTask, gate_hash: str, cache: Path) -> ServeTask:
    """What a pod is told after the gate."""
    result = validate(gate(out, task, gate_hash))
    report, sha256 = prove(gate(out, task, gate_hash))
    assert result.report_sha256 == sha256
    return ServeTask(
        identity=IDENTITY,
        revision="products-d1",
        digest="d1",
        manifest_sha256=report.manifest_sha256,
        gate_hash=gate_hash,
        report_sha256=sha256,
        artifacts=Location(folder=str(out)),
        cache_dir=str(cache),
        encoder=task,
    )


def test_a_pod_that_encodes_otherwise_than_the_gate_is_not_ready(cosine: Path, tmp_path: Path) -> None:
    task = served(cosine, encoder(tmp_path / "m"), "pods", tmp_path / "cache")
    loaded = load(task, lambda said: None)
    assert loaded.encoder is not None
    assert "encoder" in loaded.seconds
    loaded.release()
    assert task.encoder is not None
    other = task.model_copy(update={"encoder": encoder(tmp_path / "other", pooling="pooling_mode_max_tokens")})
    with pytest.raises(BadData, match="does not encode as the gate's did") as refused:
        load(other, lambda said: None)
    assert refused.value.reason == "EncoderCanary"
    prefixed = task.encoder.model_copy(update={"query_prefix": "query: "})
    with pytest.raises(BadData, match="does not encode as the gate's did"):
        load(task.model_copy(update={"encoder": prefixed}), lambda said: None)


def test_a_pod_whose_gate_knew_no_encoder_is_not_ready(cosine: Path, tmp_path: Path) -> None:
    task = encoder(tmp_path / "m")
    told = served(cosine, task, "none", tmp_path / "cache")
    plain = gate(cosine, task, "plain").model_copy(update={"encoder": None})
    report, sha256 = prove(plain)
    assert report.encoder is None
    changed = {"gate_hash": "plain", "report_sha256": sha256}
    with pytest.raises(BadData, match="knows no encoder"):
        load(told.model_copy(update=changed), lambda said: None)


class Endpoint:
    """A server of embeddings with the model of the index, until it is told otherwise."""

    def __init__(self) -> None:
        self.down = False
        self.asked = 0

    def __call__(self, one: Exchange) -> None:
        self.asked += 1
        texts = one.body()["input"]
        if self.down:
            one.answer(500, "")
            return
        rows = [{"index": n, "embedding": mean_of(text).tolist()} for n, text in enumerate(texts)]
        one.answer(200, {"data": rows})


def test_an_endpoint_is_proven_and_its_vectors_are_compared_again(cosine: Path, tmp_path: Path) -> None:
    server = Endpoint()
    with answering(server) as url:
        place = EncoderTask(endpoint=EmbeddingsEndpoint(url=f"{url}/v1/embeddings"), text_column="text")
        task = served(cosine, place, "endpoint", tmp_path / "cache")
        report, _ = prove(gate(cosine, place, "endpoint"))
        assert report.encoder is not None
        assert report.encoder.cosine > 0.99999
        assert report.encoder.bytes == 0
        loaded = load(task, lambda said: None)
        assert isinstance(loaded.encoder, Rechecked)
        asked = server.asked
        found = loaded.encoder.encode(["red car"], Side.QUERY).vectors[0]
        np.testing.assert_allclose(found, mean_of("red car"), atol=1e-6)
        assert server.asked == asked + 1
        loaded.release()
        wrong = place.model_copy(update={"query_prefix": "query: "})
        with pytest.raises(BadData, match="does not encode as the gate's did"):
            load(task.model_copy(update={"encoder": wrong}), lambda said: None)
        server.down = True
        with pytest.raises(RetryableError, match="answers 500"):
            load(task, lambda said: None)
        with pytest.raises(RetryableError, match="answers 500"):
            validate(gate(cosine, place, "down"))


@pytest.mark.parametrize("processes", [1, 2])
def test_an_index_is_asked_in_words(cosine: Path, tmp_path: Path, processes: int) -> None:
    """Two processes share what one of them opened before the fork."""
    task = served(cosine, encoder(tmp_path / "m"), "words", tmp_path / "cache")
    with (
        started(task, VECTORINDEX_PROCESSES=str(processes), VECTORINDEX_GRACE_SECONDS="0.05") as searcher,
        Client(f"http://127.0.0.1:{searcher.port()}", retries=0) as client,
    ):
        assert client.index()["encoder"] == {"maxTokens": 6, "texts": 32, "textCharacters": 8192}
        for text in ("red car", "blue sea tree", "house"):
            words, vector = client.search(text=text, k=5), client.search(mean_of(text), 5)
            assert words.ids == vector.ids
            assert words.scores == pytest.approx(vector.scores, abs=1e-5)
            assert words.encode_ms is not None
            assert not words.truncated
        long = client.search_many(texts=["red " * 8, "green"])
        assert [one.truncated for one in long] == [True, False]
        many = client.search_many(texts=[f"red {word}" for word in WORDS] * 8, k=3, include_metadata=True)
        assert len(many) == 8 * len(WORDS)
        assert many[0].metadata is not None
