"""The HTTPRoute of `rollout.route`: what gateways send to the front Service, and for a while to a candidate.

Its first backend is the front Service, always; the second, while a canary's steps go on, is the candidate's own. So
whatever becomes of a candidate, one write takes its share away. What is to be is what revisions' statuses say, and a
larger share is written only once they say so; a smaller one is written before anything else.
"""

from __future__ import annotations

from vectorindex_operator.api import v1alpha1 as api
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.plan import DeleteRoute, DeleteStepService, EnsureRoute, EnsureStepService, LowerRoute
from vectorindex_operator.core.state import ReconcileState, Stall

GATEWAY_NOT_FOUND = "GatewayNotFound"
NOT_OBSERVED = "RouteNotObserved"
"""Rule of a row in status.blockedBy."""
HEARD_SECONDS = 60.0
"""Whoever has said nothing of a route for so long is no gateway of it."""
LEFT_SECONDS = 120.0
"""A gateway that the route names no more is given so long to see that: some never say so, and would be waited for."""

FOLLOW_SECONDS = 40.0
"""What a gateway steers may follow later than it says: an Envoy whose controller was away asks for it every 30 s."""


def step(state: ReconcileState) -> None:
    route, view = _wanted(state), state.obs.route
    if view.problem:
        if route is not None:
            _stall_at_rest(state)
        return
    if route is None or not state.serving:
        _remove(state)
        return
    if not view.owned:
        _stall_at_rest(state)
        return
    name, weight = _share(state)
    if name:
        state.act(EnsureStepService(name))
    before = view.weights.get(name, 0) if name else 0
    weight = weight if _may_grow(state, name) else min(before, weight)
    named = name if weight else ""
    weight = weight if before or _is_met(state, name) else 0
    front = state.obs.index.name
    others = {one: share for one, share in view.weights.items() if one != front and share}
    lowers = any(share > (weight if one == name else 0) for one, share in others.items())
    # Also where nobody had a share yet: a larger one that somebody else is about to write is refused then.
    lowers = lowers or state.withdrawal is not None
    version = view.resource_version if weight > before or (named and named not in view.weights) else ""
    decision = state.withdrawal or view.decision
    kind = LowerRoute if lowers else EnsureRoute
    state.act(kind(route, named, weight, decision, version))
    _remove_services(state, keep=name, clear=not others)
    _stall_at_rest(state)


def obstacle(state: ReconcileState) -> str:
    """Why no gateway sends anybody where the route says, and what to do; empty: one may, sooner or later."""
    route, view = _wanted(state), state.obs.route
    if route is None:
        return ""
    if not view.owned:
        name = state.obs.index.name
        return f"HTTPRoute/{name} exists and belongs to somebody else: remove it, or rename this VectorIndex"
    parents = ", ".join(_named(one, state.obs.index.namespace) for one in route.parent_refs)
    remedy = f"correct spec.rollout.route.parentRefs ({parents}), which applies at once, or set strategy: BlueGreen"
    if view.problem:
        return (
            f"HTTPRoutes cannot be read ({view.problem}): install the Gateway API and a gateway, set routes.enabled of"
            f" the operator's chart, or take spec.rollout.route out ({parents})"
        )
    if view.refused:
        return f"{view.refused}: {remedy}"
    if view.exists and view.unheard and state.now - view.written_at >= HEARD_SECONDS:
        return f"Gateway {view.unheard} has said nothing of HTTPRoute/{state.obs.index.name}: {remedy}"
    return ""


def is_as_asked(state: ReconcileState, name: str, weight: int) -> bool:
    """Whether every gateway sends `name` its share, and the front Service all else."""
    view = state.obs.route
    shares = {one: share for one, share in view.weights.items() if share}
    wanted = {state.obs.index.name: 100 - weight} | ({name: weight} if weight else {})
    return view.accepted and not _is_behind(state) and shares == wanted


def holds(state: ReconcileState, name: str) -> bool:
    """Whether a gateway may still send queries to the searchers of `name`; says so in the status."""
    view = state.obs.route
    if not (view.weights.get(name) or _may_send(state) or (view.unknown and _has_stepped(state, name))):
        return False
    state.block(NOT_OBSERVED, f"HTTPRoute/{state.obs.index.name}", f"a gateway may send queries to {name}: it stays")
    state.requeue_at(state.now + 5)
    return True


def step_of(rollout: api.RolloutStatus | None) -> api.Step | None:
    """The step that a rollout is at; None: its steps have not begun, or are over."""
    steps = rollout.steps if rollout is not None else None
    if rollout is None or steps is None or steps.ended_at is not None:
        return None
    known = rollout.settings.canary_steps
    return known[steps.number] if steps.number < len(known) else None


def _wanted(state: ReconcileState) -> api.Route | None:
    """Of the spec; of the rollout whose steps go on, where the spec cannot be read, or has none any more."""
    spec = state.known_spec
    if spec is not None and spec.rollout.route is not None:
        return spec.rollout.route
    frozen = {
        view.name: view.status.rollout.settings.route for view in state.obs.revisions.values() if view.status.rollout
    }
    shifting = [name for name in frozen if state.obs.revisions[name].status.phase == Phase.SHIFTING]
    # What is not known is not taken away: what one of them was frozen with has the route, too.
    asked = shifting or ([*frozen] if spec is None and state.obs.route.exists else [])
    return next((route for name in asked if (route := frozen[name]) is not None), None)


def _share(state: ReconcileState) -> tuple[str, int]:
    """The candidate that has a share, and how many of a hundred; nobody, and none."""
    status = state.statuses.get(state.candidate)
    if status is None or status.phase != Phase.SHIFTING or state.candidate == state.serving:
        return "", 0
    at = step_of(status.rollout)
    return (state.candidate, at.weight) if at is not None else ("", 0)


def _may_grow(state: ReconcileState, name: str) -> bool:
    """Whether a larger share does no harm: it is recorded that the candidate has it, and its Service leads to pods."""
    view = state.obs.revisions.get(name)
    if view is None or state.has_moved:
        return False
    recorded = view.status.phase == Phase.SHIFTING and view.status.rollout is not None
    now, before = state.statuses[name].rollout, view.status.rollout
    same = recorded and before is not None and now is not None and _number(before) == _number(now)
    ready = state.loaded(name).ready
    return same and ready > 0 and state.obs.route.endpoints.get(name, 0) >= ready


def _is_behind(state: ReconcileState) -> bool:
    """Whether a gateway may route by what the route said before."""
    view = state.obs.route
    return view.behind or (view.left_behind and state.now - view.written_at < LEFT_SECONDS)


def _may_send(state: ReconcileState) -> bool:
    """Whether a gateway may send queries to whom the route named before: it has not seen that, or has just done so."""
    return _is_behind(state) or state.now - state.obs.route.said_at < FOLLOW_SECONDS


def _is_met(state: ReconcileState, name: str) -> bool:
    """Whether every gateway has seen that the route names this one, so far without a share. Envoy is told of routes and
    of what they lead to apart, and for a moment answers 503 where it knows the route alone.
    """
    view = state.obs.route
    return name in view.weights and view.accepted and not _is_behind(state)


def _number(rollout: api.RolloutStatus) -> int | None:
    return rollout.steps.number if rollout.steps is not None else None


def _has_stepped(state: ReconcileState, name: str) -> bool:
    status = state.statuses.get(name)
    return status is not None and status.rollout is not None and status.rollout.steps is not None


def _remove_services(state: ReconcileState, *, keep: str, clear: bool) -> None:
    """Those of candidates that no gateway knows any more."""
    if _may_send(state) or not clear:
        return
    for name, uid in sorted(state.obs.route.services.items()):
        if name != keep:
            state.act(DeleteStepService(name, uid))


def _remove(state: ReconcileState) -> None:
    """Nobody wants a route: what was one of ours goes, and last of all the note that there is one."""
    view, index = state.obs.route, state.obs.index
    if view.exists and view.owned and state.known_spec is not None and state.known_spec.rollout.route is None:
        state.act(DeleteRoute(index.name, view.uid))
    elif not view.exists:
        _remove_services(state, keep="", clear=True)


def _stall_at_rest(state: ReconcileState) -> None:
    """While something is on its way, that is told instead; who needs the route says so itself (progress/shift.py)."""
    at_rest = bool(state.serving) and not state.candidate and not state.preparing
    if state.stall is None and at_rest and (why := obstacle(state)):
        state.stall = Stall(GATEWAY_NOT_FOUND, why)


def _named(parent: api.ParentRef, namespace: str) -> str:
    listener = f"/{parent.section_name}" if parent.section_name else ""
    return f"Gateway {parent.namespace or namespace}/{parent.name}{listener}"
