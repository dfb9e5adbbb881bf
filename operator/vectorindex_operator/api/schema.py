"""Pydantic models -> structural OpenAPI v3 schemas, as Kubernetes wants them in a CRD. Pure; knows no particular kind.

What Kubernetes forbids or reads otherwise is rewritten: `$ref` is inlined, "or null" becomes "optional", `const`
becomes `enum`, `additionalProperties: false` goes (the API server prunes or refuses unknown fields by itself), and an
object whose model has a default gets `default: {}`, so that the defaults below it apply when it is left out.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from math import ceil, floor
from typing import Any, cast

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from vectorindex_operator.api.places import OTHER_STORES
from vectorindex_searcher.contract import NUMBERS, Stored

MODEL = "x-model"
"""Schema key that names the class a node came from. For the reference page; `publish` removes it."""

_Schema = dict[str, Any]
_NONE = "none: "
"""Begins the one value that a refused field may have: the API server shows it as what is supported."""
_DROPPED = ("title", "propertyNames", "$defs", "description")


@dataclass(frozen=True, slots=True)
class Style:
    """What differs between a spec that users write and an object that only the operator writes.

    `defaults`: the API server fills them in. A status has none: what the operator removes must be gone.
    `rules`: CEL rules and the forms of bounds are added. `numbers`: text fields take the numbers that their models read
    as text; what the operator writes is always the text. `atomic`: objects and maps below the root have one owner and
    are replaced as a whole (an applied `{}` would otherwise become null, which is refused). `list_keys`: model of a
    list's items -> the field that names an item.
    """

    defaults: bool = True
    rules: bool = True
    numbers: bool = True
    atomic: bool = False
    list_keys: Mapping[type[BaseModel], str] = field(default_factory=dict)


class _WithModels(GenerateJsonSchema):
    """Pydantic's generator, leaving in each object the class it came from."""

    def model_schema(self, schema: Any) -> JsonSchemaValue:
        return {**super().model_schema(schema), MODEL: schema["cls"]}


def structural(model: type[BaseModel], style: Style) -> _Schema:
    """The structural schema of `model`. Raises TypeError for a type that such a schema cannot say."""
    generated = model.model_json_schema(schema_generator=_WithModels)
    return _convert(generated, generated.get("$defs", {}), style)


def publish(node: Any) -> Any:
    """The same schema without the marks that only the reference page reads."""
    if isinstance(node, dict):
        return {key: publish(value) for key, value in node.items() if key != MODEL}
    return [publish(value) for value in node] if isinstance(node, list) else node


def _convert(node: Mapping[str, Any], defs: Mapping[str, Any], style: Style) -> _Schema:
    node = dict(node)
    while "$ref" in node:
        node = {**defs[node.pop("$ref").removeprefix("#/$defs/")], **node}
    if "anyOf" in node:
        options = [option for option in node.pop("anyOf") if option.get("type") != "null"]
        if [one.get("type") for one in options] == ["integer", "string"] and "const" in options[1]:
            return _number_or_word(options[0], options[1], node)
        if len(options) != 1:
            raise TypeError(f"a union of {len(options)} types has no structural schema: {options}")
        return _convert({**options[0], **node}, defs, style)
    others = node.pop(OTHER_STORES, {})
    node.pop("default", None)  # set by the parent, which knows the model's own value
    if node.get("type") == "object":
        return _with_stores(_object(node, defs, style), others, defs, style)
    if node.get("type") == "array":
        return _array(node, defs, style)
    return _scalar(node, style)


def _with_stores(flat: _Schema, others: Mapping[str, Any], defs: Mapping[str, Any], style: Style) -> _Schema:
    """A stored place: the fields of S3's, or one of the other kinds below its own name."""
    if others:
        flat.pop("required", None)
        flat["properties"] |= {name: _convert(other, defs, style) for name, other in others.items()}
    return flat


def _scalar(node: _Schema, style: Style) -> _Schema:
    out = {key: value for key, value in node.items() if key not in _DROPPED}
    numbers = out.pop(NUMBERS, None)
    if numbers is not None and style.numbers:
        return _text_or_number(out, numbers)
    if "const" in out:
        out["enum"] = [out.pop("const")]
    if "type" not in out:
        raise TypeError(f"a schema without a type: {node}")
    if out["type"] == "integer":
        out["format"] = "int64"
    for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if bound in out:  # a number in JSON Schema, a flag beside the limit in OpenAPI 3.0
            out[limit], out[bound] = out[bound], True
    return out | _exact_bounds(out) if style.rules else out


def _text_or_number(text: _Schema, numbers: Mapping[str, Any]) -> _Schema:
    """The schema of a text field that takes numbers, too (contract/numbers.py says which).

    A structural schema knows "whole number or text" only. Numbers with a point need a node without a type, which admits
    everything; what is no text and no such number is then refused by value: `maxLength` holds for everything but text,
    a bound for everything but numbers. The first branch admits nothing (the pattern refuses its words): it is there
    because the API server's message of an `anyOf` is that of its first branch.
    """
    out = {key: value for key, value in text.items() if key != "type"}
    if numbers["kind"] != "any":
        out["x-kubernetes-int-or-string"] = True
        if numbers["kind"] == "whole":
            return out | {"minimum": numbers["minimum"], "maximum": numbers["maximum"]}
        rule = {"rule": "type(self) != int || self == 0", "message": numbers["words"]}
        return out | {"x-kubernetes-validations": [rule]}
    number = {"minimum": numbers["minimum"], "not": {"minimum": numbers["maximum"]}}
    branches = [{"enum": [numbers["words"]]}, {"not": {"maxLength": 0}}, number]
    return out | {"x-kubernetes-preserve-unknown-fields": True, "anyOf": branches}


def _number_or_word(number: _Schema, word: _Schema, node: _Schema) -> _Schema:
    """The schema of a field that takes a whole number or one word: bounds hold for numbers, the pattern for text."""
    out = {key: value for key, value in node.items() if key not in (*_DROPPED, "default")}
    bounds = {key: number[key] for key in ("minimum", "maximum") if key in number}
    text = {"pattern": f"^{word['const']}$", "maxLength": len(word["const"])}
    return out | bounds | text | {"x-kubernetes-int-or-string": True}


def _exact_bounds(node: _Schema) -> _Schema:
    """Rules for bounds that are not whole numbers: the API server enforces those, but its message rounds them down."""
    rules = []
    for bound, sign, words, whole in (("minimum", ">=", "at least", floor), ("maximum", "<=", "at most", ceil)):
        limit = node.get(bound)
        if limit is not None and limit != whole(limit):
            node[bound] = float(whole(limit))
            rules.append({"rule": f"self {sign} {limit}", "message": f"must be {words} {limit}"})
    return {"x-kubernetes-validations": rules} if rules else {}


def _array(node: _Schema, defs: Mapping[str, Any], style: Style) -> _Schema:
    items = _convert(node["items"], defs, style)
    out: _Schema = {"type": "array", "items": items}
    out |= {key: node[key] for key in ("minItems", "maxItems") if key in node}
    key = style.list_keys.get(items.get(MODEL, BaseModel))
    if key:
        return out | {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    return out | {"x-kubernetes-list-type": "atomic"}


def _object(node: _Schema, defs: Mapping[str, Any], style: Style) -> _Schema:
    model = cast("type[BaseModel] | None", node.get(MODEL))
    if model is None:
        out: _Schema = {"type": "object"}
        out |= {key: node[key] for key in ("minProperties", "maxProperties") if key in node}
        values = node.get("additionalProperties")
        if isinstance(values, Mapping) and values:
            return out | {"additionalProperties": _convert(values, defs, style)}
        return out | {"x-kubernetes-preserve-unknown-fields": True}
    out = {"type": "object", MODEL: model, "description": inspect.cleandoc(model.__doc__ or "")}
    if node.get("required"):
        out["required"] = list(node["required"])
    out["properties"] = {}
    texts = _attribute_texts(model)
    for name, info in model.model_fields.items():
        alias = info.alias or name
        child = _convert(node["properties"][alias], defs, style)
        text = texts.get(name) or child.pop("description", "")
        if style.defaults and not info.is_required() and info.default is not None:
            child = {"default": default_value(info.default), **child}
        if style.atomic and child.get("type") == "object":
            child["x-kubernetes-map-type"] = "atomic"
        out["properties"][alias] = ({"description": text} if text else {}) | child
    if issubclass(model, Stored):
        out["x-kubernetes-preserve-unknown-fields"] = True  # an older CRD must not prune what a newer operator wrote
    forms = getattr(model, "forms", ()) if style.rules else ()
    if forms:
        out["allOf"] = [dict(form) for form in forms]
    for name, why in getattr(model, "refused", {}).items() if style.rules else ():
        out["properties"][name] = _refusal(why)
    rules = getattr(model, "cel", ()) if style.rules else ()
    if rules:
        out["x-kubernetes-validations"] = [
            {"rule": rule.rule, "message": rule.message} | ({"fieldPath": rule.field_path} if rule.field_path else {})
            for rule in rules
        ]
    return {key: value for key, value in out.items() if value != ""}


def _refusal(why: str) -> _Schema:
    """A field that people look for and that no object has: any value is refused, in words that say what to do. Left out
    it would be an unknown field, which clients without strict validation have dropped without a word.
    """
    return {"x-kubernetes-preserve-unknown-fields": True, "enum": [f"{_NONE}{why}"]}


def refusal_of(node: Mapping[str, Any]) -> str:
    """Why a field is refused; empty: it is not."""
    return str(node["enum"][0]).removeprefix(_NONE) if "enum" in node and "type" not in node else ""


def default_value(value: Any) -> Any:
    """The wire form of a default. Of an object only what differs from the defaults of its own fields."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [default_value(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def _attribute_texts(model: type[BaseModel]) -> dict[str, str]:
    """Docstrings of the attributes of `model` and its bases: the string that follows an assignment."""
    texts: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if issubclass(cls, BaseModel) and cls is not BaseModel:
            texts |= _module_texts(cls.__module__).get(cls.__qualname__, {})
    return texts


@cache
def _module_texts(module: str) -> dict[str, dict[str, str]]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: dict(_class_texts(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _class_texts(node: ast.ClassDef) -> list[tuple[str, str]]:
    return [
        (target.target.id, inspect.cleandoc(text.value.value))
        for target, text in zip(node.body, node.body[1:], strict=False)
        if isinstance(target, ast.AnnAssign)
        and isinstance(target.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    ]
