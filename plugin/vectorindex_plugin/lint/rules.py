"""The schema's CEL rules on a value that has its defaults. Rules about an edit (`oldSelf`) need what was there before.

cel-python evaluates; what Kubernetes adds to CEL and our rules use (ranges of addresses, texts) is added here.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import celpy
from celpy import celtypes
from celpy.evaluation import CELEvalError

from vectorindex_plugin.lint.schema import Fault, Path, Schema

_RULES = "x-kubernetes-validations"
_RESERVED = frozenset(
    (
        *("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if"),
        *("import", "let", "loop", "package", "namespace", "return"),
    )
)
"""Words of CEL, which Kubernetes writes between underscores where they name a field: `self.index.__import__`."""
UNSURE = " (the rule cannot be evaluated on this value)"
"""Ends what is said where that is so."""


@dataclass(slots=True)
class Rules:
    """All rules of a schema. A rule says the same of the same value, so each is asked once: most parts of one manifest
    are as in the next one."""

    schema: Schema
    _said: dict[tuple[str, bytes], str] = field(default_factory=dict)

    def faults(self, value: Any, old: Any = None, broken: Collection[Path] = ()) -> Iterator[Fault]:
        """What rules say against a value. `old`: what stands there now, for rules about an edit; None: nothing does.
        `broken`: what has a wrong shape; no rule is asked of that, nor of what it is a part of: cel-python nests the
        words of one error in those of the next, which on a whole spec takes gigabytes.

        A rule that cannot be evaluated is a fault, as it is to the API server.
        """
        yield from self._walk((), value, self.schema, old, broken)

    def _walk(self, path: Path, value: Any, schema: Schema, old: Any, broken: Collection[Path]) -> Iterator[Fault]:
        if value is None:
            return
        whole = not any(one[: len(path)] == path for one in broken)
        for row in schema.get(_RULES, ()) if whole else ():
            if "oldSelf" in row["rule"] and old is None:
                continue
            if words := self._against(row, value, schema, old):
                below = tuple(part for part in row.get("fieldPath", "").split(".") if part)
                yield (*path, *below), words
        if isinstance(value, Mapping):
            fields, rest = schema.get("properties", {}), schema.get("additionalProperties")
            for name, part in value.items():
                child = fields.get(name, rest)
                if isinstance(child, Mapping):
                    before = old.get(name) if isinstance(old, Mapping) else None
                    yield from self._walk((*path, name), part, child, before, broken)
        elif isinstance(value, list) and "items" in schema:
            for at, part in enumerate(value):
                yield from self._walk((*path, at), part, schema["items"], None, broken)

    def _against(self, row: Mapping[str, str], value: Any, schema: Schema, old: Any) -> str:
        """What one rule says against a value; empty: nothing."""
        rule = row["rule"]
        given = {"self": value} | ({"oldSelf": old} if "oldSelf" in rule else {})
        key = rule, hashlib.sha256(json.dumps(given, sort_keys=True).encode()).digest()
        if key not in self._said:
            holds = _evaluated(rule, {name: _cel(one, schema) for name, one in given.items()})
            self._said[key] = "" if holds else row["message"] + ("" if holds is False else UNSURE)
        return self._said[key]


def _evaluated(rule: str, given: dict[str, Any]) -> bool | None:
    """Whether a rule holds; None: it cannot be evaluated."""
    try:
        return bool(_program(rule).evaluate(given))
    except (CELEvalError, KeyError, TypeError, ValueError, AttributeError, OSError):  # a folder of zones is the last
        return None


@cache
def _program(rule: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(rule), functions=_FUNCTIONS)


def _cel(value: Any, schema: Schema) -> Any:
    """A JSON value with the types that the schema gives it: 1 is a double where numbers with a point are meant."""
    if isinstance(value, bool):
        return celtypes.BoolType(value)
    if isinstance(value, int | float):
        double = isinstance(value, float) or schema.get("type") == "number"
        return celtypes.DoubleType(value) if double else celtypes.IntType(value)
    if isinstance(value, str):
        return celtypes.StringType(value)
    if isinstance(value, list):
        return celtypes.ListType([_cel(part, schema.get("items", {})) for part in value])
    if isinstance(value, Mapping):
        fields, rest = schema.get("properties", {}), schema.get("additionalProperties")
        other = rest if isinstance(rest, Mapping) else {}
        pairs = (
            (f"__{name}__" if name in fields and name in _RESERVED else name, _cel(part, fields.get(name, other)))
            for name, part in value.items()
            if part is not None
        )
        return celtypes.MapType({celtypes.StringType(name): part for name, part in pairs})
    return None


# ---------------------------------------------------------------- what Kubernetes adds to CEL


class _Range(celtypes.StringType):
    """A range of addresses, by its text."""

    @property
    def network(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        return ipaddress.ip_network(str(self), strict=False)


def _is_cidr(text: str) -> celtypes.BoolType:
    try:
        ipaddress.ip_network(str(text), strict=False)
    except ValueError:
        return celtypes.BoolType(False)
    return celtypes.BoolType("/" in text)


def _contains(outer: _Range, inner: str) -> celtypes.BoolType:
    one, other = outer.network, _Range(inner).network
    return celtypes.BoolType(one.version == other.version and other.subnet_of(one))  # type: ignore[arg-type]


def _prefix_length(one: _Range) -> celtypes.IntType:
    return celtypes.IntType(one.network.prefixlen)


def _index_of(items: celtypes.ListType, item: Any) -> celtypes.IntType:
    return celtypes.IntType(items.index(item) if item in items else -1)


def _replace(text: celtypes.StringType, old: str, new: str) -> celtypes.StringType:
    return celtypes.StringType(str(text).replace(old, new))


_FUNCTIONS: dict[str, Any] = {
    "isCIDR": _is_cidr,
    "cidr": _Range,
    "containsCIDR": _contains,
    "prefixLength": _prefix_length,
    "indexOf": _index_of,
    "replace": _replace,
}
