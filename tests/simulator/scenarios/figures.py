"""Rules on PromQL: the users' own numbers, which somebody else tells."""

from __future__ import annotations

from simulator.scenarios.canaries import given_up, through_the_gateway
from simulator.scenarios.rollouts import ROLLED_BACK
from simulator.scenarios.scenario import Script, edited, ends, first_is_stable, phase, scenario, set_quality, stable
from simulator.truth import Quality
from simulator.world import World

ORDERS = {
    "name": "orders", "metric": "PromQL", "query": 'sum(rate(orders_total{revision="{{revision}}"}[{{window}}]))',
    "maxDropVsStable": "20%", "window": "10s", "warmUp": "5s",
}  # fmt: skip


@scenario(ROLLED_BACK, seeds=2)
def orders_fall(w: World) -> Script:
    """Nothing that searchers count is other than before."""
    set_quality(w, "B", Quality(orders=7.0))
    yield from edited(w, guardrails__rules=[ORDERS])
    yield phase(w, "B", "RolledBack")


@scenario(given_up("PromQL"), seeds=1)
def orders_fall_in_a_step(w: World) -> Script:
    set_quality(w, "B", Quality(orders=7.0))
    yield from through_the_gateway(w, guardrails__rules=[ORDERS])
    yield phase(w, "B", "RolledBack")


@scenario(ROLLED_BACK, seeds=1, needs_traffic=True)
def orders_fall_after_the_promotion(w: World) -> Script:
    rule = {name: value for name, value in ORDERS.items() if name != "maxDropVsStable"}
    yield from edited(w, guardrails__rules=[{**rule, "min": 8.0}])
    yield stable(w, "B")
    set_quality(w, "B", Quality(orders=7.0))
    yield phase(w, "B", "RolledBack")


@scenario(ends("B", builds=2), seeds=2)
def nobody_tells_the_orders(w: World) -> Script:
    """Nothing is promoted until somebody does."""
    yield from first_is_stable(w, guardrails__rules=[ORDERS])
    w.truth.no_figures = True
    w.apply(index__factory="B")
    yield phase(w, "B", "Soaking")
    yield w.rng.uniform(300.0, 900.0)
    assert w.phase_of(w.name_of("B")) == "Soaking", "promoted without a number"
    w.truth.no_figures = False
    yield stable(w, "B")
