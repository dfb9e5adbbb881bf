"""What a person asked for by annotation: `rollback` and `retry`. Consumed once; the answer is in status.verbs.

`rollback` becomes a trip of the revision that has the traffic; steps/roll_back.py carries it out.
"""

from __future__ import annotations

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Trip, VerbResult
from vectorindex_operator.core.observation import Command, JobState, Task
from vectorindex_operator.core.safety.roll_back import MANUAL, rollback_target
from vectorindex_operator.core.state import ReconcileState

RETRYABLE = frozenset({"BuildFailed", "Rejected", "SurgeFailed", "RolledBack"})


def step(state: ReconcileState) -> None:
    for verb in state.obs.index.verbs:
        known = state.verbs.get(verb.name)
        if known is not None and known.nonce == verb.nonce:
            continue
        if verb.name == "rollback":
            _rollback(state, verb)
        elif verb.name == "retry":
            _retry(state, verb)
        else:
            _answer(state, verb, done=False, message=f"unknown verb {verb.name!r}: use rollback or retry")


def _answer(state: ReconcileState, verb: Command, *, done: bool, message: str) -> None:
    state.verbs[verb.name] = VerbResult(
        verb=verb.name,
        nonce=verb.nonce,
        result="Done" if done else "Refused",
        message=message,
        at=to_text(state.now),
    )
    state.event("VerbDone" if done else "VerbRefused", f"{verb.name}: {message}", warning=not done)


def _rollback(state: ReconcileState, verb: Command) -> None:
    decision = state.obs.service.decision
    if decision is not None and decision.nonce == verb.nonce:
        # The traffic moved, and the operator died before it could say so: one request is one step back, never two.
        return _answer(
            state, verb, done=True, message=f"rolled back from {decision.from_revision} to {decision.to_revision}"
        )
    if not state.serving or state.serving not in state.statuses:
        return _answer(state, verb, done=False, message="no revision has the traffic")
    target = rollback_target(state, state.serving, verb.argument)
    if not target:
        wish = f"revision {verb.argument!r} is not one to go back to" if verb.argument else "no earlier proven revision"
        return _answer(state, verb, done=False, message=f"nothing to roll back to: {wish}")
    status = state.statuses[state.serving]
    if status.rollout is None:
        return _answer(state, verb, done=False, message=f"{state.serving} was never rolled out")
    message = f"a person asked for {target}"
    trip = Trip(rule=MANUAL, reason=MANUAL, message=message, at=to_text(state.now))
    state.update(state.serving, rollout=status.rollout.model_copy(update={"trip": trip, "prior": target}))
    return _answer(state, verb, done=True, message=f"rolling back from {state.serving} to {target}")


def _retry(state: ReconcileState, verb: Command) -> None:
    mark = f"retry {verb.nonce}"
    failed = [n for n, s in state.statuses.items() if s.phase in RETRYABLE and _is_wanted(state, n)]
    for name in failed:
        state.update(
            name, phase="Pending", rejected=None, failure=None, rollout=None, gate=None, report=None, message=mark
        )
    # The mark outlives an operator that dies before the answer is written: the next one finds what it had begun.
    retried = [n for n, s in state.statuses.items() if s.message == mark]
    for name in retried:
        for work in (Task.BUILD, Task.VALIDATE):
            state.delete_jobs(j for j in state.jobs(work, name) if j.state is not JobState.RUNNING)
    source_failed = state.obs.index.status.reason == "DatasetFailed" or _dataset_failed(state)
    if source_failed or retried:
        state.resolve_now = mark
    if retried:
        return _answer(state, verb, done=True, message=f"trying {', '.join(retried)} again")
    if source_failed:
        return _answer(state, verb, done=True, message="listing the source again")
    return _answer(state, verb, done=False, message="nothing has failed")


def _is_wanted(state: ReconcileState, name: str) -> bool:
    spec = state.revision(name).spec
    source = state.source
    return (
        source is not None
        and spec.fingerprint == source.fingerprint
        and spec.index_spec == state.spec.index
        and spec.columns == state.spec.source.columns
    )


def _dataset_failed(state: ReconcileState) -> bool:
    return any(c.type == "DatasetResolved" and c.status == "False" for c in state.obs.index.status.conditions)
