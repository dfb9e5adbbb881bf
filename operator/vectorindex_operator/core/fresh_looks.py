"""Looks at the fresh rows of an index: what one of its searchers is asked, what it said, and what a status keeps of it.

Values and texts only; when somebody is asked, and what follows, is progress/fresh_rows.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from vectorindex_operator.api.v1alpha1 import FreshRefusal, FreshStatus
from vectorindex_searcher.contract import FreshLook

UNKNOWN_TO_IMAGE = "NotTold"
"""Reason of a status: its pods were told of no fresh rows, or their image knows none."""


@dataclass(frozen=True, slots=True)
class FreshQuestion:
    """Ask one searcher what it knows of the fresh rows."""

    revision: str
    pod: str
    address: str
    known: FreshStatus | None
    """What the status says of it."""


@dataclass(frozen=True, slots=True)
class FreshAnswer:
    """What came of a question. `problem`: why nothing did; `unable`: the pod knows no fresh rows."""

    look: FreshLook | None = None
    problem: str = ""
    unable: bool = False

    @property
    def result(self) -> str:
        """The answer in a word."""
        if self.look is None:
            return "Unable" if self.unable else "Silent"
        if self.look.refused:
            return "Refused"
        if self.look.full:
            return "Full"
        return "Failed" if self.look.reason else "Off" if self.look.off else "Answered"


@dataclass(frozen=True, slots=True)
class FreshHeard:
    """An answer to a question that was asked at unix time `asked_at`."""

    question: FreshQuestion
    asked_at: float
    answer: FreshAnswer

    @property
    def says(self) -> FreshStatus | None:
        """What the status is to say; None: nothing was heard."""
        look, revision = self.answer.look, self.question.revision
        if self.answer.unable:
            words = "its searchers were told of no fresh rows, or their image knows none"
            return FreshStatus(revision=revision, reason=UNKNOWN_TO_IMAGE, message=words)
        if look is None:
            return None
        known = self.question.known
        since = known.full_since if known is not None and known.full and known.revision == revision else None
        refused = (FreshRefusal(object=one.object, reason=one.reason, message=one.message) for one in look.refused)
        return FreshStatus(
            revision=revision,
            number=look.number,
            rows=look.rows,
            files=look.files,
            full=look.full,
            full_since=(look.number if since is None else since) if look.full else None,
            off=look.off,
            reason=look.reason,
            message=look.message,
            refused=tuple(refused),
        )

    @property
    def news(self) -> bool:
        """Whether something follows from it now."""
        return self.says not in (None, self.question.known)
