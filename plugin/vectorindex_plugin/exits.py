"""How a verb ends. Scripts read these numbers, so none of them ever changes."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit statuses of every verb; docs/reference/plugin.md is made of these words."""

    DONE = 0
    """Done, or shown."""
    REFUSED = 1
    """The operator refused what was asked, or a manifest has faults."""
    USAGE = 2
    """The command line is not understood; nothing was asked."""
    NOT_FOUND = 3
    """There is no such VectorIndex, revision or file."""
    UNREACHABLE = 4
    """The cluster gives no answer, or does not allow it."""
    NO_ANSWER = 5
    """What was asked is written, and the operator has not answered within `--timeout`."""


class EndedError(Exception):
    """A verb that cannot go on: its exit status, and why in words for people."""

    def __init__(self, exit_: Exit, message: str) -> None:
        super().__init__(message)
        self.exit = exit_
