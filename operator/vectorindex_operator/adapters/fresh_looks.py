"""What one searcher knows of the fresh rows."""

from __future__ import annotations

from vectorindex_operator.adapters.admin_port import AdminPort, Call
from vectorindex_operator.adapters.one_look import ask, understood
from vectorindex_operator.adapters.signing import Signer
from vectorindex_operator.core.fresh_looks import FreshAnswer, FreshQuestion
from vectorindex_operator.core.internal_keys import Addressee
from vectorindex_searcher.contract import FRESH_PATH, FreshLook

ANSWER_BYTES = 16 << 10


async def look_at_fresh(
    port: AdminPort, signer: Signer, admin_port: int, to: Addressee, question: FreshQuestion
) -> FreshAnswer:
    """Ask, as one_look.ask."""
    call = Call(question.address, admin_port, "GET", FRESH_PATH, signer.headers(to, "GET", FRESH_PATH))
    return FreshAnswer(*understood(await ask(port, call, ANSWER_BYTES), FreshLook, "fresh rows"))
