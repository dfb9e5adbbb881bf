"""What `kubectl apply` of a manifest would make of the spec that is there."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
Json = dict[str, Any]


def applied(live: Mapping[str, Any], manifest: Mapping[str, Any]) -> Json:
    """The spec after an apply: what the manifest says, what it never said (a field that an autoscaler writes), and
    without what it said last time and does not say any more."""
    old: Json = copy.deepcopy(dict(live.get("spec") or {}))
    before = _last_applied(live)
    return _merged(old, manifest.get("spec") or {}, before.get("spec") or {})


def _last_applied(live: Mapping[str, Any]) -> Mapping[str, Any]:
    text = (live.get("metadata", {}).get("annotations") or {}).get(LAST_APPLIED, "{}")
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}


def _merged(live: Json, wanted: Mapping[str, Any], before: Mapping[str, Any]) -> Json:
    """A three-way merge; lists are replaced as a whole."""
    out = {name: part for name, part in live.items() if name in wanted or name not in before}
    for name, part in wanted.items():
        if isinstance(part, Mapping) and isinstance(out.get(name), Mapping):
            was = before.get(name)
            out[name] = _merged(out[name], part, was if isinstance(was, Mapping) else {})
        elif part is None:
            out.pop(name, None)
        else:
            out[name] = part
    return out
