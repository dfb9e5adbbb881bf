"""Does a live object still say what we rendered? An object that does is not written again: an idle index costs no
writes, and a hand-made change is found and undone.

The API server adds defaults and rewrites quantities ("1000m" becomes "1"), so this compares only what was rendered. A
field that is no longer rendered is found by the mark: a hash of the manifest, kept as an annotation. The mark also
tells whose change it is: where it is today's and the object differs, somebody else changed the object.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile import raw

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([numkMGTPE]|[KMGTPE]i)?")
# Exact: as binary fractions 0.009 and 9m differ, and such a limit would be written again at every pass.
_FACTORS: dict[str | None, Fraction] = {
    None: Fraction(1), "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "k": Fraction(1000),
    **{f"{unit}i": Fraction(1024**power) for power, unit in enumerate("KMGTPE", 1)},
    **{unit: Fraction(1000**power) for power, unit in enumerate("MGTPE", 2)},
}  # fmt: skip


KEYED = {"containers": "name", "initContainers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath"}
"""Lists of a pod template that the API server merges by a field of their items (x-kubernetes-list-map-keys)."""


def marked(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with the hash of itself."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    mark = {labels.RENDERED: hashlib.sha256(text.encode()).hexdigest()[:16]}
    meta = manifest["metadata"]
    return {**manifest, "metadata": {**meta, "annotations": {**meta.get("annotations", {}), **mark}}}


def changed_by_others(wanted: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    """Whether an object that differs from `wanted` was made from it: then the difference is not ours."""
    return raw.annotation(live, labels.RENDERED) == raw.annotation(wanted, labels.RENDERED)


def matches(rendered: Any, live: Any) -> bool:
    """True when everything in `rendered` is in `live` with the same value; empty values match absent ones."""
    return difference(rendered, live) is None


def difference(rendered: Any, live: Any, path: str = "") -> str | None:
    """Path of the first thing in `rendered` that is not so in `live` (spec.replicas); None when all of it is."""
    if isinstance(rendered, Mapping):
        if not isinstance(live, Mapping):
            return path if rendered else None
        parts = ((f"{path}.{key}" if path else key, value, live.get(key)) for key, value in rendered.items())
    elif isinstance(rendered, list | tuple) and (key := _key(path, rendered, live)):
        theirs = {one[key]: one for one in live or ()}
        parts = ((f"{path}[{one[key]}]", one, theirs.get(one[key])) for one in rendered)
    elif isinstance(rendered, list | tuple):
        if not rendered:
            return path if live else None
        if not isinstance(live, list | tuple) or len(live) != len(rendered):
            return path
        parts = ((f"{path}[{at}]", one, live[at]) for at, one in enumerate(rendered))
    elif rendered in ("", None):
        return None if live in ("", None) else path
    else:
        return None if rendered == live or _same_quantity(rendered, live) else path
    found = (difference(value, other, below) for below, value, other in parts)
    return next((one for one in found if one is not None), None)


def _key(path: str, rendered: Iterable[Any], live: Any) -> str:
    """By which field the items of a list are told apart, where others may add items of their own; empty: they may not.

    No apply of ours takes such an item away, so one that counted as a difference would be written for at every look.
    """
    key = KEYED.get(path.rpartition(".")[2], "")
    if not isinstance(live, list | tuple | None):
        return ""
    return key if all(isinstance(one, Mapping) and key in one for one in (*rendered, *(live or ()))) else ""


def same_rules(rendered: Any, live: Any) -> bool:
    """Whether a NetworkPolicy admits exactly who was rendered. Here what is absent means something: a selector without
    labels is everybody, so a label that only the live one has is no default but another rule."""
    return all(rendered["spec"][part] == live["spec"].get(part) for part in ("podSelector", "ingress"))


def _same_quantity(one: object, other: object) -> bool:
    if not isinstance(one, str) or not isinstance(other, str):
        return False
    first, second = _QUANTITY.fullmatch(one), _QUANTITY.fullmatch(other)
    if first is None or second is None:
        return False
    return Fraction(first[1]) * _FACTORS[first[2]] == Fraction(second[1]) * _FACTORS[second[2]]
