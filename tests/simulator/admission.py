"""What an API server makes of an object that it is sent: fields applied, defaults, quantities, mutating webhooks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

Json = dict[str, Any]
KEYED = {"containers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath", "ownerReferences": "uid"}
"""Lists that are merged by a field of their items (x-kubernetes-list-map-keys); others are replaced."""
_UNITS = {"m": Fraction(1, 1000), "": Fraction(1), "k": Fraction(1000), "Ki": Fraction(2**10), "Mi": Fraction(2**20),
          "Gi": Fraction(2**30), "Ti": Fraction(2**40)}  # fmt: skip
_QUANTITY = re.compile(r"([0-9.]+)(m|k|[KMGT]i)?")


def applied(live: Any, before: Any, wanted: Any, field: str = "", others: Sequence[Any] = ()) -> Any:
    """Server-side apply by one manager: what it sent `before` and no longer sends goes, unless one of the `others` has
    sent it too; what it never sent stays."""
    if isinstance(wanted, Mapping):
        old = before if isinstance(before, Mapping) else {}
        out: Json = {}
        for key, value in (live if isinstance(live, Mapping) else {}).items():
            held = [one[key] for one in others if isinstance(one, Mapping) and key in one]
            if key in wanted or key not in old:
                out[key] = value
            elif held:
                nothing: Any = {} if isinstance(value, Mapping) else [] if key in KEYED else value
                out[key] = applied(value, old[key], nothing, key, held)
        for key, value in wanted.items():
            held = [one[key] for one in others if isinstance(one, Mapping) and key in one]
            out[key] = applied(out.get(key), old.get(key), value, key, held)
        return out
    key = KEYED.get(field)
    if isinstance(wanted, list) and key and all(isinstance(one, Mapping) and key in one for one in wanted):
        had, mine, sent = _by(live, key), _by(before, key), _by(wanted, key)
        theirs = [_by(one, key) for one in others]
        held = {name: [rows[name] for rows in theirs if name in rows] for name in (*had, *sent)}
        kept = [name for name in had if name in sent or name not in mine or held[name]]
        names = [*kept, *(name for name in sent if name not in had)]
        touched = sent.keys() | mine.keys()
        return [
            applied(had.get(n), mine.get(n), sent.get(n, {}), "", held[n]) if n in touched else had[n] for n in names
        ]
    return wanted


def left_of(theirs: Any, wanted: Any, field: str = "") -> Any:
    """What another manager still owns of what it sent, once `wanted` was forced on it; None: nothing."""
    if isinstance(theirs, Mapping) and isinstance(wanted, Mapping):
        left = {key: left_of(value, wanted[key], key) if key in wanted else value for key, value in theirs.items()}
        return {key: value for key, value in left.items() if value is not None}
    key = KEYED.get(field)
    if isinstance(theirs, list) and isinstance(wanted, list) and key:
        forced = _by(wanted, key)
        return [left_of(one, forced[one[key]]) if one[key] in forced else one for one in theirs]
    return theirs if theirs == wanted else None


def _by(rows: Any, key: str) -> dict[Any, Json]:
    return {one[key]: one for one in rows} if isinstance(rows, list) else {}


def admitted(new: Json, webhooks: tuple[Callable[[Json], Json], ...] = ()) -> Json:
    """With defaults, and as webhooks would have it."""
    for webhook in webhooks:
        new = webhook(new)
    fill = _DEFAULTS.get(new["kind"])
    return {**new, "spec": fill(new["spec"])} if fill is not None and isinstance(new.get("spec"), dict) else new


def _filled(given: Mapping[str, Any], **defaults: Any) -> Json:
    return {**defaults, **given}


def _deployment(spec: Json) -> Json:
    return _filled({**spec, "template": _template(spec["template"])}, replicas=1, progressDeadlineSeconds=600,
                   minReadySeconds=0)  # fmt: skip


def _job(spec: Json) -> Json:
    return _filled({**spec, "template": _template(spec["template"])}, completions=1, parallelism=1, suspend=False,
                   completionMode="NonIndexed", podReplacementPolicy="Failed")  # fmt: skip


def _service(spec: Json) -> Json:
    ports = [_filled(port, protocol="TCP") for port in spec.get("ports", ())]
    return _filled({**spec, "ports": ports}, clusterIP="10.96.0.9", clusterIPs=["10.96.0.9"], sessionAffinity="None",
                   ipFamilies=["IPv4"], ipFamilyPolicy="SingleStack", internalTrafficPolicy="Cluster")  # fmt: skip


def _template(template: Json) -> Json:
    pod = template.get("spec")
    if not pod:
        return template
    pod = {**pod, "containers": [_container(one) for one in pod["containers"]]}
    return {**template, "spec": _filled(pod, restartPolicy="Always", dnsPolicy="ClusterFirst", schedulerName="default")}


def _container(one: Json) -> Json:
    one = _filled(one, imagePullPolicy="IfNotPresent", terminationMessagePath="/dev/termination-log")
    if "resources" in one:
        one["resources"] = {kind: {k: canonical(v) for k, v in given.items()} if isinstance(given, Mapping) else given
                            for kind, given in one["resources"].items()}  # fmt: skip
    for probe in ("readinessProbe", "livenessProbe"):
        if probe in one:
            one[probe] = _filled(one[probe], successThreshold=1)
    return one


def canonical(quantity: Any) -> Any:
    """ "1024Mi" is stored as "1Gi", and "1000m" as "1"."""
    found = _QUANTITY.fullmatch(quantity) if isinstance(quantity, str) else None
    if found is None:
        return quantity
    value = Fraction(found[1]) * _UNITS[found[2] or ""]
    binary = (found[2] or "").endswith("i")
    for unit in ("Ti", "Gi", "Mi", "Ki") if binary else ("k", ""):
        if value >= _UNITS[unit] and value % _UNITS[unit] == 0:
            return f"{value / _UNITS[unit]}{unit}"
    return str(value) if value.denominator == 1 else f"{value * 1000}m"


_DEFAULTS: Mapping[str, Callable[[Json], Json]] = {"Deployment": _deployment, "Job": _job, "Service": _service}


# ---------------------------------------------------------------- webhooks


def marking(new: Json) -> Json:
    """A policy engine marks whatever is made."""
    meta = new["metadata"]
    marks = {**meta.get("annotations", {}), "policy.example/checked": "true"}
    return {**new, "metadata": {**meta, "annotations": marks, "labels": {**meta.get("labels", {}), "team": "search"}}}


def injecting(new: Json) -> Json:
    """A mesh puts its proxy into pods, and a variable into their containers."""
    if new["kind"] != "Pod":
        return new
    variable = {"name": "INJECTED", "value": "1"}
    own = [{**one, "env": [*one["env"], variable]} for one in new["spec"]["containers"] if one["name"] != "proxy"]
    return {**new, "spec": {**new["spec"], "containers": [*own, {"name": "proxy", "image": "proxy:1", "env": []}]}}


WEBHOOKS = (marking, injecting)


class Stubborn:
    """A webhook that has another mind about what the operator writes, each time: a mirror of the registry for all
    images, another number for each budget, endpoints that are published whether they are ready or not."""

    def __init__(self) -> None:
        self._budgets = 0

    def __call__(self, new: Json) -> Json:
        spec = new.get("spec", {})
        if new["kind"] == "PodDisruptionBudget":
            self._budgets += 1
            return {**new, "spec": {**spec, "maxUnavailable": 2 + self._budgets % 2}}
        if new["kind"] == "Service":
            return {**new, "spec": {**spec, "publishNotReadyAddresses": True}}
        if new["kind"] != "Deployment" or "spec" not in spec["template"]:
            return new
        pod = spec["template"]["spec"]
        mirrored = [{**one, "image": f"mirror/{one['image'].removeprefix('mirror/')}"} for one in pod["containers"]]
        return {**new, "spec": {**spec, "template": {**spec["template"], "spec": {**pod, "containers": mirrored}}}}
