"""The pods of one shard: who they are, whether they answer, and which one is asked.

A pod is whoever is at an address of the shard's names, which are looked up again and again. Addresses are used again by
others, so every connection begins with GET /v1/index, and carries searches only if that says the right index, revision
and shard. A connection stays with its pod, so that is proof for all that follows.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from ... import contract
from .link import BrokenError, Link, NoRoomError, Reply, Room, Then, asked

LOOK_SECONDS = 2.0
"""Between two looks at names and pods."""
OPEN_SECONDS = 1.0
"""For a connection and its proof."""
OUTSTANDING = 256
"""Requests to one pod; each has a connection."""
KEPT = 64
"""Connections to one pod without a request."""
IDLE_SECONDS = 10.0
"""Then one is closed here: the other side closes what is idle for long, and that must not cross with a request."""
INDEX_BYTES = 4 << 20
"""Of an answer to GET /v1/index."""
SAMPLE, LEAST_SAMPLE, RECKON_EVERY = 512, 64, 64
HEDGE_QUANTILE, HEDGE_MEDIANS = 0.95, 3.0
"""Late is what takes longer than so many of a pod's answers, and than so many times the one in their middle: by the
first alone one in twenty would be late where nothing is wrong (bench/results/shard_tail.md)."""
HEDGE_SHARE, HEDGE_BURST = 0.05, 10.0
"""Second requests for each first one, and how many may be saved up."""
LEAST_HEDGE_SECONDS = 0.001
MOST_SAID = 100
"""Faults of a kind that the log has, each once."""
_log = logging.getLogger(__name__)

Check = Callable[[Reply], None]
"""Raises ValueError for a pod that is none of the shard's."""
Rest = Callable[[], tuple[bytes, bytes] | None]
"""Headers from there on, with the blank line, and the body, when they leave: the time that is left is in them. None:
nobody wants the answer any more."""


class Latencies:
    """How long a pod took for its last answers."""

    def __init__(self) -> None:
        self._took: deque[float] = deque(maxlen=SAMPLE)
        self._since_reckoned = 0
        self.late: float | None = None
        """Seconds after which an answer of this pod is late; None: not known yet."""

    def add(self, seconds: float) -> bool:
        """One more; whether what is late was reckoned anew."""
        self._took.append(seconds)
        self._since_reckoned += 1
        if self._since_reckoned < RECKON_EVERY or len(self._took) < LEAST_SAMPLE:
            return False
        self._since_reckoned = 0
        sample = sorted(self._took)
        self.late = max(sample[int(HEDGE_QUANTILE * len(sample))], HEDGE_MEDIANS * sample[len(sample) // 2])
        return True


class Pod:
    """One address. `head`: of GET /v1/index, whole."""

    def __init__(self, host: str, port: int, room: Room, token: Callable[[], bytes], check: Check) -> None:
        self.host, self.port = host, port
        name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.name = name
        self._room, self._token, self._check = room, token, check
        self._free: list[Link] = []
        self._busy: dict[Link, object] = {}
        """On which an answer is missing, and who asked."""
        self._opening: set[asyncio.Task[None]] = set()
        self.latencies = Latencies()
        self.alive = False
        """Whether it answered as the one it should be, and has not failed since."""
        self.wrong = False
        """Whether it said when it was asked last that it is of another index, revision or shard."""
        self.gone = False
        """No name says its address any more."""

    @property
    def outstanding(self) -> int:
        """Requests that it has not answered."""
        return len(self._busy) + len(self._opening)

    def ask(self, asker: object, line: bytes, rest: Rest, most: int, then: Then) -> None:
        """Send a request; as Link.ask. `asker`: for `give_up`."""
        link = self._idle()
        if link is not None:
            self._send(link, asker, line, rest, most, then)
            return
        task = asyncio.get_running_loop().create_task(self._open_and_send(asker, line, rest, most, then))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def give_up(self, asker: object) -> None:
        """It wants no answer any more. What the pod has not taken of its requests would lie here until it does."""
        for link in [link for link, who in self._busy.items() if who is asker and link.unsent]:
            link.close()

    async def prove(self) -> None:
        """Look whether it still is who it was, and answers. Never raises."""
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                link = self._idle()
                if link is None:
                    link = await self._open()
                else:
                    await self._prove(link)
        except NoRoomError:
            return  # the fault is here: that says nothing about the pod
        except (OSError, BrokenError, ValueError) as error:  # TimeoutError is an OSError
            self.fail(error)
            return
        self.alive = True
        self._put_back(link)

    def fail(self, error: Exception) -> None:
        """It did not answer: others are asked until it does."""
        if self.alive:
            _log.warning("a pod of a shard does not answer", extra={"pod": self.name, "problem": str(error)[:200]})
        self.alive = False
        self.close_idle(0.0)

    def close_idle(self, seconds: float = IDLE_SECONDS) -> None:
        """Close connections that had no request for so long."""
        until = time.monotonic() - seconds
        old = [link for link in self._free if link.since <= until or not link.usable]
        for link in old:
            self._free.remove(link)
            link.close()

    def end_hung(self, seconds: float) -> None:
        """Close the connections on which an answer is missing for so long: nobody waits for it any more."""
        until = time.monotonic() - seconds
        for link in [link for link in self._busy if link.since < until]:
            link.close()

    def close(self) -> None:
        """All connections, whatever is on its way."""
        self.gone = True
        for link in (*self._free, *self._busy):
            link.close()
        for task in self._opening:
            task.cancel()

    # ------------------------------------------------------------

    def _idle(self) -> Link | None:
        while self._free:
            link = self._free.pop()
            if link.usable:
                return link
        return None

    def _head(self, line: bytes, headers: bytes) -> bytes:
        return b"%b HTTP/1.1\r\nHost: %b\r\n%b%b" % (line, self.name.encode(), self._token(), headers)

    def _send(self, link: Link, asker: object, line: bytes, rest: Rest, most: int, then: Then) -> None:
        left = rest()
        if left is None:
            self._put_back(link)
            then(BrokenError("given up"))
            return
        self._busy[link] = asker

        def done(outcome: Reply | Exception) -> None:
            self._busy.pop(link, None)
            if isinstance(outcome, Reply):
                self._put_back(link)
            then(outcome)

        headers, body = left
        link.ask(self._head(line, headers), body, most, done)

    def _put_back(self, link: Link) -> None:
        if self.gone or not link.usable or len(self._free) >= KEPT:
            link.close()
        else:
            self._free.append(link)

    async def _open_and_send(self, asker: object, line: bytes, rest: Rest, most: int, then: Then) -> None:
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                link = await self._open()
        except (OSError, BrokenError, NoRoomError, ValueError) as error:
            then(error)
            return
        except asyncio.CancelledError:
            then(BrokenError("given up"))
            raise
        self._send(link, asker, line, rest, most, then)

    async def _open(self) -> Link:
        """A new connection that is proven. Raises OSError, BrokenError, NoRoomError, ValueError."""
        _, link = await asyncio.get_running_loop().create_connection(lambda: Link(self._room), self.host, self.port)
        await self._prove(link)
        return link

    async def _prove(self, link: Link) -> None:
        """Raises as `_open`, and closes the link then."""
        proven = False
        try:
            outcome = await asked(link, self._room, self._head(b"GET /v1/index", b"\r\n"), b"", INDEX_BYTES)
            if outcome.head.status != 200:
                raise BrokenError(f"GET /v1/index was answered with {outcome.head.status}")
            self.wrong = True
            self._check(outcome)
            self.wrong, proven = False, True
        finally:
            if not proven:
                link.close()


class Shard:
    """The pods of one part, and what is known of how long they take. For one event loop."""

    def __init__(
        self, number: int, addresses: Sequence[str], room: Room, token: Callable[[], bytes], check: Check
    ) -> None:
        self.number = number
        self._addresses = [contract.shard_address(text) for text in addresses]
        self._room, self._token, self._check = room, token, check
        self.pods: dict[tuple[str, int], Pod] = {}
        self._leaving: list[Pod] = []
        """Of which no name says anything any more, while they owe answers."""
        self.results: Counter[str] = Counter()
        """Requests by what became of them: Answered, Failed, Refused, and Hedged besides."""
        self.hedge_after: float | None = None
        """Seconds without an answer after which a second pod is asked; None: not known yet."""
        self._hedges = 1.0
        self._disagreed: set[str] = set()

    def disagrees(self, pod: Pod, problem: str) -> None:
        """It refuses what the router has checked: said once of each refusal. It stays among those that are asked, since
        whoever may ask could else take all of them out."""
        if problem not in self._disagreed and len(self._disagreed) < MOST_SAID:
            self._disagreed.add(problem)
            _log.error("a shard refuses a query", extra={"shard": self.number, "pod": pod.name, "problem": problem})

    @property
    def alive(self) -> int:
        """Pods that answer."""
        return sum(pod.alive for pod in self.pods.values())

    def pick(self, tried: Sequence[Pod] = ()) -> Pod | None:
        """The less busy of two drawn at random: who counts nobody else's requests shall not have all the others do as
        it does. None where there is nobody else to ask.

        Where none has answered lately all are asked that have not said to be another one: they may be slow, not gone.
        """
        others = [pod for pod in self.pods.values() if pod not in tried and not pod.wrong]
        there = [pod for pod in others if pod.outstanding < OUTSTANDING]
        some = [pod for pod in there if pod.alive] or there
        if len(some) > 1:
            some = random.sample(some, 2)
        return min(some, key=lambda pod: pod.outstanding, default=None)

    @property
    def full(self) -> bool:
        """Every pod that answers has as many requests as it may. What hangs is not busy: that is a fault."""
        there = [pod for pod in self.pods.values() if pod.alive]
        return bool(there) and all(pod.outstanding >= OUTSTANDING for pod in there)

    # ------------------------------------------------------------ second requests

    def began(self) -> None:
        """A first request was sent: a share of a second one is earned."""
        self._hedges = min(HEDGE_BURST, self._hedges + HEDGE_SHARE)

    def may_hedge(self) -> bool:
        """Whether a second request is paid for; if so it is taken."""
        if self._hedges < 1.0:
            return False
        self._hedges -= 1.0
        return True

    def took(self, pod: Pod, seconds: float) -> None:
        """Of any request that was answered, a second one too: else what is slow would never be seen. The quickest pod
        says what is late: a slow one must not be the measure of itself."""
        if not pod.latencies.add(seconds):
            return
        known = [one.latencies.late for one in self.pods.values() if one.latencies.late is not None]
        if known:  # it may be leaving
            self.hedge_after = max(LEAST_HEDGE_SECONDS, min(known))

    # ------------------------------------------------------------ who they are

    async def look(self, hung_seconds: float) -> None:
        """Look the names up, and at every pod. `hung_seconds`: what takes longer is given up."""
        found: dict[tuple[str, int], None] = {}
        for host, port in self._addresses:
            found.update(dict.fromkeys((address, port) for address in await _resolved(host, port)))
        if found:  # a name that says nothing may be a nameserver that is gone: who is known proves himself anyway
            self._keep(list(found)[: contract.SHARD_ADDRESSES])
        for pod in (*self.pods.values(), *self._leaving):
            pod.close_idle()
            pod.end_hung(hung_seconds)
        self._leaving = [pod for pod in self._leaving if pod.outstanding]
        await asyncio.gather(*(pod.prove() for pod in self.pods.values()))

    def _keep(self, places: Sequence[tuple[str, int]]) -> None:
        for place in [one for one in self.pods if one not in places]:
            pod = self.pods.pop(place)
            pod.gone = True
            pod.close_idle(0.0)  # what is on its way is answered
            self._leaving.append(pod)
        for place in places:
            if place not in self.pods:
                self.pods[place] = Pod(*place, self._room, self._token, self._check)

    def close(self) -> None:
        """All connections."""
        for pod in (*self.pods.values(), *self._leaving):
            pod.close()


async def _resolved(host: str, port: int) -> list[str]:
    """The addresses of a host, sorted; none where its name says nothing."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    try:
        async with asyncio.timeout(OPEN_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        _log.warning("a name of a shard says nothing", extra={"host": host, "problem": str(error)})
        return []
    return sorted({str(one[4][0]) for one in found})
