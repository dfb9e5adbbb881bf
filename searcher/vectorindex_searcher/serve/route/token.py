"""The bearer token that a router shows to shards: read from a mounted file, again whenever that changes."""

from __future__ import annotations

import logging
from pathlib import Path

from ... import contract
from ...errors import BadSpec
from ..http.auth import can_be_sent, files_of_tokens, tokens_of
from ..http.mounted import Signature, signature
from ..search.policies import names_of_all_rows

_log = logging.getLogger(__name__)


class ShardToken:
    """The first token of a file, or of a folder of such files; and that one for as long as it is there, since shards
    may see a new one later. Token files that cannot be read leave the last one.

    Shards narrow what a token asks by its policy, and what is asked for all users must not be: with policies it is one
    that may see all rows, and none where there is none.
    """

    def __init__(self, path: Path | None, policies: Path | None = None) -> None:
        """`path` None: no token is shown. `policies`: their file; None: there are none. Raises BadSpec when there is
        nothing at `path`."""
        self._path, self._policies = path, policies
        self._seen: Signature | None = None
        self._token = b""
        self.header = b""
        """The line of a request, with its end; empty: none."""
        self.problem = ""
        """Why there is none, though shards ask for one."""
        if path is not None and not path.exists():
            remedy = f"Name a file with a token in --shard-token-file or {contract.SHARD_TOKEN_ENV}, or leave both out."
            raise BadSpec("TokenFileMissing", f"{path} does not exist", field="--shard-token-file", remedy=remedy)
        self.refresh()

    def refresh(self) -> None:
        """As http.mounted.Mounted."""
        if self._path is None:
            return
        try:
            files = files_of_tokens(self._path)
            seen = signature([*files, *self._file_of_policies()])
            if seen == self._seen:
                return
            self._show(self._usable(files))
        except OSError as error:
            _log.error("the token for shards cannot be read", extra={"problem": error.strerror or str(error)})
            return
        self._seen = seen

    def _file_of_policies(self) -> list[Path]:
        return [self._policies] if self._policies is not None and self._policies.exists() else []

    def _usable(self, files: list[Path]) -> list[bytes]:
        """All that may be shown, the first one first. Raises OSError."""
        if self._policies is not None and self._path is not None and self._path.is_dir():
            try:
                names = names_of_all_rows(self._policies)
            except (OSError, ValueError):  # said where policies are read: nobody may see any row
                names = frozenset()
            files = [file for file in files if file.name in names]
        return [token for file in files for token in tokens_of(file) if can_be_sent(token)]

    def _show(self, tokens: list[bytes]) -> None:
        if self._token not in tokens:
            self._token = tokens[0] if tokens else b""
        self.header = b"Authorization: Bearer %b\r\n" % self._token if self._token else b""
        self.problem = ""
        if not self._token:
            which = " that may see all rows (allRows: true in the policies)" if self._policies is not None else ""
            self.problem = f"there is no token for shards{which}"
            _log.error(self.problem, extra={"path": str(self._path)})
