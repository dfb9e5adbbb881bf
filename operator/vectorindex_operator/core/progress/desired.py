"""Which revision the spec and the data ask for, and what becomes of one in preparation that nobody wants any more."""

from __future__ import annotations

from vectorindex_operator.api.v1alpha1 import Rebuild, Serving
from vectorindex_operator.core import identity, recipe
from vectorindex_operator.core.phase import FAILED, IN_PREPARATION, REPLACED, Phase
from vectorindex_operator.core.plan import CreateRevision
from vectorindex_operator.core.progress import collect, restore
from vectorindex_operator.core.progress.supersede import supersede
from vectorindex_operator.core.state import ReconcileState


def step(state: ReconcileState) -> None:
    source = state.source
    state.desired = find(state)
    if source is None or not state.desired:
        return  # nothing is known about this source yet; what is in preparation goes on
    if state.desired in state.foreign:
        return  # the status says so; it is taken as it is once an operator that knows it is here
    in_preparation = [n for n, s in state.statuses.items() if s.phase in IN_PREPARATION and n != state.desired]
    for name in in_preparation:
        if restore.awaits_proof(state, name) and not _is_stuck(state, name):
            state.preparing = name
        elif not recipe.same_but_for_data(state, name):
            abandon(state, name, "the spec changed before it was rolled out")
        elif _is_stuck(state, name):
            abandon(state, name, "it could not be judged, and there is new data")
        else:
            state.preparing = name  # only the data changed: finish this one first, or it never gets served
    if state.preparing:
        return
    if state.desired in state.statuses:
        take(state, f"the spec asks for {state.desired} again")
    else:
        create(state, source.fingerprint, Serving.of(state.spec), recipe.last_build(state, source.fingerprint))


def take(state: ReconcileState, why: str) -> None:
    """Have what is wanted, and is there, prepared; or make room for it, where it is what serves."""
    if state.desired == state.stable:
        if state.candidate:
            supersede(state, why)
        return
    if state.desired == state.candidate:
        return
    if state.candidate and state.desired == state.serving and state.statuses[state.serving].phase == Phase.OUTGOING:
        supersede(state, why)
        return
    known = state.statuses[state.desired]
    if known.phase in REPLACED and known.rejected is None:
        state.update(state.desired, phase=Phase.PENDING, rollout=None, pause=None, message="wanted again")
    if state.statuses[state.desired].phase in IN_PREPARATION:
        state.preparing = state.desired
        recipe.inherit(state, state.desired)


def find(state: ReconcileState) -> str:
    """The newest that is what is asked for, a failed one only where no other is; else the name of one to make. Empty
    while nothing is known about this source."""
    source = state.source
    if source is None or source.source_hash != identity.source_hash(state.spec):
        return ""
    alike = [name for name in state.statuses if recipe.is_desired(state, name)]
    failed = {name for name in alike if state.statuses[name].phase in FAILED}
    newest = max(alike, key=lambda name: (name not in failed, state.revision(name).created_at, name), default="")
    if newest:
        return newest
    rebuild = recipe.last_build(state, source.fingerprint)
    return _new_name(state, _digest(state, source.fingerprint, rebuild), Serving.of(state.spec))


def _digest(state: ReconcileState, fingerprint: str, rebuild: Rebuild | None) -> str:
    return identity.digest(state.spec, fingerprint, rebuild.number if rebuild is not None else 0)


def _new_name(state: ReconcileState, digest: str, serving: Serving) -> str:
    """The artifact's digest names its first revision, and the digest with what serves it each later one."""
    plain = identity.revision_name(state.obs.index.name, digest)
    if plain not in state.obs.revisions or plain in state.foreign:
        return plain
    return identity.revision_name(state.obs.index.name, identity.serving_digest(digest, serving))


def create(state: ReconcileState, fingerprint: str, serving: Serving, rebuild: Rebuild | None) -> str:
    """Plan a new revision of the spec and this data; answers its name. `rebuild`: which build of them."""
    digest = _digest(state, fingerprint, rebuild)
    name = _new_name(state, digest, serving)
    if leaving := collect.being_removed(state, digest):
        state.block("ArtifactBeingRemoved", leaving, f"its artifact is wanted again: {name} is made once it is gone")
        state.requeue_at(state.now + 5)
        return name
    state.act(CreateRevision(name, digest, fingerprint, serving, recipe.proof_salt(state, digest), rebuild))
    state.requeue_at(state.now + 1)
    return name


def _is_stuck(state: ReconcileState, name: str) -> bool:
    """Whether only a person could bring this revision on: it must not hold up the data that came after it."""
    status = state.statuses[name]
    held = status.gate is not None and status.gate.verdict == "Inconclusive"
    return held or (status.failure is not None and status.failure.permanent)


def abandon(state: ReconcileState, name: str, why: str) -> None:
    state.update(name, phase=Phase.SUPERSEDED, message=why)
