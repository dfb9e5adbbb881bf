"""A model's folder: verified before anything of it is opened, then read and run as sentence-transformers does it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_files
import pytest
from onnx_files import field, mean_of, tensor, word_vectors, write_encoder

from vectorindex_searcher.contract import EncoderTask, Location, OnnxFolder
from vectorindex_searcher.errors import BadData, SourceMissing, TaskError
from vectorindex_searcher.storage.cache import NodeCache
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.store import Role
from vectorindex_searcher.text import folder as folder_module
from vectorindex_searcher.text import onnx as onnx_module
from vectorindex_searcher.text.encoder import Side
from vectorindex_searcher.text.folder import ModelFolder, describe, fetch
from vectorindex_searcher.text.onnx import OnnxEncoder
from vectorindex_searcher.text.onnx_file import refuse_external_data
from vectorindex_searcher.text.open import open_encoder


def fetched(source: Path, cache: Path, sha256: str) -> ModelFolder:
    found, held = fetch(FolderStore(source, Role.ENCODER), sha256, NodeCache(cache), cache)
    held.close()
    return found


def opened(source: Path, cache: Path, sha256: str, **prefixes: str | None) -> OnnxEncoder:
    return OnnxEncoder(fetched(source, cache, sha256), {Side(name): text for name, text in prefixes.items()})


# ---------------------------------------------------------------- the folder


def test_the_digest_is_that_of_the_lines_of_sha256sum(tmp_path: Path) -> None:
    said = write_encoder(tmp_path / "m", prompts={"query": "query: "})
    (tmp_path / "m" / "README.md").write_text("of no matter")
    found, files = describe(FolderStore(tmp_path / "m", Role.ENCODER))
    assert found == said
    names = sorted(files)
    lines = subprocess.run(["sha256sum", *names], cwd=tmp_path / "m", capture_output=True, check=True).stdout
    again = subprocess.run(["sha256sum"], input=lines, capture_output=True, check=True).stdout
    assert again.split()[0].decode() == said


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "1_Pooling/config.json"])
def test_a_file_that_was_exchanged_is_never_opened(tmp_path: Path, name: str) -> None:
    sha256 = write_encoder(tmp_path / "m")
    path = tmp_path / "m" / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(BadData, match="have the SHA-256") as refused:
        fetched(tmp_path / "m", tmp_path / "cache", sha256)
    assert refused.value.reason == "EncoderMismatch"
    assert not [one for one in (tmp_path / "cache").rglob("*") if one.is_file() and ".locks" not in one.parts]


def test_what_lies_in_the_cache_is_verified_and_fetched_again_when_it_is_wrong(tmp_path: Path) -> None:
    sha256 = write_encoder(tmp_path / "m")
    first = fetched(tmp_path / "m", tmp_path / "cache", sha256)
    (first.path / "model.onnx").write_bytes(b"other")
    again = fetched(tmp_path / "m", tmp_path / "cache", sha256)
    assert (again.path / "model.onnx").read_bytes() == (tmp_path / "m" / "model.onnx").read_bytes()
    (tmp_path / "m" / "model.onnx").unlink()
    assert fetched(tmp_path / "m", tmp_path / "cache", sha256) == again, "nothing is asked of the store any more"


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "modules.json", "1_Pooling/config.json"])
def test_a_folder_that_lacks_a_file_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    sha256 = write_encoder(tmp_path / "m")
    (tmp_path / "m" / name).unlink()
    with pytest.raises(SourceMissing, match=name):
        fetched(tmp_path / "m", tmp_path / "cache", sha256)


def test_a_file_that_is_too_large_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = write_encoder(tmp_path / "m")
    monkeypatch.setattr(folder_module, "MOST_BYTES", dict(folder_module.MOST_BYTES) | {"tokenizer.json": 10})
    with pytest.raises(BadData, match="at most 10 are read"):
        fetched(tmp_path / "m", tmp_path / "cache", sha256)


def test_a_folder_as_it_is_published_has_its_model_one_below(tmp_path: Path) -> None:
    write_encoder(tmp_path / "m")
    (tmp_path / "m" / "onnx").mkdir()
    (tmp_path / "m" / "model.onnx").rename(tmp_path / "m" / "onnx" / "model.onnx")
    sha256, _ = describe(FolderStore(tmp_path / "m", Role.ENCODER))
    assert opened(tmp_path / "m", tmp_path / "cache", sha256).dimension == onnx_files.DIMENSION


# ---------------------------------------------------------------- external data

ELSEWHERE = field(13, field(1, "location") + field(2, "/etc/hostname"))
OF_THE_GRAPH = {
    "by its location": field(5, tensor("t", np.ones(2), field(14, 1))),
    "by an entry": field(5, tensor("t", np.ones(2), ELSEWHERE)),
    "in an attribute": field(1, field(4, "Constant") + field(5, field(5, tensor("t", np.ones(1), ELSEWHERE)))),
    "in a graph of an attribute": field(
        1, field(4, "If") + field(5, field(1, "then_branch") + field(6, field(5, tensor("t", np.ones(1), ELSEWHERE))))
    ),
    "in a sparse tensor": field(15, field(1, tensor("t", np.ones(1), ELSEWHERE))),
}  # fmt: skip


@pytest.mark.parametrize("part", OF_THE_GRAPH.values(), ids=OF_THE_GRAPH)
def test_a_model_that_names_other_files_is_refused(tmp_path: Path, part: bytes) -> None:
    sha256 = write_encoder(tmp_path / "m", onnx=onnx_files.model(word_vectors(), part))
    with pytest.raises(BadData, match="external data") as refused:
        opened(tmp_path / "m", tmp_path / "cache", sha256)
    assert refused.value.reason == "EncoderUnsafe"


@pytest.mark.parametrize("where", [20, 25], ids=["training", "function"])
def test_a_model_that_names_other_files_beside_its_graph_is_refused(tmp_path: Path, where: int) -> None:
    node = field(4, "Constant") + field(5, field(5, tensor("t", np.ones(1), ELSEWHERE)))
    inner = field(1, field(1, node)) if where == 20 else field(7, node)
    sha256 = write_encoder(tmp_path / "m", onnx=onnx_files.model(word_vectors()) + field(where, inner))
    with pytest.raises(BadData, match="external data"):
        opened(tmp_path / "m", tmp_path / "cache", sha256)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff" * 40, b"\x3a\xff\xff\xff\xff\x0f", b"\x3a\x05abc", b"\x38\x01", b"\x3b" * 9],
    ids=["empty", "no number ends", "longer than the file", "cut off", "a number for a graph", "groups"],
)
def test_what_cannot_be_looked_through_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(BadData, match="cannot be looked through"):
        refuse_external_data(path)


def test_graphs_within_graphs_end(tmp_path: Path) -> None:
    inner = b""
    for _ in range(60):
        inner = field(1, field(5, field(6, inner)))
    path = tmp_path / "model.onnx"
    path.write_bytes(field(7, inner))
    with pytest.raises(BadData, match="nested too deeply"):
        refuse_external_data(path)


# ---------------------------------------------------------------- what it says


def test_texts_become_the_mean_of_their_words(tmp_path: Path) -> None:
    encoder = opened(tmp_path / "m", tmp_path / "cache", write_encoder(tmp_path / "m"))
    texts = ["red car", "green", "  Blue SEA unheard tree  "]
    encoded = encoder.encode(texts, Side.QUERY)
    assert encoded.vectors.dtype == np.float32
    np.testing.assert_allclose(encoded.vectors, [mean_of(text) for text in texts], atol=1e-6)
    assert encoded.truncated == (False, False, False)


def test_what_is_encoded_together_is_encoded_as_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectorindex_searcher.text.onnx.CALL_TOKENS", 7)
    encoder = opened(tmp_path / "m", tmp_path / "cache", write_encoder(tmp_path / "m"))
    texts = ["red car tree sea", "green", "blue sea", "house", "red green blue sea tree"]
    together = encoder.encode(texts, Side.QUERY).vectors
    alone = np.concatenate([encoder.encode([text], Side.QUERY).vectors for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_a_long_text_is_cut_where_the_model_says_and_told(tmp_path: Path) -> None:
    encoder = opened(tmp_path / "m", tmp_path / "cache", write_encoder(tmp_path / "m", max_tokens=3))
    encoded = encoder.encode(["red car tree sea", "red car tree"], Side.QUERY)
    assert encoded.truncated == (True, False)
    np.testing.assert_allclose(encoded.vectors[0], encoded.vectors[1], atol=1e-6)


@pytest.mark.parametrize("said", [8192, 10**9])
def test_a_model_that_takes_more_than_memory_allows_is_cut_and_told(tmp_path: Path, said: int) -> None:
    encoder = opened(tmp_path / "m", tmp_path / "cache", write_encoder(tmp_path / "m", max_tokens=said))
    assert encoder.max_tokens == 512
    assert encoder.encode(["red " * 513, "red " * 512], Side.QUERY).truncated == (True, False)


def test_a_text_of_full_length_is_encoded_at_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod without the memory for it never gets ready, and is not killed by a user's text."""
    seen: list[int] = []
    run = OnnxEncoder._run

    def counted(self: OnnxEncoder, tokens: Any) -> Any:
        seen.extend(len(one.ids) for one in tokens)
        return run(self, tokens)

    monkeypatch.setattr(OnnxEncoder, "_run", counted)
    opened(tmp_path / "m", tmp_path / "cache", write_encoder(tmp_path / "m", max_tokens=300))
    assert max(seen) == 300


def test_no_call_of_several_takes_more_than_one_text_of_full_length() -> None:
    lengths = [512] * 4 + [256] * 9 + [128] * 40 + [7] * 300
    pieces = list(onnx_module._pieces(lengths))
    assert sorted(number for piece in pieces for number in piece) == list(range(len(lengths)))
    for piece in pieces:
        longest = max(lengths[number] for number in piece)
        assert len(piece) * longest**2 <= 512**2
        assert len(piece) * longest <= 2048


def test_prefixes_are_those_of_the_folder_unless_others_are_given(tmp_path: Path) -> None:
    sha256 = write_encoder(tmp_path / "m", prompts={"query": "query: ", "passage": "passage: "})
    theirs = opened(tmp_path / "m", tmp_path / "cache", sha256)
    np.testing.assert_allclose(theirs.encode(["red"], Side.QUERY).vectors[0], mean_of("query: red"), atol=1e-6)
    np.testing.assert_allclose(theirs.encode(["red"], Side.DOCUMENT).vectors[0], mean_of("passage: red"), atol=1e-6)
    ours = opened(tmp_path / "m", tmp_path / "cache", sha256, query="", document="green ")
    np.testing.assert_allclose(ours.encode(["red"], Side.QUERY).vectors[0], mean_of("red"), atol=1e-6)
    np.testing.assert_allclose(ours.encode(["red"], Side.DOCUMENT).vectors[0], mean_of("green red"), atol=1e-6)


def test_without_a_normalisation_vectors_keep_their_length(tmp_path: Path) -> None:
    encoder = opened(tmp_path / "m", tmp_path / "cache", write_encoder(tmp_path / "m", normalize=False))
    vector = encoder.encode(["red car"], Side.QUERY).vectors[0]
    np.testing.assert_allclose(vector, mean_of("red car", normalize=False), atol=1e-6)


POOLED: dict[str, Any] = {
    "pooling_mode_cls_token": lambda v: v[0],
    "pooling_mode_max_tokens": lambda v: v.max(0),
    "pooling_mode_mean_sqrt_len_tokens": lambda v: v.sum(0) / np.sqrt(len(v)),
    "pooling_mode_weightedmean_tokens": lambda v: (
        (v * np.arange(1, len(v) + 1)[:, None]).sum(0) / np.arange(1, len(v) + 1).sum()
    ),
    "pooling_mode_lasttoken": lambda v: v[-1],
}


@pytest.mark.parametrize("pooling", POOLED)
def test_each_pooling_is_that_of_sentence_transformers(tmp_path: Path, pooling: str) -> None:
    sha256 = write_encoder(tmp_path / "m", pooling=pooling, normalize=False)
    encoder = opened(tmp_path / "m", tmp_path / "cache", sha256)
    # With a longer one beside it, so that it is padded.
    found = encoder.encode(["red car", "blue sea tree house"], Side.QUERY).vectors[0]
    table = word_vectors()
    np.testing.assert_allclose(
        found, POOLED[pooling](table[[onnx_files.WORDS.index(w) for w in ("red", "car")]]), atol=1e-6
    )


BAD: dict[str, tuple[str, Any, str]] = {
    "two poolings": (
        "1_Pooling/config.json",
        {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
        "the pooling is",
    ),
    "a pooling of later": ("1_Pooling/config.json", {"word_embedding_dimension": 8, "pooling_mode_x": True}, "poolin"),
    "no dimension": ("1_Pooling/config.json", {"pooling_mode_mean_tokens": True}, "word_embedding_dimension"),
    "a further layer": (
        "modules.json",
        [{"type": f"models.{kind}", "path": "1_Pooling"} for kind in ("Transformer", "Pooling", "Dense")],
        "its modules are",
    ),
    "another folder": (
        "modules.json",
        [{"type": "models.Transformer"}, {"type": "models.Pooling", "path": "9_P"}],
        "the path of Pooling",
    ),
    "no modules": ("modules.json", {}, "its modules are"),
    "no tokens": ("sentence_bert_config.json", {"max_seq_length": 2}, "max_seq_length"),
    "no object": ("sentence_bert_config.json", [], "no JSON object"),
    "prompts of numbers": ("config_sentence_transformers.json", {"prompts": {"query": 1}}, "prompts"),
    "no tokenizer": ("tokenizer.json", {"model": {}}, "tokenizer.json"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "said"), BAD.values(), ids=BAD)
def test_what_a_folder_says_and_nobody_knows_is_refused_by_name(
    tmp_path: Path, name: str, content: Any, said: str
) -> None:
    write_encoder(tmp_path / "m")
    (tmp_path / "m" / name).write_text(json.dumps(content))
    sha256, _ = describe(FolderStore(tmp_path / "m", Role.ENCODER))
    with pytest.raises(BadData, match=said) as refused:
        opened(tmp_path / "m", tmp_path / "cache", sha256)
    assert refused.value.failure.field == "spec.embedding.encoder.onnx"
    assert refused.value.failure.remedy


def test_a_model_with_other_inputs_is_refused(tmp_path: Path) -> None:
    sha256 = write_encoder(tmp_path / "m", onnx=onnx_files.model(word_vectors(), inputs=("input_ids", "pixels")))
    with pytest.raises(BadData, match="pixels"):
        opened(tmp_path / "m", tmp_path / "cache", sha256)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    sha256 = write_encoder(tmp_path / "m", onnx=field(1, 8) + field(7, field(2, "nothing")))
    with pytest.raises(BadData, match=r"the model.s model\.onnx"):
        opened(tmp_path / "m", tmp_path / "cache", sha256)


def test_another_dimension_than_the_index_is_refused(tmp_path: Path) -> None:
    sha256 = write_encoder(tmp_path / "m")
    task = EncoderTask(onnx=OnnxFolder(location=Location(folder=str(tmp_path / "m")), sha256=sha256))
    with pytest.raises(TaskError, match="dimension 8, the index has 384"):
        open_encoder(task, tmp_path / "cache", 0, 384)


def test_whoever_has_no_encoder_imports_none() -> None:
    """A vector query never pays for it."""
    code = (
        "import sys, vectorindex_searcher.serve.process, vectorindex_searcher.proof.task;"
        "print({'onnxruntime', 'tokenizers'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert said.stdout == "set()\n"
