"""What pods counted of a shadow, and the leases that have them send queries. Bounded as evidence is (evidence.py); all
of it is asked at each look, since a shadow is short."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from urllib.parse import quote

from vectorindex_operator.adapters.admin_port import LONGEST_WORDS, AdminPort, Answer, Call, Lane
from vectorindex_operator.adapters.evidence_answers import read_pairs
from vectorindex_operator.adapters.orders import post
from vectorindex_operator.adapters.reader import Reader
from vectorindex_operator.adapters.shares import Share
from vectorindex_operator.adapters.signing import Signer
from vectorindex_operator.core.internal_keys import Addressee
from vectorindex_operator.core.judging.shadow import PodPairs
from vectorindex_searcher.contract import MIRROR_PATH, PAIRS_BYTES, PAIRS_PATH, MirrorLease

log = logging.getLogger(__name__)

ROW_BYTES = 700
"""What a row takes that is kept."""
_NOT_FOUND = 404


def path_of(shadow: str) -> str:
    """What is asked for, as it is signed."""
    return f"{PAIRS_PATH}?shadow={quote(shadow, safe='')}"


async def look_at_pairs(
    port: AdminPort,
    reader: Reader,
    signer: Signer,
    admin_port: int,
    to: Addressee,
    pods: Sequence[tuple[str, str]],
    shadow: str,
    share: Share,
) -> tuple[PodPairs, ...]:
    """Ask each (pod name, address), within the deadline of any request. On the event loop of `port`. What the answer
    holds is taken from `share`."""
    path = path_of(shadow)
    headers = signer.headers(to, "GET", path)
    calls = [Call(address, admin_port, "GET", path, headers) for _, address in pods]
    answers = await port.ask(calls, Lane.SOAK, share, largest=PAIRS_BYTES)
    told, size = [], 0
    for (pod, _), answer in zip(pods, answers, strict=True):
        size += len(answer.body)
        read = partial(_understood, pod, answer, to.target.revision, shadow, share)
        told.append(await reader.read(size, read))
        share.give_back(len(answer.body))
    for one in told:
        if one.problem:
            log.info("no pairs from %s: %s", one.pod, one.problem)
    return tuple(told)


def _understood(pod: str, answer: Answer, revision: str, shadow: str, share: Share) -> PodPairs:
    if answer.problem:
        return PodPairs(pod, None, answer.problem)
    if answer.status != 200:
        return PodPairs(pod, None, answer.refusal, unable=answer.status == _NOT_FOUND)
    try:
        evidence = read_pairs(answer.body)
        if (evidence.revision, evidence.shadow) != (revision, shadow):
            raise ValueError(f"it tells of {evidence.revision[:63]!r} and {evidence.shadow[:63]!r}")
        if not share.take(len(evidence.rows) * ROW_BYTES):
            raise ValueError("the pods of one index tell more than is left for it")
        return PodPairs.of(pod, evidence, answer.at)
    except ValueError as error:
        return PodPairs(pod, None, f"what it says is of no use: {str(error)[:LONGEST_WORDS]}")


async def mirror(
    port: AdminPort,
    signer: Signer,
    admin_port: int,
    to: Addressee,
    addresses: Sequence[str],
    receiver: Addressee,
    lease: MirrorLease,
) -> None:
    """Renew the lease at each address; its key is sealed here. On the event loop of `port`."""
    sealed = lease.model_copy(update={"sealed_key": signer.seal(receiver, to)})
    await post(port, signer, admin_port, to, addresses, MIRROR_PATH, sealed)
