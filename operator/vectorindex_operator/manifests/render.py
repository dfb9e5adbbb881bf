"""From an action to the objects that it writes. Pure; one line per action."""

from __future__ import annotations

from vectorindex_operator.api.v1alpha1 import VectorIndexSpec
from vectorindex_operator.core.observation import Observation
from vectorindex_operator.core.plan import (
    CreateRevision,
    EnsureNetworkPolicy,
    EnsureSearchers,
    MoveTraffic,
    StartBuild,
    StartResolve,
    StartValidation,
)
from vectorindex_operator.core.state import Installation
from vectorindex_operator.manifests import jobs, networkpolicy, revisions, searchers, service
from vectorindex_operator.manifests.labels import Manifest

Rendered = (
    StartResolve | StartBuild | StartValidation | CreateRevision | EnsureNetworkPolicy | EnsureSearchers | MoveTraffic
)


def render(
    action: Rendered, obs: Observation, spec: VectorIndexSpec | None, settings: Installation
) -> tuple[Manifest, ...]:
    """The objects of one action, in the order in which they are written. `spec` None: only what is safe is rendered."""
    index = obs.index
    if isinstance(action, EnsureSearchers):
        revision = obs.revisions[action.revision]
        deployment = searchers.deployment(action, index, revision, settings.internal_keys)
        return deployment, searchers.disruption_budget(action, index)
    if isinstance(action, EnsureNetworkPolicy):
        return (networkpolicy.network_policy(action.policy, index, settings),)
    if isinstance(action, MoveTraffic):
        return (service.service(action.decision, action.resource_version, index, tls=action.tls),)
    assert spec is not None, "nothing new is made while the spec cannot be read"
    match action:
        case StartResolve():
            return (jobs.resolve(action, index, spec, settings),)
        case StartBuild():
            return (jobs.build(action, index, obs.revisions[action.revision], spec, settings),)
        case StartValidation():
            return (jobs.validate(action, index, obs.revisions[action.revision], spec, settings),)
        case CreateRevision():
            return (revisions.revision(action, index, spec, settings),)
