"""What loaded revisions take from the spec at once, and what of it waits because a revision in shards is loaded.

The schema refuses what does not go with `index.shards`. A spec without shards may say it, and shards serve on beside it
until the next revision has the traffic, or as what is gone back to.
"""

from __future__ import annotations

from vectorindex_operator.api.v1alpha1 import Live
from vectorindex_operator.core.loaded import SHARD
from vectorindex_operator.core.observation import Observation

OF_ROUTERS = ("router_resources", "partial")
"""Fields of `searcher` that the schema refuses without shards."""


def in_effect(obs: Observation) -> Live | None:
    """The live settings of this pass. None: no spec could be read yet.

    Routers enforce no policies. So policies that are new wait, with the tokens that they are of, until no revision in
    shards is loaded: what it shows, and to whom, stays as it was before the edit. Policies that hold go on holding:
    routers do not start with them, so that no revision in shards gets the traffic.
    """
    live, spec, before = obs.index.live, obs.index.spec, obs.index.status.live
    if live is None or spec is None or before is None or spec.index.shards is not None or not in_shards(obs):
        return live
    auth, held = live.searcher.auth, before.searcher.auth
    if auth is not None and auth.policies is not None and (held is None or held.policies is None):
        auth = held or auth.model_copy(update={"policies": None})
    kept = {"auth": auth, **{name: getattr(before.searcher, name) for name in OF_ROUTERS}}
    return live.model_copy(update={"searcher": live.searcher.model_copy(update=kept)})


def in_shards(obs: Observation) -> list[str]:
    """Revisions in shards that are loaded, also where they cannot be read, or have the traffic."""
    there = {name for name, one in obs.loaded.items() if one.exists} | {obs.traffic.revision}
    made = {name for name, one in obs.revisions.items() if one.spec.shards}
    seen = {name for name, one in obs.loaded.items() if any(group.role == SHARD for group in one.groups)}
    return sorted(there & (made | seen))
