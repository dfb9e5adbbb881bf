"""What kstatus (Flux, Helm --wait) calls an object of a kind that it has no rules of its own for.

The rules of its Compute (cli-utils, pkg/kstatus/status) that are left for such kinds: `make test-gitops` asks it."""

from __future__ import annotations

from typing import Any


def kstatus(obj: dict[str, Any]) -> str:
    """Terminating, InProgress, Failed or Current."""
    status = obj.get("status", {})
    if "deletionTimestamp" in obj["metadata"]:
        return "Terminating"
    if status.get("observedGeneration", obj["metadata"]["generation"]) != obj["metadata"]["generation"]:
        return "InProgress"
    for one in status.get("conditions", ()):
        if (one["type"], one["status"]) == ("Reconciling", "True"):
            return "InProgress"
        if (one["type"], one["status"]) == ("Stalled", "True"):
            return "Failed"
    ready = next((one["status"] for one in status.get("conditions", ()) if one["type"] == "Ready"), "True")
    return "Current" if ready == "True" else "InProgress"
