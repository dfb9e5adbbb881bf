"""From an action to the objects that it writes. Pure; one line per action."""

from __future__ import annotations

from vectorindex_operator.api.v1alpha1 import VectorIndexSpec
from vectorindex_operator.core.internal_keys import addressee
from vectorindex_operator.core.observation import Observation
from vectorindex_operator.core.plan import (
    CreateRevision,
    EnsureNetworkPolicy,
    EnsureRoute,
    EnsureSearchers,
    EnsureStepService,
    MoveTraffic,
    StartBuild,
    StartCollect,
    StartOutcomes,
    StartPartition,
    StartPublish,
    StartResolve,
    StartValidation,
)
from vectorindex_operator.core.safety.network import policy_of_shards
from vectorindex_operator.core.state import Installation
from vectorindex_operator.manifests import httproute, jobs, networkpolicy, revisions, searchers, service, shards
from vectorindex_operator.manifests.labels import Manifest
from vectorindex_searcher.contract import live_key

Rendered = (
    StartResolve
    | StartPartition
    | StartBuild
    | StartPublish
    | StartValidation
    | StartCollect
    | StartOutcomes
    | CreateRevision
    | EnsureNetworkPolicy
    | EnsureSearchers
    | EnsureRoute
    | EnsureStepService
    | MoveTraffic
)


def render(
    action: Rendered, obs: Observation, spec: VectorIndexSpec | None, settings: Installation
) -> tuple[Manifest, ...]:
    """The objects of one action, in the order in which they are written. `spec` None: only what is safe is rendered."""
    index = obs.index
    if isinstance(action, EnsureSearchers):
        revision = obs.revisions[action.revision]
        if action.shards:
            return shards.shards(action, index, revision, settings.internal_keys, obs.objects)
        deployment = searchers.deployment(action, index, revision, settings.internal_keys)
        return deployment, searchers.disruption_budget(action, index)
    if isinstance(action, EnsureNetworkPolicy):
        return _network_policies(action, obs, settings)
    if isinstance(action, MoveTraffic):
        return (service.service(action.decision, action.resource_version, index, tls=action.tls),)
    if isinstance(action, EnsureRoute):
        return (httproute.http_route(action, index),)
    if isinstance(action, EnsureStepService):
        return (service.step_service(action.revision, index),)
    assert spec is not None, "nothing new is made while the spec cannot be read"
    match action:
        case StartResolve():
            return (jobs.resolve(action, index, spec, settings),)
        case StartPartition():
            return (jobs.partition(action, index, obs.revisions[action.revision], spec, settings),)
        case StartPublish():
            return (jobs.publish(action, index, obs.revisions[action.revision], spec, settings),)
        case StartBuild():
            return (jobs.build(action, index, obs.revisions[action.revision], spec, settings),)
        case StartValidation():
            revision, key = obs.revisions[action.revision], _live_key(action, obs, settings)
            return (jobs.validate(action, index, revision, spec, settings, key),)
        case StartCollect():
            return (jobs.collect(action, index, obs.revisions[action.revision], spec, settings),)
        case StartOutcomes():
            return (jobs.outcomes(action, index, spec, settings),)
        case CreateRevision():
            return (revisions.revision(action, index, spec, settings),)


def _network_policies(action: EnsureNetworkPolicy, obs: Observation, settings: Installation) -> tuple[Manifest, ...]:
    """That of shards first. The other one is about their pods, too, until it is there: no pod is without a policy."""
    there = action.shards and policy_of_shards(obs.index.name) in obs.network_policies
    policy = networkpolicy.network_policy(action.policy, obs.index, settings, but_shards=there)
    return (networkpolicy.shards_policy(obs.index, settings), policy) if action.shards else (policy,)


def _live_key(action: StartValidation, obs: Observation, settings: Installation) -> str:
    """What reads the live queries that the Job is to ask for; empty where it asks for none, or no key is known."""
    source = action.task.live
    if source is None or not source.revision:
        return ""
    to = addressee(obs, source.revision)
    key = settings.internal_keys.revision_key(to.revision_uid, to.key_id)
    return live_key(key) if key else ""
