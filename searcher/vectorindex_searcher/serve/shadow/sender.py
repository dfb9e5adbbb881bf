"""Sends what was put aside (mirror.py) to the pods that are judged, from a thread with an event loop of its own.

A receiver may be broken or hostile: it drips bytes, never ends its head, promises gigabytes, resets. Each request has
one deadline from its first byte to the last of its answer, of which little is read (link.py); one is under way to each
pod, a few to all. What finds no place is dropped. Users' searches share nothing with it but the interpreter.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import orjson

from ... import contract
from ...index.engine import Engine
from ..evidence.live_recall import NICENESS
from .answers import ExactScores
from .link import Link, Links
from .mirror import Answered, Mirror, Mirroring
from .packer import Packer
from .wire import Packed, fits, join

GATHER_SECONDS = 1.0
"""How long queries are gathered before they are sent: a request costs as much as ten queries, and vectors that are read
together a fraction."""
REQUEST_SECONDS = contract.SHADOW_SECONDS / 4
"""What the queries of a request took here, together: the judged pod may have one core, and SHADOW_SECONDS for all."""
AT_ONCE = 8
"""Requests under way."""
WAITING = 512
"""Queries that wait for a request to a pod, all pods together."""
WAITING_BYTES = SENDING_BYTES = 2 << 20
"""Of those that wait, and of those under way."""
_ELSEWHERE = frozenset({401, 403, 404, 409, 421})
"""Whoever answers so is not judged here, or was not to be asked: another pod at that address, another shadow, an image
that knows of none, keys or clocks that differ. No error of the revision's."""
_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Outgoing:
    place: tuple[int, str, bool]
    """Where it is counted: bucket, segment, and whether overall."""
    seconds: float
    packed: Packed
    nbytes: int


class _NotSentError(Exception):
    """The receiver says that it is not the one."""


class MirrorSender:
    """`start` at the first lease."""

    def __init__(
        self,
        index_uid: str,
        revision: str,
        mirror: Mirror,
        engine: Engine,
        exact: ExactScores,
        differ: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`exact` is this thread's own. `differ`: told that a judged pod has another list of deleted ids than the one
        with which queries were answered here; `clock`: unix seconds."""
        self._index_uid, self._revision = index_uid, revision
        self._mirror, self._engine, self._packer = mirror, engine, Packer(engine, exact)
        self._differ, self._clock = differ, clock
        self._links = Links()
        self._waiting: dict[str, deque[_Outgoing]] = {}
        self._busy: dict[str, int] = {}
        """Bytes that are under way, by address."""
        self._sending: set[asyncio.Task[None]] = set()
        self._free_bytes = WAITING_BYTES
        """Room for more that waits."""
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def start(self) -> None:
        """Again does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; does not wait for it."""
        self._stop.set()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # on Linux this is the thread's own priority
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        asyncio.run(self._send_on())
        self._packer.close()

    async def _send_on(self) -> None:
        while not self._stop.is_set():
            await asyncio.sleep(GATHER_SECONDS)
            try:
                self.send_some()
            except Exception:
                _log.exception("mirroring failed; what was gathered is dropped")
        self._links.close_idle(())

    def send_some(self) -> None:
        """Begin to send what is there. On the event loop of this thread."""
        self._mirror.count_left_out()
        lease = self._mirror.lease
        if lease is not None and time.monotonic() >= lease.until:
            self._mirror.end(lease)
            lease = None
        held = [one.nbytes for some in self._waiting.values() for one in some]
        self._free_bytes = WAITING_BYTES - sum(held)
        some = [self._mirror.queue.popleft() for _ in range(len(self._mirror.queue))]
        taken = some[: WAITING - len(held)] if lease is not None else []
        for query in some[len(taken) :]:
            self._mirror.drop(query.segment)
        if lease is not None:
            packed_ones = self._packer.packed(taken, scored=not lease.sender_judged)
            for query, packed in zip(taken, packed_ones, strict=True):
                self._assign(query, packed, lease)
        for address in [one for one in self._waiting if lease is None or one not in lease.addresses]:
            for waiting in self._waiting.pop(address):
                self._mirror.drop(waiting.place[1])
        self._links.close_idle(lease.addresses if lease is not None else ())
        if lease is not None:
            self._begin(lease)

    def _assign(self, query: Answered, packed: Packed, lease: Mirroring) -> None:
        """To the pod that always gets this query, if there is room."""
        nbytes = packed.nbytes
        if not fits(1, nbytes) or nbytes > self._free_bytes:
            self._mirror.drop(query.segment)
            return
        self._free_bytes -= nbytes
        waiting = self._waiting.setdefault(receiver_of(packed.name, lease.addresses), deque())
        waiting.append(_Outgoing((query.bucket, query.segment, query.overall), query.seconds, packed, nbytes))

    def _begin(self, lease: Mirroring) -> None:
        """A request to each pod that has none under way, as far as there is room for them."""
        for address, waiting in tuple(self._waiting.items()):
            if len(self._busy) >= AT_ONCE:
                return
            if not waiting or address in self._busy or address not in lease.addresses:
                continue
            some: list[_Outgoing] = []
            size, seconds, room = 0, 0.0, SENDING_BYTES - sum(self._busy.values())
            while waiting:
                first = waiting[0]
                whole, took = size + first.nbytes, seconds + first.seconds
                if not fits(len(some) + 1, whole) or (self._busy and whole > room):
                    break
                if some and took > REQUEST_SECONDS:
                    break
                some.append(waiting.popleft())
                size, seconds = whole, took
            if not some:
                return
            self._busy[address] = size
            self._waiting[address] = self._waiting.pop(address)  # it is the last the next time
            task = asyncio.get_running_loop().create_task(self._send(lease, address, some))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, lease: Mirroring, address: str, some: Sequence[_Outgoing]) -> None:
        reached = False
        try:
            async with asyncio.timeout(contract.SHADOW_SECONDS):
                link = await self._links.to(address, lease.port)
                reached = True
                refused = await self._exchange(link, lease, address, some)
        except _NotSentError:
            for query in some:
                self._mirror.drop(query.place[1])
            return
        except (TimeoutError, OSError, EOFError, ValueError):
            refused = frozenset(range(len(some)))
        finally:
            del self._busy[address]
        alike = Counter([query.place for query in some])
        missing = Counter([some[number].place for number in refused])
        for (bucket, segment, overall), count in alike.items():
            lost = missing[bucket, segment, overall]
            more = {"mirrored": count, "unanswered": lost, "unreached": 0 if reached else lost}
            lease.counts.add(bucket, segment, more, overall=overall)
        self._mirror.results["Answered"] += len(some) - len(refused)
        self._mirror.results["Unanswered"] += len(refused)
        if (newest := self._mirror.lease) is not None:
            self._begin(newest)

    async def _exchange(self, link: Link, lease: Mirroring, address: str, some: Sequence[_Outgoing]) -> frozenset[int]:
        """Numbers of the queries that were refused. Raises what a broken connection and a broken answer raise, and
        keeps the connection if there was none of both."""
        well = False
        try:
            body = join(
                lease.counts.shadow,
                self._revision,
                self._engine.dimension,
                [query.packed for query in some],
                text=self._engine.manifest.id_type == "string",
                sender_judged=lease.sender_judged,
            )
            target = contract.Target(self._index_uid, lease.revision)
            request = contract.InternalRequest("POST", contract.SHADOW_PATH, body)
            signed = contract.sign(lease.key, request, target, self._clock())
            status, answer = await link.ask(_head(address, lease.port, signed, len(body)) + body)
            if status in _ELSEWHERE:
                raise _NotSentError
            if status != 200:
                raise ValueError(f"status {status}")
            refused, differ = _told(answer, len(some))
            if differ:
                self._differ()
            well = True
            return refused
        finally:
            if well:
                self._links.put_back(address, lease.port, link)
            else:
                link.close()


def receiver_of(name: bytes, addresses: Sequence[str]) -> str:
    """Of all pods the one that gets the queries of this hash; when another comes or goes, few change theirs."""
    if len(addresses) == 1:
        return addresses[0]
    return max(addresses, key=lambda one: hashlib.blake2b(name + one.encode(), digest_size=8).digest())


def check_addresses(addresses: Sequence[str]) -> None:
    """Raises ValueError for what is no address: a name would be looked up, and who answers for it is anybody."""
    for address in addresses:
        ipaddress.ip_address(address)


def _head(address: str, port: int, headers: Mapping[str, str], length: int) -> bytes:
    host = f"[{address}]" if ":" in address else address
    known = {"Host": f"{host}:{port}", "Content-Type": contract.SHADOW_TYPE, **headers, "Content-Length": str(length)}
    lines = [f"POST {contract.SHADOW_PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in known.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def _told(body: bytes, count: int) -> tuple[frozenset[int], bool]:
    """Who was refused, and whether deleted ids differ: from {"unanswered": [numbers], "otherDeleted": bool}. Raises
    ValueError."""
    told = orjson.loads(body)
    numbers = told.get("unanswered", []) if isinstance(told, dict) else None
    if not isinstance(numbers, list) or not all(type(one) is int and 0 <= one < count for one in numbers):
        raise ValueError("what answers is no searcher")
    return frozenset(numbers), told.get("otherDeleted") is True
