"""The NetworkPolicy of the index's pods: there while spec.searcher.networkPolicy is Managed, gone otherwise.

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
        made = any(one.spec.shards for one in state.obs.revisions.values())
        state.act(EnsureNetworkPolicy(policy, shards=loaded or made))
        return
    for name, uid in sorted(state.obs.network_policies.items()):
        state.act(DeleteNetworkPolicy(name, uid))
