"""What loaded revisions take from the spec at once, and what of it stays because a revision in shards is loaded.

The schema refuses what does not go with, or without, `index.shards`. Shards serve on beside a spec without them until
the next revision has the traffic, or as what is gone back to.
"""

from __future__ import annotations

from vectorindex_operator.api.v1alpha1 import Live
from vectorindex_operator.core.loaded import SHARD
from vectorindex_operator.core.observation import Observation

OF_ROUTERS = ("router_resources", "partial")
"""Fields of `searcher` that the schema refuses without shards."""


def in_effect(obs: Observation) -> Live | None:
    """The live settings of this pass: those of the spec, but for what is the routers' own, which stays while there are
    some. None: no spec could be read yet."""
    live, spec, before = obs.index.live, obs.index.spec, obs.index.status.live
    if live is None or spec is None or before is None or spec.index.shards is not None or not _in_shards(obs):
        return live
    kept = {name: getattr(before.searcher, name) for name in OF_ROUTERS}
    return live.model_copy(update={"searcher": live.searcher.model_copy(update=kept)})


def _in_shards(obs: Observation) -> bool:
    """Whether a revision in shards is loaded, also where it cannot be read, or has the traffic."""
    there = {name for name, one in obs.loaded.items() if one.exists} | {obs.traffic.revision}
    made = {name for name, one in obs.revisions.items() if one.spec.in_shards}
    seen = {name for name, one in obs.loaded.items() if any(group.role == SHARD for group in one.groups)}
    return bool(there & (made | seen))
