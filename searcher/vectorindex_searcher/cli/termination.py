"""What a verb leaves for the operator: its result or failure, at most 4 KiB of JSON, in the termination log."""

from __future__ import annotations

import os
from pathlib import Path

import orjson

from .. import contract

_DEFAULT_LOG = Path("/dev/termination-log")
_LIMITED_FIELDS = ("message", "remedy", "object")
_LIMITED_CHARACTERS = 900


def write(outcome: contract.Model) -> None:
    """Write `outcome` to the termination log; without one (a laptop) do nothing. Never raises for the log's sake."""
    named = os.environ.get(contract.TERMINATION_LOG_ENV)
    path = Path(named) if named else _DEFAULT_LOG
    if not named and not path.exists():
        return
    try:
        path.write_bytes(encode(outcome))
    except OSError:
        # The exit code still says what happened.
        return


def encode(outcome: contract.Model) -> bytes:
    """The JSON of `outcome`; long texts of a failure are cut, and what is too long still is packed, so that the kubelet
    never cuts the JSON itself."""
    document = outcome.wire()
    data = orjson.dumps(document)
    if len(data) > contract.RESULT_LIMIT_BYTES:
        for name in _LIMITED_FIELDS:
            if isinstance(text := document.get(name), str):
                document[name] = text.encode()[:_LIMITED_CHARACTERS].decode(errors="ignore")
        data = orjson.dumps(document)
    return data if len(data) <= contract.RESULT_LIMIT_BYTES else contract.pack(data)
