"""The base of everything on the wire, and of what is read back after another release may have written it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import InitErrorDetails, from_json

_Path = tuple[int | str, ...]
_READING = {"stored": True}
_MOST_ROUNDS = 8
"""Rounds of setting aside what cannot be read: one shows all faults of a level, the next those below it."""


def inert(text: str) -> str:
    """The same JSON, for the value of an environment variable of a pod: the kubelet would replace `$(NAME)` in it by
    another variable, one out of a Secret as well, and what a user names (a prefix, a column) is shown in messages."""
    return text.replace("$", "\\u0024")


class Model(BaseModel):
    """Base of everything on the wire: camelCase JSON, immutable, unknown fields refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)
    later: ClassVar[frozenset[str]] = frozenset()
    """Fields that images of the first release do not know, and refuse."""

    @classmethod
    def of_peer(cls, data: bytes) -> Self:
        """What another pod said, which may be any bytes. Raises ValidationError.

        Not by `model_validate_json`, which takes 300 times their memory, and seconds for each MB, to find that they are
        no such object. This takes 25 times, and a tenth of that time.
        """
        try:
            said = from_json(data)
        except ValueError as error:
            fault = InitErrorDetails(type="json_invalid", input=None, ctx={"error": str(error)[:200]})
            raise ValidationError.from_exception_data(cls.__name__, [fault]) from None
        return cls.model_validate(said)

    def wire(self) -> dict[str, object]:
        """The JSON form: camelCase, without fields that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def task_text(self, *, first_release: bool) -> str:
        """The JSON form for an image: without defaults, since it may be older and refuses what it does not know. So a
        field that is added later has the earlier behaviour as its default. `first_release`: the image may know no more
        than the first release did."""
        unknown = self._added_later() if first_release else None
        return inert(self.model_dump_json(by_alias=True, exclude_none=True, exclude_defaults=True, exclude=unknown))

    def _added_later(self) -> dict[str, Any]:
        """What `later` names here and in the models that this one holds, as pydantic's `exclude`."""
        held = ((name, value) for name, value in self if isinstance(value, Model))
        below = {name: names for name, value in held if (names := value._added_later())}
        return below | dict.fromkeys(self.later, True)


class Stored(Model):
    """Base of what another release, or a Job of one, may have written: `read` takes what it can and keeps the rest.

    What is unknown, and what cannot be read, is kept as it was found and written back by `wire()`, until this release
    sets the field anew. A field that cannot be read has its default; one without a default makes its object unreadable,
    which is then kept in turn by the object above it. Made by our own code (not read), it is as strict as any model.
    """

    _kept: dict[str, Any] = PrivateAttr(default_factory=dict)
    """By its name on the wire: what was found there."""
    _unread: frozenset[str] = PrivateAttr(default=frozenset())

    @classmethod
    def read(cls, raw: object) -> Self:
        """What is stored. Raises ValidationError when a field without a default cannot be read."""
        return cls.model_validate(raw, context=_READING)

    @property
    def unread(self) -> frozenset[str]:
        """Names of our own fields (as in Python) whose stored value could not be read, as a whole or in parts."""
        return self._unread

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with fields changed: what was kept of these is gone."""
        copy = super().model_copy(update=update, deep=deep)
        if update:
            names = {type(self).model_fields[name].alias or name for name in update}
            copy._kept = {name: value for name, value in self._kept.items() if name not in names}
            copy._unread = self._unread - set(update)
        return copy

    def with_fields_of(self, fresh: Self) -> Self:
        """`fresh` in all fields that this release knows, and what else was kept here."""
        return self.model_copy(update=dict(fresh))

    @model_validator(mode="wrap")
    @classmethod
    def _keep(cls, value: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if info.context is not _READING or not isinstance(value, Mapping):
            return handler(value)
        known = {field.alias or name: name for name, field in cls.model_fields.items()}
        aside = {name for name in value if name not in known}
        unread: set[str] = set()
        readable = {name: part for name, part in value.items() if name in known}
        for _ in range(_MOST_ROUNDS):
            try:
                model = handler(readable)
            except ValidationError as error:
                unknown, unreadable = _faults(error)
                paths = unknown | unreadable
                if any(not path or path[0] not in readable for path in paths):
                    raise  # a field is missing that nothing can stand for
                aside |= {str(path[0]) for path in paths}
                unread |= {known[str(path[0])] for path in unreadable}
                readable = _without(readable, paths)
                continue
            model._kept = {name: value[name] for name in aside}
            model._unread = frozenset(unread)
            return model
        return handler(readable)

    @model_serializer(mode="wrap")
    def _with_kept(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        out: dict[str, Any] = handler(self)
        return out | self._kept if info.by_alias else out


def _faults(error: ValidationError) -> tuple[set[_Path], set[_Path]]:
    """Paths of unknown fields, and of what cannot be read: an item of a list, else a whole field of ours."""
    unknown, unreadable = set(), set()
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        loc = fault["loc"]
        last = max((at for at, part in enumerate(loc) if isinstance(part, int)), default=0)
        if fault["type"] == "extra_forbidden":
            unknown.add(loc)
        else:
            unreadable.add(loc[: last + 1])
    return unknown, unreadable


def _without(value: Any, paths: set[_Path]) -> Any:
    """A copy of a JSON value without what stands at `paths`."""
    if not paths:
        return value
    below: dict[Any, set[_Path]] = {}
    for path in paths:
        below.setdefault(path[0], set()).add(path[1:])
    if isinstance(value, Mapping):
        return {
            key: _without(part, below.get(key, set())) for key, part in value.items() if () not in below.get(key, ())
        }
    if isinstance(value, list | tuple):
        parts = enumerate(value)
        return [_without(part, below.get(at, set())) for at, part in parts if () not in below.get(at, ())]
    return value
