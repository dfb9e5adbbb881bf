"""What the operator asks of the API server, read from an audit log, and what the chart lets it ask.

Both are sets of rights, so that neither has to be listed by hand: what is asked and not given is a fault of the chart,
and so is what is given and asked by no layer of tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from layers import CHECKOUT

from harness import images

Json = dict[str, Any]
Right = tuple[str, str, str]
"""API group, resource (with its subresource), verb."""

BY_ADMISSION = frozenset(
    {
        ("vectorindex.dev", "vectorindexes/finalizers", "update"),
        ("vectorindex.dev", "vectorindexrevisions/finalizers", "update"),
    }
)
"""What the admission plugin OwnerReferencesPermissionEnforcement asks: not in the audit log, but a refusal would be."""
CREATED = 201
ROLES, BINDINGS = ("Role", "ClusterRole"), ("RoleBinding", "ClusterRoleBinding")
RECORD = CHECKOUT / "build" / "rights" / "apiserver.json"
"""What the apiserver layer saw asked, for the layers after it."""


def asked(events: Iterable[Json]) -> set[Right]:
    """Every right that these requests needed. An apply that made its object needed the right to create it too."""
    found = set()
    for event in events:
        if (right := _of(event)) is not None:
            found.add(right)
            if right[2] == "patch" and _code(event) == CREATED:
                found.add((right[0], right[1], "create"))
    return found


def refused(events: Iterable[Json]) -> dict[Right, str]:
    """The rights that were asked for and are lacking, with the first request of each.

    A 403 alone does not say so: a namespace on its way out, a quota or an admission policy answers in the same way.
    """
    found: dict[Right, str] = {}
    for event in events:
        right = _of(event)
        annotations = event.get("annotations") or {}
        forbidden = annotations.get("authorization.k8s.io/decision") == "forbid"
        if right is not None and (forbidden or _code(event) == 401):
            found.setdefault(right, f"{event['requestURI']} at {event['requestReceivedTimestamp']}")
    return found


def granted(objects: Iterable[Json]) -> set[Right]:
    """Every rule of the roles that are bound to a ServiceAccount, among the objects of a chart."""
    known = list(objects)
    bound = {
        (one["roleRef"]["kind"], one["roleRef"]["name"])
        for one in known
        if one["kind"] in BINDINGS and any(subject["kind"] == "ServiceAccount" for subject in one["subjects"])
    }
    return {
        (group, resource, verb)
        for role in known
        if role["kind"] in ROLES and (role["kind"], role["metadata"]["name"]) in bound
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def remember(seen: set[Right], file: Path = RECORD) -> None:
    """Write down what one layer saw asked, and of which code."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"of": images.content_tag(), "asked": sorted(seen)}, indent=1) + "\n")


def remembered(file: Path = RECORD) -> set[Right] | None:
    """What that layer saw asked; None when it has not run, or ran with other code than today's."""
    try:
        record = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return {(g, r, v) for g, r, v in record["asked"]} if record["of"] == images.content_tag() else None


def _of(event: Json) -> Right | None:
    """None: a request about no object, such as for the server's version."""
    about = event.get("objectRef", {})
    if "resource" not in about:
        return None
    sub = f"/{about['subresource']}" if about.get("subresource") else ""
    return about.get("apiGroup", ""), about["resource"] + sub, event["verb"]


def _code(event: Json) -> int:
    return int((event.get("responseStatus") or {}).get("code", 0))
