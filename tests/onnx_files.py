"""Models of sentence-transformers that a test makes itself: a vector for each word, by a real, tiny ONNX graph.

The file is written as protobuf by hand, so that a test can also write what no tool would.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

WORDS = ("[UNK]", "red", "green", "blue", "car", "tree", "house", "sea", "query:", "passage:")
DIMENSION = 8


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes((value & 0x7F | 0x80,))
        value >>= 7
    return out + bytes((value,))


def field(number: int, value: int | bytes | str) -> bytes:
    """One field of a message: a number, or bytes (text, or a message)."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name: str, values: np.ndarray, *more: bytes) -> bytes:
    """TensorProto of float32. `more`: further fields."""
    dims = b"".join(field(1, size) for size in values.shape)
    return dims + field(2, 1) + field(8, name) + field(9, values.astype("<f4").tobytes()) + b"".join(more)


def tensor_type(name: str, kind: int, dims: Sequence[str | int]) -> bytes:
    """ValueInfoProto of a tensor. kind: 1 float32, 7 int64."""
    shape = b"".join(field(1, field(1, one) if isinstance(one, int) else field(2, one)) for one in dims)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, shape)))


def model(table: np.ndarray, *more: bytes, inputs: Sequence[str] = ("input_ids", "attention_mask")) -> bytes:
    """ModelProto: the row of `table` [words, dimension] for each token. `more`: further fields of the graph."""
    gather = field(1, "table") + field(1, "input_ids") + field(2, "last_hidden_state") + field(4, "Gather")
    graph = field(1, gather) + field(2, "words") + field(5, tensor("table", table))
    graph += b"".join(field(11, tensor_type(name, 7, ("batch", "tokens"))) for name in inputs)
    graph += field(12, tensor_type("last_hidden_state", 1, ("batch", "tokens", table.shape[1]))) + b"".join(more)
    return field(1, 8) + field(8, field(1, "") + field(2, 13)) + field(7, graph)


def attribute(name: str, values: Sequence[int] | int) -> bytes:
    """AttributeProto of whole numbers."""
    if isinstance(values, int):
        return field(1, name) + field(3, values) + field(20, 2)
    return field(1, name) + b"".join(field(8, value) for value in values) + field(20, 7)


def judge(weights: np.ndarray) -> bytes:
    """ModelProto of a cross-encoder: the largest of the `weights` [words, labels] of a pair's tokens."""
    gather = field(1, "table") + field(1, "input_ids") + field(2, "each") + field(4, "Gather")
    largest = field(1, "each") + field(2, "logits") + field(4, "ReduceMax")
    largest += field(5, attribute("axes", (1,))) + field(5, attribute("keepdims", 0))
    graph = field(1, gather) + field(1, largest) + field(2, "judge") + field(5, tensor("table", weights))
    graph += b"".join(field(11, tensor_type(name, 7, ("batch", "tokens"))) for name in ("input_ids", "attention_mask"))
    graph += field(12, tensor_type("logits", 1, ("batch", weights.shape[1])))
    return field(1, 8) + field(8, field(1, "") + field(2, 13)) + field(7, graph)


def weights_of(**words: float) -> np.ndarray:
    """Of each word, [words, 1]; -9 for those that are not named."""
    return np.array([[words.get(word, -9.0)] for word in WORDS], np.float32)


def write_reranker(path: Path, weights: np.ndarray, *, max_tokens: object = None, onnx: bytes | None = None) -> str:
    """A folder with a cross-encoder; its SHA-256."""
    files = {"model.onnx": judge(weights) if onnx is None else onnx, "tokenizer.json": json.dumps(tokenizer()).encode()}
    if max_tokens is not None:
        files["tokenizer_config.json"] = json.dumps({"model_max_length": max_tokens}).encode()
    path.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    return sha256_of(path, list(files))


def tokenizer() -> dict[str, object]:
    """Of words between spaces."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: n for n, word in enumerate(WORDS)}, "unk_token": "[UNK]"},
    }


def word_vectors(dimension: int = DIMENSION) -> np.ndarray:
    return np.random.default_rng(11).standard_normal((len(WORDS), dimension)).astype(np.float32)


def write_encoder(
    path: Path,
    *,
    table: np.ndarray | None = None,
    pooling: str = "pooling_mode_mean_tokens",
    normalize: bool = True,
    max_tokens: int = 6,
    prompts: dict[str, str] | None = None,
    onnx: bytes | None = None,
) -> str:
    """A folder; its SHA-256, made as `sha256sum NAMES | sha256sum` makes it."""
    vectors = word_vectors() if table is None else table
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    folders = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": n, "name": str(n), "path": folder, "type": f"sentence_transformers.models.{kind}"}
        for n, (kind, folder) in enumerate(zip(kinds, folders, strict=False))
    ]
    files: dict[str, bytes] = {
        "model.onnx": model(vectors) if onnx is None else onnx,
        "tokenizer.json": json.dumps(tokenizer()).encode(),
        "modules.json": json.dumps(modules).encode(),
        "1_Pooling/config.json": json.dumps(
            {"word_embedding_dimension": vectors.shape[1], pooling: True, "pooling_mode_cls_token": "cls" in pooling}
        ).encode(),
        "sentence_bert_config.json": json.dumps({"max_seq_length": max_tokens, "do_lower_case": False}).encode(),
    }
    if prompts is not None:
        files["config_sentence_transformers.json"] = json.dumps({"prompts": prompts}).encode()
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return sha256_of(path, list(files))


def sha256_of(path: Path, names: Sequence[str]) -> str:
    lines = "".join(f"{hashlib.sha256((path / name).read_bytes()).hexdigest()}  {name}\n" for name in sorted(names))
    return hashlib.sha256(lines.encode()).hexdigest()


def mean_of(text: str, *, table: np.ndarray | None = None, normalize: bool = True) -> np.ndarray:
    """What such a model makes of a text, computed here."""
    vectors = word_vectors() if table is None else table
    known = [WORDS.index(word) if word in WORDS else 0 for word in text.lower().split()]
    mean = vectors[known].mean(0)
    return mean / np.linalg.norm(mean) if normalize else mean
