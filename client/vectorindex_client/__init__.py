"""Client of vectorindex searchers: `Client(url).search(query, k)`, and `AsyncClient` for asyncio. See docs/client.md.

Stands on its own: the standard library, and aiohttp for asyncio. Nothing of the operator or the searcher, and no numpy,
which is understood where it is given.
"""

from .client import AsyncClient, Client
from .errors import (
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    NotFreshYet,
    Overloaded,
    ServerError,
    Unauthorized,
    Unreachable,
    VectorIndexError,
)
from .results import Id, Result

__all__ = [
    "AsyncClient",
    "Client",
    "DeadlineExceeded",
    "Forbidden",
    "Id",
    "InvalidRequest",
    "NotFreshYet",
    "Overloaded",
    "Result",
    "ServerError",
    "Unauthorized",
    "Unreachable",
    "VectorIndexError",
]
