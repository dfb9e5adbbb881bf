"""What a person asked for by annotation: `rollback` and `retry`. Consumed once; the answer is in status.verbs.

`rollback` becomes a trip of the revision that has the traffic; steps/rolling_back.py carries it out.
"""

from __future__ import annotations

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Trip, VerbResult
from vectorindex_operator.core.observation import JobState, JobVerb, Verb
from vectorindex_operator.core.steps.rolling_back import MANUAL, rollback_target
from vectorindex_operator.core.working import Pass

RETRYABLE = frozenset({"BuildFailed", "Rejected", "SurgeFailed", "RolledBack"})


def step(p: Pass) -> None:
    for verb in p.obs.index.verbs:
        known = p.verbs.get(verb.name)
        if known is not None and known.nonce == verb.nonce:
            continue
        if verb.name == "rollback":
            _rollback(p, verb)
        elif verb.name == "retry":
            _retry(p, verb)
        else:
            _answer(p, verb, done=False, message=f"unknown verb {verb.name!r}: use rollback or retry")


def _answer(p: Pass, verb: Verb, *, done: bool, message: str) -> None:
    p.verbs[verb.name] = VerbResult(
        verb=verb.name,
        nonce=verb.nonce,
        result="Done" if done else "Refused",
        message=message,
        at=to_text(p.now),
    )
    p.event("VerbDone" if done else "VerbRefused", f"{verb.name}: {message}", warning=not done)


def _rollback(p: Pass, verb: Verb) -> None:
    decision = p.obs.service.decision
    if decision is not None and decision.nonce == verb.nonce:
        # The traffic moved, and the operator died before it could say so: one request is one step back, never two.
        return _answer(p, verb, done=True, message=f"rolled back from {decision.source} to {decision.target}")
    if not p.traffic or p.traffic not in p.statuses:
        return _answer(p, verb, done=False, message="no revision has the traffic")
    target = rollback_target(p, p.traffic, verb.argument)
    if not target:
        wish = f"revision {verb.argument!r} is not one to go back to" if verb.argument else "no earlier proven revision"
        return _answer(p, verb, done=False, message=f"nothing to roll back to: {wish}")
    status = p.statuses[p.traffic]
    if status.rollout is None:
        return _answer(p, verb, done=False, message=f"{p.traffic} was never rolled out")
    message = f"a person asked for {target}"
    trip = Trip(rule=MANUAL, reason=MANUAL, message=message, at=to_text(p.now))
    p.update(p.traffic, rollout=status.rollout.model_copy(update={"trip": trip, "prior": target}))
    return _answer(p, verb, done=True, message=f"rolling back from {p.traffic} to {target}")


def _retry(p: Pass, verb: Verb) -> None:
    mark = f"retry {verb.nonce}"
    failed = [n for n, s in p.statuses.items() if s.phase in RETRYABLE and _is_wanted(p, n)]
    for name in failed:
        p.update(name, phase="Pending", rejected=None, failure=None, rollout=None, gate=None, report=None, message=mark)
    # The mark outlives an operator that dies before the answer is written: the next one finds what it had begun.
    retried = [n for n, s in p.statuses.items() if s.message == mark]
    for name in retried:
        for work in (JobVerb.BUILD, JobVerb.VALIDATE):
            p.delete_jobs(j for j in p.jobs(work, name) if j.state is not JobState.RUNNING)
    source_failed = p.obs.index.status.reason == "DatasetFailed" or _dataset_failed(p)
    if source_failed or retried:
        p.resolve_now = mark
    if retried:
        return _answer(p, verb, done=True, message=f"trying {', '.join(retried)} again")
    if source_failed:
        return _answer(p, verb, done=True, message="listing the source again")
    return _answer(p, verb, done=False, message="nothing has failed")


def _is_wanted(p: Pass, name: str) -> bool:
    spec = p.revision(name).spec
    source = p.source
    return (
        source is not None
        and spec.fingerprint == source.fingerprint
        and spec.index_spec == p.spec.index
        and spec.columns == p.spec.source.columns
    )


def _dataset_failed(p: Pass) -> bool:
    return any(c.type == "DatasetResolved" and c.status == "False" for c in p.obs.index.status.conditions)
