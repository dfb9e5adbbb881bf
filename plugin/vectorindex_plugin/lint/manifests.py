"""Manifests out of files, as kubectl reads them, and the line of each field."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vectorindex_plugin.exits import EndedError, Exit

Path_ = tuple[str | int, ...]
"""Keys and positions from the root of a manifest to a field."""
STDIN = "-"
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


@dataclass(frozen=True, slots=True)
class Manifest:
    """One document of a file. `problem`: why it is none (then `value` is None), with its line."""

    file: str
    value: Any
    node: yaml.Node | None = None
    problem: str = ""
    line: int = 1
    repeated: tuple[tuple[str, int], ...] = ()
    """Keys that stand twice in one object, with their lines."""

    def line_of(self, path: Path_) -> int:
        """The line of a field, or of the nearest one around it that is written."""
        node, line = self.node, self.line
        for part in path:
            found = _child(node, part)
            if found is None:
                break
            key, node = found
            line = key.start_mark.line + 1
        return line


class _Loader(yaml.SafeLoader):
    """Dates are text, as in JSON."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rows if tag != _TIMESTAMP]
    for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read(file: str) -> Iterator[Manifest]:
    """The documents of a file (`-`: standard input) or of the files of a folder. Raises EndedError where it cannot be
    read."""
    path = Path(file)
    if file != STDIN and path.is_dir():
        for one in sorted(path.rglob("*")):
            if one.suffix in (".yaml", ".yml", ".json"):
                yield from read(str(one))
        return
    try:
        text = sys.stdin.read() if file == STDIN else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EndedError(Exit.NOT_FOUND, f"{file} cannot be read: {error}") from error
    yield from parse(file, text)


def parse(file: str, text: str) -> Iterator[Manifest]:
    """The documents of a text; one that is no YAML ends it."""
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            value = loader.construct_document(node) if node is not None else None
            if node is not None and value is not None:
                line = node.start_mark.line + 1
                yield Manifest(file, value, node, line=line, repeated=tuple(_repeated(node)))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        words = getattr(error, "problem", None) or str(error)
        yield Manifest(file, None, problem=f"no YAML: {words}", line=mark.line + 1 if mark is not None else 1)
    finally:
        loader.dispose()


def _child(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def _repeated(node: yaml.Node) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                yield key.value, key.start_mark.line + 1
            seen.add(key.value)
            yield from _repeated(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated(item)
