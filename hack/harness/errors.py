"""What can go wrong, in words for the person who ran it. `HarnessError` is shown without a traceback."""

from __future__ import annotations


class HarnessError(Exception):
    """Something outside this program is not as it must be; the message says what and what to do."""


class WaitTimeout(HarnessError):  # noqa: N818 - a timeout
    """A condition did not come true in time; the message says what was waited for and what was last seen."""


class LackingError(HarnessError):
    """What this checkout or cluster lacks and no other try mends; the message says what would."""
