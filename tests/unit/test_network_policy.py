"""Who a managed NetworkPolicy lets in, asked of the rendered object as a network would; when it is written and removed.

Whether a cluster's network enforces policies is the cluster's business: the local one does not.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from observations import SETTINGS, a_revision, actions, index, run, seen, spec

from vectorindex_operator.api.v1alpha1 import BlockedBy, NetworkPolicy, VectorIndexSpec, VectorIndexStatus
from vectorindex_operator.core.plan import DeleteNetworkPolicy, EnsureNetworkPolicy, EnsureSearchers, Plan
from vectorindex_operator.core.state import Installation
from vectorindex_operator.manifests import jobs, labels, searchers
from vectorindex_operator.manifests.networkpolicy import network_policy
from vectorindex_operator.reconcile.drift import marked, matches, same_rules
from vectorindex_operator.reconcile.execute import Executor
from vectorindex_operator.reconcile.views import owned_uids
from vectorindex_searcher.contract import ADMIN_PORT, HTTP_PORT

Json = dict[str, Any]
OPERATOR = {"app.kubernetes.io/name": "vectorindex-operator", "app.kubernetes.io/instance": "operator"}
HOME, MONITORING = "vectorindex-system", "monitoring"
PROMETHEUS = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": MONITORING}},
    "podSelector": {"matchLabels": {}, "matchExpressions": [{"key": "app", "operator": "Exists"}]},
}
INSTALLED = replace(SETTINGS, namespace=HOME, labels=OPERATOR, metrics_from=(PROMETHEUS,))
WEBSITE = {"podSelector": {"matchLabels": {"app": "website"}}}
MANAGED = {"mode": "Managed", "from": [WEBSITE]}


def policy(*peers: Json, settings: Installation = INSTALLED) -> Json:
    wanted = NetworkPolicy.model_validate({"mode": "Managed", "from": list(peers)})
    return network_policy(wanted, index(None), settings)


def admits(rendered: Json, port: int, namespace: str, pod: dict[str, str], address: str = "10.1.2.3") -> bool:
    """Whether a pod with these labels, in this namespace, may connect: NetworkPolicy as Kubernetes describes it."""

    def selects(selector: Json, having: dict[str, str]) -> bool:
        wanted = selector.get("matchLabels", {}).items() <= having.items()
        return wanted and all(e["key"] in having for e in selector.get("matchExpressions", ()))

    def is_peer(peer: Json) -> bool:
        if "ipBlock" in peer:
            inside = ip_address(address) in ip_network(peer["ipBlock"]["cidr"])
            return inside and not any(ip_address(address) in ip_network(e) for e in peer["ipBlock"].get("except", ()))
        if "namespaceSelector" in peer:
            if not selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": namespace}):
                return False
        elif namespace != rendered["metadata"]["namespace"]:
            return False
        return selects(peer.get("podSelector", {}), pod)

    rules = [r for r in rendered["spec"]["ingress"] if port in [p["port"] for p in r["ports"]]]
    return any(is_peer(peer) for rule in rules for peer in rule["from"])


def pods_of_the_index() -> dict[str, dict[str, str]]:
    """Labels of the pods that the operator makes for it."""
    of = spec()
    template = searchers.pod_template(of, index(of), "docs-1", SETTINGS)
    job = jobs._job("j", "k", 0, index(of), jobs.Task.BUILD, labels.owner(index(of)), "docs-1")
    return {"searcher": template["metadata"]["labels"], "job": job["metadata"]["labels"]}


# ---------------------------------------------------------------- who gets in


def test_queries_come_from_whom_the_user_named_and_nobody_else() -> None:
    rendered = policy(WEBSITE)
    assert admits(rendered, HTTP_PORT, "team-a", {"app": "website", "x": "y"})
    for namespace, pod in (("team-a", {"app": "other"}), ("team-b", {"app": "website"}), (HOME, OPERATOR)):
        assert not admits(rendered, HTTP_PORT, namespace, pod)
    for stranger in pods_of_the_index().values():
        assert not admits(rendered, HTTP_PORT, "team-a", stranger)


def test_the_admin_port_is_for_the_operator_metrics_and_the_indexs_own_pods() -> None:
    rendered = policy(WEBSITE)
    assert admits(rendered, ADMIN_PORT, HOME, OPERATOR | {"pod-template-hash": "1"})
    assert admits(rendered, ADMIN_PORT, MONITORING, {"app": "prometheus"})
    for own in pods_of_the_index().values():
        assert admits(rendered, ADMIN_PORT, "team-a", own)
        assert not admits(rendered, ADMIN_PORT, "team-b", own), "labels of another namespace prove nothing"
        assert not admits(rendered, ADMIN_PORT, "team-a", own | {labels.INDEX: "another"})
    for namespace, pod in (
        ("team-a", {"app": "website"}), ("team-a", OPERATOR), (HOME, {"app": "another"}), (MONITORING, {}),
    ):  # fmt: skip
        assert not admits(rendered, ADMIN_PORT, namespace, pod)


def test_it_is_about_every_pod_of_the_index_and_only_about_what_comes_in() -> None:
    rendered = policy(WEBSITE)
    for own in pods_of_the_index().values():
        assert rendered["spec"]["podSelector"]["matchLabels"].items() <= own.items()
        other = own | {labels.INDEX: "another"}
        assert not rendered["spec"]["podSelector"]["matchLabels"].items() <= other.items()
    assert rendered["spec"]["policyTypes"] == ["Ingress"]
    assert "egress" not in rendered["spec"]


@pytest.mark.parametrize(
    ("peer", "inside", "outside"),
    [
        ({"namespaceSelector": {}}, ("anywhere", {}), None),
        ({"podSelector": {}}, ("team-a", {}), ("team-b", {})),
        (
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}} | WEBSITE,
            ("shop", {"app": "website"}),
            ("shop", {"app": "other"}),
        ),
    ],
)
def test_peers_mean_what_they_mean_in_kubernetes(peer: Json, inside: Any, outside: Any) -> None:
    rendered = policy(peer)
    assert admits(rendered, HTTP_PORT, *inside)
    assert outside is None or not admits(rendered, HTTP_PORT, *outside)
    assert not admits(rendered, ADMIN_PORT, *inside), "who may query has no business at the admin port"


def test_a_range_of_addresses_leaves_out_what_is_excepted() -> None:
    rendered = policy({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.9.0.0/16"]}})
    for address, there in (("10.1.2.3", True), ("10.9.1.1", False), ("192.168.0.1", False)):
        assert admits(rendered, HTTP_PORT, "elsewhere", {}, address) is there
    assert policy({"ipBlock": {"cidr": "10.0.0.0/8"}})["spec"]["ingress"][0]["from"] == [
        {"ipBlock": {"cidr": "10.0.0.0/8"}}
    ]


def test_an_operator_that_does_not_know_its_labels_is_let_in_by_its_namespace() -> None:
    rendered = policy(WEBSITE, settings=replace(SETTINGS, namespace=HOME))
    assert admits(rendered, ADMIN_PORT, HOME, {"any": "pod"})
    assert not admits(rendered, ADMIN_PORT, MONITORING, {"app": "prometheus"})
    assert not admits(rendered, ADMIN_PORT, "team-a", {})


# ---------------------------------------------------------------- when it is written


PLAIN, WANTED = spec(), spec(searcher={"networkPolicy": MANAGED})
STABLE = a_revision(PLAIN, "Stable")


def stored(settings: Installation = INSTALLED, uid: str = "uid-docs", **changes: Any) -> Json:
    """The policy as the cluster has it."""
    live = policy(WEBSITE, settings=settings)
    (owner,) = live["metadata"]["ownerReferences"]
    live["metadata"] = live["metadata"] | {"uid": "uid-policy", "ownerReferences": [owner | {"uid": uid}]}
    return live | {"spec": live["spec"] | changes}


def looked_at(of: VectorIndexSpec | None, *live: Json, **fields: Any) -> Any:
    obs = seen(of or PLAIN, STABLE, traffic=STABLE)
    objects = {("NetworkPolicy", one["metadata"]["name"]): one for one in live}
    view = replace(obs.index, spec=of, **fields)
    mine = owned_uids(list(live), obs.index.uid)
    return replace(obs, index=view, objects={**obs.objects, **objects}, network_policies=mine)


def test_it_is_there_before_the_pods_that_it_is_for() -> None:
    plan = run(looked_at(WANTED))
    kinds = [type(one) for one in plan.actions]
    assert kinds.index(EnsureNetworkPolicy) < kinds.index(EnsureSearchers)


def test_it_goes_when_nobody_wants_it_and_what_is_not_ours_stays() -> None:
    assert [one for one in run(looked_at(PLAIN)).actions if isinstance(one, EnsureNetworkPolicy)] == []
    assert actions(run(looked_at(PLAIN)), DeleteNetworkPolicy) == []
    assert actions(run(looked_at(PLAIN, stored())), DeleteNetworkPolicy) == [
        DeleteNetworkPolicy("docs-pods", "uid-policy")
    ]
    assert actions(run(looked_at(PLAIN, stored(uid="of-somebody-else"))), DeleteNetworkPolicy) == []


def test_a_spec_that_cannot_be_read_opens_nothing() -> None:
    status = VectorIndexStatus.model_validate(run(looked_at(WANTED)).status.wire())
    plan = run(looked_at(None, stored(), status=status, spec_error="spec.history: many"))
    assert actions(plan, DeleteNetworkPolicy) == []
    assert [one.policy.mode for one in actions(plan, EnsureNetworkPolicy)] == ["Managed"]


class Cluster:
    """Notes what is written."""

    def __init__(self) -> None:
        self.writes: list[tuple[str, str]] = []

    def get(self, kind: str, namespace: str, name: str) -> None:
        return None

    def take_over(self, live: Any) -> None:
        pass

    def apply(self, manifest: Any, *, force: bool = True) -> Any:
        self.writes.append(("apply" if force else "create", manifest["metadata"]["name"]))
        return manifest

    def delete(self, kind: str, namespace: str, name: str, uid: str, version: str = "") -> None:
        self.writes.append(("delete", f"{kind}/{name}/{uid}"))


def written(action: Any, *live: Json) -> list[tuple[str, str]]:
    return run_action(action, *live)[0]


def run_action(action: Any, *live: Json) -> tuple[list[tuple[str, str]], list[BlockedBy]]:
    """The writes and the refusals of one action; what is there was written by us."""
    cluster = Cluster()
    mark = marked(policy(WEBSITE))["metadata"]["annotations"]
    known = [one | {"metadata": one["metadata"] | {"annotations": mark}} for one in live]
    executor = Executor(cluster, None, INSTALLED, looked_at(WANTED, *known))  # type: ignore[arg-type]
    executor.run(Plan((action,), (), VectorIndexStatus(), 1.0))
    return cluster.writes, executor.refusals


ENSURE = EnsureNetworkPolicy(WANTED.searcher.network_policy)


def test_it_is_written_once_and_then_only_when_it_differs() -> None:
    assert written(ENSURE) == [("create", "docs-pods")]
    assert written(ENSURE, stored()) == []
    assert written(DeleteNetworkPolicy("docs-pods", "u"), stored()) == [("delete", "NetworkPolicy/docs-pods/u")]
    writes, refusals = run_action(ENSURE, stored(uid="of-somebody-else"))
    assert (writes, [(row.rule, row.subject) for row in refusals]) == (
        [],
        [("NameConflict", "NetworkPolicy/docs-pods")],
    )


@pytest.mark.parametrize(
    "peers",
    [
        [WEBSITE, {"namespaceSelector": {}}],
        [WEBSITE | {"namespaceSelector": {}}],
        [{"podSelector": {"matchLabels": {"app": "website", "tier": "front"}}}],
        [{"podSelector": {}}],
    ],
)
def test_every_difference_in_who_gets_in_is_undone(peers: list[Json]) -> None:
    """Also one that adds a field: a namespaceSelector beside a podSelector opens the port to all namespaces."""
    user, admin = stored()["spec"]["ingress"]
    assert written(ENSURE, stored(ingress=[user | {"from": peers}, admin])) == [("apply", "docs-pods")]
    assert written(ENSURE, stored(ingress=[user, admin, {}])) == [("apply", "docs-pods")]
    chosen = stored()["spec"]["podSelector"]["matchLabels"] | {"and": "more"}
    assert written(ENSURE, stored(podSelector={"matchLabels": chosen})) == [("apply", "docs-pods")]


def test_what_is_rendered_twice_is_the_same() -> None:
    assert matches(policy(WEBSITE), policy(WEBSITE))
    assert same_rules(policy(WEBSITE), policy(WEBSITE))
    assert not same_rules(policy(WEBSITE), policy({"podSelector": {}}))
