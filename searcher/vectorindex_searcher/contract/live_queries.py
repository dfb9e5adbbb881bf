"""Live queries: what a searcher keeps of what users ask, how much of it, and who may read it.

Standard library only. The sample's form on the wire is proof/live/wire.py.

    live key   hex(HMAC-SHA256(revision key, "vectorindex live queries key 1\\n")): reads the sample, and nothing else
    live seed  HMAC-SHA256(revision key, "vectorindex live queries seed 1\\n"): which queries are drawn. All pods of a
               revision draw alike, and nobody outside them can choose a query that is drawn.
"""

from __future__ import annotations

import hmac

LIVE_QUERIES_PATH = "/v1/live-queries"
"""On the admin port: see `live_page`."""
LIVE_QUERIES_TYPE = "application/vnd.vectorindex.live-queries"
LIVE_QUERIES_ENV = "VECTORINDEX_LIVE_QUERIES"
"""Environment variable of a searcher: 1 keeps a sample of live queries. Not part of the task: it is never frozen, and a
searcher from before it must not refuse its task."""
LIVE_KEY_ENV = "VECTORINDEX_LIVE_KEY"
"""Environment variable of a validate Job: the live key of the revision whose queries it asks for."""
LIVE_SEAL_BYTES = 32
LIVE_HOURS = 24
"""Queries of so many hours are kept, the one that runs among them."""
LIVE_SAMPLE_QUERIES = 10_000
LIVE_SAMPLE_BYTES = 32 << 20
"""Of a pod's memory, whatever is asked."""
LIVE_QUERY_BYTES = 1024
"""What a query of the sample takes besides its vector."""
LIVE_SENDER_SHARE = 100
"""One token or address has at most one in so many places of a sample."""
LIVE_PODS = 32
"""So many pods are asked for their samples."""
FEWEST_LIVE_QUERIES = 120
"""Half of them judge: no smaller sample can be asked for."""
FEWEST_LIVE_SENDERS = 6
"""Live queries of fewer senders judge and tune nothing: the one that is answered worst is left out, and four others are
too few to tell what is usual."""
LIVE_CONFIDENCE = 0.95
"""Of the interval that holds what the senders of live queries show, between both its ends."""

_KEY_TEXT = b"vectorindex live queries key 1\n"
_PAGE_TEXT = b"vectorindex live queries page 1\n"
_SEED_TEXT = b"vectorindex live queries seed 1\n"


def live_page(age: int, address: str) -> str:
    """The path, with its query, of what the pod at this address kept in the hour that began `age` hours before this
    one, by its clock. The address is signed with it: who has it now in place of that pod can repeat it to no other."""
    return f"{LIVE_QUERIES_PATH}?age={age}&pod={address}"


def seal(key: str, path: str, page: bytes) -> bytes:
    """What follows a page, LIVE_SEAL_BYTES, made with the live key: who got a pod's address later has no such key."""
    return hmac.digest(key.encode(), _PAGE_TEXT + path.encode() + b"\n" + page, "sha256")


def live_room(dimension: int) -> int:
    """Queries of a sample, all hours together."""
    return min(LIVE_SAMPLE_QUERIES, LIVE_SAMPLE_BYTES // (LIVE_QUERY_BYTES + 4 * dimension))


def live_key(revision_key: str) -> str:
    """The key that reads the live queries of a revision: whoever has it can neither send leases nor read evidence."""
    return hmac.digest(revision_key.encode(), _KEY_TEXT, "sha256").hex()


def live_seed(revision_key: str) -> bytes:
    """What the draws of a revision's pods are made from."""
    return hmac.digest(revision_key.encode(), _SEED_TEXT, "sha256")
