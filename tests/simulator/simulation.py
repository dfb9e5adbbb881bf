"""One run: a scenario, a seed, a world, one or two operators; then peace, the right end, and no more writes."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from random import Random
from typing import Any

from simulator.admission import WEBHOOKS
from simulator.clock import START
from simulator.faults import Faults
from simulator.invariants import Invariants
from simulator.operators import Operator
from simulator.queries import Queries
from simulator.scenarios import SCENARIOS, Scenario
from simulator.store import Json
from simulator.world import World

from vectorindex_operator.core.events import Event
from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile.routes import weights

REST_SECONDS = 130.0
"""So long without a write of an operator counts as rest: two relists. What comes later is found in the quiet hours."""
QUIET_GAPS = (1, 4, 10, 30, 60, 120, 300, 600, 900, 1800, 3400)
"""Looks at rest, together two hours. Passes are level-triggered: what any look between them would write, these do."""

MOST_WRITES = 1000
"""Of all operators in a run, that changed something. The most that a scenario has needed are 200."""
MOST_SENT = 2000
"""The same, with those that changed nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to. `end` is compared with the run of the same scenario without faults."""

    problems: tuple[str, ...]
    end: dict[str, Any]
    passes: int
    writes: int


class BrokenError(Exception):
    """An invariant does not hold; the run ends here."""


class Simulation:
    """Runs one seed of one scenario. Seed 0 is the run without faults, with one operator."""

    def __init__(self, scenario: Scenario, seed: int, *, plain: bool = False) -> None:
        """`plain`: in surroundings without faults of their own."""
        self.scenario, self.seed = scenario, seed
        rng = Random(zlib.crc32(f"{scenario.name}/{seed}".encode()))
        self.rng = rng
        self.world = World(Random(rng.random()))
        self.faults = Faults.drawn(Random(rng.random())) if seed else Faults.none(rng)
        self.trace: list[tuple[float, str, str, str, str, Json | None]] = []
        self.problems: list[str] = []
        self.resting = False
        self.last_write = START
        self.writes = 0
        self.acting: Operator | None = None
        self.calm_since = float("inf") if seed else START
        self.invariants = Invariants(self.world, self._broken)
        self.invariants.frozen = self._frozen
        self.invariants.calm = lambda: self.calm_since
        self.world.gateway.broken = self._broken
        self.queries = Queries(self.world, self._broken, lambda: self.calm_since, lambda: self.invariants.removed)
        self.world.store.on_change = self._changed
        two = bool(scenario.classes) or (bool(seed) and (scenario.two_operators or rng.random() < 0.2))
        cached = not seed or rng.random() < 0.8
        self.operators = [Operator(name, self.world, self.faults, cached=cached) for name in ("op1", "op2")[: 1 + two]]
        for operator, name in zip(self.operators, scenario.classes, strict=False):
            operator.become(name)
        if scenario.takes_over:
            for operator in self.operators:
                operator.takes_over()
        if scenario.collects:
            for operator in self.operators:
                operator.collects()
        if scenario.notifies:
            for operator in self.operators:
                operator.notifies()
        if two and seed:
            self.operators[1].skew = rng.uniform(-4.0, 4.0)
        if seed and not plain:
            self._draw_surroundings(Random(f"{scenario.name}/{seed}"))
        if seed and rng.random() < 0.3:
            self.world.controllers.vanishing = rng.randrange(1, 4)
        for operator in self.operators:
            operator.on_event = self._event
            operator.on_bug = self._bug
            operator.on_pass = self.invariants.on_pass
            operator.acting = self._act
        self.world.upgrade = lambda image: [operator.upgrade(image) for operator in self.operators] and None
        self.script = scenario.script(self.world)
        self.waits_for: Any = None

    def _draw_surroundings(self, rng: Random) -> None:
        """A node that hears late of endpoints, clocks that differ, pods that tell nothing for a while, webhooks, and
        kinds of objects that cannot be written for a while."""
        # A write that stands still eats up the time in which connections drain: not both at once.
        if self.faults.writes == 0 and self.faults.single is None and rng.random() < 0.5:
            self.world.clients.nodes[0].late = rng.uniform(5.0, 40.0)
        if rng.random() < 0.4:
            self.world.searchers.skews = (0.0, rng.uniform(-120.0, 120.0), rng.uniform(-2.0, 2.0))
        share = rng.uniform(0.0, 0.3) if rng.random() < 0.4 else 0.0
        if rng.random() < 0.4:
            self.world.store.webhooks = WEBHOOKS
        if rng.random() < 0.3:
            self.faults.refuse(Random(rng.random()), self.world.now)
        self.world.searchers.mute = lambda pod: self.faults.active and _drawn(f"{pod}/{self.world.now // 60}") < share

    # ------------------------------------------------------------ hooks

    def _act(self, operator: Operator | None) -> None:
        self.acting = operator

    def _frozen(self, kind: str) -> bool:
        return kind in self.world.truth.refused or self.faults.is_refused(kind, self.world.now)

    def _broken(self, text: str) -> None:
        self.problems.append(text)
        if self.acting is not None:
            raise BrokenError(text)

    def _bug(self, text: str) -> None:
        if "BrokenError" not in text:
            self.problems.append(f"(9) {text}")

    def _event(self, event: Event) -> None:
        self.trace.append((self.world.now, "event", event.reason, event.message, "", None))
        if self.resting:
            self.problems.append(f"(3) Event at rest: {event.reason}: {event.message}")

    def _changed(self, verb: str, kind: str, name: str, old: Json | None, new: Json | None) -> None:
        actor, now = self.acting, self.world.now
        self.acting = None
        self.trace.append((now, actor.name if actor else "", verb, kind, name, new))
        self.world.on_change(verb, kind, name, old, new)
        if actor is not None:
            self.writes += 1
            if self.writes == MOST_WRITES:
                self.problems.append(f"(3) {MOST_WRITES} writes: somebody undoes what another does, again and again")
            if (kind == "Job" and self.scenario.polls) or self.scenario.fights:
                pass
            elif not self.resting:
                self.last_write = now
            else:
                self.problems.append(f"(3) write at rest: {verb} {kind}/{name}")
        for operator in self.operators:
            if not self.faults.happens(self.faults.lost_events):
                operator.hear(kind, old, new, self.world.rng.uniform(0.01, 0.3))
        self._go_on()
        self.acting = actor
        try:
            self.invariants.on_change(actor, verb, kind, name, old, new)
        finally:
            self.acting = None

    # ------------------------------------------------------------ the user's script

    def _go_on(self) -> None:
        """Go on with the script when what it waits for is there."""
        if self.waits_for is not None and self.waits_for():
            self.waits_for = None
            self.world.clock.after(self.world.rng.uniform(0.0, 1.0), self._resume)

    def _resume(self) -> None:
        try:
            wish = next(self.script)
        except StopIteration:
            self.script = iter(())
            self.done = True
            return
        if isinstance(wish, (int, float)):
            self.world.clock.after(wish, self._resume)
            return
        self.waits_for = wish
        self._go_on()

    # ------------------------------------------------------------ running

    done = False

    def run(self) -> Outcome:
        self.world.clock.after(0.0, self._resume)
        for operator in self.operators:
            operator.relist()
        self._run_script()
        self._calm_down()
        if not self.scenario.needs_traffic and self.seed % 5:
            self.world.stop_traffic()  # evidence costs most of the time of a run
        if self.world.sent >= MOST_SENT:
            self.problems.append(f"(3) {self.world.sent} writes, most of which changed nothing")
        if not self.problems:
            self._settle()
        if not self.problems:
            self._stay_quiet()
        if not self.seed and not self.problems:
            self._nothing_was_wasted()
        passes = sum(operator.passes for operator in self.operators)
        return Outcome(tuple(self.problems), self._end(), passes, self.writes)

    def _run_script(self) -> None:
        """Faults go on until the user is done; but a scenario may need them to stop before it can go on."""
        limit = START + self.scenario.hours * 3600
        faults_until = START + self.faults.rng.uniform(*self.faults.lasts)
        while not self.done and not self.problems:
            if self.world.clock.next_at() > faults_until and self.faults.active:
                self._calm_down()
            if self.world.now > limit:
                self.problems.append(f"(3) the script still waits after {self.scenario.hours} h")
                return
            self.world.clock.step()

    def _nothing_was_wasted(self) -> None:
        """Without faults no query fails, and nothing is built twice."""
        if self.queries.unanswered and not self.scenario.unanswered:
            self.problems.append(f"(13) {self.queries.unanswered} queries failed, and nothing went wrong")
        again = self.world.truth.builds - self.world.truth.removed - len(self.world.truth.stored)
        if again != self.scenario.found_again:
            self.problems.append(f"(2) {again} builds found their artifact published, not {self.scenario.found_again}")

    def _calm_down(self) -> None:
        """Nothing goes wrong any more. What did is made good within the time of a relist."""
        if self.faults.active:
            self.faults.active = False
            self.calm_since = self.world.now + REST_SECONDS

    def _settle(self) -> None:
        limit = self.world.now + self.scenario.hours * 3600
        since = self.world.now
        while not self.problems:
            if self.world.now - max(self.last_write, since) > REST_SECONDS:
                wrong = self.scenario.end(self.world)
                if not wrong:
                    self.invariants.at_the_end(polls=self.scenario.polls)
                    return
                if self.world.now > limit:
                    self.problems += [f"(3) no right end: {text}" for text in wrong]
                    return
                since = self.world.now
            elif self.world.now > limit:
                self.problems.append(f"(3) still writing after {self.scenario.hours} h")
                return
            self.world.clock.step()

    def _stay_quiet(self) -> None:
        self.resting = True
        for operator in self.operators:
            operator.automatic = False
        for gap in QUIET_GAPS:
            self.world.clock.run_until(self.world.now + gap)
            for operator in self.operators:
                operator.requeue = 300.0
                before, sent = operator.ports.reads, self.world.sent
                operator.run()
                if operator.requeue < 4.0:  # a poll may be due, once
                    self.world.clock.run_until(self.world.now + operator.requeue)
                    operator.run()
                reads, sent = operator.ports.reads - before, self.world.sent - sent
                patient = self.scenario.polls or self.scenario.fights
                if sent and not patient:
                    self.problems.append(f"(3) {sent} writes at rest, whether they changed anything or not")
                # That a VectorIndex is gone is asked once; nobody looks at it again.
                if operator.cached and reads and self.world.index() is not None and not patient:
                    self.problems.append(f"(3) {reads} reads at rest")
                if operator.requeue < 4.0 and not self.scenario.polls:
                    self.problems.append(f"(3) looks again every {operator.requeue} s at rest")
            if self.problems:
                return
        if not self.scenario.polls:
            self.problems += [f"(3) the end did not stay: {text}" for text in self.scenario.end(self.world)]

    def _end(self) -> dict[str, Any]:
        status = self.world.status()
        return {
            "serving": self.world.serving(),
            "phase": status.get("phase", ""),
            # Either of the two rules that are always on may be the first to see a crash.
            "reason": status.get("reason", "").replace("Restarts", "Unavailable"),
            "stable": status.get("stable", ""),
            "candidate": status.get("candidate", ""),
            "next": status.get("next", ""),
            # Guardrails say what the traffic did until it stopped: that is another moment in each run.
            "conditions": {
                c["type"]: c["status"] for c in status.get("conditions", ()) if c["type"] != "GuardrailsHealthy"
            },
            "blocked": sorted(b["rule"] for b in status.get("blockedBy", ())),
            "verbs": {v["verb"]: v["result"] for v in status.get("verbs", ())},
            "loaded": sorted(self.world.loaded()),
        }

    # ------------------------------------------------------------ telling

    def story(self) -> str:
        """What happened, for whoever has to understand it."""
        lines = [f"scenario {self.scenario.name}, seed {self.seed}", "faults:"]
        lines += [f"  {line}" for line in self.faults.log] or ["  none"]
        lines.append("writes ('' is the world), events:")
        for at, actor, verb, kind, name, new in self.trace:
            if kind != "Pod" or actor:
                lines.append(f"  {at - START:9.2f} {actor:5} {verb:7} {kind}/{name} {_gist(kind, new)}")
        lines.append("problems:")
        lines += [f"  {problem}" for problem in self.problems]
        lines.append(f"replay: SIMULATOR_SEED={self.seed} pytest tests/simulator -k {self.scenario.name}")
        return "\n".join(lines)


def _drawn(text: str) -> float:
    return zlib.crc32(text.encode()) / 2**32


def _gist(kind: str, new: Json | None) -> str:
    """The few words about an object that a reader of a trace needs."""
    if new is None:
        return ""
    status, spec = new.get("status", {}), new.get("spec", {})
    if kind == "VectorIndex":
        return f"{spec['index']['factory']}: {status.get('phase', '')}/{status.get('reason', '')}"
    if kind == "VectorIndexRevision":
        rejected = status.get("rejected", {}).get("reason", "")
        return f"{spec['indexSpec']['factory']}: {status.get('phase', '')} {rejected}"
    if kind == "Service":
        return f"-> {spec['selector'].get(labels.REVISION)}"
    if kind == "HTTPRoute":
        return f"{weights(new)} {'and status' if new.get('status') else ''}"
    if kind in ("Job", "Deployment"):
        return ", ".join(f"{c['type']}={c['status']} {c['reason']}" for c in status.get("conditions", ()))
    return ""


def run(name: str, seed: int) -> Simulation:
    """A finished run."""
    simulation = Simulation(SCENARIOS[name], seed)
    outcome = simulation.run()
    simulation.outcome = outcome  # type: ignore[attr-defined]
    return simulation
