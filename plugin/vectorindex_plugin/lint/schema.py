"""A value against a structural schema, as the API server does it: null and defaults first, then shape and bounds.

jsonschema does the comparing; what Kubernetes reads otherwise is rewritten for it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

Schema = Mapping[str, Any]
Path = tuple[str | int, ...]
Fault = tuple[Path, str]
"""Path of a field (keys and positions from the root), and what is wrong with it."""
_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_KEPT = (
    "type", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "minProperties",
    "maxProperties", "required",
)  # fmt: skip


def with_defaults(value: Any, schema: Schema) -> Any:
    """A copy with defaults where a field is absent, or null and has one; without nulls that have no type to offend,
    which the API server takes and the operator reads as if they were not there (quantities)."""
    if isinstance(value, Mapping):
        fields = schema.get("properties", {})
        rest = schema.get("additionalProperties")
        loose = isinstance(rest, Mapping) and "type" not in rest

        def stays(key: str) -> bool:
            return "default" not in fields[key] if key in fields else not loose

        out = {key: part for key, part in value.items() if part is not None or stays(key)}
        for name, field in fields.items():
            if name not in out and "default" in field:
                out[name] = copy.deepcopy(field["default"])
        return {key: with_defaults(part, fields.get(key, rest or {})) for key, part in out.items()}
    if isinstance(value, list) and "items" in schema:
        return [with_defaults(part, schema["items"]) for part in value]
    return value


@dataclass(frozen=True, slots=True)
class Shape:
    """A schema, made ready to be compared with many values."""

    schema: Schema
    validator: Draft202012Validator

    @classmethod
    def of(cls, schema: Schema) -> Shape:
        return cls(schema, Draft202012Validator(_plain(schema)))

    def faults(self, value: Any) -> Iterator[Fault]:
        """What is wrong with the shape of a value that has its defaults."""
        for error in self.validator.iter_errors(value):
            yield from _told(error)
        yield from _repeated((), value, self.schema)


def _plain(schema: Schema) -> dict[str, Any]:
    """The same for jsonschema: unknown fields are refused, as kubectl asks for, and `$` is the very end of a text."""
    out: dict[str, Any] = {key: schema[key] for key in _KEPT if key in schema}
    if "pattern" in out:
        out["pattern"] = out["pattern"].replace("$", r"\Z")
    if schema.get("x-kubernetes-int-or-string"):
        out["type"] = ["integer", "string"]
    fields, rest = schema.get("properties"), schema.get("additionalProperties")
    if fields is not None:
        out["properties"] = {name: _plain(field) for name, field in fields.items()}
        if not schema.get(_PRESERVE) and schema.get("type") == "object":
            out["additionalProperties"] = False
    if isinstance(rest, Mapping):
        out["additionalProperties"] = _plain(rest)
    if "items" in schema:
        out["items"] = _plain(schema["items"])
    if "not" in schema:
        out["not"] = _plain(schema["not"])
    for key in ("anyOf", "allOf"):
        if key in schema:
            out[key] = [_plain(branch) for branch in schema[key]]
    return out


def _told(error: ValidationError) -> Iterator[Fault]:
    """The fault with its path; of an `anyOf` what its first branch says, whose words are for people."""
    path = tuple(error.absolute_path)
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        for name in error.instance:
            if name not in known:
                yield (*path, name), "there is no such field"
    elif error.validator == "required":
        for name in error.validator_value:
            if name not in error.instance:
                yield (*path, name), "it is required"
    elif error.validator == "anyOf" and error.context:
        first = next((one for one in error.context if one.validator == "enum"), error.context[0])
        yield tuple(first.absolute_path), f"{first.instance!r} is not {' or '.join(map(str, first.validator_value))}"
    else:
        yield path, error.message


def _repeated(path: Path, value: Any, schema: Schema) -> Iterator[Fault]:
    """Items of a list with the key of another one."""
    if isinstance(value, Mapping):
        for name, field in schema.get("properties", {}).items():
            if name in value:
                yield from _repeated((*path, name), value[name], field)
    elif isinstance(value, list):
        keys, seen = schema.get("x-kubernetes-list-map-keys", ()), set()
        for at, item in enumerate(value):
            yield from _repeated((*path, at), item, schema.get("items", {}))
            key = tuple(str(item.get(name)) for name in keys) if isinstance(item, Mapping) else ()
            if key and key in seen:
                yield (*path, at), f"there is another one of the {keys[0]} {key[0]!r}"
            seen.add(key)
