"""Rows that have a text in the place of a vector: encoded while they are read, each text once, by one model."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_files
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from http_stub import Exchange, answering
from onnx_files import WORDS, mean_of, write_encoder

from vectorindex_searcher.artifact.layout import Kind, Layout
from vectorindex_searcher.build import texts as texts_module
from vectorindex_searcher.build.partition import partition
from vectorindex_searcher.build.task import build
from vectorindex_searcher.build.text_cache import TextCache, keys_of
from vectorindex_searcher.cli.main import main
from vectorindex_searcher.contract import (
    BuildResult,
    BuildTask,
    CollectTask,
    Columns,
    Embedding,
    EmbeddingsEndpoint,
    EncoderTask,
    ExitCode,
    Identity,
    IndexSpec,
    Location,
    OnnxFolder,
    PartitionTask,
    ResolveTask,
)
from vectorindex_searcher.dataset.resolve import resolve
from vectorindex_searcher.errors import BadData, BadSpec, RetryableError, TaskError
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role

IDENTITY = Identity(namespace="shop", name="products")
LAYOUT = Layout("", IDENTITY)
DIMENSION = onnx_files.DIMENSION


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter timing than in earnest; one OpenMP thread."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr("vectorindex_searcher.index.choose.tuning.LATENCY_QUERIES", 3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> EncoderTask:
    folder = tmp_path_factory.mktemp("model")
    sha256 = write_encoder(folder)
    return EncoderTask(onnx=OnnxFolder(location=Location(folder=str(folder)), sha256=sha256))


def some(count: int, seed: int = 1) -> list[str]:
    """Different texts, none longer than the model takes."""
    rng = np.random.default_rng(seed)
    return [f"{' '.join(rng.choice(WORDS[1:8], rng.integers(1, 4)))} w{seed}x{n}" for n in range(count)]


def rows(folder: Path, texts: Sequence[str | None], name: str = "a.parquet") -> None:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({"id": range(len(texts)), "text": pa.array(texts, pa.string())}), folder / name)


def task(folder: Path, encoder: EncoderTask | None, digest: str = "d1", **more: Any) -> BuildTask:
    given: dict[str, Any] = {
        "identity": IDENTITY,
        "digest": digest,
        "source": Location(folder=str(folder / "rows")),
        "artifacts": Location(folder=str(folder / "out")),
        "columns": Columns(text="text", metadata=("text",)),
        "embedding": Embedding(dimension=DIMENSION),
        "index": IndexSpec(factory="Flat"),
        "encoder": encoder,
    }
    return BuildTask(**given | more)


def vectors(folder: Path, result: BuildResult) -> np.ndarray:
    found: np.ndarray = np.load(folder / "out" / LAYOUT.file(result.digest, result.attempt, "vectors.npy"))
    return found


def counts(result: BuildResult) -> tuple[int, int, int]:
    assert result.texts is not None
    return result.texts.encoded, result.texts.known, result.texts.cut


def packs(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "out").rglob("texts/*/*.parquet") if path.name != "probes.parquet")


def test_rows_become_what_the_model_makes_of_their_texts_and_a_refresh_encodes_what_is_new(
    model: EncoderTask, tmp_path: Path
) -> None:
    said = [*some(40), "red red red red red red red red", "red car", "red car"]
    rows(tmp_path / "rows", said)
    first = build(task(tmp_path, model))
    assert counts(first) == (42, 1, 1)
    wanted = np.stack([mean_of(text) for text in said])
    np.testing.assert_allclose(vectors(tmp_path, first), wanted, atol=1e-6)
    assert len(packs(tmp_path)) == 1, "never an object a text"
    rows(tmp_path / "rows", ["new one", *said[5:]])
    second = build(task(tmp_path, model, "d2"))
    assert counts(second) == (1, 38, 1)
    np.testing.assert_allclose(vectors(tmp_path, second)[1:], wanted[5:], atol=1e-6)
    assert build(task(tmp_path, model, "d2")).texts == second.texts, "the manifest keeps it"


def test_another_model_or_prefix_shares_nothing(model: EncoderTask, tmp_path: Path) -> None:
    rows(tmp_path / "rows", some(20))
    build(task(tmp_path, model))
    other = build(task(tmp_path, model.model_copy(update={"document_prefix": "passage: "}), "d2"))
    assert counts(other) == (20, 0, 0)
    assert {path.parent for path in packs(tmp_path)} == {path.parent for path in packs(tmp_path)}
    assert len({path.parent for path in packs(tmp_path)}) == 2


def test_json_lines_and_resolve(model: EncoderTask, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    lines = [json.dumps({"id": n, "text": text}) for n, text in enumerate(some(20))]
    (tmp_path / "rows" / "a.jsonl").write_text("\n".join(lines))
    of = task(tmp_path, model)
    given = {"identity": IDENTITY, "source": of.source, "columns": of.columns, "artifacts": of.artifacts}
    found = resolve(ResolveTask(**given, embedding=of.embedding))
    assert (found.rows, found.dimension) == (20, DIMENSION)
    with pytest.raises(BadSpec, match=r"embedding\.dimension"):
        resolve(ResolveTask(**given))
    result = build(of)
    np.testing.assert_allclose(vectors(tmp_path, result), np.stack([mean_of(text) for text in some(20)]), atol=1e-6)


@pytest.mark.parametrize(
    ("table", "reason", "says"),
    [
        ({"id": [1, 2], "text": ["red", None]}, "NullText", "row 1 has no text"),
        ({"id": [1, 2], "text": [1, 2]}, "BadTextType", "expected strings"),
        ({"id": [1, 2], "body": ["red", "car"]}, "UnknownColumn", "no column 'text'"),
    ],
)
def test_rows_without_texts_are_named(
    model: EncoderTask, tmp_path: Path, table: dict[str, Any], reason: str, says: str
) -> None:
    (tmp_path / "rows").mkdir()
    pq.write_table(pa.table(table), tmp_path / "rows" / "a.parquet")
    with pytest.raises(TaskError, match=says) as error:
        build(task(tmp_path, model, columns=Columns(text="text")))
    assert error.value.failure.reason == reason


def test_what_texts_need_is_said(model: EncoderTask, tmp_path: Path) -> None:
    rows(tmp_path / "rows", some(5))
    with pytest.raises(BadSpec, match=r"source\.columns\.text needs embedding\.encoder"):
        build(task(tmp_path, None))
    np.save(tmp_path / "rows" / "a.npy", np.eye(4, dtype=np.float32))
    (tmp_path / "rows" / "a.parquet").unlink()
    with pytest.raises(BadSpec, match="has no texts"):
        build(task(tmp_path, model, columns=Columns(text="text")))


def test_deleted_rows_are_not_encoded(model: EncoderTask, tmp_path: Path) -> None:
    rows(tmp_path / "rows", some(20))
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "ids.txt").write_text("3\n4\n")
    result = build(task(tmp_path, model, tombstones=Location(folder=str(tmp_path / "gone"))))
    assert counts(result) == (18, 0, 0)


def test_a_build_that_is_killed_goes_on_from_the_cache(
    model: EncoderTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packs are kept while rows are read, not at the end."""
    rows(tmp_path / "rows", some(30))
    rows(tmp_path / "rows", some(30, seed=2), "b.parquet")
    of = task(tmp_path, model, columns=Columns(text="text"))
    pq.write_table(pa.table({"text": some(30)}), tmp_path / "rows" / "a.parquet")
    pq.write_table(pa.table({"text": some(30, seed=2)}), tmp_path / "rows" / "b.parquet")
    monkeypatch.setattr("vectorindex_searcher.build.text_cache.PACK_BYTES", 10 * 4 * DIMENSION)
    encode, seen = texts_module.TextRows.__call__, 0

    def killed(self: Any, block: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 2:
            raise KeyboardInterrupt
        return encode(self, block)

    monkeypatch.setattr(texts_module.TextRows, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        build(of)
    assert counts(build(of)) == (30, 30, 0)


def test_a_damaged_pack_is_no_pack(model: EncoderTask, tmp_path: Path) -> None:
    rows(tmp_path / "rows", some(20))
    first = build(task(tmp_path, model))
    (pack,) = packs(tmp_path)
    data = bytearray(pack.read_bytes())
    data[200] ^= 1
    pack.write_bytes(bytes(data))
    second = build(task(tmp_path, model, "d2"))
    assert counts(second) == (20, 0, 0)
    np.testing.assert_array_equal(vectors(tmp_path, first), vectors(tmp_path, second))


def test_small_packs_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectorindex_searcher.build.text_cache.MOST_SMALL_PACKS", 3)
    (tmp_path / "out").mkdir()
    store = FolderStore(tmp_path / "out", Role.ARTIFACTS)
    made = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    keys = keys_of([f"text {n}" for n in range(50)])
    for start in range(0, 50, 10):
        cache = TextCache(store, LAYOUT, "model", 4, tmp_path)
        part = slice(start, start + 10)
        cache.add(keys[part], made[part], np.arange(50)[part] % 2 > 0)
        cache.flush()
        cache.close()
    cache = TextCache(store, LAYOUT, "model", 4, tmp_path)
    assert len(packs(tmp_path)) <= 3
    cache.close()
    cache = TextCache(store, LAYOUT, "model", 4, tmp_path)
    known, vectors, cut = cache.find(keys)
    assert known.all()
    np.testing.assert_array_equal(vectors, made)
    assert cut.tolist() == [n % 2 > 0 for n in range(50)]
    assert not cache.find(keys_of(["another"]))[0].any()
    cache.close()
    assert not list(tmp_path.glob("*.cache"))


def test_many_blocks_and_packs_do_not_sort_all_keys_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is sorted again some log(blocks) times, be it added or read: 100 M texts are 24,000 blocks."""
    monkeypatch.setattr("vectorindex_searcher.build.text_cache.PACK_BYTES", 2)  # no pack is a small one
    (tmp_path / "out").mkdir()
    store = FolderStore(tmp_path / "out", Role.ARTIFACTS)
    blocks, each, argsort, count = 128, 8, np.argsort, 0

    def counted(keys: Any, **how: Any) -> Any:
        nonlocal count
        count += len(keys)
        return argsort(keys, **how)

    monkeypatch.setattr(np, "argsort", counted)
    keys = keys_of([f"text {n}" for n in range(blocks * each)])
    made = np.arange(len(keys), dtype=np.float32)[:, None]
    cache = TextCache(store, LAYOUT, "model", 1, tmp_path)
    for start in range(0, len(keys), each):
        part = slice(start, start + each)
        assert cache.add(keys[part], made[part], np.zeros(each, np.bool_))
        cache.flush()
    added, count = count, 0
    other = TextCache(store, LAYOUT, "model", 1, tmp_path / "out")
    for held in (cache, other):
        known, vectors, _ = held.find(keys[::-1])
        assert known.all()
        np.testing.assert_array_equal(vectors, made[::-1])
        held.close()
    most = len(keys) * (np.log2(blocks) + 2)
    assert 0 < added < most
    assert 0 < count < most


def test_packs_of_two_builds_with_the_same_texts_are_kept_once(tmp_path: Path) -> None:
    """Also where a build that put packs together was killed before it removed the old ones."""
    (tmp_path / "out").mkdir()
    store = FolderStore(tmp_path / "out", Role.ARTIFACTS)
    keys = keys_of([f"text {n}" for n in range(20)])
    made = np.arange(20, dtype=np.float32)[:, None]
    both = []
    for name in "ab":
        (tmp_path / name).mkdir()
        both.append(TextCache(store, LAYOUT, "model", 1, tmp_path / name))
    for cache, part in zip(both, (slice(None), slice(None, None, -1)), strict=True):
        cache.add(keys[part], made[part], np.zeros(len(keys[part]), np.bool_))
        cache.flush()
        cache.close()
    assert len(packs(tmp_path)) == 2
    cache = TextCache(store, LAYOUT, "model", 1, tmp_path)
    assert len(cache) == 20
    known, vectors, _ = cache.find(keys)
    assert known.all()
    np.testing.assert_array_equal(vectors, made)
    cache.close()


def test_the_memory_of_a_text_is_what_the_docs_say(tmp_path: Path) -> None:
    """80 bytes while all keys are put in order, 40 else."""
    (tmp_path / "out").mkdir()
    cache = TextCache(FolderStore(tmp_path / "out", Role.ARTIFACTS), LAYOUT, "model", 1, tmp_path)
    total, each = 1 << 17, 1 << 12
    keys = np.frombuffer(np.random.default_rng(0).bytes(32 * total), "S32")
    nothing = np.zeros((each, 1), np.float32)
    tracemalloc.start()
    try:
        for start in range(0, total, each):
            cache.add(keys[start : start + each], nothing, np.zeros(each, np.bool_))
            cache.flush()
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        cache.close()
    assert now / total < 45
    assert 75 < peak / total < 90


def test_collect_knows_the_cache_and_takes_it_with_the_index_only(model: EncoderTask, tmp_path: Path) -> None:
    from vectorindex_searcher.artifact.collect import collect

    rows(tmp_path / "rows", some(20))
    build(task(tmp_path, model))
    (pack,) = packs(tmp_path)
    owned = LAYOUT.parse(str(pack.relative_to(tmp_path / "out")))
    assert owned is not None
    assert (owned.kind, owned.digest) == (Kind.TEXTS, "")
    of = CollectTask(identity=IDENTITY, artifacts=Location(folder=str(tmp_path / "out")))
    collect(of.model_copy(update={"digests": ("d1",)}))
    assert packs(tmp_path) == [pack]
    assert collect(of.model_copy(update={"everything": True, "building": ("d2",)})).unknown == 0
    assert packs(tmp_path) == [pack], "a build may be reading it"
    collect(of.model_copy(update={"everything": True}))
    assert packs(tmp_path) == []


# ---------------------------------------------------------------- an endpoint


class Embeddings:
    """An embeddings API; `turned` makes it another model, `away` answers 503 so often, `refuses` this text."""

    def __init__(self) -> None:
        self.turned, self.away, self.refuses, self.texts = False, 0, "", 0
        self.turns_after: int | None = None

    def __call__(self, exchange: Exchange) -> None:
        texts = exchange.body()["input"]
        if self.away:
            self.away -= 1
            exchange.answer(503, {})
            return
        if self.refuses in texts and self.refuses:
            exchange.answer(413, {})
            return
        self.texts += len(texts)
        self.turned |= self.turns_after is not None and self.texts > self.turns_after
        made = [mean_of(text, normalize=False) * (0.97 if self.turned else 1) for text in texts]
        data = [{"index": n, "embedding": [float(x) for x in one]} for n, one in enumerate(made)]
        exchange.answer(200, {"data": data})


@pytest.fixture
def server() -> Iterator[tuple[Embeddings, EncoderTask]]:
    answers = Embeddings()
    with answering(answers) as url:
        yield answers, EncoderTask(endpoint=EmbeddingsEndpoint(url=f"{url}/v1/embeddings", model="minilm"))


def test_an_endpoint_is_known_by_its_answers(server: tuple[Embeddings, EncoderTask], tmp_path: Path) -> None:
    answers, encoder = server
    rows(tmp_path / "rows", some(40))
    first = build(task(tmp_path, encoder))
    assert counts(first) == (40, 0, 0)
    asked = answers.texts
    assert counts(build(task(tmp_path, encoder, "d2"))) == (0, 40, 0)
    assert answers.texts - asked == 2 * len(texts_module.PROBES), "at the start and at the end"
    answers.turned = True
    rows(tmp_path / "rows", some(41))
    with pytest.raises(BadData, match="another model than the one") as error:
        build(task(tmp_path, encoder, "d3"))
    assert error.value.failure.reason == "EncoderChanged"
    place = encoder.endpoint
    assert place is not None
    named = encoder.model_copy(update={"endpoint": place.model_copy(update={"model": "other"})})
    assert counts(build(task(tmp_path, named, "d4"))) == (41, 0, 0)


def test_a_model_that_is_exchanged_while_rows_are_read_leaves_nothing_behind(
    server: tuple[Embeddings, EncoderTask], tmp_path: Path
) -> None:
    answers, encoder = server
    rows(tmp_path / "rows", some(40))
    answers.turns_after = len(texts_module.PROBES) + 32
    with pytest.raises(BadData, match="another model than the one"):
        build(task(tmp_path, encoder))
    assert packs(tmp_path) == []
    assert not list((tmp_path / "out").rglob("manifest.json"))


def test_an_endpoint_that_is_away_is_waited_for(
    server: tuple[Embeddings, EncoderTask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, encoder = server
    monkeypatch.setattr("vectorindex_searcher.build.texts.time.sleep", lambda seconds: None)
    monkeypatch.setattr("vectorindex_searcher.text.breaker.FIRST_SECONDS", 0.01)
    rows(tmp_path / "rows", some(20))
    answers.away = 2
    assert counts(build(task(tmp_path, encoder))) == (20, 0, 0)
    answers.away = 1000
    monkeypatch.setattr(texts_module, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(RetryableError, match="answers 503"):
        build(task(tmp_path, encoder, "d2"))


def test_a_text_that_an_endpoint_refuses_is_named(server: tuple[Embeddings, EncoderTask], tmp_path: Path) -> None:
    answers, encoder = server
    rows(tmp_path / "rows", [*some(20), "too long"])
    answers.refuses = "too long"
    with pytest.raises(BadData, match="no vector for the text of the row with id 20") as error:
        build(task(tmp_path, encoder))
    assert error.value.failure.reason == "TextRefused"


def test_parts_and_imported_indexes_take_no_texts(model: EncoderTask, tmp_path: Path) -> None:
    rows(tmp_path / "rows", some(20))
    of = task(tmp_path, model)
    with pytest.raises(BadSpec, match="built whole"):
        partition(PartitionTask(**dict(of), shards=2))


# ---------------------------------------------------------------- by hand


def test_by_hand_rows_become_vectors_and_answers(
    tmp_path: Path, model: EncoderTask, capsys: pytest.CaptureFixture[str]
) -> None:
    assert model.onnx is not None
    folder = str(model.onnx.location.folder)
    rows(tmp_path / "rows", some(40))
    words = ["build", "--source", str(tmp_path / "rows"), "--out", str(tmp_path / "out"), "--factory", "Flat"]
    texts = ["--text-column", "text", "--encoder", folder, "--dimension", str(DIMENSION), "--metadata", "text"]
    assert main([*words, *texts]) == ExitCode.OK
    first = json.loads(capsys.readouterr().out)
    assert first["texts"]["encoded"] == 40
    assert main([*words, *texts]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["digest"] == first["digest"]
    assert main([*words, *texts, "--document-prefix", "passage: "]) == ExitCode.OK
    other = json.loads(capsys.readouterr().out)
    assert other["digest"] != first["digest"], "other vectors"
    assert other["texts"]["encoded"] == 40
    proving = ["validate", "--artifact", str(tmp_path / "out"), "--encoder", folder, "--text-column", "text"]
    assert main([*proving, "--digest", first["digest"]]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["encoder"]["deviating"] == 0


@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        (["--text-column", "text"], "--encoder"),
        (["--encoder", "FOLDER"], "--text-column"),
        (["--text-column", "text", "--encoder", "FOLDER"], "--dimension"),
    ],
)
def test_what_is_half_said_by_hand_is_refused(
    tmp_path: Path, model: EncoderTask, capsys: pytest.CaptureFixture[str], flags: list[str], missing: str
) -> None:
    assert model.onnx is not None
    rows(tmp_path / "rows", some(3))
    flags = [str(model.onnx.location.folder) if flag == "FOLDER" else flag for flag in flags]
    words = ["build", "--source", str(tmp_path / "rows"), "--out", str(tmp_path / "out")]
    assert main([*words, *flags]) == ExitCode.BAD_SPEC
    assert missing in capsys.readouterr().err
