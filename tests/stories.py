"""What the dashboard is tried on: many indexes, and one in the order of time, as the simulator's loop wrote them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator

from record_objects import objects
from recorded import Json, Recorded
from simulator.scenarios.scenario import Scenario, Script, first_is_stable, phase, set_quality, stable
from simulator.simulation import Simulation
from simulator.truth import Quality
from simulator.world import World

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.core.events import EventReason

# ---------------------------------------------------------------- many indexes

FACTORIES = ("IVF4096,Flat", "HNSW32,SQ8", "IVF2048,PQ32", "OPQ32,IVF8192,PQ32x4fs", "Flat", "IVF1024,SQ8")
WORDS = (
    "products",
    "articles",
    "images",
    "tickets",
    "recipes",
    "songs",
    "places",
    "reviews",
    "patents",
    "code",
    "faces",
    "ads",
)


def crowd(moments: Iterable[Recorded], count: int, *, seed: int = 1) -> Recorded:
    """So many indexes of three namespaces, each as one of these moments was, with numbers of its own."""
    kinds, draw = list(moments), random.Random(seed)
    now = max(one.now for one in kinds)
    whole = Recorded([], now)
    for number in range(count):
        moment = kinds[number] if number < len(kinds) else draw.choice(kinds[:1] * 12 + kinds)
        word = WORDS[number % len(WORDS)]
        name = word if number < len(WORDS) else f"{word}-{number // len(WORDS)}"
        namespace = ("search", "shop", "research")[number % 3]
        whole.objects += livelier(renamed(moment.objects, namespace, name), draw)
    return whole


def renamed(objects: list[Json], namespace: str, name: str) -> list[Json]:
    """Copies under another name, with uids of their own."""
    text = json.dumps(objects).replace("products", name).replace('"search"', f'"{namespace}"')
    copies: list[Json] = json.loads(re.sub(r'"u(\d+)"', rf'"{namespace}-{name}-u\1"', text))
    return copies


def livelier(objects: list[Json], draw: random.Random) -> list[Json]:
    """The simulator measures the same of every build: here sizes, recalls and times are each revision's own."""
    rows, base = draw.choice((40_000, 250_000, 1_200_000, 8_400_000)), draw.uniform(0.955, 0.985)
    for one in objects:
        status = one.get("status", {})
        if one["kind"] == "VectorIndex" and status.get("recall"):
            status["recall"] = f"{base:.4f}"
        if one["kind"] != "VectorIndexRevision" or not status.get("build"):
            continue
        rows = round(rows * draw.uniform(0.98, 1.05))
        recall = min(0.998, base + draw.uniform(-0.006, 0.012))
        cost = draw.uniform(120.0, 900.0)
        status["build"] |= {
            "factory": draw.choice(FACTORIES), "count": rows, "indexBytes": rows * 420, "residentBytes": rows * 510,
            "defaultPoint": _point(draw, recall, cost), "conservativePoint": _point(draw, recall + 0.012, cost * 2.6),
        }  # fmt: skip
        report = status.get("report")
        if report and report["overall"]["recall"] > 0.9:
            report |= {
                "costUs": cost * draw.uniform(0.95, 1.1),
                "p50Ms": cost / 900,
                "p95Ms": cost / 380,
                "count": rows,
            }
            report["overall"] = _class("", recall, 4000, draw)
            report["segments"] = [
                _class(name, recall + draw.uniform(-0.012, 0.008), 800, draw) for name in ("en", "de", "fr")
            ]
            status["recall"] = f"{recall:.4f}"
    return objects


def _point(draw: random.Random, recall: float, cost: float) -> Json:
    recall = min(0.9995, recall)
    params = {"nprobe": draw.choice((8, 16, 24, 48))}
    return {"params": params, "recall": recall, "recallLow": recall - draw.uniform(0.002, 0.006), "latencyUs": cost}


def _class(name: str, recall: float, queries: int, draw: random.Random) -> Json:
    low = recall - draw.uniform(0.003, 0.009)
    return {"segment": name, "queries": queries, "recall": min(recall, 0.9995), "recallLow": low, "mrr": 0.97}


# ---------------------------------------------------------------- in the order of time


def _life(w: World) -> Script:
    """Two good revisions; one that the gate rejects; one that a guardrail takes back."""
    set_quality(w, "C", Quality(recall=0.5))
    set_quality(w, "D", Quality(zero_results=0.5))
    yield from first_is_stable(w, history=5)
    for factory, wanted in (("B", "Stable"), ("C", "Rejected"), ("D", "RolledBack")):
        w.apply(index__factory=factory, history=5)
        yield stable(w, factory) if wanted == "Stable" else phase(w, factory, wanted)
        yield 20.0


def life() -> Iterator[Recorded]:
    """Pictures of an index from its first day on: two rollouts, a rejection, a rollback."""
    return told(_life, 4.0)


def told(script: Callable[[World], Script], every: float) -> Iterator[Recorded]:
    """What there is each so many seconds of a script, with the Events so far, as the real loop wrote it."""
    simulation = Simulation(Scenario(script.__name__, script, lambda world: []), seed=0)
    world, due = simulation.world, 0.0
    world.clock.after(0.0, simulation._resume)
    for operator in simulation.operators:
        operator.relist()
    while not simulation.done:
        world.clock.step()
        assert not simulation.problems, simulation.problems
        if world.now >= due or simulation.done:
            due = world.now + every
            yield _as_it_is(simulation)


def _as_it_is(simulation: Simulation) -> Recorded:
    now, *found = json.loads(json.dumps(objects(simulation.world)))
    pods = (one["metadata"]["name"] for one in found if one["kind"] == "Pod")
    line = {"message": "adding rows", "rows": 5_212_000, "total": 8_400_000, "etaSeconds": 47}
    events = [_event(at, reason, words) for at, kind, reason, words, *_ in simulation.trace if kind == "event"]
    return Recorded([*found, *events], now["unix"], logs=dict.fromkeys(pods, json.dumps(line)))


def _event(at: float, reason: str, words: str) -> Json:
    return {
        "kind": "Event",
        "metadata": {"namespace": "search", "name": f"products.{at}"},
        "regarding": {"kind": "VectorIndex", "name": "products"},
        "eventTime": to_text(at), "reason": str(reason), "note": words,
        "type": "Warning" if EventReason(reason).warns else "Normal",
    }  # fmt: skip
