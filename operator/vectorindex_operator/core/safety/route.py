"""The HTTPRoute of `rollout.route`: what gateways send to the front Service, and for a while to a candidate.

Its first backend is the front Service, always; the second, while a canary's steps go on, is the candidate's own. So
whatever becomes of a candidate, one write takes its share away. What is to be is what revisions' statuses say, and a
larger share is written only once they say so; a smaller one is written before anything else.

One that lost its share stays named, with weight 0, until gateways have followed, and its Service and its searchers stay
as long: what a gateway steers hears of routes and of what they lead to apart, and must never know a share without the
one who has it (docs/adr/0061-a-share-ends-with-weight-0.md).
"""

from __future__ import annotations

from vectorindex_operator.api import v1alpha1 as api
from vectorindex_operator.api.quantities import duration_seconds
from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.core.events import EventReason
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
PROMPT_SECONDS = 10.0
"""Whoever says within so long that it has seen a change was not away when it was made."""
GONE_SECONDS = 600.0
"""A gateway that the route names is waited for as long as a soak may be, and so long at least."""


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
    named = name if weight or name in view.weights else ""
    weight = weight if before or _is_met(state, name) else 0
    front = state.obs.index.name
    others = {one: share for one, share in view.weights.items() if one != front and share}
    lowers = any(share > (weight if one == name else 0) for one, share in others.items())
    # Also where nobody had a share yet: a larger one that somebody else is about to write is refused then.
    lowers = lowers or state.withdrawal is not None
    over = _over(state, named, lowers=lowers)
    for one in over:
        state.act(EnsureStepService(one))
    # Only what takes a share away and gives none is written on any version: who is late must not forget a candidate.
    version = "" if lowers and weight <= before else view.resource_version
    decision = state.withdrawal or view.decision
    kind = LowerRoute if lowers else EnsureRoute
    state.act(kind(route, named, weight, decision, version, over))
    _remove_services(state, keep=name)
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
    view, subject = state.obs.route, f"HTTPRoute/{state.obs.index.name}"
    if not (view.weights.get(name) or _may_send(state) or (view.unknown and _had_a_share(state, name))):
        if view.behind:
            message = f"a gateway has not seen {subject} since {to_text(view.written_at)}: it is taken for gone, and"
            state.event(EventReason.GATEWAY_LOST, f"{message} the searchers of {name} are removed", revision=name)
        return False
    until = f", until {to_text(view.written_at + _longest(state))} at the latest" if view.behind else ""
    state.block(NOT_OBSERVED, subject, f"a gateway may send queries to {name}: it stays{until}")
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
    since = state.now - view.written_at
    return (view.behind and since < _longest(state)) or (view.left_behind and since < LEFT_SECONDS)


def _longest(state: ReconcileState) -> float:
    """Seconds after the last change of the route in which a gateway that it names may see that: its users are there
    while its controller is away. One that is gone for good must not hold searchers for ever.
    """
    rollout = state.known_spec.rollout if state.known_spec is not None else api.Rollout()
    return max(GONE_SECONDS, duration_seconds(rollout.soak.max_duration))


def _may_send(state: ReconcileState) -> bool:
    """Whether a gateway may send queries to whom the route named before: it has not seen that, or has just done so."""
    return _is_behind(state) or not _has_followed(state)


def _has_followed(state: ReconcileState) -> bool:
    """Whether what a gateway steers has had its time since that last said something. Who goes on saying something is
    waited for no longer than who is silent.
    """
    view = state.obs.route
    said, changed = state.now - view.said_at, state.now - view.written_at
    return said >= FOLLOW_SECONDS or changed >= _longest(state) + FOLLOW_SECONDS


def _is_met(state: ReconcileState, name: str) -> bool:
    """Whether every gateway has seen that the route names this one, so far without a share. Envoy is told of routes and
    of what they lead to apart, and for a moment answers 503 where it knows the route alone.
    """
    view = state.obs.route
    was_away = view.said_at - view.written_at > PROMPT_SECONDS
    takes_it = name in view.weights and view.accepted and not _is_behind(state)
    return takes_it and (not was_away or _has_followed(state))


def _number(rollout: api.RolloutStatus) -> int | None:
    return rollout.steps.number if rollout.steps is not None else None


def _had_a_share(state: ReconcileState, name: str) -> bool:
    """Whether it may have had one until not long ago, by its status alone."""
    status = state.statuses.get(name)
    if status is None or status.rollout is None or status.rollout.steps is None:
        return False
    return state.age(status.lost_traffic_at) < _longest(state)


def _candidates(state: ReconcileState) -> set[str]:
    """Revisions that the route names, with a share or without."""
    view = state.obs.route
    return view.weights.keys() & (state.obs.revisions.keys() | view.services.keys())


def _over(state: ReconcileState, named: str, *, lowers: bool) -> tuple[str, ...]:
    """Candidates whose share is over, and that the route is to name all the same. A write that takes a share away
    leaves every name; the next one waits for gateways, and until searchers that are to be removed are gone.
    """
    lost = {state.withdrawal.from_revision} if state.withdrawal is not None else set()
    there = sorted((_candidates(state) | lost) - {named})
    if lowers or _may_send(state):
        return tuple(there)
    stay = {*state.keep_loaded, *state.foreign, state.serving}
    return tuple(name for name in there if state.loaded(name).exists and name not in stay)


def _remove_services(state: ReconcileState, *, keep: str) -> None:
    """Those of candidates that the route does not name, and that no gateway knows any more."""
    view = state.obs.route
    gone = {name: uid for name, uid in sorted(view.services.items()) if name != keep}
    if gone:
        _look_again(state)
    if _may_send(state):
        return
    for name, uid in gone.items():
        if name not in view.weights:
            state.act(DeleteStepService(name, uid))


def _look_again(state: ReconcileState) -> None:
    """What a gateway says is not watched."""
    state.requeue_at(max(state.now + 5, state.obs.route.said_at + FOLLOW_SECONDS))


def _remove(state: ReconcileState) -> None:
    """Nobody wants a route: what was one of ours goes, and last of all the note that there is one."""
    view, index = state.obs.route, state.obs.index
    if view.services and _may_send(state):
        _look_again(state)  # once it is gone, nothing tells any more what gateways have seen of it
    elif view.exists and view.owned and state.known_spec is not None and state.known_spec.rollout.route is None:
        state.act(DeleteRoute(index.name, view.uid))
    elif not view.exists:
        _remove_services(state, keep="")


def _stall_at_rest(state: ReconcileState) -> None:
    """While something is on its way, that is told instead; who needs the route says so itself (progress/shift.py)."""
    at_rest = bool(state.serving) and not state.candidate and not state.preparing
    if state.stall is None and at_rest and (why := obstacle(state)):
        state.stall = Stall(GATEWAY_NOT_FOUND, why)


def _named(parent: api.ParentRef, namespace: str) -> str:
    listener = f"/{parent.section_name}" if parent.section_name else ""
    return f"Gateway {parent.namespace or namespace}/{parent.name}{listener}"
