"""The graph of train.py's cross-encoder: what it sees of a question and a text, and how that becomes one number."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

EARLY, BEGINNING = 16.0, 24.0
"""Tokens after which a match weighs a third; tokens that say what a text is about."""
SATURATION, LENGTHS = 1.2, 0.75
"""BM25's."""


class Graph:
    """Nodes in order, each with one output of a name of its own."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        """One node; the name of what comes out of it."""
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        """An array that is part of the model."""
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def number(self, value: float) -> str:
        """A number that is part of the model."""
        return self.constant(np.array(value, np.float32))

    def axes(self, *values: int) -> str:
        """Axes, as an input."""
        return self.constant(np.array(values, np.int64))

    def model(self, output: str, name: str = "features") -> onnx.ModelProto:
        """All nodes so far, with one output."""
        nodes = [*self._nodes, helper.make_node("Identity", [output], [name])]
        inputs = [
            helper.make_tensor_value_info(one, TensorProto.INT64, ["batch", "tokens"])
            for one in ("input_ids", "attention_mask", "token_type_ids")
        ]
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", None])]
        made = helper.make_graph(nodes, "reranker", inputs, outputs, self._constants)
        return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def features(graph: Graph, rare: np.ndarray, known: np.ndarray, mean_length: float) -> str:
    """Eleven numbers of each pair [batch, 11]. rare: weight of each token [words]; known: its meaning [words, d]."""
    g = graph
    one = g.number(1.0)
    mask = g.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    kind = g.add("Cast", "token_type_ids", to=TensorProto.FLOAT)
    weight = g.add("Mul", g.add("Gather", g.constant(rare), "input_ids"), mask)
    asked = g.add("Mul", weight, g.add("Sub", one, kind))  # [b, t]; 0 but for tokens of the question
    text = g.add("Mul", weight, kind)
    in_asked, in_text = (g.add("Cast", g.add("Greater", w, g.number(0.0)), to=TensorProto.FLOAT) for w in (asked, text))
    place = g.add("CumSum", in_text, g.constant(np.array(1, np.int64)))

    same = g.add(
        "Cast",
        g.add("Equal", g.add("Unsqueeze", "input_ids", g.axes(2)), g.add("Unsqueeze", "input_ids", g.axes(1))),
        to=TensorProto.FLOAT,
    )
    both = g.add("Mul", g.add("Unsqueeze", in_asked, g.axes(2)), g.add("Unsqueeze", in_text, g.axes(1)))  # [b, q, p]
    same = g.add("Mul", same, both)
    meaning = g.add("Gather", g.constant(known), "input_ids")  # [b, t, d]
    unit = g.add("Div", meaning, g.add("Add", g.add("ReduceL2", meaning, g.axes(2), keepdims=1), g.number(1e-6)))
    near = g.add("Mul", g.add("MatMul", unit, g.add("Transpose", unit, perm=[0, 2, 1])), both)

    def largest(pairs: str, axis: int) -> str:
        return g.add("ReduceMax", pairs, g.axes(axis), keepdims=0)

    def share(values: str, weights: str) -> str:
        """Mean of values [b, t], weighed: [b, 1]."""
        total = g.add("ReduceSum", g.add("Mul", values, weights), g.axes(1), keepdims=1)
        return g.add("Div", total, g.add("Add", g.add("ReduceSum", weights, g.axes(1), keepdims=1), g.number(1e-6)))

    def summed(weights: str) -> str:
        """What a bag of words means: [b, d], of length 1."""
        bag = g.add("ReduceSum", g.add("Mul", meaning, g.add("Unsqueeze", weights, g.axes(2))), g.axes(1), keepdims=0)
        return g.add("Div", bag, g.add("Add", g.add("ReduceL2", bag, g.axes(1), keepdims=1), g.number(1e-6)))

    early = g.add("Exp", g.add("Div", g.add("Neg", place), g.number(EARLY)))
    beginning = g.add("Mul", text, g.add("Cast", g.add("Less", place, g.number(BEGINNING + 0.5)), to=TensorProto.FLOAT))
    length = g.add("ReduceSum", in_text, g.axes(1), keepdims=1)
    often = g.add("ReduceSum", same, g.axes(2), keepdims=0)  # [b, q]
    damped = g.add(
        "Add",
        g.number(SATURATION * (1 - LENGTHS)),
        g.add("Mul", length, g.number(SATURATION * LENGTHS / mean_length)),
    )
    bm25 = g.add("Div", g.add("Mul", often, g.number(1 + SATURATION)), g.add("Add", often, damped))
    end, again = g.axes(np.iinfo(np.int64).max), g.axes(-1)
    ahead = g.add("Slice", g.add("Slice", same, g.axes(1), end, g.axes(1)), g.axes(1), end, g.axes(2))
    until = g.add("Slice", g.add("Slice", same, g.axes(0), again, g.axes(1)), g.axes(0), again, g.axes(2))
    phrases = largest(g.add("Mul", ahead, until), 2)  # [b, q - 1]: a token and the next one side by side
    of_phrases = g.add("Slice", asked, g.axes(0), again, g.axes(1))
    found = [
        g.add("ReduceSum", g.add("Mul", summed(asked), summed(text)), g.axes(1), keepdims=1),
        g.add("ReduceSum", g.add("Mul", summed(asked), summed(beginning)), g.axes(1), keepdims=1),
        share(largest(same, 2), asked),
        share(largest(g.add("Mul", same, g.add("Unsqueeze", early, g.axes(1))), 2), asked),
        share(bm25, asked),
        g.add("ReduceSum", g.add("Mul", bm25, asked), g.axes(1), keepdims=1),
        share(largest(near, 2), asked),
        share(largest(same, 1), beginning),
        share(largest(near, 1), beginning),
        share(phrases, of_phrases),
        g.add("Log", g.add("Add", length, one)),
    ]
    return g.add("Concat", *found, axis=1)


def judge(graph: Graph, wide: str, mean: np.ndarray, spread: np.ndarray, layers: list[np.ndarray]) -> str:
    """One number of each pair [batch, 1], of its features."""
    g = graph
    value = g.add("Div", g.add("Sub", wide, g.constant(mean.astype(np.float32))), g.constant(spread.astype(np.float32)))
    inner = g.add("Tanh", g.add("Add", g.add("MatMul", value, g.constant(layers[0])), g.constant(layers[1])))
    return g.add("Add", g.add("MatMul", inner, g.constant(layers[2])), g.constant(layers[3]))
