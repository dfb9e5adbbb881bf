"""The live queries that this searcher keeps for the gate of the next revision. In memory only, and only if asked to.

For every query that is asked of all rows and at the revision's own parameters: one keyed hash and one comparison. Few
go on from there. Thread-safe: searches offer from their threads. Must not log a vector, a token or an address.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ... import contract
from ...proof.live.sample import NAME_BYTES, SENDER_BYTES, LiveQuery, LiveSample
from ...proof.live.wire import Tally, encode
from ..http.head import Credential

HOUR = 3600
_FORGET_SECONDS = 60.0
_KNOWN_SENDERS = 1024
_NETWORK_BITS = 64
"""Of an IPv6 address: who has one of them has all of its network."""

Sender = Credential | str
"""The token that a request showed, or the address that it came from."""


class LiveQueries:
    """The sample of one revision's pod. `key`: the revision's; `clock`: unix seconds. `hand_on`: takes each query that
    has a place, called by whoever offers it: in a pod of several processes another one has the sample, and here are
    only the names in it, by which to tell what need not be said."""

    def __init__(
        self,
        dimension: int,
        segments: Sequence[str],
        key: str,
        clock: Callable[[], float] = time.time,
        hand_on: Callable[[LiveQuery], None] | None = None,
    ) -> None:
        self._hand_on = hand_on
        self._dimension, self._clock = dimension, clock
        self._segments = tuple(dict.fromkeys((*segments, contract.OTHER_SEGMENT)))
        seed, self._key = contract.live_seed(key), contract.live_key(key)
        # SHA-256: half of what BLAKE2 costs where the CPU knows it. Its length extension is no matter: nobody sees one.
        self._hashes = {name: hashlib.sha256(seed + name.encode() + b"\n") for name in self._segments}
        self._sender_key = hashlib.sha256(seed + b"/sender").digest()
        self._known: dict[bytes | str, bytes] = {}
        """Senders as the sample has them, of those that asked lately."""
        self._lock = threading.Lock()
        self._sample = LiveSample(contract.live_room(dimension))
        self._hour = 0
        self._ends = 0.0
        self._limit = b""
        """Names from here on need not be offered in this hour."""
        self._counts = [0, 0, 0]
        """Searches of this hour: all, those with a filter, those with parameters of their own. Counted without the
        lock: where threads meet some may be lost."""
        self._counted: dict[int, list[int]] = {}
        """Hour -> the same."""

    def __len__(self) -> int:
        return len(self._sample)

    def offer(self, segment: str, sender: Sender, k: int, vectors: npt.NDArray[np.float32]) -> None:
        """Consider the queries of one request: vectors float32 [n, dimension], each line contiguous."""
        if self._clock() >= self._ends:
            with self._lock:
                self._begin_hour()
        self._counts[0] += len(vectors)
        keyed, limit, known = self._hashes[segment], self._limit, self._sample
        for vector in vectors:
            asked = keyed.copy()
            asked.update(vector)
            name = asked.digest()[:NAME_BYTES]
            if name < limit and name not in known:
                self._take(segment, sender, k, vector, name)

    def leave_out(self, count: int, *, filtered: bool) -> None:
        """Searches that are not kept, since a filter or parameters of their own would have to be kept with them."""
        with self._lock:
            if self._clock() >= self._ends:
                self._begin_hour()
            self._counts[0] += count
            self._counts[1 if filtered else 2] += count

    def _take(self, segment: str, sender: Sender, k: int, vector: npt.NDArray[np.float32], name: bytes) -> None:
        who = self._sender(sender)
        # The usual end of the way of who asks much, so without the lock: it may be a little late, never wrong for long.
        if self._sample.full_for(who, self._hour, name):
            return
        with self._lock:
            hour = self._hour
            query = LiveQuery(name, who, hour, k, segment, vector.astype("<f4", copy=False).tobytes())
            self._sample.add(query if self._hand_on is None else replace(query, vector=b""))
            self._limit = self._sample.limit(hour)
            if self._hand_on is not None and name in self._sample:
                self._hand_on(query)

    def _sender(self, sender: Sender) -> bytes:
        shown = sender.digest if isinstance(sender, Credential) else sender
        who = self._known.get(shown)
        if who is None:
            if len(self._known) >= _KNOWN_SENDERS:
                self._known = {}
            text = shown if isinstance(shown, bytes) else _network(shown).encode()
            who = self._known[shown] = hashlib.blake2b(text, digest_size=SENDER_BYTES, key=self._sender_key).digest()
        return who

    def _begin_hour(self) -> None:
        """The hour that it is now; what is older than a day goes."""
        self._hour = int(self._clock()) // HOUR
        self._ends = (self._hour + 1) * HOUR
        oldest = self._hour - contract.LIVE_HOURS + 1
        self._sample.forget_before(oldest)
        self._counts = self._counted.setdefault(self._hour, [0, 0, 0])
        for hour in [one for one in self._counted if one < oldest]:
            del self._counted[hour]
        self._limit = self._sample.limit(self._hour)

    def add(self, query: LiveQuery) -> None:
        """A query that another process of this pod was asked."""
        with self._lock:
            self._begin_hour()
            self._sample.add(query)

    def add_counts(self, hour: int, counts: Sequence[int]) -> None:
        """Searches of that process: all, those with a filter, those with parameters of their own."""
        with self._lock:
            self._begin_hour()
            known = self._counted.setdefault(hour, [0, 0, 0])
            known[:] = [mine + more for mine, more in zip(known, counts, strict=True)]

    def take_counts(self) -> list[tuple[int, list[int]]]:
        """What `add_counts` of another process is to be told: of each hour, since the last call."""
        with self._lock:
            taken = [(hour, list(counts)) for hour, counts in self._counted.items() if any(counts)]
            for counts in self._counted.values():
                counts[:] = [0, 0, 0]
            return taken

    def page(self, age: int, path: str = "") -> bytes:
        """What was kept of the hour that began `age` hours before this one; see proof/live/wire.py. Sealed for the path
        that was asked."""
        with self._lock:
            self._begin_hour()
            queries = self._sample.hour(self._hour - age)
            searches, filtered, own_params = self._counted.get(self._hour - age, [0, 0, 0])
        tally = Tally(searches=searches, filtered=filtered, own_params=own_params)
        page = encode(queries, self._dimension, self._segments, tally)
        return page + contract.seal(self._key, path, page)

    async def watch(self) -> None:
        """Forget what is a day old also when nobody asks anything. Until cancelled."""
        while True:
            await asyncio.sleep(_FORGET_SECONDS)
            self.forget()

    def forget(self) -> None:
        """What is a day old goes, now."""
        with self._lock:
            self._begin_hour()


def _network(address: str) -> str:
    """What one sender may be taken by: an address of IPv4, or the network of one of IPv6."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv4Address):
        return str(known)
    if known.ipv4_mapped is not None:
        return str(known.ipv4_mapped)
    return str(ipaddress.ip_network((known, _NETWORK_BITS), strict=False))
