"""The model of a search request: every field with its kind, bounds and meaning, said once.

What checks a request (plan.py), what reads a query string, and the OpenAPI document are made of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import orjson

from ..http.limits import MAX_K, MAX_TEXT_CHARACTERS, MAX_TEXTS
from ..http.messages import Problem
from .kinds import FOREIGN, Flag, Integer, Json, Kind, Members, Names, Number, Referred, Text, Texts, refuse_unknown

DEFAULT_K = 10
INCLUDABLE = ("metadata",)
MAX_DIMENSION = 65_536
_MAX_PARAM = 2**31 - 1
_MAX_SNAPSHOT = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a request. `text`: what it means, for people."""

    kind: Kind
    text: str = ""
    default: int | None = None
    nullable: bool = True
    """Whether null means that it is left out."""
    in_body: bool = True
    """Of a JSON body."""
    in_query: bool = True
    """Beside a binary body."""

    def schema(self) -> Json:
        """JSON Schema 2020-12."""
        schema = self.kind.schema()
        if self.nullable and "$ref" in schema:
            schema = {"anyOf": [schema, {"type": "null"}]}
        elif self.nullable:
            schema["type"] = [schema["type"], "null"]
        if self.default is not None:
            schema["default"] = self.default
        if self.text:
            schema["description"] = self.text
        return schema


def search_fields(
    params: Mapping[str, tuple[int, int]] | None = None,
    segments: Collection[str] | None = None,
    limited: Collection[str] = (),
    foreign: Collection[str] = (),
    *,
    texts: bool = True,
    fresh: bool = False,
) -> dict[str, Field]:
    """The fields by name. `params`: search parameters of an index with their limits, `segments`: those that are
    declared; without them what holds for every index. `limited`: parameters whose limit the VectorIndex's spec says.
    `foreign`: parameters that the index has not and bears. `texts`: whether it has an encoder. `fresh`: whether it
    has rows besides its artifact's.
    """
    integers: dict[str, Kind] = {
        name: Integer(low, high, "searcher.params.max of the VectorIndex" if name in limited else "")
        for name, (low, high) in (params or {}).items()
    }
    others = Integer(0, _MAX_PARAM) if params is None else None
    known = "see /v1/index" if segments is None else ", ".join(segments) or "none"
    return {
        "vector": Field(Referred("Vector"), "One query.", nullable=False, in_query=False),
        "vectors": Field(Referred("Vectors"), "Several queries.", nullable=False, in_query=False),
        **(_text_fields() if texts else {}),
        "dimension": Field(
            Integer(1, MAX_DIMENSION),
            "Numbers in each vector of the body. Needed when the body holds more than one vector.",
            nullable=False,
            in_body=False,
        ),
        "k": Field(Integer(1, MAX_K), "Hits wanted for each query.", DEFAULT_K, nullable=False),
        "params": Field(
            Members(
                integers,
                "an object of names and integers",
                others,
                nullable=False,
                foreign=dict.fromkeys(foreign, Integer(0, _MAX_PARAM)),
            ),
            "Search parameters instead of the revision's own; those of another kind of index are ignored, and told.",
        ),
        "segment": Field(Text(), f"The class of this query. Declared: {known}; another is `other`."),
        "filter": Field(Referred("Filter"), "Conditions on metadata that every hit fulfils."),
        "include": Field(Names(INCLUDABLE), "What each hit has besides id and score."),
        "minScore": Field(Number(), "Hits below are no hits."),
        **(_fresh_fields() if fresh else {}),
        "track": Field(Flag(), "Give each answer a query id, for /v1/feedback."),
        "embedding": Field(
            Members({"model": Text(), "version": Text()}, "an object with model, version or both"),
            "What made the vector; another one than the index's is refused.",
        ),
    }


def _fresh_fields() -> dict[str, Field]:
    text = "Answer with fresh rows of this snapshot or a later one (`fresh` of an answer), or not at all."
    return {"minFresh": Field(Integer(0, _MAX_SNAPSHOT), text, nullable=False)}


def _text_fields() -> dict[str, Field]:
    several = Texts(MAX_TEXTS, MAX_TEXT_CHARACTERS)
    return {
        "text": Field(
            Text(MAX_TEXT_CHARACTERS),
            "One query in words, where the index has an encoder (see /v1/index).",
            nullable=False,
            in_query=False,
        ),
        "texts": Field(several, "Several queries in words.", nullable=False, in_query=False),
    }


def body_schema(fields: Mapping[str, Field]) -> Json:
    """Of a JSON body."""
    return {
        "type": "object",
        "properties": {name: field.schema() for name, field in fields.items() if field.in_body},
        "oneOf": [{"required": [name]} for name in ("vector", "vectors", "text", "texts") if name in fields],
        "additionalProperties": False,
    }


def query_parameters(fields: Mapping[str, Field]) -> list[Json]:
    """OpenAPI parameters: the fields beside a binary body."""
    found: list[Json] = []
    for name, field in fields.items():
        if not field.in_query:
            continue
        members = {**field.kind.kinds, **field.kind.foreign} if isinstance(field.kind, Members) else {"": field.kind}
        for member, kind in members.items():
            one: Json = {"name": f"{name}.{member}" if member else name, "in": "query"}
            if isinstance(kind, Referred):
                one["content"] = {"application/json": {"schema": kind.schema()}}
            else:
                one["schema"] = kind.schema() | ({} if field.default is None else {"default": field.default})
            if isinstance(kind, Names):
                one |= {"style": "form", "explode": False}
            text = FOREIGN if isinstance(field.kind, Members) and member in field.kind.foreign else field.text
            found.append(one | {"description": f"With a binary body. {text}"})
    return found


# ---------------------------------------------------------------- decoding


def fields_of_json(body: bytes) -> dict[str, Any]:
    """The object in a JSON body, its names not yet looked at. Raises Problem 400 when it is none."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # The error holds the whole body; only its sentence is passed on.
        raise Problem(400, "MalformedJSON", f"the body is not JSON: {error.msg} at byte {error.pos}") from None
    if not isinstance(fields, dict):
        raise Problem(400, "MalformedJSON", "the body must be a JSON object", value=fields)
    return fields


def fields_of_query_string(query: bytes, known: Mapping[str, Field]) -> dict[str, Any]:
    """The fields beside a binary body: as they are named in JSON, lists separated by commas, filter as JSON, members
    of params and embedding as params.NAME. Raises Problem 400.
    """
    fields: dict[str, Any] = {}
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=64, errors="strict")
    except ValueError as error:
        raise Problem(400, "MalformedQueryString", f"the query string cannot be read: {error}") from None
    beside = {name: field for name, field in known.items() if field.in_query}
    for name, text in pairs:
        group, _, member = name.partition(".")
        field = beside.get(group)
        members = field.kind if field is not None and isinstance(field.kind, Members) else None
        if members is not None and name != group:
            refuse_unknown({member: text}, members.kinds, f"{group}.", members.foreign)
            fields.setdefault(group, {})[member] = members.member(member).of_text(text, name)
            continue
        if field is None or name != group or members is not None:
            plain = {n: f for n, f in beside.items() if not isinstance(f.kind, Members)}
            refuse_unknown({name: text}, plain)
        else:
            fields[name] = field.kind.of_text(text, name)
    return fields
