"""Follows one revision through its life and says each thing once, with the numbers behind it."""

from __future__ import annotations

import time
from collections.abc import Iterator

from demo.printer import Printer
from harness.errors import WaitTimeout
from harness.kube import Json
from harness.traffic import Snapshot, Traffic
from harness.vix import ENDED, VectorIndexHandle

POLL_SECONDS = 0.25
VERDICTS = {"Pass": ("passes", "good"), "Fail": ("FAILS", "bad"), "Inconclusive": ("cannot be judged", "bad")}
Fact = tuple[str, str, str]
"""What it is, what to say, in which mood."""


class Follower:
    """Reads the revision's status and prints what is new in it."""

    def __init__(self, index: VectorIndexHandle, printer: Printer, traffic: Traffic | None) -> None:
        self._index, self._printer, self.traffic = index, printer, traffic
        self._said: set[tuple[str, str]] = set()

    def follow(self, name: str, topic: str, timeout: float = 300) -> Json:
        """Until the revision has ended one way or another; its status."""
        return self._follow(name, topic, timeout, ENDED)

    def until_serving(self, name: str, topic: str, timeout: float = 300) -> Json:
        """Until the revision has the traffic, or ended without."""
        return self._follow(name, topic, timeout, ("Soaking", *ENDED))

    def count(self) -> None:
        """Renews the counting line."""
        if self.traffic is not None:
            self._printer.live(counts(self.traffic.snapshot()))

    def _follow(self, name: str, topic: str, timeout: float, phases: tuple[str, ...]) -> Json:
        deadline = time.monotonic() + timeout
        while True:
            status = self._index.revision(name)
            for key, text, mood in _facts(name, status):
                if (name, key) not in self._said:
                    self._said.add((name, key))
                    self._printer.say(topic, text, mood)
            if status.get("phase") in phases:
                return status
            if time.monotonic() > deadline:
                wished = " or ".join(phases)
                raise WaitTimeout(
                    f"waited {timeout:.0f} s for {name} to be {wished}; last seen:\n{self._index.explain()}"
                )
            self.count()
            time.sleep(POLL_SECONDS)


def _facts(name: str, status: Json) -> Iterator[Fact]:
    build, gate, rollout = status.get("build"), status.get("gate"), status.get("rollout") or {}
    if build:
        size = build["indexBytes"] / 2**20
        yield (
            "build",
            f"built {name}: {build['factory']}, {build['count']:,} vectors in {build['durationSeconds']:.1f} s on "
            f"{build['device']}, {size:.1f} MiB",
            "",
        )
    if gate:
        verb, mood = VERDICTS[gate["verdict"]]
        yield f"gate {gate['verdict']}", f"the gate {verb}: {gate['message']}", mood
    yield from _shadow_facts(rollout.get("shadow") or {})
    if rollout.get("switchedAt"):
        prior = f", {rollout['prior']} stays loaded" if rollout.get("prior") else ""
        yield "switch", f"has the traffic: each searcher proved its own recall first{prior}", ""
    verdicts = [v for v in rollout.get("verdicts", []) if v["metric"] != "Unavailable"]
    if verdicts and all(v["verdict"] == "Pass" for v in verdicts):
        yield "healthy", f"guardrails pass: {'; '.join(map(_verdict, verdicts))}", "good"
    if rollout.get("trip"):
        yield "trip", f"guardrail TRIPS: {rollout['trip']['message']}", "bad"
    if status.get("phase") == "BuildFailed":
        yield "failed", f"the build failed: {status.get('message', '')}", "bad"


def _shadow_facts(shadow: Json) -> Iterator[Fact]:
    """Of a shadow that began; the first revision has none."""
    if not shadow.get("id"):
        return
    yield "shadow", f"in shadow: answers live queries that {shadow['reference']} has answered; nobody gets these", ""
    if shadow.get("endedAt"):
        mood = {"Passed": "good", "Failed": "bad"}.get(shadow["outcome"], "")
        yield "shadow over", f"shadow {shadow['outcome'].upper()}: {shadow['message']}", mood


def _verdict(verdict: Json) -> str:
    value, limit = verdict.get("value"), verdict.get("limit")
    form = ".1%" if verdict["metric"].endswith("Rate") else ".3f"
    bound = "at least" if verdict["metric"] == "TopScore" else "at most"
    said = "?" if value is None else format(value, form)
    return f"{verdict['rule']} {said}" + ("" if limit is None else f" ({bound} {format(limit, form)})")


def counts(seen: Snapshot) -> str:
    """The live line."""
    return (
        f"       {seen.queries:,} queries, {seen.failed} failed, p95 {seen.p95_ms:.1f} ms, "
        f"answers from {seen.newest or 'nobody yet'}"
    )
