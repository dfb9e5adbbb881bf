"""What pods are told on their admin ports, besides who has the traffic: one signed request to each, best effort."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from vectorindex_operator.adapters.admin_port import AdminPort, Call, Lane
from vectorindex_operator.adapters.signing import Signer
from vectorindex_operator.core.internal_keys import Addressee
from vectorindex_searcher.contract import Model

log = logging.getLogger(__name__)

_ANSWER_BYTES = 64 << 10


async def post(
    port: AdminPort, signer: Signer, admin_port: int, to: Addressee, addresses: Sequence[str], path: str, said: Model
) -> None:
    """On the event loop of `port`. Who does not take it is told again, by whoever plans it. What is None is left out:
    images of before refuse a field that they do not know."""
    body = said.model_dump_json(by_alias=True, exclude_none=True).encode()
    headers = {"Content-Type": "application/json", **signer.headers(to, "POST", path, body)}
    calls = [Call(address, admin_port, "POST", path, headers, body) for address in addresses]
    share = port.share()
    try:
        answers = await port.ask(calls, Lane.LEASE, share, largest=_ANSWER_BYTES)
    finally:
        share.close()
    for call, answer in zip(calls, answers, strict=True):
        if answer.status != 200:
            log.info("%s not taken by %s: %s", path, call.address, answer.problem or answer.refusal)
