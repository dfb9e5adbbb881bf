"""What a look at a soak costs: as much after an hour as after minutes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cost import least
from observations import SETTINGS, a_revision, seen, spec
from played_pods import Pods

from vectorindex_operator.adapters.admin_port import AdminPort, Answer, Call, Lane
from vectorindex_operator.adapters.evidence import HttpSearchers
from vectorindex_operator.adapters.shares import Share
from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.core.lifecycle import decide
from vectorindex_operator.core.observation import Observation
from vectorindex_operator.core.plan import Plan
from vectorindex_operator.reconcile.looks import AskedError, Looks
from vectorindex_searcher.contract import BUCKET_SECONDS

KEY = "team-a", "docs"
RULES = (
    {"name": "errors", "metric": "ErrorRate", "max": "2%"},
    {"name": "p99", "metric": "LatencyP99", "max": "500ms"},
    {"name": "score", "metric": "TopScore", "min": 0.2},
)


class Serving(AdminPort):
    """Answers as these pods would, whatever their address."""

    def __init__(self, pods: Pods) -> None:
        super().__init__()
        self.pods, self.bytes = pods, 0

    async def ask(self, calls: Sequence[Call], lane: Lane, share: Share, **_: Any) -> list[Answer]:
        said = [self.pods.answer(c.method, c.path, {name.lower(): v for name, v in c.headers.items()}) for c in calls]
        self.bytes += sum(len(body) for _, body in said)
        return [Answer(200, kind, body) for kind, body in said]


class Soak:
    """A revision that soaks since `age` seconds, or is `watched` since then; its queries are in so many segments."""

    def __init__(self, segments: int, age: float, at: float, *, watched: bool = False) -> None:
        names = [f"segment-{number}" for number in range(segments - 1)]
        rules = [*RULES, *({**RULES[0], "name": f"errors-{name}", "segment": name} for name in names)][:32]
        wanted = spec(
            index={"factory": "HNSW32"}, segments=[{"name": name} for name in names], guardrails={"rules": rules},
            rollout={"soak": {"duration": "4h", "maxDuration": "6h"}}, searcher={"replicas": 3},
        )  # fmt: skip
        stable, soaks = (
            a_revision(spec(), "Stable", created=at - 90_000),
            a_revision(wanted, "Soaking", created=at - age),
        )
        rollout = soaks.status.rollout
        assert rollout is not None
        rollout = rollout.model_copy(update={"prior": stable.name, "switched_at": to_text(at - age)})
        soaks = replace(soaks, status=soaks.status.model_copy(update={"rollout": rollout}))
        self.now, self.segments = at, segments
        self.pods = Pods(clock=lambda: self.now)
        self.pods.obey('{"load": "%s", "segments": %s}' % (soaks.name, str(names).replace("'", '"')))  # noqa: UP031
        self.looks = Looks(HttpSearchers(port=Serving(self.pods)))
        self.obs = seen(wanted, stable, soaks, traffic=soaks)
        if watched:
            promoted = soaks.status.model_copy(update={"phase": "Stable", "promoted_at": to_text(at - age)})
            soaks = replace(soaks, status=promoted)
            self.obs = seen(wanted, soaks, traffic=soaks)
        self.plan = self.look()

    def look(self) -> Plan:
        obs = self._told()
        received = {
            name: tuple(replace(one, received_at=self.now) for one in told) for name, told in obs.evidence.items()
        }
        self.plan = decide(replace(obs, evidence=received), SETTINGS, self.now)
        self.looks.spent(KEY)
        self.now += BUCKET_SECONDS
        return self.plan

    def _told(self) -> Observation:
        try:
            return self.looks.told(KEY, self.obs, self.now)
        except AskedError:
            while self.looks.under_way(KEY):
                time.sleep(0.0005)
            return self.looks.told(KEY, self.obs, self.now)

    def cpu(self) -> float:
        """Of a look, on whatever thread."""
        began = time.process_time()
        self.look()
        return time.process_time() - began


def test_a_look_costs_as_much_after_an_hour_as_after_minutes() -> None:
    """Before: five times as much."""
    at = time.time()
    young, old = Soak(32, 180.0, at), Soak(32, 7200.0, at)
    for soak in (young, old):
        for _ in range(3):
            soak.look()
    few, many = least(young.cpu, old.cpu, until=lambda few, many: many < 2 * few)
    print(f"a look at 32 segments: {few * 1e3:.1f} ms after minutes, {many * 1e3:.1f} ms after an hour")
    assert many < 2 * few


def test_a_look_at_what_is_watched_costs_as_much_after_an_hour_as_after_minutes() -> None:
    """Before: seven times as much; a thousand indexes, watched in the day after their promotion, took a core."""
    at = time.time()
    young, old = Soak(1, 180.0, at, watched=True), Soak(1, 7200.0, at, watched=True)
    for soak in (young, old):
        for _ in range(3):
            soak.look()
    few, many = least(young.cpu, old.cpu, until=lambda few, many: many < 3 * few)
    print(f"a look at what is watched: {few * 1e3:.1f} ms after minutes, {many * 1e3:.1f} ms after an hour")
    assert many < 3 * few
