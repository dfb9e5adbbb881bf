"""A managed NetworkPolicy as the API server takes and stores it: valid for every peer there is, and written once."""

from __future__ import annotations

import pytest
from control_plane import Api, Json, path_of

from vectorindex_operator.api.v1alpha1 import VectorIndexSpec, VectorIndexStatus
from vectorindex_operator.core.observation import IndexView
from vectorindex_operator.core.state import Installation
from vectorindex_operator.manifests.networkpolicy import network_policy, shards_policy
from vectorindex_operator.reconcile.drift import matches, same_rules

METRICS = (
    {"podSelector": {"matchLabels": {}}, "namespaceSelector": {"matchLabels": None, "matchExpressions": []}},
    {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["metrics"]}]}},
    {"ipBlock": {"cidr": "10.0.0.0/8", "except": []}},
)
PEERS: list[Json] = [
    {"podSelector": {}},
    {"namespaceSelector": {}},
    {"podSelector": {"matchLabels": {"app": "website"}}},
    {"podSelector": {"matchLabels": {}}, "namespaceSelector": {"matchLabels": {"team": "shop"}}},
    {"ipBlock": {"cidr": "10.0.0.0/8"}},
    {"ipBlock": {"cidr": "10.1.2.3/8"}},
    {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "10.1.0.0/16"]}},
    {"ipBlock": {"cidr": "2001:db8::/32", "except": ["2001:db8:1::/48"]}},
    {"ipBlock": {"cidr": "::/0"}},
]


BY_CHART = Installation(
    "s", namespace="vectorindex-system", labels={"app.kubernetes.io/name": "operator"}, metrics_from=METRICS
)


@pytest.mark.parametrize("settings", [BY_CHART, Installation("s")], ids=["chart", "by hand"])
def test_what_a_user_may_ask_for_is_a_valid_policy_that_stays_as_it_was_written(
    api: Api, smallest: Json, name: str, settings: Installation
) -> None:
    smallest["spec"]["searcher"] = {"networkPolicy": {"mode": "Managed", "from": PEERS}}
    made = api.apply(smallest)
    assert made.ok, made.message
    spec = VectorIndexSpec.model_validate(made.body["spec"])
    view = IndexView("default", name, made.body["metadata"]["uid"], 1, 0.0, spec, VectorIndexStatus())
    of_all, but_shards = (
        network_policy(spec.searcher.network_policy, view, settings, but_shards=there) for there in (False, True)
    )
    for manifest in (of_all, shards_policy(view, settings), but_shards, of_all):
        answer = api.apply(manifest, "vectorindex-operator", force=True)
        assert answer.ok, answer.message
        live = api.get(path_of(manifest)).body
        assert matches(manifest, live)
        assert same_rules(manifest, live), "it would be written again at every pass"


def test_a_rule_that_somebody_added_goes_with_the_next_write(api: Api, smallest: Json, name: str) -> None:
    smallest["spec"]["searcher"] = {"networkPolicy": {"mode": "Managed", "from": [{"podSelector": {}}]}}
    made = api.apply(smallest)
    spec = VectorIndexSpec.model_validate(made.body["spec"])
    view = IndexView("default", name, made.body["metadata"]["uid"], 1, 0.0, spec, VectorIndexStatus())
    manifest = network_policy(spec.searcher.network_policy, view, Installation("s"))
    assert api.apply(manifest, "vectorindex-operator", force=True).ok
    opened = manifest | {"spec": manifest["spec"] | {"ingress": [{}]}}
    opened["spec"]["podSelector"] = {"matchLabels": {"nobody": "has"}}
    assert api.apply(opened, "somebody", force=True).ok
    assert not same_rules(manifest, api.get(path_of(manifest)).body)
    assert api.apply(manifest, "vectorindex-operator", force=True).ok
    assert same_rules(manifest, api.get(path_of(manifest)).body)
