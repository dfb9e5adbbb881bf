"""One question to one searcher about the fresh rows, and its answer: few bytes."""

from __future__ import annotations

from pydantic import ValidationError

from vectorindex_operator.adapters.admin_port import AdminPort, Answer, Call, Lane
from vectorindex_operator.adapters.signing import Signer
from vectorindex_operator.core.fresh_looks import FreshAnswer, FreshQuestion
from vectorindex_operator.core.internal_keys import Addressee
from vectorindex_searcher.contract import FRESH_PATH, FreshLook

ANSWER_BYTES = 16 << 10
_NOT_FOUND = 404


async def look_at_fresh(
    port: AdminPort, signer: Signer, admin_port: int, to: Addressee, question: FreshQuestion
) -> FreshAnswer:
    """Ask, within the deadline of any request. On the event loop of `port`."""
    call = Call(question.address, admin_port, "GET", FRESH_PATH, signer.headers(to, "GET", FRESH_PATH))
    share = port.share()
    try:
        (answer,) = await port.ask([call], Lane.POLL, share, largest=ANSWER_BYTES)
    finally:
        share.close()
    return _understood(answer)


def _understood(answer: Answer) -> FreshAnswer:
    if answer.problem:
        return FreshAnswer(problem=answer.problem)
    if answer.status != 200:
        return FreshAnswer(problem=answer.refusal, unable=answer.status == _NOT_FOUND)
    try:
        return FreshAnswer(FreshLook.model_validate_json(answer.body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))[:80]
        return FreshAnswer(problem=f"what it says is no look at fresh rows: {place}: {first['msg'][:120]}")
