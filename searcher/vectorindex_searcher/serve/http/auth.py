"""Bearer tokens of the user port: read from mounted files, reloaded when these change, compared in constant time.

A token's value is never logged, counted or kept: only the SHA-256 of it and the name of the file that holds it.
Whatever goes wrong with the files, the port is closed, never open.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from ... import contract
from ...errors import BadSpec
from .head import Credential
from .messages import Problem
from .mounted import Signature, signature, visible_files

MAX_TOKENS = 64
"""More would make each check longer: every request is compared with every token."""
MIN_CHARACTERS = 16
"""Shorter tokens are accepted with a warning: they can be guessed."""
_FILE_LIMIT_BYTES = 64 << 10
_SCHEME = b"bearer "
_CHALLENGE = b'Bearer realm="vectorindex"'
_log = logging.getLogger(__name__)


def credential_of(authorization: bytes | None) -> Credential | None:
    """What is kept of an Authorization header."""
    if authorization is None:
        return None
    if authorization[: len(_SCHEME)].lower() != _SCHEME:
        return Credential(b"")
    return Credential(hashlib.sha256(authorization[len(_SCHEME) :].strip()).digest())


class _Valid(NamedTuple):
    """A token that is valid: its SHA-256, its name, and that of the file it stands in."""

    digest: bytes
    name: str
    file: str


class Tokens:
    """The tokens that are valid now.

    `path`: a file with a token on each line, or a folder of such files (a mounted Secret: each key one token). Several
    are valid at once, so that one can be replaced: add the new one, move the clients, remove the old one. Empty lines
    and lines that begin with # say nothing.
    """

    def __init__(self, path: Path) -> None:
        """Reads the tokens. Raises BadSpec when there is nothing at `path`; an empty file or folder refuses everything
        until a token is put there.
        """
        self._path = path
        self._valid: tuple[_Valid, ...] = ()
        self._seen: Signature | None = None
        self.uses: Counter[str] = Counter()
        """Accepted requests by name of token since the start: shows when nobody uses an old one any more."""
        if not path.exists():
            raise BadSpec(
                "TokenFileMissing",
                f"{path} does not exist",
                field="--token-file",
                remedy="Name a file with one token a line, or a folder of such files, in --token-file or "
                "VECTORINDEX_TOKEN_FILE; or leave both out to answer everybody.",
            )
        self.refresh()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the valid tokens: that of the file, with #n for its further lines."""
        return tuple(one.name for one in self._valid)

    @property
    def holders(self) -> tuple[tuple[bytes, str], ...]:
        """SHA-256 of each valid token, and the file it stands in: all lines of a file are one holder's."""
        return tuple((one.digest, one.file) for one in self._valid)

    def check(self, credential: Credential | None) -> str:
        """The name of the token that a request carries. Raises Problem 401 when it carries no valid one.

        Takes as long for one token as for another: the digest of what came is compared with every digest, to the end.
        """
        if credential is None:
            raise self._refused("the request carries no token", _CHALLENGE)
        if not credential.digest:
            raise self._refused("the Authorization header is not a bearer token", _CHALLENGE)
        accepted = None
        for one in self._valid:
            if hmac.compare_digest(credential.digest, one.digest):
                accepted = one.name
        if accepted is None:
            raise self._refused("the token is not valid", _CHALLENGE + b', error="invalid_token"')
        return accepted

    def count(self, credential: Credential | None) -> None:
        """Check again, since a request may have waited for its turn, and count it for its token."""
        self.uses[self.check(credential)] += 1

    def _refused(self, detail: str, challenge: bytes) -> Problem:
        remedy = "send Authorization: Bearer TOKEN, with a token that the searcher's administrator gave you"
        if not self._valid:
            detail = "this searcher has no token, so it refuses every request"
            remedy = "put a token into the searcher's token file (spec.searcher.auth.secretRef)"
        # The value is not echoed: it may be a password sent to the wrong place.
        headers = ((b"WWW-Authenticate", challenge),)
        return Problem(401, "Unauthorized", detail, field="Authorization", remedy=remedy, headers=headers)

    def refresh(self) -> None:
        """Read the tokens again if a file changed. What cannot be read holds no token."""
        found: tuple[_Valid, ...] = ()
        seen: Signature = ()
        problem = "no token in it"
        try:
            paths = files_of_tokens(self._path)
            # Before the content: what changes while it is read is read again next time.
            seen = signature(paths)
            if seen == self._seen:
                return
            found = _read(paths)
        except OSError as error:
            problem = error.strerror or str(error)
            if self._seen == ():
                return  # said already
        self._seen = seen
        self._valid = found
        if found:
            _log.info("tokens read", extra={"path": str(self._path), "tokens": list(self.names)})
        else:
            _log.error("every request is refused", extra={"path": str(self._path), "problem": problem})


def files_of_tokens(path: Path) -> list[Path]:
    """A file of tokens alone, or those of a folder. Raises OSError."""
    if not path.is_dir():
        return [path]
    return [one for one in visible_files(path) if one.name != contract.POLICIES_FILE]


def tokens_of(path: Path) -> list[bytes]:
    """What stands on the lines of a file of tokens, in order. Raises OSError."""
    with path.open("rb") as file:
        lines = file.read(_FILE_LIMIT_BYTES).splitlines()
    return [token for line in lines if (token := line.strip()) and not token.startswith(b"#")]


def can_be_sent(token: bytes) -> bool:
    """Whether it is one word, as a header has it."""
    return token.isascii() and len(token.split()) == 1


def _read(paths: list[Path]) -> tuple[_Valid, ...]:
    """Each token. A token that no client can send, or one too many, is left out and named."""
    found: dict[bytes, _Valid] = {}
    for path in paths:
        for number, token in enumerate(tokens_of(path), start=1):
            name = path.name if number == 1 else f"{path.name}#{number}"
            if not can_be_sent(token):
                _log.error("token left out: it must be one word of ASCII characters", extra={"token": name})
            elif len(found) == MAX_TOKENS:
                _log.error("token left out: too many", extra={"token": name, "limit": MAX_TOKENS})
            else:
                if len(token) < MIN_CHARACTERS:
                    _log.warning("token is short enough to be guessed", extra={"token": name})
                digest = hashlib.sha256(token).digest()
                found.setdefault(digest, _Valid(digest, name, path.name))
    return tuple(found.values())
