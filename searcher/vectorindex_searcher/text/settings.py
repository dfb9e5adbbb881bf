"""What a folder's own files say of pooling, lengths and prefixes. Everything that is not known is refused by name: half
of a model's settings would be another model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from ..errors import BadData
from .encoder import Side
from .folder import FIELD, MODULES_FILE, POOLING_FILE, PROMPTS_FILE, SENTENCE_FILE, ModelFolder

MOST_TOKENS = 512
"""Of a text that are encoded, also where a model takes more: the memory of a call grows with their square, for
each head of a layer, and at 8,192 one text would take gigabytes."""
_PROMPT_NAMES: Mapping[Side, tuple[str, ...]] = {Side.QUERY: ("query",), Side.DOCUMENT: ("document", "passage")}
"""Under which names sentence-transformers looks for them, the first one that is there."""


class Pooling(StrEnum):
    """How the vectors of tokens become one, by the names in 1_Pooling/config.json."""

    CLS = "pooling_mode_cls_token"
    MEAN = "pooling_mode_mean_tokens"
    MAX = "pooling_mode_max_tokens"
    MEAN_SQRT = "pooling_mode_mean_sqrt_len_tokens"
    WEIGHTED_MEAN = "pooling_mode_weightedmean_tokens"
    LAST = "pooling_mode_lasttoken"


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """How texts are encoded."""

    pooling: Pooling
    normalized: bool
    """Whether vectors get the length 1."""
    dimension: int
    max_tokens: int
    lower_case: bool
    prompts: Mapping[Side, str]


def read_settings(folder: ModelFolder) -> ModelSettings:
    """Raises BadData/EncoderUnknown, naming the file."""
    pooling = _object(folder, POOLING_FILE)
    sentence = _object(folder, SENTENCE_FILE)
    tokens = sentence.get("max_seq_length")
    if tokens is None:
        tokens = MOST_TOKENS
    if type(tokens) is not int or tokens < 3:
        raise _unknown(SENTENCE_FILE, f"max_seq_length is {tokens!r}, known are numbers from 3 on")
    dimension = pooling.get("word_embedding_dimension")
    if type(dimension) is not int or dimension < 1:
        raise _unknown(POOLING_FILE, f"word_embedding_dimension is {dimension!r}")
    prompts = _prompts(folder)
    if pooling.get("include_prompt", True) is not True and any(prompts.values()):
        raise _unknown(POOLING_FILE, "include_prompt is not true: tokens of a prefix are always pooled here")
    return ModelSettings(
        pooling=_pooling(pooling),
        normalized=_normalized(folder),
        dimension=dimension,
        max_tokens=min(tokens, MOST_TOKENS),
        lower_case=sentence.get("do_lower_case", False) is True,
        prompts=prompts,
    )


def _pooling(said: Mapping[str, Any]) -> Pooling:
    chosen = [name for name, on in said.items() if name.startswith("pooling_mode_") and on is True]
    if len(chosen) != 1 or chosen[0] not in list(Pooling):
        raise _unknown(POOLING_FILE, f"the pooling is {', '.join(chosen) or 'not said'}; one of {', '.join(Pooling)}")
    return Pooling(chosen[0])


def _normalized(folder: ModelFolder) -> bool:
    """By modules.json: a Transformer, then a Pooling, and maybe a Normalize."""
    modules = _json(folder, MODULES_FILE)
    rows = modules if isinstance(modules, list) else []
    kinds = [str(row.get("type", "")).rpartition(".")[2] for row in rows if isinstance(row, dict)]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise _unknown(MODULES_FILE, f"its modules are {kinds}; known are Transformer, Pooling and then Normalize")
    if f"{rows[1].get('path', '')}/config.json" != POOLING_FILE:
        raise _unknown(
            MODULES_FILE, f"the path of Pooling is {rows[1].get('path')!r}, not {POOLING_FILE.split('/')[0]!r}"
        )
    return len(kinds) == 3


def _prompts(folder: ModelFolder) -> dict[Side, str]:
    said = _object(folder, PROMPTS_FILE)
    known = said.get("prompts") or {}
    if not isinstance(known, dict) or not all(isinstance(text, str) for text in known.values()):
        raise _unknown(PROMPTS_FILE, "prompts is no object of texts")
    default = said.get("default_prompt_name")
    other = known.get(default, "") if isinstance(default, str) else ""
    return {
        side: next((known[name] for name in names if name in known), other) for side, names in _PROMPT_NAMES.items()
    }


def _object(folder: ModelFolder, name: str) -> dict[str, Any]:
    """The object in a file; empty where there is no file."""
    found = _json(folder, name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _unknown(name, "it is no JSON object")
    return found


def _json(folder: ModelFolder, name: str) -> Any:
    data = folder.read(name)
    if data is None:
        return None
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _unknown(name, f"it is no JSON: {error.msg}") from None


def _unknown(name: str, problem: str) -> BadData:
    return BadData(
        "EncoderUnknown",
        f"{name}: {problem}",
        object=name,
        field=FIELD,
        remedy="Name a model with one pooling and no further layers (docs/how-to.md, ask in words).",
    )
