"""Edits of an index at some moment of its life, and what each leads to: planned by the plugin, then applied to the
simulated cluster and played on. `tests/unit/test_plugin_plan.py` plays some of them, `bench/plan.py` all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

from record_objects import at_rest, building, objects, paused, play, promoted, rejected, rolled_back, shadowing, soaking
from recorded import Json, Recorded
from simulator.scenarios.scenario import Script
from simulator.world import World, edited

from vectorindex_operator.api.v1alpha1 import VectorIndexSpec
from vectorindex_plugin.planning import Effect, effects
from vectorindex_plugin.seen import look

SEEN = frozenset({Effect.BUILD, Effect.PROVE, Effect.ROLL_OUT, Effect.MOVE, Effect.RESTART, Effect.SCALE})
"""What can be told from outside whether it happened."""
LATER = 240.0
"""Seconds for which the simulated cluster goes on."""
NEW = frozenset({Effect.BUILD, Effect.PROVE, Effect.ROLL_OUT})


@dataclass(frozen=True, slots=True)
class Case:
    """An edit in the words of `World.apply`, and what it leads to of SEEN. `quick`: a unit test plays it."""

    moment: Callable[[World], Script]
    edit: Json
    leads_to: frozenset[Effect] = frozenset()
    quick: bool = False

    @property
    def name(self) -> str:
        return f"{self.moment.__name__}: {', '.join(self.edit) or 'nothing'}"


def _case(moment: Callable[[World], Script], edit: Json, *leads_to: Effect, quick: bool = False) -> Case:
    return Case(moment, edit, frozenset(leads_to), quick)


CASES = (
    # an index at rest
    _case(at_rest, {}, quick=True),
    _case(at_rest, {"index__factory": "B"}, *NEW, quick=True),
    _case(at_rest, {"searcher__replicas": 3}, Effect.SCALE, quick=True),
    _case(at_rest, {"searcher__replicas": 1}, Effect.SCALE),
    _case(at_rest, {"searcher__resources": {"requests": {"cpu": "2"}}}, Effect.RESTART, quick=True),
    _case(at_rest, {"searcher__params": {"allow": []}}, Effect.RESTART, quick=True),
    _case(at_rest, {"searcher__cache": {"claimName": "cache", "limit": "9Gi"}}, Effect.RESTART),
    _case(
        at_rest,
        {"gate": {"k": 5}, "rollout__soak__duration": "1h", "guardrails__rules": [], "build": {}},
        quick=True,
    ),
    _case(at_rest, {"gate__recall": {"min": 0.4}}),
    _case(at_rest, {"rollout__keepPrior": "1h"}),
    _case(at_rest, {"rollout__shadow": {"maxPerSecond": 0}}),
    _case(at_rest, {"source__poll": "10m"}),
    _case(at_rest, {"artifacts__deletionPolicy": "Delete"}),
    _case(at_rest, {"searcher__minScore": 0.5}, Effect.ROLL_OUT, quick=True),
    _case(at_rest, {"segments": [{"name": "a"}]}, Effect.PROVE, Effect.ROLL_OUT, quick=True),
    _case(at_rest, {"suspend": True, "index__factory": "B"}, quick=True),
    _case(at_rest, {"suspend": True, "searcher__replicas": 4}, Effect.SCALE),
    _case(at_rest, {"index__factory": "B", "searcher__replicas": 3}, *NEW, Effect.SCALE),
    _case(at_rest, {"history": 1}),
    # one that has a prior
    _case(promoted, {"index__factory": "A"}, Effect.ROLL_OUT, quick=True),
    _case(promoted, {"index__factory": "C"}, *NEW),
    _case(promoted, {"history": 1}, quick=True),
    _case(promoted, {"searcher__resources": {"requests": {"memory": "1Gi"}}}, Effect.RESTART),
    # one whose last revision was turned down, or taken back
    _case(rejected, {"gate__recall": {"min": 0.4}}, Effect.ROLL_OUT, quick=True),
    _case(rejected, {"index__factory": "A"}, quick=True),
    _case(rejected, {"index__factory": "C"}, *NEW),
    _case(rejected, {"searcher__replicas": 3}, Effect.SCALE),
    _case(rolled_back, {"index__factory": "A"}),
    _case(rolled_back, {"index__factory": "C"}, *NEW),
    _case(rolled_back, {"guardrails__rules": []}),
    # one on its way
    _case(building, {"searcher__replicas": 5}),
    _case(shadowing, {"index__factory": "A"}),
    _case(soaking, {"index__factory": "A"}, Effect.MOVE),
    _case(soaking, {"rollout__soak__duration": "1s", "guardrails__rules": []}),
    _case(paused, {"searcher__params": {"allow": []}}, Effect.RESTART),
)


@dataclass(frozen=True, slots=True)
class Played:
    """What was planned and what then happened, of SEEN."""

    planned: frozenset[Effect]
    happened: frozenset[Effect]


def played(case: Case) -> Played:
    """Plan the edit with what the API server holds, apply it, and let the operator work."""
    world = play(case.moment).world
    now, *there = copy.deepcopy(objects(world))
    obs = look(Recorded(there, now["unix"]), "search", "products", now["unix"]).obs
    spec = VectorIndexSpec.model_validate(edited(world.spec, **case.edit))
    planned = {one.effect for one in effects(obs, spec, now["unix"])} & SEEN
    before, loaded, ever = Seen.of(world), world.loaded(), set[str]()
    changed: set[Effect] = set()
    world.apply(**case.edit)
    while world.now < now["unix"] + LATER:
        world.clock.step()
        ever |= world.loaded()
        changed |= before.changes(Seen.of(world))
    return Played(frozenset(planned), before.happened(Seen.of(world), new=bool(ever - loaded)) | changed)


@dataclass(frozen=True, slots=True)
class Seen:
    """What can be seen from outside. `pods`, `replicas`: of the searchers that serve."""

    builds: int
    proofs: int
    serving: str
    loaded: frozenset[str]
    pods: Json | None
    replicas: int | None

    @classmethod
    def of(cls, world: World) -> Seen:
        searchers = (world.store.get("Deployment", world.serving()) or {}).get("spec", {})
        proofs = sum(map(len, world.truth.measured.values()))
        return cls(
            world.truth.builds,
            proofs,
            world.serving(),
            frozenset(world.loaded()),
            searchers.get("template"),
            searchers.get("replicas"),
        )

    def changes(self, now: Seen) -> set[Effect]:
        """Of the searchers, while the same ones serve."""
        if now.serving != self.serving:
            return set()
        facts = {Effect.RESTART: now.pods != self.pods, Effect.SCALE: now.replicas != self.replicas}
        return {effect for effect, so in facts.items() if so}

    def happened(self, end: Seen, *, new: bool) -> frozenset[Effect]:
        """All else. `new`: whether another revision was ever loaded."""
        facts = {
            Effect.BUILD: end.builds > self.builds,
            Effect.PROVE: end.proofs > self.proofs,
            Effect.ROLL_OUT: new,
            Effect.MOVE: end.serving != self.serving and end.serving in self.loaded,
        }
        return frozenset(effect for effect, so in facts.items() if so)
