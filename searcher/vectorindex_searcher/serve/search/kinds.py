"""Kinds of values in a request: how each is checked, how a query string writes it, and how OpenAPI describes it.

One declaration says all three, so what is documented is what is refused. Every refusal names field, value and remedy.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from ..http.limits import MAX_NAME_CHARACTERS
from ..http.messages import Problem

Json = dict[str, Any]
FOREIGN = "Of another kind of index: ignored here, and the answer says so."


class Kind(Protocol):
    """What a field's value may be."""

    def read(self, value: Any, place: str) -> Any:
        """The value of decoded JSON, checked. Raises Problem 400 that names `place`."""
        ...

    def of_text(self, text: str, place: str) -> Any:
        """What a query string's text would be as JSON, not yet checked. Raises Problem 400."""
        ...

    def schema(self) -> Json:
        """JSON Schema 2020-12."""
        ...


def invalid(place: str, value: object, wanted: str) -> Problem:
    """A value that is not as `wanted`, which is said as in "an integer from 1 to 10"."""
    return Problem(400, "InvalidField", f"{place} must be {wanted}", field=place, value=value, remedy=f"send {wanted}")


def refuse_unknown(
    found: Mapping[str, object], known: Collection[str], prefix: str = "", borne: Collection[str] = ()
) -> None:
    """Raises Problem 400 for the first name that is neither `known` nor `borne`, which is not recommended; `prefix`
    stands before it in the field."""
    for name in found:
        if name not in known and name not in borne:
            raise Problem(
                400,
                "UnknownField",
                "the request has a field that is not known here",
                field=f"{prefix}{name[:MAX_NAME_CHARACTERS]}",
                remedy=f"known are: {', '.join(known)}" if known else "leave it out: none is known here",
            )


@dataclass(frozen=True, slots=True)
class Integer:
    """From `low` to `high`. True is no integer, whatever Python says."""

    low: int
    high: int
    said_by: str = ""
    """Whose limit that is, where it is not ours."""

    def read(self, value: Any, place: str) -> int:
        if type(value) is not int or not self.low <= value <= self.high:
            by = f" ({self.said_by})" if self.said_by else ""
            raise invalid(place, value, f"an integer from {self.low} to {self.high}{by}")
        return value

    def of_text(self, text: str, place: str) -> int:
        number: int = _number(text, int, place)
        return number

    def schema(self) -> Json:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class Number:
    """A finite one."""

    def read(self, value: Any, place: str) -> float:
        if type(value) not in (int, float) or not math.isfinite(value):
            raise invalid(place, value, "a finite number")
        return float(value)

    def of_text(self, text: str, place: str) -> float:
        number: float = _number(text, float, place)
        return number

    def schema(self) -> Json:
        return {"type": "number"}


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def read(self, value: Any, place: str) -> bool:
        if not isinstance(value, bool):
            raise invalid(place, value, "true or false")
        return value

    def of_text(self, text: str, place: str) -> bool:
        if text not in ("true", "false"):
            raise invalid(place, text, "true or false")
        return text == "true"

    def schema(self) -> Json:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Text:
    """Of at most `longest` characters."""

    longest: int = MAX_NAME_CHARACTERS

    def read(self, value: Any, place: str) -> str:
        if not isinstance(value, str) or len(value) > self.longest:
            raise invalid(place, value, f"a string of at most {self.longest} characters")
        return value

    def of_text(self, text: str, place: str) -> str:  # noqa: ARG002 - the protocol's signature
        return text

    def schema(self) -> Json:
        return {"type": "string", "maxLength": self.longest}


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts to be searched for; in JSON only."""

    most: int
    longest: int

    def read(self, value: Any, place: str) -> tuple[str, ...]:
        if not isinstance(value, list) or not 1 <= len(value) <= self.most:
            raise invalid(place, value, f"a list of 1 to {self.most} texts")
        return tuple(read_text(one, f"{place}[{number}]", self.longest) for number, one in enumerate(value))

    def of_text(self, text: str, place: str) -> Any:
        """Never: a query string stands beside vectors."""
        raise invalid(place, text, "in a JSON body")

    def schema(self) -> Json:
        one = {"type": "string", "minLength": 1, "maxLength": self.longest}
        return {"type": "array", "items": one, "minItems": 1, "maxItems": self.most}


def read_text(value: Any, place: str, longest: int) -> str:
    """One text to be searched for. Raises Problem 400."""
    if not isinstance(value, str) or not value.strip() or len(value) > longest:
        raise invalid(place, value, f"a text that is not empty, of at most {longest} characters")
    return value


@dataclass(frozen=True, slots=True)
class Names:
    """A list of some of the `choices`; in a query string separated by commas."""

    choices: tuple[str, ...]
    longest: int = 16
    """Names may be repeated, but not for ever."""

    def read(self, value: Any, place: str) -> tuple[str, ...]:
        known = ", ".join(self.choices)
        if not isinstance(value, list) or len(value) > self.longest:
            raise invalid(place, value, f"a list of at most {self.longest} of: {known}")
        for number, name in enumerate(value):
            if name not in self.choices:
                raise invalid(f"{place}[{number}]", name, f"one of: {known}")
        return tuple(value)

    def of_text(self, text: str, place: str) -> list[str]:  # noqa: ARG002 - the protocol's signature
        return text.split(",", self.longest)

    def schema(self) -> Json:
        return {"type": "array", "items": {"enum": list(self.choices)}, "maxItems": self.longest}


@dataclass(frozen=True, slots=True)
class Members:
    """An object with some of these members, each of which may be null; in a query string NAME.MEMBER."""

    kinds: Mapping[str, Kind]
    wanted: str
    others: Kind | None = None
    """For the description of any index, whose members nobody knows yet."""
    nullable: bool = True
    foreign: Mapping[str, Kind] = field(default_factory=dict)
    """Members that are of no use here, and are taken so that whoever uses several indexes can say the same to all."""

    def read(self, value: Any, place: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise invalid(place, value, self.wanted)
        refuse_unknown(value, self.kinds, f"{place}.", self.foreign)
        given = {name: one for name, one in value.items() if not (one is None and self.nullable)}
        return {name: self.member(name).read(one, f"{place}.{name}") for name, one in given.items()}

    def member(self, name: str) -> Kind:
        """The kind of a member that is known or foreign."""
        return self.kinds.get(name) or self.foreign[name]

    def of_text(self, text: str, place: str) -> Any:
        """Never: a query string names members, not the whole."""
        raise invalid(place, text, f"named as {place}.NAME")

    def schema(self) -> Json:
        members = {name: kind.schema() for name, kind in self.kinds.items()}
        members |= {name: kind.schema() | {"description": FOREIGN} for name, kind in self.foreign.items()}
        if self.nullable:
            members = {name: one | {"type": [one["type"], "null"]} for name, one in members.items()}
        more: Json | bool = False if self.others is None else self.others.schema()
        return {"type": "object", "properties": members, "additionalProperties": more}


@dataclass(frozen=True, slots=True)
class Referred:
    """Described elsewhere in the document and checked by whoever takes it; in a query string as JSON."""

    name: str

    def read(self, value: Any, place: str) -> Any:  # noqa: ARG002 - the protocol's signature
        return value

    def of_text(self, text: str, place: str) -> Any:
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise Problem(
                400,
                "MalformedJSON",
                f"{place} is not JSON: {error.msg} at character {error.pos}",
                field=place,
                value=text,
                remedy="percent-encode the JSON, for example with curl --url-query",
            ) from None

    def schema(self) -> Json:
        return {"$ref": f"#/components/schemas/{self.name}"}


def _number(text: str, kind: type[Any], place: str) -> Any:
    try:
        # Python reads 1_000, and digits of any script: JSON does not, so neither does the query string.
        if not text.isascii() or "_" in text or len(text) > 40:
            raise ValueError
        return kind(text)
    except ValueError:
        raise invalid(place, text, "an integer" if kind is int else "a number") from None
