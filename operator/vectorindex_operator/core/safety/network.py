"""The NetworkPolicies of the index's pods: there while spec.searcher.networkPolicy is Managed, gone otherwise.

Live, like tokens: who may connect must not come back with a rollback, and holds while a spec cannot be read.
"""

from __future__ import annotations

from vectorindex_operator.core.loaded import SHARD
from vectorindex_operator.core.plan import DeleteNetworkPolicy, EnsureNetworkPolicy
from vectorindex_operator.core.state import ReconcileState


def step(state: ReconcileState) -> None:
    if state.live is None:
        return
    policy = state.live.searcher.network_policy
    if policy.mode == "Managed":
        # The pods themselves, too: they serve on where their revision cannot be read, or was deleted.
        loaded = any(group.role == SHARD for one in state.obs.loaded.values() for group in one.groups)
        made = any(one.spec.in_shards for one in state.obs.revisions.values())
        shards = loaded or made
        state.act(EnsureNetworkPolicy(policy, shards=shards))
        unwanted = set() if shards else {policy_of_shards(state.obs.index.name)}
    else:
        unwanted = set(state.obs.network_policies)
    for name, uid in sorted(state.obs.network_policies.items()):
        if name in unwanted:
            state.act(DeleteNetworkPolicy(name, uid))


def policy_of_shards(index: str) -> str:
    """Name of the policy of the pods of an index's shards."""
    return f"{index}-shards"
