"""Places as users write them: where vectors, queries and artifacts are, in one of several kinds of store.

One class a kind, and `AnyStore`, from which every field of the spec with a place is made: exactly one of its stores is
given. A place that is kept (in revisions and statuses) is `StoredPlace`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, SerializationInfo, ValidationInfo, model_validator
from pydantic_core import CoreSchema, core_schema

from vectorindex_operator.api.fields import CelRule, ObjectName
from vectorindex_searcher import contract
from vectorindex_searcher.contract import Model

OTHER_STORES = "x-other-stores"
"""Schema key of a stored place: the kinds of store that stand below their own name there."""


class SecretRef(Model):
    """A Secret of the same namespace, read by the pods, never by the operator.

    Keys for S3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, optional AWS_SESSION_TOKEN, CA_PEM. For Azure:
    AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_SAS_TOKEN, or AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET;
    optional CA_PEM. For GCS: GOOGLE_SERVICE_ACCOUNT_KEY (JSON); optional CA_PEM.
    """

    name: ObjectName
    """Name of the Secret."""


class Place(contract.Place):
    """A place with how it is reached, which no revision freezes."""

    access: ClassVar[tuple[str, ...]] = ()
    """Fields that say how, and not where."""

    @property
    def secret(self) -> str:
        """Name of the Secret whose keys the pods use; empty: none, or a kind of store that takes no keys."""
        ref: SecretRef | None = getattr(self, "secret_ref", None)
        return ref.name if ref is not None else ""

    def reached_by(self, live: Place) -> Self:
        """This place, reached as `live` reaches the same bucket today: its endpoint, region and Secret, or none.

        In another bucket than `live` it is reached as before: nothing is known of how else.
        """
        if type(live) is not type(self) or live.held_in != self.held_in:
            return self
        return self.model_copy(update={name: getattr(live, name) for name in self.access})

    def location(self) -> contract.Location:
        """What travels to the data plane: the place, never the credentials."""
        known = next(base for base in type(self).__mro__ if base.__module__ == contract.Place.__module__)
        fields = known.model_fields if issubclass(known, contract.Place) else {}
        return contract.Location.model_validate({self.kind: known(**{name: getattr(self, name) for name in fields})})


class S3(contract.S3, Place):
    """A bucket and a key prefix. Without `secretRef` the pods' own identity is used."""

    secret_ref: SecretRef | None = None
    """Whose keys the pods use. Absent: the identity of their ServiceAccount."""
    access: ClassVar[tuple[str, ...]] = ("endpoint", "region", "secret_ref", "anonymous")
    cel: ClassVar[tuple[CelRule, ...]] = (
        CelRule(
            "!(has(self.anonymous) && self.anonymous && has(self.secretRef))",
            "anonymous and secretRef contradict each other: remove one of them",
            ".anonymous",
        ),
    )


class Azure(contract.Azure, Place):
    """A container of Azure Blob Storage. Without `secretRef` the pods' own identity is used (workload identity)."""

    secret_ref: SecretRef | None = None
    """Whose keys the pods use. Absent: the identity of their ServiceAccount."""
    access: ClassVar[tuple[str, ...]] = ("endpoint", "secret_ref", "anonymous")
    cel: ClassVar[tuple[CelRule, ...]] = S3.cel


class GCS(contract.GCS, Place):
    """A bucket of Google Cloud Storage. Without `secretRef` the pods' own identity is used (workload identity)."""

    secret_ref: SecretRef | None = None
    """Whose key the pods use. Absent: the identity of their ServiceAccount."""
    access: ClassVar[tuple[str, ...]] = ("endpoint", "secret_ref", "anonymous")
    cel: ClassVar[tuple[CelRule, ...]] = S3.cel


class Volume(contract.Volume, Place):
    """A folder of a PersistentVolumeClaim of the same namespace, which pods mount: searchers and what only reads it
    read-only. Pods on several nodes need a volume that several nodes can mount."""


STORES: Mapping[str, type[Place]] = {"s3": S3, "azure": Azure, "gcs": GCS, "volume": Volume}
"""Every kind of store, by the field of a spec that holds it."""
STORE_NAMES = " or ".join((", ".join([*STORES][:-1]), [*STORES][-1]))
_HOW_MANY = f"[{', '.join(f'has(self.{name})' for name in STORES)}].filter(one, one).size()"
_PREFIXES = {"volume": "path"}
"""The field that is the prefix of a place, where it has another name."""
GIVEN = f"{_HOW_MANY} == 1"
ONE_STORE = CelRule(GIVEN, f"exactly one kind of store has to be given: {STORE_NAMES}", "")
NOT_TWO_STORES = CelRule(f"{_HOW_MANY} <= 1", f"give one kind of store only: {STORE_NAMES}", "")


def any_store(field: str) -> str:
    """CEL: whether a field of the spec has a place."""
    return "(" + " || ".join(f"has({field}.{name})" for name in STORES) + ")"


def _prefix_of() -> str:
    text = "''"
    for name in STORES:
        of = f"self.{name}.{_PREFIXES.get(name, 'prefix')}"
        text = f"(has(self.{name}) ? (has({of}) ? {of} : '') : {text})"
    return text


ANY_STORE = any_store("self")
PREFIX_OF = _prefix_of()
"""CEL: the prefix of the place that is given."""


class AnyStore(Model):
    """What may have a place: one of the kinds of store."""

    s3: S3 | None = None
    """In a bucket of S3, or of a server that speaks its protocol."""
    azure: Azure | None = None
    """In a container of Azure Blob Storage, instead of `s3`."""
    gcs: GCS | None = None
    """In a bucket of Google Cloud Storage, instead of `s3`."""
    volume: Volume | None = None
    """On a volume of the cluster, instead of `s3`."""

    @property
    def where(self) -> Place | None:
        """The place that is given."""
        return next(iter(self._places()), None)

    def _places(self) -> list[Place]:
        return [place for name in STORES if (place := getattr(self, name)) is not None]

    @model_validator(mode="after")
    def _not_two(self) -> Self:
        if len(self._places()) > 1:
            raise ValueError(NOT_TWO_STORES.message)
        return self


class HasPlace(AnyStore):
    """What always has a place."""

    @property
    def place(self) -> Place:
        """The place that is given."""
        assert self.where is not None, "a spec without one is not read"
        return self.where

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if self.where is None:
            raise ValueError(ONE_STORE.message)
        return self


def by_kind(place: Place) -> dict[str, object]:
    """The wire form below the name of its kind."""
    return {place.kind: place.wire()}


def kept(place: Place) -> dict[str, object]:
    """The wire form of a place that is kept: see `_Kept`."""
    return place.wire() if isinstance(place, S3) else by_kind(place)


class _Kept:
    """How a place is kept: S3's lies flat, as releases wrote it that knew no other; the others below their name."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_wrap_validator_function(
            _read,
            handler.generate_schema(S3),
            serialization=core_schema.plain_serializer_function_ser_schema(_write, info_arg=True),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        others = {name: handler(kind.__pydantic_core_schema__) for name, kind in STORES.items() if kind is not S3}
        flat = handler(S3.__pydantic_core_schema__)
        return {**flat, OTHER_STORES: others}


def _read(value: Any, flat: Callable[[Any], Any], info: ValidationInfo) -> Any:
    if isinstance(value, Place):
        return value
    names = [name for name in STORES if isinstance(value, Mapping) and name in value]
    return STORES[names[0]].model_validate(value[names[0]], context=info.context) if len(names) == 1 else flat(value)


def _write(place: Place, info: SerializationInfo) -> dict[str, Any]:
    said = place.model_dump(
        mode=info.mode,
        by_alias=info.by_alias,
        exclude_none=info.exclude_none,
        exclude_defaults=info.exclude_defaults,
    )
    return said if isinstance(place, S3) else {place.kind: said}


if TYPE_CHECKING:
    StoredPlace = Place
else:
    StoredPlace = Annotated[Place, _Kept()]
