"""States of a VectorIndex that Argo CD and Flux have a word for, each as the real loop writes it in the simulator.

`PYTHONPATH=tests python tests/argo_states.py` plays them and writes the testdata of the chart's folder argocd/, in the
layout of Argo CD's resource_customizations. Tests play them again and compare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import argo_lua
import record_objects as moments
import yaml
from goldens import Plain
from simulator.scenarios.guardrails import ZERO
from simulator.scenarios.points import LIVE, LOW
from simulator.scenarios.rollouts import second
from simulator.scenarios.scenario import Script, first_is_stable, phase, set_quality
from simulator.store import Json
from simulator.truth import Data, Quality
from simulator.world import World

from argocd_files import KIND
from vectorindex_operator.core.commands import COMMANDS
from vectorindex_searcher.contract import Failure

DISCOVERY = KIND / "actions" / "discovery.lua"


def nobody_looked(w: World) -> Script:
    w.apply()
    yield 0.0


def edited_just_now(w: World) -> Script:
    yield from moments.at_rest(w)
    w.apply(index__factory="B")


def source_not_readable(w: World) -> Script:
    w.truth.put(Data("d1", unreadable=Failure(reason="BucketNotFound", message="bucket embeddings does not exist")))
    w.apply()
    yield 60.0


def build_failed(w: World) -> Script:
    set_quality(w, "A", Quality(build_exits=(64,)))
    w.apply()
    yield phase(w, "A", "BuildFailed")
    yield 60.0


def queued(w: World) -> Script:
    w.apply(build__queueName="ml")
    yield phase(w, "A", "Building")
    yield 60.0


def built_again_later(w: World) -> Script:
    set_quality(w, "A", Quality(build_exits=(137,) * 6))
    w.apply()
    yield phase(w, "A", "BuildFailed")
    yield 60.0


def at_the_conservative_point(w: World) -> Script:
    set_quality(w, "A", LOW)
    yield from first_is_stable(w, guardrails__rules=[LIVE])
    yield lambda: w.condition("Degraded") == "True"


def bad_and_no_way_back(w: World) -> Script:
    yield from first_is_stable(w)
    yield 30.0
    set_quality(w, "A", Quality(zero_results=0.5))
    yield 120.0


def goes_back_when_loaded(w: World) -> Script:
    yield from second(w)
    yield 30.0
    set_quality(w, "B", Quality(zero_results=0.5))
    yield lambda: any(row["rule"] == "RollbackTargetNotReady" for row in w.status().get("blockedBy", ()))


def no_pod_is_ready(w: World) -> Script:
    yield from moments.at_rest(w)
    w.truth.room = False
    for pod in w.controllers.ready_pods(w.name_of("A")):
        w.delete("Pod", pod["metadata"]["name"])
    yield 60.0


def an_observed_rule_fails(w: World) -> Script:
    set_quality(w, "B", Quality(zero_results=0.5))
    w.apply(guardrails__rules=[{**ZERO, "max": "5%", "mode": "Observe"}])
    yield from second(w)
    yield 60.0


def suspended_at_rest(w: World) -> Script:
    yield from moments.at_rest(w)
    w.apply(suspend=True)
    yield 30.0


@dataclass(frozen=True, slots=True)
class State:
    """A state with what it is called: by Argo CD (`health`) and by kstatus, which Flux and Helm ask (`kstatus`)."""

    play: Callable[[World], Script]
    health: str
    kstatus: str

    @property
    def name(self) -> str:
        return self.play.__name__

    @property
    def path(self) -> str:
        return f"testdata/{self.health.lower()}_{self.name}.yaml"


STATES = {
    state.name: state
    for state in (
        State(nobody_looked, "Progressing", "Current"),  # for the moment that the operator takes to see it
        State(edited_just_now, "Progressing", "InProgress"),
        State(moments.building, "Progressing", "InProgress"),
        State(queued, "Progressing", "InProgress"),
        State(built_again_later, "Progressing", "InProgress"),
        State(moments.shadowing, "Progressing", "InProgress"),
        State(moments.shifting, "Progressing", "InProgress"),
        State(moments.soaking, "Progressing", "InProgress"),
        State(moments.paused, "Suspended", "InProgress"),
        State(moments.suspended, "Suspended", "Current"),
        State(moments.at_rest, "Healthy", "Current"),
        State(moments.promoted, "Healthy", "Current"),
        State(suspended_at_rest, "Healthy", "Current"),
        State(an_observed_rule_fails, "Healthy", "Current"),
        State(moments.rejected, "Degraded", "Failed"),
        State(moments.rolled_back, "Degraded", "Failed"),
        State(source_not_readable, "Degraded", "Failed"),
        State(build_failed, "Degraded", "Failed"),
        State(at_the_conservative_point, "Degraded", "Current"),
        State(bad_and_no_way_back, "Degraded", "Current"),
        State(goes_back_when_loaded, "Degraded", "Current"),
        State(no_pod_is_ready, "Degraded", "InProgress"),
    )
}


@cache
def world_of(name: str) -> World:
    """The world in a state, played once a process."""
    return moments.play(STATES[name].play).world


def index_of(world: World) -> Json:
    """The VectorIndex, as `kubectl get -o yaml` has it."""
    found = world.index()
    assert found is not None
    plain: Json = yaml.safe_load(yaml.dump(found, Dumper=Plain))
    return plain


def script_of(action: str) -> str:
    return (KIND / "actions" / action / "action.lua").read_text(encoding="utf-8")


def health_of(obj: Json) -> Json:
    return argo_lua.run((KIND / "health.lua").read_text(encoding="utf-8"), obj)


def disabled(obj: Json) -> dict[str, bool]:
    """Action -> whether it is shown as one that does not apply."""
    answer = argo_lua.run(DISCOVERY.read_text(encoding="utf-8"), obj)
    return {name: answer[name]["disabled"] for name in sorted(answer)}


def asked(obj: Json, action: str, nonce: str = "argocd-0") -> Json:
    """The object as an action leaves it, with a nonce that does not change by the second."""
    answer = argo_lua.cleaned(argo_lua.run(script_of(action), obj), obj)
    answer["metadata"]["annotations"][f"vectorindex.dev/{action}"] = nonce
    return answer


def documents(objects: dict[str, Json]) -> Iterator[tuple[str, Any]]:
    """What the folder holds about these states, by path below the kind: in Argo CD's format of tests."""
    for name, obj in objects.items():
        yield STATES[name].path, obj
    tests = [{"inputPath": STATES[name].path, "healthStatus": health_of(obj)} for name, obj in objects.items()]
    yield "health_test.yaml", {"tests": tests}
    looks = []
    for name, obj in objects.items():
        answer = argo_lua.run(DISCOVERY.read_text(encoding="utf-8"), obj)
        result = [{"name": action, **answer[action]} for action in sorted(answer)]
        looks.append({"inputPath": f"../{STATES[name].path}", "result": result})
    before = STATES["soaking"]
    acts = [
        {"action": action, "inputPath": f"../{before.path}", "expectedOutputPath": f"testdata/{action}.yaml"}
        for action in COMMANDS
    ]
    yield "actions/action_test.yaml", {"discoveryTests": looks, "actionTests": acts}
    for action in COMMANDS:
        yield f"actions/testdata/{action}.yaml", asked(objects[before.name], action)


def main() -> None:
    objects = {name: index_of(world_of(name)) for name in STATES}
    for old in (*KIND.glob("testdata/*.yaml"), *KIND.glob("actions/testdata/*.yaml")):
        old.unlink()
    for path, document in documents(objects):
        (KIND / path).parent.mkdir(exist_ok=True)
        text = yaml.dump(document, Dumper=Plain, sort_keys=False, width=120)
        (KIND / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
