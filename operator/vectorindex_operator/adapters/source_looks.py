"""One question to one searcher about the source, and its answer: few bytes, and no word of it is believed here."""

from __future__ import annotations

from pydantic import ValidationError

from vectorindex_operator.adapters.admin_port import AdminPort, Answer, Call, Lane
from vectorindex_operator.adapters.signing import Signer
from vectorindex_operator.core.internal_keys import Addressee
from vectorindex_operator.core.source_poll import SourceAnswer, SourceQuestion
from vectorindex_searcher.contract import SOURCE_PATH, SourceLook

ANSWER_BYTES = 8 << 10
_NOT_FOUND = 404


async def look_at_source(
    port: AdminPort, signer: Signer, admin_port: int, to: Addressee, question: SourceQuestion
) -> SourceAnswer:
    """Ask, within the deadline of any request. On the event loop of `port`."""
    path = path_of(question)
    call = Call(question.address, admin_port, "GET", path, signer.headers(to, "GET", path))
    share = port.share()
    try:
        (answer,) = await port.ask([call], Lane.POLL, share, largest=ANSWER_BYTES)
    finally:
        share.close()
    return _understood(answer)


def path_of(question: SourceQuestion) -> str:
    """What is asked for, as it is signed."""
    artifact = f"&artifact={question.artifact}" if question.artifact else ""
    return f"{SOURCE_PATH}?maxAge={question.max_age:.1f}{artifact}"


def _understood(answer: Answer) -> SourceAnswer:
    if answer.problem:
        return SourceAnswer(problem=answer.problem)
    if answer.status != 200:
        return SourceAnswer(problem=answer.refusal, unable=answer.status == _NOT_FOUND)
    try:
        return SourceAnswer(SourceLook.model_validate_json(answer.body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))[:80]
        return SourceAnswer(problem=f"what it says is no look at a source: {place}: {first['msg'][:120]}")
