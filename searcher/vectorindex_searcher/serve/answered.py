"""What an answer of a user port counts for."""

from __future__ import annotations

import math
from collections import Counter

from .. import contract
from .evidence.recorder import Outcome, Recorder
from .http.deadline import DEADLINE_HEADER, seconds_of
from .http.messages import Request, Response

SEARCH_PATH = b"/v1/search"


def count_answer(
    recorder: Recorder, ignored: Counter[str], request: Request, response: Response, seconds: float, *, tokens: bool
) -> None:
    """Count searches, and requests that were refused before anyone knew what they were.

    Where a token is asked for (`tokens`), these last are no evidence: whoever has none could send any number of them.
    `ignored`: search parameters that are no parameters of the index, counted by name.
    """
    outcome = request.outcome
    if outcome is None:
        if request.problem is None and request.path != SEARCH_PATH:
            return
        if tokens:
            recorder.record_code(contract.OTHER_SEGMENT, response.status)
            return
        outcome = Outcome(contract.OTHER_SEGMENT)
    assert isinstance(outcome, Outcome)
    if response.status == 504:
        text = request.headers.get(DEADLINE_HEADER)
        outcome.deadline = math.inf if text is None else seconds_of(text)
    if outcome.ignored:
        ignored.update(outcome.ignored)
    recorder.record(outcome, response.status, seconds)
