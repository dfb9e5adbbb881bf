"""The HTTPRoute of an index, named like it: what comes through gateways goes to its front Service, and while a canary's
steps go on a share of it to the candidate's own. Who had one before is named with weight 0 for a while (core/safety/
route.py). Weights and the reason for them travel in one write.
"""

from __future__ import annotations

from vectorindex_operator.api.v1alpha1 import ParentRef
from vectorindex_operator.core.observation import IndexView
from vectorindex_operator.core.plan import EnsureRoute
from vectorindex_operator.manifests import labels
from vectorindex_operator.manifests.labels import Manifest
from vectorindex_operator.manifests.service import PORT, decision_text

API_VERSION = "gateway.networking.k8s.io/v1"
EVERYTHING = {"path": {"type": "PathPrefix", "value": "/"}}


def http_route(action: EnsureRoute, index: IndexView) -> Manifest:
    """The front Service first, always: without a candidate it is alone."""
    backends = [_backend(index.name, 100 - action.weight)]
    if action.candidate:
        backends.append(_backend(action.candidate, action.weight))
    backends += [_backend(name, 0) for name in action.over]
    annotations = {labels.DECISION: decision_text(action.decision)} if action.decision is not None else None
    marks, owner = labels.common(index.name, "route"), labels.owner(index)
    return {
        "apiVersion": API_VERSION,
        "kind": "HTTPRoute",
        "metadata": labels.metadata(index.name, index.namespace, marks, owner, annotations),
        "spec": {
            "parentRefs": [_parent(one) for one in action.route.parent_refs],
            "hostnames": list(action.route.hostnames),
            "rules": [{"matches": [EVERYTHING], "backendRefs": backends}],
        },
    }


def _backend(service: str, weight: int) -> Manifest:
    return {"group": "", "kind": "Service", "name": service, "port": PORT, "weight": weight}


def _parent(parent: ParentRef) -> Manifest:
    named: Manifest = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": parent.name}
    if parent.namespace:
        named["namespace"] = parent.namespace
    if parent.section_name:
        named["sectionName"] = parent.section_name
    return named
