"""Who reaches the pods of shards, beside those of an index in one part."""

from __future__ import annotations

from observations import SETTINGS, a_revision, actions, run, seen, spec

from vectorindex_operator.core.plan import DeleteNetworkPolicy, EnsureNetworkPolicy
from vectorindex_operator.manifests import labels
from vectorindex_operator.manifests.render import render

MANAGED = {"networkPolicy": {"mode": "Managed", "from": [{"podSelector": {}}]}}

# ---------------------------------------------------------------- who reaches them


def test_a_policy_is_about_shards_until_their_own_is_there_and_as_long_as_it_is() -> None:
    of = spec(index={"shards": 3}, searcher=MANAGED)
    ensure = EnsureNetworkPolicy(of.searcher.network_policy, shards=True)
    shard, router = ({labels.COMPONENT: one} for one in (labels.SHARD_PODS, labels.SEARCHER))

    def excluded(policies: dict[str, str]) -> list[list[str]]:
        own, other = render(ensure, seen(of, network_policies=policies), of, SETTINGS)
        queries = own["spec"]["ingress"][0]
        assert own["spec"]["podSelector"]["matchLabels"].items() >= shard.items()
        assert [peer["podSelector"]["matchLabels"].items() >= router.items() for peer in queries["from"]] == [True]
        return [one["values"] for one in other["spec"]["podSelector"].get("matchExpressions", ())]

    assert excluded({"docs-pods": "u"}) == []
    assert excluded({"docs-pods": "u", "docs-shards": "v"}) == [[labels.SHARD_PODS]]


def test_the_policy_of_shards_goes_with_the_last_of_them() -> None:
    there = {"docs-pods": "u", "docs-shards": "v"}
    whole, parts = spec(searcher=MANAGED), spec(searcher=MANAGED, index={"shards": 3})
    plan = run(seen(whole, network_policies=there))
    assert actions(plan, DeleteNetworkPolicy) == [DeleteNetworkPolicy("docs-shards", "v")]
    assert actions(run(seen(parts, a_revision(parts, "Pending"), network_policies=there)), DeleteNetworkPolicy) == []
    assert len(actions(run(seen(spec(), network_policies=there)), DeleteNetworkPolicy)) == 2
