"""The table of `make mutants`: every safety device that is taken out in turn, by what it guards."""

from __future__ import annotations

from collections.abc import Mapping

from .after_switch import AFTER_SWITCH
from .canary import CANARY
from .cluster import CLUSTER
from .data_plane import DATA_PLANE
from .decisions import DECISIONS
from .fresh_rows import FRESH_ROWS
from .imports import IMPORTS
from .judging import JUDGING
from .kept_prior import KEPT_PRIOR
from .leftovers import LEFTOVERS
from .mutant import Edit, Mutant
from .platform import PLATFORM
from .plugin import PLUGIN
from .points import POINTS
from .policies import POLICIES
from .shadow import SHADOW
from .shadow_pairs import SHADOW_PAIRS
from .shadow_rollout import SHADOW_ROLLOUT
from .shards import SHARDS
from .stories import STORIES
from .surroundings import SURROUNDINGS
from .takeovers import TAKEOVERS
from .text import TEXT
from .traffic import TRAFFIC
from .verbs import VERBS

MUTANTS: Mapping[str, tuple[Mutant, ...]] = {
    "Traffic and pods": TRAFFIC,
    "Decisions": DECISIONS,
    "The kept prior": KEPT_PRIOR,
    "The conservative point": POINTS,
    "Judging": JUDGING,
    "Shadow": SHADOW,
    "Shadow before the switch": SHADOW_ROLLOUT,
    "Shadow, searchers": SHADOW_PAIRS,
    "After the switch": AFTER_SWITCH,
    "Verbs of a rollout": VERBS,
    "Canary weights": CANARY,
    "Cache, queue, cluster": CLUSTER,
    "Policies": POLICIES,
    "A deleted index": LEFTOVERS,
    "An index that is made again": TAKEOVERS,
    "Pods and Services of a platform": PLATFORM,
    "Stories of the simulator": STORIES,
    "Surroundings of the simulator": SURROUNDINGS,
    "Searcher and client": DATA_PLANE,
    "Indexes built elsewhere": IMPORTS,
    "Fresh rows": FRESH_ROWS,
    "Encoders": TEXT,
    "Shards": SHARDS,
    "kubectl vectorindex": PLUGIN,
}
"""By topic."""

__all__ = ["MUTANTS", "Edit", "Mutant"]
