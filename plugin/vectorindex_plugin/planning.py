"""`plan`: what an edit would lead to, by the operator's own decision on what is there, once with the spec of before and
once with the edited one. What differs is what the edit does; nothing is known here of which field does what.

A plan is of one pass: what it begins, later passes go on with, by the rules of docs/concepts.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from vectorindex_operator.api.v1alpha1 import RevisionStatus, SourceStatus, VectorIndexSpec
from vectorindex_operator.core import identity, recipe
from vectorindex_operator.core.internal_keys import InternalKeys
from vectorindex_operator.core.lifecycle import decide
from vectorindex_operator.core.observation import Observation, RevisionView
from vectorindex_operator.core.phase import GIVEN_UP, UNDER_WAY
from vectorindex_operator.core.plan import (
    CreateRevision,
    EnsureNetworkPolicy,
    EnsureRoute,
    EnsureSearchers,
    ForgetRevision,
    MoveTraffic,
    Plan,
    WriteRevisionStatus,
)
from vectorindex_operator.core.state import Installation
from vectorindex_operator.core.story import STALLED, SUSPENDED
from vectorindex_operator.manifests.searchers import deployment
from vectorindex_operator.manifests.shards import shards

One = TypeVar("One")
SOME_KEY = "in the place of the operator's, which nobody else may know"
"""Without any, no revision could be compared in shadow."""


class Effect(StrEnum):
    """What an edit does, the dearest first."""

    LIST = "List"
    """The source is listed anew."""
    BUILD = "Build"
    """A Job builds an index."""
    PROVE = "Prove"
    """A Job measures the recall of an artifact."""
    JUDGE = "Judge"
    """A saved report is judged again."""
    ROLL_OUT = "RollOut"
    """Another revision is loaded, and gets the traffic."""
    GIVE_UP = "GiveUp"
    """What is on its way gives way."""
    MOVE = "Move"
    """The traffic moves at once."""
    RESTART = "Restart"
    """Pods are replaced, one by one."""
    SCALE = "Scale"
    """There are more or fewer pods."""
    NETWORK = "Network"
    """Others may reach the pods."""
    FORGET = "Forget"
    """A revision falls out of the history."""
    WAIT = "Wait"
    """Something waits for another moment, or for a person."""


@dataclass(frozen=True, slots=True)
class EffectFacts:
    effect: Effect
    revision: str
    message: str


@dataclass(frozen=True, slots=True)
class Both:
    """What is there, as it is and with the edited spec, and what the operator plans for either."""

    before: Observation
    after: Observation
    settings: Installation
    now: float

    @classmethod
    def of(cls, obs: Observation, spec: VectorIndexSpec, now: float) -> Both:
        """`spec`: the edited one."""
        newest = max(obs.revisions.values(), key=lambda view: view.created_at, default=None)
        settings = Installation(
            searcher_image=newest.spec.image if newest is not None else "",
            internal_keys=InternalKeys(SOME_KEY),
        )
        index = replace(obs.index, spec=spec, generation=obs.index.generation + 1, spec_error="")
        return cls(obs, replace(obs, index=index), settings, now)

    @property
    def spec(self) -> VectorIndexSpec:
        assert self.after.index.spec is not None
        return self.after.index.spec

    @property
    def lists(self) -> bool:
        """Whether the source has to be listed anew before anything else is known."""
        source = self.before.index.status.source
        return source is None or source.source_hash != identity.source_hash(self.spec)

    def as_listed(self) -> Both:
        """The same once the source was listed, if it holds the data of before."""
        status = self.before.index.status
        if not self.lists or status.source is None:
            return self
        source: SourceStatus = status.source.model_copy(update={"source_hash": identity.source_hash(self.spec)})
        index = replace(self.after.index, status=status.model_copy(update={"source": source}))
        return replace(self, after=replace(self.after, index=index))

    def plans(self) -> tuple[Plan, Plan]:
        return decide(self.before, self.settings, self.now), decide(self.after, self.settings, self.now)


def effects(obs: Observation, spec: VectorIndexSpec, now: float) -> tuple[EffectFacts, ...]:
    """What the edit leads to, the dearest first; empty: nothing."""
    both = Both.of(obs, spec, now)
    found = list(_listing(both))
    both = both.as_listed()
    before, after = both.plans()
    for part in (_new_revisions, _phases, _searchers):
        found += part(both, before, after)
    for other in (_traffic, _others):
        found += other(before, after)
    found += _waits(before, after, {one.effect for one in found})
    order = list(Effect)
    return tuple(sorted(dict.fromkeys(found), key=lambda one: order.index(one.effect)))


Deployments = dict[str, list[dict[str, Any]]]
"""By revision: specs of its Deployments, the one that users reach last. Those of shards are before it."""


def searchers(obs: Observation, spec: VectorIndexSpec, now: float) -> tuple[Deployments, Deployments]:
    """Of revisions that are loaded: as they are kept, and with the edit."""
    both = Both.of(obs, spec, now).as_listed()
    before, after = (
        {one.revision: _deployments(both, one) for one in _of(plan, EnsureSearchers) if one.revision in obs.revisions}
        for plan in both.plans()
    )
    return before, after


def _listing(both: Both) -> Iterator[EffectFacts]:
    if not both.lists:
        return
    if both.before.index.status.source is None:
        yield EffectFacts(Effect.LIST, "", "the source is listed; a first revision is made of what is there")
        return
    rest = "what follows is said for the data of before; other data is built"
    yield EffectFacts(Effect.LIST, "", f"the source, or how it is read, is another: it is listed anew; {rest}")


def _of(plan: Plan, kind: type[One]) -> list[One]:
    return [one for one in plan.actions if isinstance(one, kind)]


def _new_revisions(both: Both, before: Plan, after: Plan) -> Iterator[EffectFacts]:
    made = {one.name for one in _of(before, CreateRevision)}
    for one in _of(after, CreateRevision):
        if one.name in made:
            continue
        artifact = _artifact(both, one.digest)
        if artifact is None:
            yield EffectFacts(Effect.BUILD, one.name, "its index is built from the data of before by another recipe")
        elif artifact.status.report is None or not _measured(both, one):
            yield EffectFacts(Effect.PROVE, one.name, f"the artifact of {artifact.name} is measured by the new gate")
        if artifact is None:
            yield EffectFacts(Effect.PROVE, one.name, "its recall is measured, and judged by spec.gate")
        yield EffectFacts(Effect.ROLL_OUT, one.name, _rollout(both))


def _artifact(both: Both, digest: str) -> RevisionView | None:
    """A revision whose built artifact has this digest, at the place where artifacts are wanted."""
    place = recipe.place(both.spec.artifacts.place)
    same = (view for view in both.before.revisions.values() if view.spec.digest == digest)
    return next((one for one in same if one.status.build and recipe.place(one.spec.artifacts) == place), None)


def _measured(both: Both, one: CreateRevision) -> bool:
    """Whether a report by the gate that the new revision has to pass is there (recipe.inherit)."""
    wanted = identity.gate_hash(both.spec, one.proof_salt, one.serving.reranker)
    same = (view.status.report for view in both.before.revisions.values() if view.spec.digest == one.digest)
    return any(report is not None and report.gate_hash == wanted for report in same)


def _rollout(both: Both) -> str:
    spec, serving = both.spec, both.before.traffic.revision
    if not serving:
        return "it gets the traffic once it is proven"
    shadow = spec.rollout.shadow if spec.rollout.shadows else None
    compared = f", compared in shadow for {shadow.duration} or longer" if shadow is not None else ""
    return (
        f"once it is proven, {spec.searcher.replicas} pods are loaded beside those of {serving}{compared}, the traffic "
        f"is switched, and it soaks for {spec.rollout.soak.duration} or longer"
    )


def _phases(both: Both, before: Plan, after: Plan) -> Iterator[EffectFacts]:
    """Revisions that are judged otherwise, wanted again, or given up."""
    planned, was = _statuses(after), _statuses(before)
    for name, view in both.before.revisions.items():
        old, new = (plan.get(name, view.status) for plan in (was, planned))
        if new.gate is not None and new.gate != old.gate:
            yield EffectFacts(Effect.JUDGE, name, f"{new.gate.verdict}, {new.gate.reason}: {new.gate.message}")
        if new.phase == old.phase:
            continue
        if new.phase in GIVEN_UP:
            yield EffectFacts(Effect.GIVE_UP, name, f"{old.phase} becomes {new.phase}: {new.message}")
        elif new.phase in UNDER_WAY and old.phase not in UNDER_WAY:
            gate = identity.gate_hash(both.spec, view.spec.proof_salt, view.spec.served_as().reranker)
            if new.report is None or new.report.gate_hash != gate:
                yield EffectFacts(Effect.PROVE, name, "it is wanted again, and measured by the new gate")
            yield EffectFacts(Effect.ROLL_OUT, name, _rollout(both))


def _statuses(plan: Plan) -> dict[str, RevisionStatus]:
    return {one.revision: one.status for one in _of(plan, WriteRevisionStatus)}


def _traffic(before: Plan, after: Plan) -> Iterator[EffectFacts]:
    known = {one.decision.to_revision for one in _of(before, MoveTraffic)}
    was, routes = _routes(before), _routes(after)
    for name, weight in routes.items():
        if was.get(name) != weight:
            yield EffectFacts(Effect.MOVE, name, f"{weight} % of the gateway's traffic")
    for one in _of(after, MoveTraffic):
        if one.decision.to_revision not in known:
            decision = one.decision
            message = f"from {decision.from_revision or 'none'}: {decision.reason}: {decision.message}"
            yield EffectFacts(Effect.MOVE, decision.to_revision, message)


def _routes(plan: Plan) -> dict[str, int]:
    """Share of the gateway's traffic that revisions are to have, in percent."""
    return {one.candidate: one.weight for one in _of(plan, EnsureRoute) if one.candidate}


def _searchers(both: Both, before: Plan, after: Plan) -> Iterator[EffectFacts]:
    """By the very Deployments that would be written."""
    was = {one.revision: one for one in _of(before, EnsureSearchers)}
    for one in _of(after, EnsureSearchers):
        if one.revision not in was:
            continue
        pairs = list(zip(*(_deployments(both, action) for action in (was[one.revision], one)), strict=True))
        others = [pair for pair in pairs if pair[0]["template"] != pair[1]["template"]]
        if others:
            whose = "its pods" if others[0] is pairs[0] else "its routers"
            message = f"{whose} are replaced one by one, without a failed query: {_differs(*others[0])}"
            yield EffectFacts(Effect.RESTART, one.revision, message)
        old, new = (sum(pair[side]["replicas"] for pair in pairs) for side in (0, 1))
        if old != new:
            yield EffectFacts(Effect.SCALE, one.revision, f"{old} pods become {new}")


def _deployments(both: Both, action: EnsureSearchers) -> list[dict[str, Any]]:
    view, index, keys = both.before.revisions[action.revision], both.before.index, both.settings.internal_keys
    if not action.shards:
        return [deployment(action, index, view, keys)["spec"]]
    made = shards(action, index, view, keys, {})
    return [one["spec"] for one in made if one["kind"] == "Deployment"]


def _differs(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Which parts of the container, or of its pod, change."""
    pods = [one["template"]["spec"] for one in (old, new)]
    containers = [pod["containers"][0] for pod in pods]
    names = [name for name in sorted({*containers[0], *containers[1]}) if _part(containers, name)]
    names += [name for name in sorted({*pods[0], *pods[1]} - {"containers"}) if _part(pods, name)]
    return ", ".join(names) or "its annotations"


def _part(pair: list[dict[str, Any]], name: str) -> bool:
    return bool(pair[0].get(name) != pair[1].get(name))


def _others(before: Plan, after: Plan) -> Iterator[EffectFacts]:
    policies = _of(before, EnsureNetworkPolicy)
    for one in _of(after, EnsureNetworkPolicy):
        if one not in policies:
            yield EffectFacts(Effect.NETWORK, "", f"{len(one.policy.from_)} kinds of peers may query")
    forgotten = {one.name for one in _of(before, ForgetRevision)}
    for gone in _of(after, ForgetRevision):
        if gone.name not in forgotten:
            yield EffectFacts(Effect.FORGET, gone.name, "spec.history keeps it no longer")


def _waits(before: Plan, after: Plan, known: set[Effect]) -> Iterator[EffectFacts]:
    """What the conditions would say that they do not say now, where it is that something waits. `known`: effects that
    say it already."""
    old, new = ({one.type: one for one in plan.status.conditions} for plan in (before, after))
    edits, said = (one.get("UpToDate") for one in (new, old))
    if edits is not None and edits.status == "False":
        for sentence in edits.message.split("; "):
            told = Effect.ROLL_OUT in known if sentence.endswith("with the next revision") else "pods of" in sentence
            if not told and (said is None or sentence not in said.message):
                yield EffectFacts(Effect.WAIT, "", sentence)
    if after.status.phase in (STALLED, SUSPENDED) and after.status.reason != before.status.reason:
        yield EffectFacts(Effect.WAIT, "", f"{after.status.reason}: {new['RolledOut'].message}")
