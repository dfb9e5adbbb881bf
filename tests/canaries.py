"""A canary as a pass sees it: stable serves, the candidate has a share of what comes through a gateway."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from observations import HOUR, NOW, a_revision, loaded, seen, spec
from soaks import counts

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import StepsStatus, VectorIndexSpec
from vectorindex_operator.core.observation import Observation, RevisionView
from vectorindex_operator.core.plan import EnsureRoute, LowerRoute, Plan
from vectorindex_operator.core.traffic import RouteView

ROUTE: dict[str, Any] = {"parentRefs": [{"name": "public", "namespace": "gateways"}]}
STEPS: list[dict[str, Any]] = [{"weight": 10, "duration": "5m"}, {"weight": 50, "pause": True}]
FRONT = "docs"


def canary(*, steps: list[dict[str, Any]] | None = None, **changes: Any) -> VectorIndexSpec:
    """A spec whose rollouts share the traffic by steps."""
    rollout = {"strategy": "Canary", "steps": steps or STEPS, "route": ROUTE}
    return spec(index={"factory": "HNSW32"}, rollout=rollout, **changes)


OLD, NEW = spec(), canary()
STABLE = a_revision(OLD, "Stable", created=NOW - 48 * HOUR)
NAME = a_revision(NEW, "Surging").name


def at_step(
    number: int = 0, *, since: float = 600.0, started: bool = True, of: VectorIndexSpec = NEW, **fields: Any
) -> RevisionView:
    """The candidate, `since` seconds in this step; `started`: gateways have said that they route so."""
    view = a_revision(of, "Shifting", created=NOW - since)
    at = to_text(NOW - since)
    steps = StepsStatus(number=number, asked_at=at, started_at=at if started else None).model_copy(update=fields)
    assert view.status.rollout is not None
    rollout = view.status.rollout.model_copy(update={"steps": steps, "prior": STABLE.name})
    return replace(view, status=view.status.model_copy(update={"rollout": rollout}))


def routed(weight: int = 0, **changes: Any) -> RouteView:
    """The route as every gateway has taken it, with this share for the candidate."""
    shares = {FRONT: 100 - weight} | ({NAME: weight} if weight else {})
    view = RouteView(
        exists=True, uid="uid-route", resource_version="77", written_at=NOW - HOUR, weights=shares, accepted=True,
        services={NAME: "uid-service"} if weight else {}, endpoints={FRONT: 2, NAME: 2},
    )  # fmt: skip
    return replace(view, **changes)


def shifting(
    view: RevisionView | None = None, *, weight: int = 10, errors: int = 0, of: VectorIndexSpec = NEW, **changes: Any
) -> Observation:
    """STABLE serves; the candidate's two searchers answered 1,000 queries each in every bucket of ten minutes."""
    view = view or at_step(of=of)
    evidence = {view.name: counts(view, errors=errors, since=NOW - 600), STABLE.name: counts(STABLE, since=NOW - 600)}
    return seen(of, STABLE, view, traffic=STABLE, **{"route": routed(weight), "evidence": evidence, **changes})


def named(**changes: Any) -> RouteView:
    """As it is before the first share, and after the last: the candidate is named, and gets nothing."""
    return routed(**{"weights": {FRONT: 100, NAME: 0}, "services": {NAME: "uid-service"}, **changes})


def lost(**changes: Any) -> Observation:
    """The candidate lost its share five minutes ago; its searchers are there yet."""
    view = at_step()
    update = {"phase": "RolledBack", "lost_traffic_at": to_text(NOW - 300)}
    view = replace(view, status=view.status.model_copy(update=update))
    obs = seen(NEW, STABLE, view, traffic=STABLE, **{"route": routed(), **changes})
    return replace(obs, loaded={STABLE.name: loaded(STABLE), NAME: loaded(view)})


def over(plan: Plan) -> tuple[str, ...]:
    """Whom the route that the plan writes names with weight 0, because its share is over."""
    return next(one.over for one in plan.actions if isinstance(one, EnsureRoute))


def shares(plan: Plan) -> list[tuple[str, str, int]]:
    """What the plan writes into the route: the kind of write, who has a share, and how large."""
    kinds = (EnsureRoute, LowerRoute)
    return [(type(one).__name__, one.candidate, one.weight) for one in plan.actions if isinstance(one, kinds)]
