"""What a call may raise: one base class, and a class for each thing a program might want to do about it."""

# ruff: noqa: N818 - the names say what happened

from __future__ import annotations

from collections.abc import Mapping

_PREFIX = "urn:vectorindex:problem:"
MAX_VALUE_CHARACTERS = 80


class VectorIndexError(Exception):
    """A search that was not answered. Its text says what happened and what to do."""

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        kind: str = "",
        field: str | None = None,
        value: object = None,
        remedy: str | None = None,
        revision: str | None = None,
    ) -> None:
        said = _said(detail, field, value)
        super().__init__(f"{said}; {remedy}" if remedy else said)
        self.detail = detail
        self.status = status
        """HTTP status; None when no answer came."""
        self.kind = kind
        """CamelCase and stable (WrongDimension, Overload, ...): branch on this."""
        self.field = field
        """The part of the request that is wrong."""
        self.value = value
        """What was found there."""
        self.remedy = remedy
        self.revision = revision
        """Which revision of the index refused."""


class InvalidRequest(VectorIndexError):
    """The request is wrong (4xx): sending it again does not help."""


class Unauthorized(VectorIndexError):
    """The searcher asks for a token, or for another one (401)."""


class Forbidden(VectorIndexError):
    """The token may see no row of this index (403): it has no policy, or one that this revision cannot enforce."""


class NotFreshYet(VectorIndexError):
    """No searcher that was asked has the snapshot of `min_fresh` yet (409), also after waiting for it."""


class Overloaded(VectorIndexError):
    """Too much is waiting (503), also after the retries."""


class DeadlineExceeded(VectorIndexError):
    """No answer within the call's timeout, said by the searcher (504) or noticed here."""


class ServerError(VectorIndexError):
    """The searcher failed (500), or something that is no searcher answered."""


class Unreachable(VectorIndexError):
    """No connection, or one that broke, also after the retries."""


def _said(detail: str, field: str | None, value: object) -> str:
    """The sentence with the field and a short value where it names neither itself: a log often has only this text."""
    named = field if field and field not in detail else None
    short = value if isinstance(value, int | float | str) and len(str(value)) <= MAX_VALUE_CHARACTERS else None
    found = "" if short is None or str(short) in detail or str(short) in (field or "") else f" (found {short!r})"
    return f"{named}: {detail}{found}" if named else f"{detail}{found}"


def problem(status: int, document: Mapping[str, object] | None) -> VectorIndexError:
    """The error for an answer with this status. `document`: its problem+json (RFC 9457), None when it has none."""
    told = document or {}
    kind = str(told.get("type", "")).removeprefix(_PREFIX)
    types: dict[int, type[VectorIndexError]] = {
        401: Unauthorized,
        403: Forbidden,
        503: Overloaded,
        504: DeadlineExceeded,
    }
    if kind == "NotFreshYet":
        types[409] = NotFreshYet
    raised = types.get(status, InvalidRequest if 400 <= status < 500 else ServerError)
    return raised(
        str(told.get("detail") or f"the server answered with HTTP status {status} and no explanation"),
        status=status,
        kind=kind,
        field=_text(told.get("field")),
        value=told.get("value"),
        remedy=_text(told.get("remedy")),
        revision=_text(told.get("revision")),
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)
