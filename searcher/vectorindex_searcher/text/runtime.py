"""Opening what is in a model's folder, the same for encoders and cross-encoders: its tokenizer, and a session of ONNX
Runtime on the CPU with one thread for each call."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import BadData, BadSpec
from .folder import ENCODER, TOKENIZER_FILE, Kind, ModelFolder

if TYPE_CHECKING:
    import onnxruntime
    import tokenizers

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Those that a model may have."""


def open_tokenizer(folder: ModelFolder, max_tokens: int) -> tuple[tokenizers.Tokenizer, int]:
    """The tokenizer of a folder, which cuts what is longer, and the number of its padding."""
    # Threads of its own would be lost in a process that is forked, and take cores from searches.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizers = _installed("tokenizers", folder.kind)
    data = folder.read(TOKENIZER_FILE) or b""
    try:
        made = tokenizers.Tokenizer.from_buffer(data)
        pad = int((made.padding or {}).get("pad_id", 0))
        made.no_padding()
        made.enable_truncation(max_tokens)
    except Exception as error:  # it raises plain Exception
        raise unknown(folder, TOKENIZER_FILE, short(error)) from None
    return made, pad


def open_session(folder: ModelFolder) -> onnxruntime.InferenceSession:
    """Its model, which was looked through. Raises BadData for one that ONNX Runtime does not take."""
    runtime = _installed("onnxruntime", folder.kind)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised, too
    try:
        return runtime.InferenceSession(str(folder.model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has classes of its own for each of its codes
        raise unknown(folder, folder.model.name, short(error)) from None


def inputs_of(session: onnxruntime.InferenceSession, folder: ModelFolder) -> tuple[str, ...]:
    """The names of its inputs, all of them known."""
    names = tuple(one.name for one in session.get_inputs())
    if "input_ids" not in names or not set(names) <= set(INPUTS):
        raise unknown(folder, "its inputs", f"they are {', '.join(names)}; known are {', '.join(INPUTS)}")
    return names


def padded(tokens: Sequence[tokenizers.Encoding], pad: int) -> Mapping[str, npt.NDArray[np.int64]]:
    """Inputs of one call, each [texts, most tokens of one]."""
    shape = len(tokens), max(len(one.ids) for one in tokens)
    feeds = {"input_ids": np.full(shape, pad, np.int64)} | {name: np.zeros(shape, np.int64) for name in INPUTS[1:]}
    for row, one in enumerate(tokens):
        count = len(one.ids)
        feeds["input_ids"][row, :count] = one.ids
        feeds["attention_mask"][row, :count] = one.attention_mask
        feeds["token_type_ids"][row, :count] = one.type_ids
    return feeds


def short(error: Exception) -> str:
    """What it says, in one line of some length."""
    return " ".join(str(error).split())[:300]


def _installed(name: str, kind: Kind) -> Any:
    """A package of the extra."""
    try:
        return importlib.import_module(name)
    except ImportError:
        what = "an encoder" if kind is ENCODER else "a reranker"
        raise BadSpec(
            "TextNotInstalled",
            f"{what} needs the package {name}, which is not installed here",
            field=kind.field,
            remedy="Install vectorindex-operator[text], or use the searcher's image, which has it.",
        ) from None


def unknown(folder: ModelFolder, what: str, problem: str) -> BadData:
    """A part of a model that is not of a form that is known here."""
    kind = folder.kind
    remedy = "Export it with optimum: " + (
        "feature-extraction, last_hidden_state (or with examples/encoder)."
        if kind is ENCODER
        else "text-classification, of a model with one label."
    )
    return BadData(
        f"{kind.word}Unknown", f"the model's {what}: {problem}", object=what, field=kind.field, remedy=remedy
    )
