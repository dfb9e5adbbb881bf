"""The NetworkPolicy of the pods of one index: searchers, and Jobs, whose metrics are on the admin port, too. Pods of
shards have another, since policies add up: what lets users in must not be about them.

Ingress only: what the pods fetch, and from where, is not the operator's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vectorindex_operator.api.v1alpha1 import LabelSelector, NetworkPeer, NetworkPolicy
from vectorindex_operator.core.observation import IndexView
from vectorindex_operator.core.safety.network import policy_of_shards
from vectorindex_operator.core.state import Installation
from vectorindex_operator.manifests import labels
from vectorindex_operator.manifests.labels import Manifest
from vectorindex_searcher.contract import ADMIN_PORT, HTTP_PORT

NAMESPACE = "kubernetes.io/metadata.name"
"""The label with a namespace's own name, which the API server sets and nobody can change."""


def network_policy(
    policy: NetworkPolicy, index: IndexView, settings: Installation, *, but_shards: bool = False
) -> Manifest:
    """Queries from `policy.from_`; the admin port for the operator, who may scrape, and all pods of the index.
    `but_shards`: it is not about pods of shards, for which the other policy is there.

    Ports by number: a Job's pod has no port named `admin`. The kubelet's probes are never kept out.
    """
    pods = _all(index)
    chosen: Manifest = {"matchLabels": pods}
    if but_shards:
        chosen["matchExpressions"] = [{"key": labels.COMPONENT, "operator": "NotIn", "values": [labels.SHARD_PODS]}]
    ingress = [
        {"ports": [_port(HTTP_PORT)], "from": [_peer(peer) for peer in policy.from_]},
        {"ports": [_port(ADMIN_PORT)], "from": [*_outside(settings), _pods(pods)]},
    ]
    return _policy(f"{index.name}-pods", index, chosen, ingress)


def shards_policy(index: IndexView, settings: Installation) -> Manifest:
    """Of pods of shards: both ports from routers of the index, the admin port for the operator and who may scrape."""
    pods = _all(index)
    chosen = {"matchLabels": pods | {labels.COMPONENT: labels.SHARD_PODS}}
    routers = _pods(pods | {labels.COMPONENT: labels.SEARCHER})
    ingress = [
        {"ports": [_port(HTTP_PORT)], "from": [routers]},
        {"ports": [_port(ADMIN_PORT)], "from": [*_outside(settings), routers]},
    ]
    return _policy(policy_of_shards(index.name), index, chosen, ingress)


def _policy(name: str, index: IndexView, chosen: Manifest, ingress: list[Manifest]) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": labels.metadata(name, index.namespace, labels.common(index.name, "network"), labels.owner(index)),
        "spec": {"podSelector": chosen, "policyTypes": ["Ingress"], "ingress": ingress},
    }


def _all(index: IndexView) -> dict[str, str]:
    """Labels of all pods of the index."""
    return {labels.INDEX: index.name, labels.MANAGED_BY: labels.OPERATOR}


def _outside(settings: Installation) -> list[Manifest]:
    """Who has business at the admin port besides pods of the index."""
    return [_operator(settings), *(_without_empty(peer) for peer in settings.metrics_from)]


def _port(number: int) -> Manifest:
    return {"protocol": "TCP", "port": number}


def _operator(settings: Installation) -> Manifest:
    home = {"namespaceSelector": {"matchLabels": {NAMESPACE: settings.namespace}}}
    return home | (_pods(settings.labels) if settings.labels else {})


def _pods(match: Mapping[str, str]) -> Manifest:
    return {"podSelector": {"matchLabels": dict(match)}}


def _peer(peer: NetworkPeer) -> Manifest:
    rendered: Manifest = {}
    if peer.pod_selector is not None:
        rendered["podSelector"] = _selector(peer.pod_selector)
    if peer.namespace_selector is not None:
        rendered["namespaceSelector"] = _selector(peer.namespace_selector)
    if peer.ip_block is not None:
        rendered["ipBlock"] = {"cidr": peer.ip_block.cidr}
        if peer.ip_block.except_:
            rendered["ipBlock"]["except"] = list(peer.ip_block.except_)
    return rendered


def _selector(selector: LabelSelector) -> Manifest:
    return {"matchLabels": dict(selector.match_labels)} if selector.match_labels else {}


def _without_empty(peer: Mapping[str, Any]) -> Manifest:
    """A peer as the API server stores it: an empty selector means everything and stays, what is empty in it goes."""
    return {
        kind: {key: value for key, value in part.items() if value not in ({}, [], None)}
        for kind, part in peer.items()
        if part is not None
    }
