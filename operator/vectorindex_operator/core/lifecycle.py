"""The decision of one pass: observation in, plan out. Pure; the order of the steps is the precedence.

keep safe      what needs neither the spec nor anything that may be refused
  record       what the front Service says happened is written into the revisions (a crash after the one write loses
               nothing)
  withdraw     so is what the route says of a canary that lost its share
  restore      a front Service that is gone or was changed by hand
  commands     a person's rollback
  roll back    a trip that waits for its target
  judge        guardrails of the revision that has the traffic; promotion
  steps        guardrails of a canary that has a share of it

go forward     what may fail; then the safe part of the plan runs all the same
  commands     a person's retry
  fresh rows   what searchers know of them, and whether a build is due for them
  way back     whether the artifact that a rollback needs is there
  resolve      which dataset
  desired      hence which revision is wanted
  build        the next revision
  validate     its proof
  surge        the candidate: load, prove each pod, compare it with live queries in shadow, share by steps, switch
  forget       what falls out of the history
  collect      its artifact is removed, then its object

pinned         instead of going forward, while spec.pinRevision names a revision
  pin          that one is wanted, in the place of resolve, desired, build and validate

suspended      instead of going forward, while spec.suspend says so
  commands     what would begin something is refused
  way back     as above
  suspend      what waits is named, and what no user has met steps back
  forget       work that nobody wants any more is stopped
  collect      what is being removed already

network        who reaches the pods
keep loaded    searchers and leases of what has a slot; what has drained is retired
route          what gateways send to whom
points         pods are told at which operating point they answer
fresh off      pods are told to answer no fresh rows
mirrors        a soak that is compared sends queries to its prior; what is over is sent no more
hold           whose objects stay until a deleted index's artifacts are removed
"""

from __future__ import annotations

from collections.abc import Callable

from vectorindex_operator.core import status, story
from vectorindex_operator.core.events import EventReason
from vectorindex_operator.core.leftovers import BEING_REMOVED, EARLIER
from vectorindex_operator.core.observation import Observation
from vectorindex_operator.core.plan import FORWARD, SAFE, Plan, in_order
from vectorindex_operator.core.progress import (
    build,
    collect,
    desired,
    forget,
    fresh_rows,
    pin,
    record,
    resolve,
    restore,
    surge,
    suspend,
    validate,
    way_back,
)
from vectorindex_operator.core.progress import obey_commands as obey_forward
from vectorindex_operator.core.safety import (
    fresh_off,
    hold_revisions,
    judge_serving,
    judge_steps,
    keep_loaded,
    mirrors,
    network,
    obey_commands,
    operating_point,
    record_decision,
    restore_traffic,
    roll_back,
    route,
    withdraw,
)
from vectorindex_operator.core.state import Installation, ReconcileState, Stall

Step = Callable[[ReconcileState], None]

KEEP_SAFE: tuple[Step, ...] = (
    record_decision.step,
    withdraw.step,
    restore_traffic.step,
    obey_commands.step,
    roll_back.step,
    judge_serving.step,
    judge_steps.step,
)
GO_FORWARD: tuple[Step, ...] = (
    obey_forward.step,
    fresh_rows.step,
    fresh_rows.ask_for_build,
    way_back.step,
    resolve.step,
    desired.step,
    build.step,
    validate.step,
    surge.step,
    forget.step,
    collect.step,
    record.step,
)
PINNED: tuple[Step, ...] = (
    obey_forward.step,
    fresh_rows.step,
    way_back.step,
    pin.step,
    surge.step,
    forget.step,
    collect.step,
    record.step,
)
SUSPENDED: tuple[Step, ...] = (
    obey_forward.step,
    fresh_rows.step,
    way_back.step,
    suspend.step,
    forget.stop_unwanted_work,
    collect.step,
    record.step,
)


def decide(obs: Observation, settings: Installation, now: float) -> Plan:
    """What to do about one VectorIndex at unix time `now`. Never raises: a step that does is undone and told."""
    if obs.index.deleting:
        # Everything is owned: the garbage collector takes it. What becomes of its artifacts: leftovers.py.
        return Plan((), (), status=obs.index.status, requeue_after=300.0)
    state = ReconcileState.start(obs, settings, now)
    keep_safe(state)
    go_forward(state)
    _run((network.step,), state)
    _run((keep_loaded.step,), state)
    _run((route.step,), state)
    _run((operating_point.step,), state)
    _run((fresh_off.step,), state)
    _run((mirrors.step,), state)
    _run((hold_revisions.step,), state)
    return _plan(state)


def keep_safe(state: ReconcileState) -> None:
    """The steps that a tenant's rollback rests on. Each stands alone: one that fails takes no other along."""
    for step in KEEP_SAFE:
        _run((step,), state)


def go_forward(state: ReconcileState) -> None:
    """The way to what the user asks for, all of it or nothing: half of it may have been meant to be undone."""
    if state.obs.earlier:  # whose Job would remove what is built under the same prefix
        state.block(BEING_REMOVED, state.obs.earlier, EARLIER)
        state.requeue_at(state.now + 10)
        return
    _find_obstacle(state)
    if (state.stall is None or not state.stall.everything) and _has_taken_over(state):
        _run(PINNED if state.pinned else SUSPENDED if state.suspended else GO_FORWARD, state)


def _has_taken_over(state: ReconcileState) -> bool:
    done: list[bool] = []
    _run((lambda state: done.append(restore.is_done(state)),), state)
    return done == [True]


def _find_obstacle(state: ReconcileState) -> None:
    """What nothing can go on with: a spec that cannot be read, or a name that belongs to somebody else."""
    index = state.obs.index
    if index.spec is None:
        state.stall = Stall("InvalidSpec", index.spec_error, everything=True)
    elif not state.obs.traffic.owned:
        message = f"Service/{index.name} exists and belongs to somebody else: rename it or this VectorIndex"
        state.stall = Stall("NameConflict", message, everything=True)
        state.requeue_at(state.now + 30)


def _run(steps: tuple[Step, ...], state: ReconcileState) -> None:
    before = state.copy()
    try:
        for step in steps:
            step(state)
    except Exception as error:
        state.restore(before)
        state.errors.append(error)


def _plan(state: ReconcileState) -> Plan:
    for error in state.errors:
        text = f"{type(error).__name__}: {error}"[:512]
        state.block("InternalError", f"VectorIndex/{state.obs.index.name}", text)
        if all(row.rule != "InternalError" for row in state.obs.index.status.blocked_by):
            state.event(EventReason.INTERNAL_ERROR, f"{text}; the operator's log has the traceback")
    actions = (*state.changed_statuses(), *state.planned)
    told = story.tell(state)
    return Plan(
        safe=in_order(actions, SAFE),
        forward=in_order(actions, FORWARD),
        status=status.next_status(state, told),
        requeue_after=state.wake,
        events=(*state.events, *story.news(state, told)),
        errors=tuple(state.errors),
        ask=state.ask,
        ask_fresh=state.ask_fresh,
        notices=state.notices if state.settings.notifies else (),
    )
