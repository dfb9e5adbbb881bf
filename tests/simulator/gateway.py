"""A gateway: it reads the HTTPRoute a while after each change, routes by what it has read, and says so in its status.

Here everybody who queries comes through it, where a story uses it at all. Like Envoy it is told of routes and of what
they lead to apart: of a change it may know the one or the other first.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from simulator.clock import START, Clock
from simulator.store import Json, Store

from vectorindex_operator.reconcile.routes import weights

ROUTE = "HTTPRoute"
TARGETS = Callable[[float, float], list[tuple[float, float, str]]]


class Gateway:
    """`targets(start, stop)`: from when to when the front Service pointed to whom."""

    def __init__(self, store: Store, clock: Clock, rng: Random, front: str, targets: TARGETS) -> None:
        self.store, self.clock, self.rng, self.front, self.targets = store, clock, rng, front, targets
        self.used = False
        self.absent = False
        """No such API in the cluster."""
        self.deaf = False
        """It takes nothing, and says nothing."""
        self.by_hand = False
        """Whether somebody else changes the route: then it does not matter what is known of a change first."""
        self.follows_at = START
        """From when on it routes by what its controller has read."""
        self.named: set[str] = set()
        """Whom the route named that it last took, with a share or without."""
        self.takes = (0.1, 2.0)
        """Seconds until it has read a change."""
        self.broken: Callable[[str], None] = lambda text: None
        self.entitled: Callable[[str], bool] = lambda revision: True
        self.taken: list[tuple[float, dict[str, int]]] = [(START, {})]
        """From when on it routed by which weights."""

    def on_change(self, kind: str, new: Json | None, old: Json | None) -> None:
        same = old is not None and new is not None and old["metadata"]["generation"] == new["metadata"]["generation"]
        if kind == ROUTE and not same:
            self.clock.after(self.rng.uniform(*self.takes), self.look)

    def look(self) -> None:
        """Take what the route says now."""
        if self.deaf:
            return
        live = self.store.get(ROUTE, self.front)
        if self.clock.now >= self.follows_at:
            self._follow(live)
        if live is not None:
            now = [self._row(live, parent) for parent in live["spec"]["parentRefs"]]
            self.store.change(ROUTE, self.front, status={"parents": now})

    def come_back(self) -> None:
        """Its controller was away. That says at once that it has read the route; who routes asks it within half a
        minute."""
        self.deaf, later = False, self.rng.uniform(1.0, 30.0)
        self.follows_at = self.clock.now + later
        self.look()
        self.clock.after(later, self.look)

    def leave(self) -> None:
        """It is gone for good, and its users with it; what it said of the route stays there."""
        self.deaf = True
        self.taken.append((self.clock.now, {}))

    def _follow(self, live: Json | None) -> None:
        backends = weights(live) if live is not None else {}
        shares = {name: share for name, share in backends.items() if share}
        if live is not None and not self.by_hand:
            forgotten = self.taken[-1][1].keys() - backends.keys()
            for name in sorted(forgotten | (shares.keys() - self.named - {self.front})):
                self.broken(f"(19) for a moment the gateway sends queries to {name}, and does not know it")
        self.named = set(backends)
        if shares != self.taken[-1][1]:
            self.taken.append((self.clock.now, shares))
            self._check(shares)

    def _check(self, shares: dict[str, int]) -> None:
        for name in shares.keys() - {self.front}:
            slices = self.store.get("EndpointSlice", name) or {"endpoints": []}
            if not any(one["conditions"]["ready"] for one in slices["endpoints"]):
                self.broken(f"(19) the gateway sends queries to {name}, which has no ready endpoint")
            if not self.entitled(name):
                self.broken(f"(19) the gateway sends queries to {name}, which was not measured to be good enough")

    def _row(self, live: Json, parent: Json) -> Json:
        generation = live["metadata"]["generation"]
        conditions = [
            {"type": kind, "status": "True", "reason": kind, "observedGeneration": generation}
            for kind in ("Accepted", "ResolvedRefs")
        ]
        return {"parentRef": parent, "controllerName": "example.com/gateway", "conditions": conditions}

    def sends_to(self) -> set[str]:
        """Whom it sends queries besides the front Service."""
        return {name for name, share in self.taken[-1][1].items() if share} - {self.front}

    def share(self, revision: str, start: float, stop: float) -> float:
        """Seconds of that time in which a revision had all queries, had one revision all of them."""
        found, end = 0.0, self.clock.now
        for since, shares in reversed(self.taken):
            first, last = max(start, since), min(stop, end)
            whole = sum(shares.values())
            if last > first and whole:
                found += shares.get(revision, 0) / whole * (last - first)
                spans = self.targets(first, last)
                had = sum(until - at for at, until, target in spans if target == revision)
                found += shares.get(self.front, 0) / whole * had
            if since <= start:
                break
            end = since
        return found
