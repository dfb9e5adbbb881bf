"""Objects of one VectorIndex as the real loop wrote them, at moments that people look at: tests/unit/golden/plugin/.

`PYTHONPATH=tests python tests/record_objects.py` plays each moment in the simulator, without faults, and writes all
objects that there are then. Screens of the plugin are compared on these; run it again when a status has new fields.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml
from goldens import Plain
from simulator.scenarios.canaries import through_the_gateway
from simulator.scenarios.edits import LONG_SOAK
from simulator.scenarios.scenario import Scenario, Script, edited, first_is_stable, phase, set_quality, stable
from simulator.scenarios.shadows import SHADOW
from simulator.simulation import Simulation
from simulator.store import Json
from simulator.truth import Quality
from simulator.world import World

FOLDER = Path(__file__).parent / "unit" / "golden" / "plugin"
_SHOWN = ("VectorIndex", "VectorIndexRevision", "Service", "HTTPRoute", "EndpointSlice", "Deployment", "Pod", "Job")


def building(w: World) -> Script:
    w.truth.gpu = False
    w.apply(build__device="GPU")
    yield phase(w, "A", "Building")
    yield 5.0


def at_rest(w: World) -> Script:
    yield from first_is_stable(w)
    yield 60.0


def shadowing(w: World) -> Script:
    yield from edited(w, rollout__shadow={**SHADOW["rollout__shadow"], "duration": "10m", "maxDuration": "20m"})
    yield phase(w, "B", "Shadowing")
    yield 60.0


def shifting(w: World) -> Script:
    yield from through_the_gateway(w, rollout__steps=[{"weight": 20, "duration": "10m"}, {"weight": 50, "pause": True}])
    yield phase(w, "B", "Shifting")
    yield 60.0


def soaking(w: World) -> Script:
    yield from edited(w, **LONG_SOAK)
    yield phase(w, "B", "Soaking")
    yield 60.0


def paused(w: World) -> Script:
    yield from edited(w, **LONG_SOAK)
    yield phase(w, "B", "Soaking")
    w.ask("pause", "n1")
    yield 60.0


def promoted(w: World) -> Script:
    yield from edited(w)
    yield stable(w, "B")
    yield 60.0


def rolled_back(w: World) -> Script:
    set_quality(w, "B", Quality(zero_results=0.5))
    yield from edited(w)
    yield phase(w, "B", "RolledBack")
    yield 60.0


def rejected(w: World) -> Script:
    set_quality(w, "B", Quality(recall=0.5))
    yield from edited(w)
    yield phase(w, "B", "Rejected")
    yield 60.0


def suspended(w: World) -> Script:
    yield from first_is_stable(w)
    w.apply(index__factory="B", suspend=True)
    yield 30.0


MOMENTS: tuple[Callable[[World], Script], ...] = (
    building, at_rest, shadowing, shifting, soaking, paused, promoted, rolled_back, rejected, suspended,
)  # fmt: skip


def _name(obj: Json) -> str:
    return str(obj["metadata"]["name"])


def play(moment: Callable[[World], Script]) -> Simulation:
    """The world at the end of a script; its clock goes on when it is told to."""
    name = moment.__name__
    simulation = Simulation(Scenario(name, moment, lambda world: []), seed=0)
    simulation.world.clock.after(0.0, simulation._resume)
    for operator in simulation.operators:
        operator.relist()
    simulation._run_script()
    assert not simulation.problems, simulation.problems
    return simulation


def objects(world: World) -> list[Json]:
    """All that there are, after the time."""
    store = world.store
    found = [one for kind in _SHOWN for one in sorted(store.of_kind(kind), key=_name)]
    return [{"kind": "Now", "unix": world.now}, *found]


def _shown(obj: Json) -> Json:
    """Without what no screen is made of: the specs of pods and Jobs."""
    return {name: part for name, part in obj.items() if name != "spec" or obj["kind"] not in ("Pod", "Job")}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for moment in MOMENTS:
        found = map(_shown, objects(play(moment).world))
        text = yaml.dump_all(found, Dumper=Plain, sort_keys=False, width=120)
        (FOLDER / f"{moment.__name__}.yaml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
