"""What our pages show of a VectorIndex: whole manifests, parts of a spec, and single fields in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import yaml
from layers import CHECKOUT

from vectorindex_operator.api.v1alpha1 import VectorIndexSpec

Json = dict[str, Any]

PAGES = sorted(
    path
    for pattern in ("README.md", "docs/**/*.md", "examples/**/*", "charts/**/README.md", "charts/**/NOTES.txt")
    for path in CHECKOUT.glob(pattern)
    if path.suffix in (".md", ".yaml", ".txt") and path.parent.name != "adr"
)
_FIELDS = {field.alias or name for name, field in VectorIndexSpec.model_fields.items()}
_INLINE = re.compile(r"`([a-z][A-Za-z]*(?:\.[A-Za-z]+)+): ([^`]+)`")
_ABOUT: Json = {"segments": [{"name": "keyword"}, {"name": "question"}]}
"""What a part may refer to without showing it; nothing of shards does, beside which it is refused."""


def whole(path: Path) -> list[Json]:
    """Every VectorIndex in a YAML file, a fenced block of a Markdown page, or a here-document of the chart's notes."""
    documents = [one for block in _blocks(path) if "kind: VectorIndex\n" in block for one in yaml.safe_load_all(block)]
    return [one for one in documents if isinstance(one, dict) and one.get("kind") == "VectorIndex"]


def parts(path: Path) -> list[Json]:
    """Specs with each part that a page shows: a block below `spec:` or of fields of a spec, and `path.of.field: value`.

    AssertionError for a block of YAML that is neither one of these nor values of the chart: nothing is passed over.
    """
    return [part if "shards" in part.get("index", {}) else _merged(_ABOUT, part) for part in _fragments(path)]


def _fragments(path: Path) -> Iterator[Json]:
    if path.suffix != ".md":
        return
    for block in _blocks(path):
        for one in yaml.safe_load_all(block):
            if "kind" in one:
                continue
            part = one.get("spec", one)
            assert set(part) <= _FIELDS or set(part) <= _chart_values(), f"{path}: what is this?\n{block}"
            if set(part) <= _FIELDS:
                yield part
    for name, value in _INLINE.findall(path.read_text(encoding="utf-8")):
        if name.split(".")[0] in _FIELDS and "..." not in value:
            part = yaml.safe_load(value)
            for key in reversed(name.split(".")):
                part = {key: part}
            yield part


def _blocks(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return re.findall(r"```ya?ml\n(.*?)```", text, re.DOTALL)
    if path.suffix == ".txt":
        return [dedent(block) for block in re.findall(r"<<END\n(.*?)\n *END\n", text, re.DOTALL)]
    return [text]


def _chart_values() -> set[str]:
    values = yaml.safe_load((CHECKOUT / "charts" / "vectorindex-operator" / "values.yaml").read_text(encoding="utf-8"))
    return set(values)


def _merged(base: Json, part: Json) -> Json:
    out = dict(base)
    for key, value in part.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merged(out[key], value) if both else value
    return out
