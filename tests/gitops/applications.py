"""The Applications of docs/gitops.md."""

from __future__ import annotations

from typing import Any

import yaml
from layers import CHECKOUT

Json = dict[str, Any]
FINALIZER = "resources-finalizer.argocd.argoproj.io"


def application(name: str, finalizer: str = FINALIZER) -> Json:
    """The Application of this name, which deletes what it deployed."""
    page = (CHECKOUT / "docs" / "gitops.md").read_text(encoding="utf-8")
    blocks = (yaml.safe_load(part.partition("```")[0]) for part in page.split("```yaml\n")[1:])
    (made,) = (one for one in blocks if (one["kind"], one["metadata"]["name"]) == ("Application", name))
    made["metadata"]["finalizers"] = [finalizer]
    found: Json = made
    return found
