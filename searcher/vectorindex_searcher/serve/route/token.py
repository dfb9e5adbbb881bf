"""The bearer token that a router shows to shards: read from a mounted file, again whenever that changes."""

from __future__ import annotations

import logging
from pathlib import Path

from ... import contract
from ...errors import BadSpec
from ..http.mounted import Signature, signature, visible_files

_FILE_LIMIT_BYTES = 64 << 10
_log = logging.getLogger(__name__)


class ShardToken:
    """The first token of a file, or of the first file of a folder. What cannot be read leaves the last one."""

    def __init__(self, path: Path | None) -> None:
        """None: no token is shown. Raises BadSpec when there is nothing at `path`."""
        self._path, self._seen = path, Signature()
        self.header = b""
        """The line of a request, with its end; empty: none."""
        if path is not None and not path.exists():
            remedy = f"Name a file with a token in --shard-token-file or {contract.SHARD_TOKEN_ENV}, or leave both out."
            raise BadSpec("TokenFileMissing", f"{path} does not exist", field="--shard-token-file", remedy=remedy)
        self.refresh()

    def refresh(self) -> None:
        """As http.mounted.Mounted."""
        if self._path is None:
            return
        try:
            path = self._path
            if path.is_dir():
                path = next(iter(visible_files(path)), path)
            seen = signature([path])
            if seen == self._seen:
                return
            with path.open("rb") as file:
                lines = [line.strip() for line in file.read(_FILE_LIMIT_BYTES).splitlines()]
        except OSError as error:
            _log.error("the token for shards cannot be read", extra={"problem": error.strerror or str(error)})
            return
        self._seen = seen
        tokens = [line for line in lines if line and not line.startswith(b"#")]
        if tokens and tokens[0].isascii() and len(tokens[0].split()) == 1:
            self.header = b"Authorization: Bearer %b\r\n" % tokens[0]
        else:
            _log.error("there is no token for shards", extra={"path": str(path)})
