"""The Service that users query, named like the VectorIndex. Selector and decision travel in one write. Beside it, while
a canary has a share of what comes through a gateway, a Service of the candidate's own.
"""

from __future__ import annotations

import json

from vectorindex_operator.api.timestamps import MOST_UNIX
from vectorindex_operator.api.v1alpha1 import GROUP, FrontService
from vectorindex_operator.core.observation import IndexView
from vectorindex_operator.core.traffic import Decision, DecisionKind, PointDecision
from vectorindex_operator.manifests import labels
from vectorindex_operator.manifests.labels import Manifest
from vectorindex_searcher.contract import ServingPoint

PORT = 80


def service(decision: Decision, resource_version: str, index: IndexView, *, tls: bool) -> Manifest:
    """The front Service pointing at `decision.to_revision`. With resourceVersion a stale write is refused.

    `tls`: whether the target speaks TLS. Port number and name stay, so that nothing which names them breaks; meshes and
    ingress controllers read appProtocol.
    """
    port = _port()
    if tls:
        port["appProtocol"] = "https"
    annotations = {labels.DECISION: decision_text(decision)}
    meta = labels.metadata(
        index.name, index.namespace, labels.common(index.name, "front"), labels.owner(index), annotations
    )
    if resource_version:
        meta["resourceVersion"] = resource_version
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {
            "type": "ClusterIP",
            "selector": labels.selector(decision.to_revision),
            "ports": [port],
        },
    }


_FIELDS = ("ipFamilyPolicy", "trafficDistribution")


def as_asked(wanted: FrontService | None, index: IndexView, before: str) -> Manifest:
    """What the user asks of the front Service besides who is behind it, as a merge patch; null takes away what was
    asked for `before` (the annotation of then) and is not any more. Never part of the write that moves the traffic: an
    API server that refuses one of these must not refuse a rollback.
    """
    asked = wanted or FrontService()
    now, annotations, then = asked.wire(), asked.annotations or {}, _asked_before(before)
    spec: Manifest = {field: now[field] for field in _FIELDS if field in now}
    if "trafficDistribution" in then:  # a Service has a policy of families in any case: that stays
        spec = {"trafficDistribution": None} | spec
    names = sorted((*annotations, *spec.keys() & now.keys()))
    patch: Manifest = dict.fromkeys(then.difference(_FIELDS))
    patch |= annotations | {labels.ASKED: json.dumps(names) if names else None}
    meta = {"name": index.name, "namespace": index.namespace, "annotations": patch}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


def _asked_before(note: str) -> frozenset[str]:
    """Nothing where somebody garbled it: what stands there then stays."""
    try:
        names = json.loads(note or "[]")
    except (ValueError, RecursionError):
        return frozenset()
    known = names if isinstance(names, list) else []
    return frozenset(one for one in known if isinstance(one, str) and not one.startswith(f"{GROUP}/"))


def step_service(revision: str, index: IndexView) -> Manifest:
    """The Service of one revision, named like it: a gateway sends a candidate its share through this."""
    marks = labels.common(index.name, labels.STEP, revision)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": labels.metadata(revision, index.namespace, marks, labels.owner(index)),
        "spec": {"type": "ClusterIP", "selector": labels.selector(revision), "ports": [_port()]},
    }


def _port() -> Manifest:
    return {"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}


def decision_text(decision: Decision) -> str:
    """The annotation that `read_decision` reads."""
    return json.dumps(_wire(decision), sort_keys=True)


def _wire(decision: Decision) -> dict[str, object]:
    wire: dict[str, object] = {
        "kind": decision.kind.value,
        "from": decision.from_revision,
        "to": decision.to_revision,
        "rule": decision.rule,
        "reason": decision.reason,
        "message": decision.message,
        "at": decision.at,
    }
    if decision.nonce:
        wire["nonce"] = decision.nonce
    if decision.serial:
        wire["serial"] = decision.serial
    if decision.point is not None:
        point = decision.point
        wire["point"] = {"point": point.point.value, "at": point.at, "message": point.message, "nonce": point.nonce}
    return wire


def read_decision(text: str) -> Decision | None:
    """The decision in the annotation; None when somebody garbled it (the selector still says who has the traffic).

    Bounded: what stands here goes on into conditions and Events.
    """
    try:
        raw = json.loads(text)
        at, serial = float(raw["at"]), int(raw.get("serial", 0))
        if not 0 <= at < MOST_UNIX or not 0 <= serial < 2**53:  # NaN too
            return None
        return Decision(
            kind=DecisionKind(raw["kind"]),
            from_revision=str(raw["from"])[:253],
            to_revision=str(raw["to"])[:253],
            rule=str(raw["rule"])[:63],
            reason=str(raw["reason"])[:63],
            message=str(raw["message"])[:1024],
            at=at,
            nonce=str(raw.get("nonce", ""))[:256],
            serial=serial,
            point=_read_point(raw.get("point")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _read_point(raw: object) -> PointDecision | None:
    """None also where it cannot be read: who has the traffic must not depend on it."""
    try:
        if not isinstance(raw, dict) or not 0 <= (at := float(raw["at"])) < MOST_UNIX:
            return None
        point, message = ServingPoint(raw["point"]), str(raw["message"])[:1024]
        return PointDecision(point, at, message, str(raw.get("nonce", ""))[:256])
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
