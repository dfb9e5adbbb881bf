"""Weights of a gateway: what goes from step to step, what loses its share, and what befalls the route."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simulator.clock import START
from simulator.scenarios.scenario import Script, edited, ends, first_is_stable, phase, scenario, set_quality, stable
from simulator.store import Json
from simulator.truth import Quality
from simulator.world import NAME, World

from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile.routes import weights

FEW = 1
"""Most of what may go wrong before and after the steps is in other scenarios."""
ROUTE = {"parentRefs": [{"name": "public"}]}
STEPS = [{"weight": 20, "duration": "20s"}, {"weight": 50, "duration": "20s"}]
CANARY: dict[str, Any] = {"rollout__strategy": "Canary", "rollout__steps": STEPS, "rollout__route": ROUTE}


def through_the_gateway(w: World, **changes: Any) -> Script:
    """Everybody comes through it; A is stable, and the user asks for B."""
    w.use_gateway()
    yield from edited(w, **{**CANARY, **changes})


def share_of(w: World, factory: str) -> int:
    """What the route gives a revision."""
    live = w.store.get("HTTPRoute", NAME)
    return weights(live).get(w.name_of(factory), 0) if live is not None else 0


def steps_of(w: World, factory: str) -> Json:
    live = w.store.get("VectorIndexRevision", w.name_of(factory)) or {}
    steps: Json = (live.get("status", {}).get("rollout") or {}).get("steps") or {}
    return steps


def _as_at_rest(w: World) -> list[str]:
    """The route leads to the front Service alone, and so does the gateway; no other Service is left."""
    live = w.store.get("HTTPRoute", NAME)
    routed = weights(live) if live is not None else {}
    own = [s for s in w.store.of_kind("Service") if s["metadata"]["labels"].get(labels.COMPONENT) == labels.STEP]
    wrong = [] if routed == {NAME: 100} else [f"the route is {routed}"]
    wrong += [f"Service/{one['metadata']['name']} is left" for one in own]
    return wrong + [f"the gateway still sends queries to {name}" for name in w.gateway.sends_to()]


def passed(*outcomes: str) -> Callable[[World], list[str]]:
    def check(w: World) -> list[str]:
        found = steps_of(w, "B").get("outcome")
        return _as_at_rest(w) + ([] if found in (*outcomes, "Switched") else [f"the steps of B ended {found}"])

    return check


def _never_switched_to(w: World) -> list[str]:
    had = [f"{one} had the front Service" for one in w.served_since(START) if one == w.name_of("B")]
    return had + _as_at_rest(w)


def given_up(reason: str) -> Callable[[World], list[str]]:
    return ends(
        "A", phase="RolledBack", reason=reason, rolled_out=False, stalled=True, failed="B", builds=2,
        extra=_never_switched_to,
    )  # fmt: skip


@scenario(ends("B", builds=2, extra=passed("Passed")), seeds=FEW)
def canary_passes(w: World) -> Script:
    yield from through_the_gateway(w)
    yield stable(w, "B")


@scenario(given_up("ZeroResultRate"), seeds=2)
def canary_trips(w: World) -> Script:
    """A fifth of the queries shows it; all others never met it."""
    set_quality(w, "B", Quality(zero_results=0.5))
    yield from through_the_gateway(w)
    yield phase(w, "B", "RolledBack")
    w.apply(searcher__replicas=2)
    yield 60.0


@scenario(given_up("Aborted"), seeds=FEW)
def abort_in_a_step(w: World) -> Script:
    yield from through_the_gateway(w, rollout__steps=[{"weight": 20, "pause": True}])
    yield lambda: bool(share_of(w, "B"))
    yield w.rng.uniform(0.0, 60.0)
    w.ask("abort", "n1")
    yield phase(w, "B", "RolledBack")


@scenario(ends("B", builds=2, extra=passed("Passed")), seeds=0)
def canary_waits_for_a_person(w: World) -> Script:
    yield from through_the_gateway(w, rollout__steps=[{"weight": 20, "pause": True}])
    yield lambda: any(row["rule"] == "Paused" for row in w.status().get("blockedBy", ()))
    yield w.rng.uniform(100.0, 200.0)
    assert w.serving() == w.name_of("A"), "it did not wait"
    w.ask("resume", "n1")
    yield stable(w, "B")


@scenario(ends("B", builds=2, extra=passed("ByHand")), seeds=0)
def promote_in_a_step(w: World) -> Script:
    """Nobody comes through the gateway: a person ends the steps, and then the soak that shows as little."""
    w.truth.queries_per_second = 0.0
    yield from through_the_gateway(w)
    yield lambda: bool(steps_of(w, "B").get("startedAt"))
    for number in range(120):  # pods that do not tell may hide a Fail until soak.maxDuration, in a step and in the soak
        w.ask("promote", f"n{number}")
        yield lambda n=number: any(v["nonce"] == f"n{n}" for v in w.status().get("verbs", ()))
        yield 10.0
        if w.status().get("stable") == w.name_of("B"):
            break
    yield stable(w, "B")


@scenario(ends("B", builds=2, extra=passed("Passed")), seeds=FEW)
def canary_with_a_slow_gateway(w: World) -> Script:
    w.gateway.takes = (10.0, 60.0)
    yield from through_the_gateway(w)
    yield stable(w, "B")


@scenario(given_up("Aborted"), seeds=0)
def abort_with_a_gateway_that_is_deaf(w: World) -> Script:
    """It goes on sending what it sent, for minutes: so long the searchers must stay."""
    yield from through_the_gateway(w, rollout__steps=[{"weight": 20, "pause": True}])
    yield lambda: w.name_of("B") in w.gateway.sends_to()
    w.gateway.deaf = True
    w.ask("abort", "n1")
    yield phase(w, "B", "RolledBack")
    yield 150.0
    w.gateway.come_back()
    yield 60.0


@scenario(given_up("Aborted"), seeds=0)
def abort_with_a_gateway_that_never_comes_back(w: World) -> Script:
    """Its row stays in the route's status. Not for ever do searchers wait for it."""
    yield from through_the_gateway(w, rollout__steps=[{"weight": 20, "pause": True}])
    yield lambda: w.name_of("B") in w.gateway.sends_to()
    w.gateway.leave()
    w.ask("abort", "n1")
    yield phase(w, "B", "RolledBack")
    yield 300.0
    assert w.loaded() == {w.name_of("A"), w.name_of("B")}, "it might have come back"


@scenario(ends("B", builds=2, extra=passed("Passed")), seeds=FEW)
def the_gateway_is_deaf_when_the_steps_end(w: World) -> Script:
    """B has all that comes by the front Service, and half of it still comes by its own."""
    yield from through_the_gateway(w)
    yield lambda: share_of(w, "B") == 50 or w.serving() == w.name_of("B")
    yield lambda: "startedAt" in steps_of(w, "B") or w.serving() == w.name_of("B")
    w.gateway.deaf = True
    yield stable(w, "B")
    yield w.rng.uniform(0.0, 120.0)
    w.gateway.come_back()
    yield 60.0


@scenario(ends("B", builds=2, extra=passed("Passed")), seeds=0)
def the_gateway_is_deaf_when_a_canary_is_named(w: World) -> Script:
    """It hears of B's name and, had it a share by then, of that at once."""
    w.use_gateway()
    yield from first_is_stable(w, **CANARY)
    yield lambda: bool((w.store.get("HTTPRoute", NAME) or {}).get("status"))
    w.gateway.deaf = True
    w.apply(index__factory="B")
    yield lambda: w.name_of("B") in weights(w.store.get("HTTPRoute", NAME) or {})
    yield 60.0
    w.gateway.come_back()
    yield stable(w, "B")


@scenario(ends("B", builds=2, extra=passed("Passed")), seeds=0)
def canary_before_there_is_a_gateway(w: World) -> Script:
    w.gateway.absent = True
    w.use_gateway()
    yield from first_is_stable(w)
    w.apply(index__factory="B", **CANARY)
    yield lambda: bool(w.status().get("candidate")) and w.status().get("reason") == "GatewayNotFound"
    yield w.rng.uniform(0.0, 300.0)
    assert w.serving() == w.name_of("A"), "it was switched to without its steps"
    w.gateway.absent = False
    yield stable(w, "B")


@scenario(ends("B", builds=2, extra=passed("Passed")), seeds=FEW)
def the_route_is_changed_by_hand(w: World) -> Script:
    """Nearly everything to the candidate, then nothing; then it is deleted."""

    def shared() -> bool:
        return share_of(w, "B") == 20 or w.serving() == w.name_of("B")

    w.gateway.by_hand = True
    yield from through_the_gateway(w, rollout__steps=[{"weight": 20, "duration": "4m"}])
    yield shared
    for share in (90, 0):
        live = w.store.get("HTTPRoute", NAME)
        if live is not None:
            backends = [{"name": NAME, "port": 80, "weight": 100 - share}]
            backends += [{"name": w.name_of("B"), "port": 80, "weight": share}] if share else []
            w.store.change("HTTPRoute", NAME, spec={**live["spec"], "rules": [{"backendRefs": backends}]})
        yield w.rng.uniform(0.0, 30.0)
        yield shared
    if w.store.get("HTTPRoute", NAME) is not None:
        w.delete("HTTPRoute", NAME)
    yield shared
    yield stable(w, "B")


@scenario(given_up("ZeroResultRate"), seeds=0)
def a_step_while_no_operator_is_there(w: World) -> Script:
    yield from through_the_gateway(w, rollout__steps=[{"weight": 20, "duration": "10m"}])
    yield lambda: bool(share_of(w, "B"))
    w.nobody_until = w.now + 600.0
    set_quality(w, "B", Quality(zero_results=0.5))
    yield phase(w, "B", "RolledBack")


def _no_route(w: World) -> list[str]:
    return ["a route"] if w.store.get("HTTPRoute", NAME) is not None else []


@scenario(ends("B", builds=2, extra=_no_route), seeds=0)
def the_route_is_taken_out(w: World) -> Script:
    yield from through_the_gateway(w)
    yield stable(w, "B")
    w.take_away("rollout")
    yield lambda: w.store.get("HTTPRoute", NAME) is None


@scenario(
    ends(
        "A", phase="RolledBack", reason="Aborted", rolled_out=False, stalled=True, failed="B", builds=2,
        extra=_no_route,
    ),
    seeds=0,
)  # fmt: skip
def the_route_is_taken_out_in_a_step(w: World) -> Script:
    """And the step is aborted: the gateway sends B its share for longer than connections last."""
    yield from through_the_gateway(w, rollout__steps=[{"weight": 20, "pause": True}])
    yield lambda: w.name_of("B") in w.gateway.sends_to()
    w.gateway.takes = (60.0, 90.0)
    w.take_away("rollout")
    w.ask("abort", "n1")
    yield phase(w, "B", "RolledBack")
