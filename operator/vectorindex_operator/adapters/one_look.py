"""One question to one searcher, and its answer: few bytes, and no word of it is believed here."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from vectorindex_operator.adapters.admin_port import AdminPort, Answer, Call, Lane
from vectorindex_operator.adapters.evidence_answers import first_fault
from vectorindex_searcher.contract import Model

M = TypeVar("M", bound=Model)
_NOT_FOUND = 404


async def ask(port: AdminPort, call: Call, largest: int) -> Answer:
    """Within the deadline of any request. On the event loop of `port`. `largest`: bytes of the answer."""
    share = port.share()
    try:
        (answer,) = await port.ask([call], Lane.POLL, share, largest=largest)
    finally:
        share.close()
    return answer


def understood(answer: Answer, model: type[M], what: str) -> tuple[M | None, str, bool]:
    """What was said; why nothing was; and whether the searcher does not know such questions. `what` it should say."""
    if answer.problem:
        return None, answer.problem, False
    if answer.status != 200:
        return None, answer.refusal, answer.status == _NOT_FOUND
    try:
        return model.of_peer(answer.body), "", False
    except ValidationError as error:
        return None, f"what it says is no look at {what}: {first_fault(error)}", False
