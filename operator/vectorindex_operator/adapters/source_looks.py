"""What one searcher knows of the source."""

from __future__ import annotations

from vectorindex_operator.adapters.admin_port import AdminPort, Call
from vectorindex_operator.adapters.one_look import ask, understood
from vectorindex_operator.adapters.signing import Signer
from vectorindex_operator.core.internal_keys import Addressee
from vectorindex_operator.core.source_poll import SourceAnswer, SourceQuestion
from vectorindex_searcher.contract import SOURCE_PATH, SourceLook

ANSWER_BYTES = 8 << 10


async def look_at_source(
    port: AdminPort, signer: Signer, admin_port: int, to: Addressee, question: SourceQuestion
) -> SourceAnswer:
    """Ask, as one_look.ask."""
    path = path_of(question)
    call = Call(question.address, admin_port, "GET", path, signer.headers(to, "GET", path))
    return SourceAnswer(*understood(await ask(port, call, ANSWER_BYTES), SourceLook, "a source"))


def path_of(question: SourceQuestion) -> str:
    """What is asked for, as it is signed."""
    artifact = f"&artifact={question.artifact}" if question.artifact else ""
    return f"{SOURCE_PATH}?maxAge={question.max_age:.1f}{artifact}"
