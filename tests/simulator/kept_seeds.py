"""Seeds that once failed, and fail again without what mended them: each has its mutant (tests/mutant_table/).

The model draws otherwise when it learns something new, and a seed then tells another story: `make mutants` finds those
that do not fail any more without their device. Another seed that does takes their place.
"""

from __future__ import annotations

KEPT_SEEDS: dict[str, tuple[str, int]] = {
    "a steady trip waited for a pod on an old view": ("steady_state", 3),
    "a rollback by hand waited for a pod on an old view": ("rollback_by_hand", 16),
    "searchers whose object was deleted went before their connections had drained": ("prior_deleted_in_soak", 3),
    "what soaked had lost the traffic to what another operator put back, and soaked for ever": (
        "polling_finds_new_data",
        3,
    ),
}
"""What went wrong -> scenario and seed."""
