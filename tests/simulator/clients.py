"""The users: connections to pods, made through what each node knows of the front Service.

A connection ends by its age, after the next answer of a pod that was told to drain or is ending, or with its pod. Nodes
learn of endpoints late. So queries reach a revision for a while after the traffic has left it, and fail where
it is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from simulator.clock import START, Clock
from simulator.searchers import Searchers
from simulator.store import Json
from simulator.truth import Truth

from vectorindex_operator.manifests import labels
from vectorindex_searcher.contract import KEEP_ALIVE_SECONDS

CONNECTIONS = 6
NODES = 3
NEXT_ANSWER = (0.05, 1.0)
"""Seconds until a connection has its next answer."""
AGAIN = (0.5, 2.0)
"""Seconds until a client that was not answered tries again."""
LOOKS_FOR_USERS = 15.0


@dataclass(frozen=True, slots=True)
class Failure:
    """A query that nobody answered. `revision`: of the pod that had the address; empty: not known to the node."""

    at: float
    node: int
    address: str
    failing_since: float
    """Of this client."""


@dataclass(slots=True)
class Node:
    """`late`: seconds until it hears of endpoints. `addresses`: those that it knows."""

    late: float
    addresses: tuple[str, ...] = ()
    since: dict[str, float] = field(default_factory=dict)
    """Address -> when it was dropped."""


@dataclass(slots=True)
class Connection:
    """One of the clients' connections. `pod`: name of the pod; empty: it has none just now."""

    node: int
    pod: str = ""
    address: str = ""
    revision: str = ""
    at: float = START
    serial: int = 0
    failing_since: float = float("inf")
    spans: list[tuple[float, str]] = field(default_factory=lambda: [(START, "")])
    """From when on which revision answered it."""

    def belongs(self, now: float, revision: str) -> None:
        if self.spans[-1][1] != revision:
            self.spans.append((now, revision))
        self.revision = revision


class Clients:
    """`until`: when the users go home."""

    def __init__(self, searchers: Searchers, truth: Truth, clock: Clock, rng: Random) -> None:
        self.searchers, self.truth, self.clock, self.rng = searchers, truth, clock, rng
        self.until = float("inf")
        self.answered: Callable[[Connection, Json], None] = lambda connection, pod: None
        """A pod answered the first query of a connection."""
        self.closed: Callable[[Connection, float], None] = lambda connection, known: None
        """A connection ends. `known`: since when its node no longer knows the address; infinity while it does."""
        self.failed: Callable[[Failure], None] = lambda failure: None
        self.nodes = [Node(rng.uniform(0.02, 1.0)) for _ in range(NODES)]
        self.connections = [Connection(number % NODES) for number in range(CONNECTIONS)]
        for one in self.connections:
            self.clock.after(rng.uniform(0.0, 2.0), lambda one=one: self._connect(one, one.serial))  # type: ignore[misc]

    # ------------------------------------------------------------ what nodes know

    def hear(self, slice_: Json) -> None:
        """The front Service's endpoints have changed. Without ready ones the ending ones that still serve are taken."""
        rows = slice_["endpoints"]
        ready = [e for e in rows if e["conditions"]["ready"]] or [e for e in rows if e["conditions"]["serving"]]
        addresses = tuple(sorted(address for e in ready for address in e["addresses"]))
        for node in self.nodes:
            self.clock.after(node.late, lambda node=node: self._learn(node, addresses))  # type: ignore[misc]

    def _learn(self, node: Node, addresses: tuple[str, ...]) -> None:
        for gone in set(node.addresses) - set(addresses):
            node.since[gone] = self.clock.now
        node.addresses = addresses

    # ------------------------------------------------------------ connections

    def _connect(self, one: Connection, serial: int) -> None:
        if serial != one.serial:
            return
        now = self.clock.now
        if now >= self.until:
            return
        if not self.truth.queries_per_second:
            self._later(one, (LOOKS_FOR_USERS, LOOKS_FOR_USERS + 1))
            return
        known = self.nodes[one.node].addresses
        address = self.rng.choice(known) if known else ""
        pod = self.searchers.accepting(address) if address else None
        if pod is None:
            one.failing_since = min(one.failing_since, now)
            one.belongs(now, "")
            self.failed(Failure(now, one.node, address, one.failing_since))
            self._later(one, AGAIN)
            return
        one.pod, one.address, one.at, one.failing_since = pod["metadata"]["name"], address, now, float("inf")
        one.belongs(now, pod["metadata"]["labels"][labels.REVISION])
        self.answered(one, pod)
        closing = self.searchers.closing(pod)
        age = AGAIN if closing else (KEEP_ALIVE_SECONDS * 0.8, KEEP_ALIVE_SECONDS * 1.2)
        self.clock.after(self.rng.uniform(*age), lambda: self._close(one, serial))

    def _later(self, one: Connection, seconds: tuple[float, float]) -> None:
        one.serial += 1
        serial = one.serial
        self.clock.after(self.rng.uniform(*seconds), lambda: self._connect(one, serial))

    def _close(self, one: Connection, serial: int) -> None:
        """After an answer: the client connects anew when it has its next query."""
        if serial != one.serial or not one.pod:
            return
        self.closed(one, self._forgotten(one))
        self._drop(one)
        one.serial += 1
        self._connect(one, one.serial)

    def _drop(self, one: Connection) -> None:
        one.pod = ""
        if self.clock.now >= self.until or not self.truth.queries_per_second:
            one.belongs(self.clock.now, "")

    def _forgotten(self, one: Connection) -> float:
        node = self.nodes[one.node]
        return float("inf") if one.address in node.addresses else node.since.get(one.address, float("inf"))

    def close_soon(self, pod: str) -> None:
        """A pod closes each connection after its next answer."""
        for one in self.connections:
            if one.pod == pod:
                serial = one.serial
                self.clock.after(self.rng.uniform(*NEXT_ANSWER), lambda one=one, s=serial: self._close(one, s))  # type: ignore[misc]

    def cut(self, pod: str) -> None:
        """A pod is gone without a word."""
        for one in self.connections:
            if one.pod == pod:
                one.pod = ""
                one.belongs(self.clock.now, "")
                self._later(one, AGAIN)

    def go_home(self) -> None:
        self.until = self.clock.now
        for one in self.connections:
            one.belongs(self.clock.now, "")

    # ------------------------------------------------------------ who answered whom

    def share(self, revision: str, start: float, stop: float) -> float:
        """Seconds of that time in which a revision had all queries, had one revision all of them."""
        return sum(self._overlap(one, revision, start, stop) for one in self.connections) / CONNECTIONS

    def _overlap(self, one: Connection, revision: str, start: float, stop: float) -> float:
        found, end = 0.0, min(self.clock.now, self.until)
        for at, owner in reversed(one.spans):
            if owner == revision:
                found += max(0.0, min(stop, end) - max(start, at))
            if at <= start:
                break
            end = at
        return found

    def revisions(self) -> Iterator[str]:
        """Whose pods have a connection now."""
        return (one.revision for one in self.connections if one.pod)
