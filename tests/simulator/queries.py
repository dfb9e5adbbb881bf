"""What must never befall a query, seen from the clients: who answers it, for how long, and that somebody does."""

from __future__ import annotations

from collections.abc import Callable

from simulator.clients import Connection, Failure
from simulator.store import Json, owners
from simulator.world import NAME, World

DRAINED_SECONDS = 15.0
"""A lease is told at the switch and at least every ten seconds, and obeyed with the next answer."""
UNANSWERED_SECONDS = 600.0
"""As long as events may be lost, reads be slow, writes be refused and passes fail one after another."""


class Queries:
    """`calm`: since when nothing goes wrong any more. `removed`: revisions whose searchers an operator removed."""

    def __init__(
        self, world: World, broken: Callable[[str], None], calm: Callable[[], float], removed: Callable[[], set[str]]
    ) -> None:
        self.world, self.broken, self.calm, self.removed = world, broken, calm, removed
        self.unanswered = 0
        """Queries that failed though something had been ready for a while, whosever fault it was."""
        clients = world.clients
        clients.answered, clients.closed, clients.failed = self.answered, self.closed, self.failed

    def answered(self, connection: Connection, pod: Json) -> None:
        """(12) by nothing that was not measured to be good enough; (14) what has the traffic is not told to drain."""
        revision, now = connection.revision, self.world.now
        if not self.world.entitled(revision):
            self.broken(f"(12) a query was answered by {revision}, which was not measured to be good enough")
        since = max(self.world.got_traffic(), self.calm())
        if self.world.serving() == revision and now - since > DRAINED_SECONDS and self.world.searchers.draining(pod):
            self.broken(f"(14) a pod of {revision} still drains, {now - since:.0f} s after it got the traffic")

    def closed(self, connection: Connection, known: float) -> None:
        """(14) what lost the traffic is soon not asked any more: a connection does not end by its age alone. Except at
        searchers whose revision's object is gone: what they are told is signed for its uid, so nobody can tell them."""
        if self.world.store.get("VectorIndexRevision", connection.revision) is None:
            return
        lost = self.world.lost_traffic(connection.revision)
        since = max(lost, known, connection.at, self.calm())
        if self.world.now - since > DRAINED_SECONDS:
            late = self.world.now - lost
            self.broken(f"(14) {connection.revision} answered {late:.0f} s after it had lost the traffic")

    def failed(self, failure: Failure) -> None:
        """(13) none fails at searchers that an operator removed; none fails for long while something could answer."""
        settled = self.world.now - DRAINED_SECONDS - self.world.clients.nodes[failure.node].late
        self.unanswered += any(at < settled for at in self.world.ready_since.values())
        index = self.world.index()
        if index is None:
            return
        revision = self.world.searchers.last_at(failure.address)
        if revision in self.removed():
            self.broken(f"(13) a query failed at {revision}, whose searchers were removed too early")
        service = self.world.store.get("Service", NAME)
        if service is not None and index["metadata"]["uid"] not in owners(service):
            return
        latest = self.world.now - UNANSWERED_SECONDS
        able = [r for r, at in self.world.ready_since.items() if at < latest and self.world.entitled(r)]
        if able and failure.failing_since < latest:
            self.broken(f"(13) queries have failed for {UNANSWERED_SECONDS:.0f} s, and {able[0]} could answer them")
