"""Shadowing: the revision with the traffic sends queries that it answered to another one, which answers them again.
Before the switch the other one is judged; after it the one that sends is, and the other one, which had the traffic
before, is the reference.

All of it on the admin port. Standard library and pydantic only; what one query is as bytes is serve/shadow/wire.py.

    POST /v1/mirror   operator -> pods with the traffic: MirrorLease. Signed with their revision's key
    POST /v1/shadow   such a pod -> a pod of the other one: queries with their answers. Signed with that revision's
                      shadow key, which the lease brings
    GET  /v1/pairs    operator -> both: PairEvidence. Signed with the revision's key

    shadow key   hex(HMAC-SHA256(revision key, "vectorindex shadow key 1\\n")): good for /v1/shadow, and nothing else
    sealed key   hex(nonce of 16 bytes) + hex(shadow key XOR HMAC-SHA256(sender's revision key,
                 "vectorindex shadow seal 1\\n" + nonce)): who hears a lease cannot use the key that is in it. That
                 nobody changes it is what the lease's signature is for
"""

from __future__ import annotations

import hmac
import re
from typing import Annotated

from pydantic import ConfigDict, FailFast, Field

from .evidence import BUCKET_SECONDS, EVIDENCE_SEGMENTS, RING_SECONDS
from .model import Model
from .terms import ADMIN_PORT

MIRROR_PATH = "/v1/mirror"
SHADOW_PATH = "/v1/shadow"
PAIRS_PATH = "/v1/pairs"
"""Followed by ?shadow=ID."""
SHADOW_TYPE = "application/vnd.vectorindex.shadow"
SHADOW_QUERIES = 64
"""Of one request to /v1/shadow, at most."""
SHADOW_BYTES = 1 << 20
"""Of one request to /v1/shadow, at most."""
SHADOW_SECONDS = 2.0
"""A batch that is not answered in this time is unanswered, which is an error of the revision that is judged."""
SHADOW_ANSWERS = 100
"""So many first answers of a query are looked at: min(k, this)."""
SHADOW_WARMING = 200
"""First queries of a pod, of any shadow, searched and not counted: they bring the index's pages into memory."""
SHADOW_CHANGED = 0.02
"""An answer has changed when its exact score differs by more than this share of it."""
MIRROR_ADDRESSES = 256
PAIRS_BYTES = 2 << 20
"""An answer with pairs is never longer: the operator takes none that is."""
PAIR_ROWS = RING_SECONDS // BUCKET_SECONDS * (EVIDENCE_SEGMENTS + 1)
"""Rows of an answer, at most: an hour of buckets of every segment, and of all together."""

_KEY_TEXT = b"vectorindex shadow key 1\n"
_SEAL_TEXT = b"vectorindex shadow seal 1\n"
SHADOW_NONCE_BYTES = 16
_KEY_BYTES = 32
_SEALED = re.compile(rf"[0-9a-f]{{{2 * (SHADOW_NONCE_BYTES + _KEY_BYTES)}}}")

_Whole = Annotated[int, Field(ge=0, le=2**53)]
_Sum = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Name = Annotated[str, Field(max_length=253)]
ShadowId = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/-]*$")]
"""Of one shadow: the name of the revision that is judged, and when it began. Counts of another id are apart."""


class MirrorLease(Model):
    """Body of POST /v1/mirror: send queries there until it runs out, or until another one takes its place.

    The answer is 200 {"pod", "revision", "shadow"}; of a pod that cannot, 404.
    """

    revision: _Name
    """Who answers again, of the same index."""
    addresses: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=MIRROR_ADDRESSES)]
    """Its ready pods, sorted. A query goes always to the same one while these stay the same."""
    port: Annotated[int, Field(ge=1, le=65535)] = ADMIN_PORT
    sealed_key: Annotated[str, Field(max_length=2 * (SHADOW_NONCE_BYTES + _KEY_BYTES))] = ""
    """Its shadow key, sealed; empty: there is none, and then no pod takes the lease."""
    max_per_second: Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
    """This pod's part of the rate; with fewer queries all of them are sent. 0 ends it at once."""
    sender_judged: bool | None = None
    """Whether who sends is judged, by what the other one answers; None: the other one is. Images of before refuse it.
    """
    shadow: ShadowId
    ttl_seconds: Annotated[float, Field(strict=True, gt=0, le=300)] = 30.0


class PairCounts(Model):
    """Counts of one segment in one 5-second bucket, by the pod that counts them. Additive over pods.

    Segment "" holds the uniform half of what is sent: overall. What is of it counts for its own segment, too. c is the
    first score of the revision that is judged ("candidate"), s that of the reference ("stable"). What the sender counts
    is 0 at the receiver, and the other way round.
    """

    model_config = ConfigDict(extra="ignore")

    bucket: _Whole
    """floor(unix seconds / BUCKET_SECONDS) on the pod's clock; of a long shadow several buckets may be one row."""
    segment: _Name
    # The sender's.
    mirrored: _Whole = 0
    """Queries that were sent, or tried to be."""
    unanswered: _Whole = 0
    """Of these: no answer in time, a refusal, a broken connection; where the revision with the traffic did answer. An
    error of the other one: where that is the reference, there is no pair, and nobody is to blame."""
    unreached: _Whole = 0
    """Of these: there was not even a connection."""
    dropped: _Whole = 0
    """Never tried: beyond the rate, the queue full, too large. No sample, and nobody's error."""
    # The receiver's.
    pairs: _Whole = 0
    """Queries that both answered, that are counted."""
    zero_both: _Whole = 0
    zero_candidate_only: _Whole = 0
    zero_stable_only: _Whole = 0
    scored: _Whole = 0
    """Pairs of which both had a first hit, whatever its score; the sums are over these."""
    c_sum: _Sum = 0.0
    s_sum: _Sum = 0.0
    abs_s_sum: _Positive = 0.0
    c_squares: _Positive = 0.0
    s_squares: _Positive = 0.0
    cs_sum: _Sum = 0.0
    s_abs_s_sum: _Sum = 0.0
    c_abs_s_sum: _Sum = 0.0
    slower: _Whole = 0
    """Pairs for which the judged one took more than twice as long. Nobody is judged by it: other load, cold pages."""
    void: _Whole = 0
    """No pairs: the query is none for the judged one. Of earlier images also what `other_deleted` counts."""
    other_deleted: _Whole = 0
    """No pairs: the two had not read the same list of deleted ids when they answered."""
    repeated: _Whole = 0
    """No pairs: asked before in this shadow."""
    warming: _Whole = 0
    """No pairs: among the first SHADOW_WARMING of the pod."""
    answers_judged: _Whole = 0
    """Pairs whose answers were scored exactly, on both sides. They come later than their pair."""
    missed_sum: _Positive = 0.0
    """Over these, the share of the first answers of the one with the traffic that the judged one has, ought to have
    answered by their exact score, and did not."""
    missed_squares: _Positive = 0.0
    changed_sum: _Positive = 0.0
    """The share of them whose exact score differs by more than SHADOW_CHANGED."""
    changed_squares: _Positive = 0.0
    kept: _Whole = 0
    """Answers of these pairs that were answered again, or tie with one that was; each answer is of one kind."""
    gone: _Whole = 0
    """Whose id is not there any more, or not among what the query's filter allows."""
    changed: _Whole = 0
    displaced: _Whole = 0
    """Which better ones have taken the place of."""
    missed: _Whole = 0


PAIR_COUNTERS = tuple(name for name in PairCounts.model_fields if name not in ("bucket", "segment"))
"""Every counter of a row; all of them add up."""


class PairEvidence(Model):
    """Answer of GET /v1/pairs?shadow=ID. Of a shadow that the pod knows nothing of it has no rows."""

    model_config = ConfigDict(extra="ignore")

    pod: _Name
    revision: _Name
    incarnation: Annotated[str, Field(max_length=64)]
    """Another one with each start of the process: what was counted before is gone with it."""
    now: float
    shadow: Annotated[str, Field(max_length=300)]
    judged: _Name = ""
    """Whom the pairs are about; empty at the sender, which counts none."""
    reference: _Name = ""
    """Whom that one is compared with; empty where nothing was counted yet."""
    rows: Annotated[tuple[PairCounts, ...], Field(max_length=PAIR_ROWS), FailFast()] = ()


def shadow_key(revision_key: str) -> str:
    """The key that queries are sent with to a revision's pods: whoever has it can neither send leases nor read
    evidence. `revision_key` empty (no master key): empty."""
    return hmac.digest(revision_key.encode(), _KEY_TEXT, "sha256").hex() if revision_key else ""


def seal_shadow_key(key: str, sender_key: str, nonce: bytes) -> str:
    """`key`, a shadow key, for the pods of the revision whose key is `sender_key`. `nonce`: SHADOW_NONCE_BYTES random
    bytes, others each time. Either key empty: empty."""
    if not key or not sender_key:
        return ""
    if len(nonce) != SHADOW_NONCE_BYTES:
        raise ValueError(f"a nonce has {SHADOW_NONCE_BYTES} bytes")
    return nonce.hex() + _xor(bytes.fromhex(key), sender_key, nonce).hex()


def open_shadow_key(sealed: str, sender_key: str) -> str:
    """The inverse, by the sender. Raises ValueError for what nobody sealed."""
    if not sealed and not sender_key:
        return ""
    if _SEALED.fullmatch(sealed) is None:
        raise ValueError("not a sealed shadow key")
    both = bytes.fromhex(sealed)
    nonce, hidden = both[:SHADOW_NONCE_BYTES], both[SHADOW_NONCE_BYTES:]
    return _xor(hidden, sender_key, nonce).hex()


def _xor(key: bytes, sender_key: str, nonce: bytes) -> bytes:
    pad = hmac.digest(sender_key.encode(), _SEAL_TEXT + nonce, "sha256")
    return bytes(one ^ other for one, other in zip(key, pad, strict=True))
