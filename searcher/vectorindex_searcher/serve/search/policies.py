"""Which rows the holder of a bearer token may see: a filter for each token, read from a mounted file.

    [{"token": "shop-a", "filter": {"tenant": "a"}}, {"token": "support", "allRows": true}]

A policy narrows whatever its token asks: the request's own filter comes on top and can only take rows away. Whatever is
wrong with the file or with one policy, its tokens see nothing, never more.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from ...index.filters import FilterColumns, FilterError, Predicate, parse
from ..http.auth import MAX_TOKENS, Tokens
from ..http.head import Credential
from ..http.messages import Problem
from ..http.mounted import Signature, signature

MAX_FILE_BYTES = 1 << 20
"""As much as a Secret may hold."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """The rows of one token in this revision."""

    filter: Mapping[str, Any] | None
    """In the policy's own words; None: all rows."""
    predicate: Predicate | None = None
    """The same, checked against this revision's columns; None: all rows, or `fault`."""
    fault: str = ""
    """Why this revision cannot enforce it; empty: it can."""
    key: bytes = b""
    """Equal for policies that mean the same rows, and for no others; empty: all rows."""

    @classmethod
    def of(cls, document: Mapping[str, Any], columns: FilterColumns | None) -> Self:
        """A policy of the rows that match `document`. `columns`: what filters may name here; None: nothing."""
        if columns is None:
            return cls(document, fault="this index type cannot be filtered: build it with factory Flat, IVF or HNSW")
        try:
            predicate = parse(document, columns)
        except FilterError as error:
            return cls(document, fault=f"{error}{f'; {error.remedy}' if error.remedy else ''}")
        text = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
        return cls(document, predicate, key=hashlib.sha256(text).digest())


ALL_ROWS = Policy(None)


class _Stated(BaseModel):
    """One entry of the file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    token: Annotated[str, Field(min_length=1, max_length=253)]
    filter: dict[str, Any] | None = None
    allRows: bool = False  # noqa: N815 - as the file has it

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.filter is None) is not self.allRows:
            raise ValueError("a policy has either a filter or allRows: true")
        return self


_FILE: TypeAdapter[list[_Stated]] = TypeAdapter(Annotated[list[_Stated], Field(max_length=MAX_TOKENS)])


class Policies:
    """The policies that hold now, by token. `refresh` runs on a thread; lookups see one state of it or the next."""

    def __init__(self, path: Path, tokens: Tokens) -> None:
        """Until `bind` nobody sees anything."""
        self._path, self._tokens = path, tokens
        self._columns: FilterColumns | None = None
        self._bound = False
        self._seen: object = None
        self._of: Mapping[bytes, Policy] = {}
        """By SHA-256 of the token."""
        self.unusable: tuple[str, ...] = ()
        """Names of tokens that see nothing: they have no policy, or one that cannot be enforced here."""

    @classmethod
    def told(cls, path: Path | None, tokens: Tokens | None) -> Self | None:
        """Those of a file; None where there is none."""
        return None if path is None or tokens is None else cls(path, tokens)

    def bind(self, columns: FilterColumns | None) -> None:
        """From now on for a revision whose filters may name these columns; None: it cannot be filtered."""
        self._columns, self._bound, self._seen = columns, True, None
        self.refresh()

    def of(self, credential: Credential | None) -> Policy:
        """The policy of a token that the port has let in. Raises Problem 403 when there is none. A policy with a fault
        is answered: what becomes of it is for who knows the revision before."""
        policy = self._of.get(credential.digest) if credential is not None else None
        if policy is None:
            raise Problem(
                403,
                "NoPolicy",
                "no rows are allowed for this token: there is no policy for it",
                field="Authorization",
                remedy="have the index's administrator add the token to policies.json in the Secret of "
                "spec.searcher.auth.secretRef, with a filter or allRows: true",
            )
        return policy

    def refresh(self) -> None:
        """Read the file again if it changed, or the tokens did. What cannot be read allows nothing."""
        if not self._bound:
            return
        holders, seen = self._tokens.holders, Signature()
        with suppress(OSError):  # what is not there is said when it is read
            # Before the content: what changes while it is read is read again next time.
            seen = signature([self._path])
        if (seen, holders) == self._seen:
            return
        self._seen = (seen, holders)
        self._hold(*self._stated())

    def _stated(self) -> tuple[list[_Stated], str]:
        """What is in the file; or nothing, and why."""
        try:
            return read_policies(self._path), ""
        except OSError as error:
            return [], error.strerror or str(error)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            return [], f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}"
        except ValueError as error:
            return [], str(error)

    def _hold(self, stated: list[_Stated], problem: str) -> None:
        policies = {one.token: self._policy(one) for one in stated}
        # Of two, nobody can say which was meant.
        for name in (name for name, times in Counter(one.token for one in stated).items() if times > 1):
            policies[name] = Policy(None, fault="the token has more than one policy")
        self._of = {digest: policies[file] for digest, file in self._tokens.holders if file in policies}
        files = dict.fromkeys(file for _, file in self._tokens.holders)
        self.unusable = tuple(file for file in files if file not in policies or policies[file].fault)
        if problem:
            _log.error("nobody may see any row", extra={"path": str(self._path), "problem": problem})
        for name in self.unusable:
            fault = policies[name].fault if name in policies else "there is no policy for it"
            _log.error("a token sees no row", extra={"token": name, "problem": fault})
        _log.info("policies read", extra={"path": str(self._path), "policies": len(policies)})

    def _policy(self, stated: _Stated) -> Policy:
        return ALL_ROWS if stated.filter is None else Policy.of(stated.filter, self._columns)


def unusable() -> Problem:
    """For the token of a policy with a fault. What is wrong is said in the log: the client wrote neither the policy nor
    the columns."""
    return Problem(
        403,
        "PolicyNotUsable",
        "no rows are allowed for this token: its policy cannot be enforced in this revision of the index",
        field="Authorization",
        remedy="the reason is in the searcher's log; the policy's columns must be metadata columns of the index",
    )


def narrowed(document: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """Of what GET /v1/index tells, what a token is told that may see `rows` of them. How much there is of others is not
    its to know: the bytes of all would tell, and so would a share."""
    own = {name: value for name, value in document.items() if name != "indexBytes"}
    return {**own, "count": rows}


def names_of_all_rows(path: Path) -> frozenset[str]:
    """The tokens that a file of policies lets see every row. Raises as `read_policies`."""
    stated = read_policies(path)
    times = Counter(one.token for one in stated)
    return frozenset(one.token for one in stated if one.allRows and times[one.token] == 1)


def read_policies(path: Path) -> list[_Stated]:
    """Raises OSError, and ValueError for what is no list of policies; neither names what is in the file."""
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        # The error holds the whole file; only its sentence is passed on.
        raise ValueError(f"it is not JSON: {error.msg} at byte {error.pos}") from None
    return _FILE.validate_python(document)
