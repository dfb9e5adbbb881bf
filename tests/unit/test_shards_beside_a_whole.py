"""What pods of a revision in shards are told and given while the spec asks for an index in one part, and who reaches
them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from observations import SETTINGS, a_revision, actions, run, seen, spec

from vectorindex_operator.api.v1alpha1 import Live, Searcher, VectorIndexSpec
from vectorindex_operator.core.observation import Observation
from vectorindex_operator.core.plan import DeleteNetworkPolicy, EnsureNetworkPolicy, EnsureSearchers
from vectorindex_operator.manifests import labels
from vectorindex_operator.manifests.render import render
from vectorindex_searcher.contract import (
    CACHE_BYTES_ENV,
    FRESH_ENV,
    LIVE_QUERIES_ENV,
    PROCESSES_ENV,
    SOURCE_ENV,
    TASK_ENV,
    Partial,
    RouteTask,
)

OF = spec(index={"shards": 3})
SERVING = a_revision(OF, "Stable")
BEFORE = Live.of(OF)
MANAGED = {"networkPolicy": {"mode": "Managed", "from": [{"podSelector": {}}]}}
ONNX = {"encoder": {"textColumn": "title", "onnx": {"s3": {"bucket": "models"}, "sha256": "a" * 64}}}
AT = {"url": "https://e.example/v1/embeddings", "model": "m"}
RERANK = {
    "embedding": ONNX,
    "searcher": {"rerank": {"onnx": {"s3": {"bucket": "models"}, "sha256": "b" * 64}, "textColumn": "title"}},
}

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


# ---------------------------------------------------------------- what they are told


LIVE: dict[str, dict[str, Any]] = {
    "searcher.replicas": {"searcher": {"replicas": 5}},
    "searcher.resources": {"searcher": {"resources": {"requests": {"cpu": "4"}}}},
    "searcher.router_resources": {},  # refused without shards
    "searcher.partial": {},  # likewise
    "searcher.memory_per_shard": {},  # likewise
    "searcher.min_score": {"searcher": {"minScore": 0.5}},
    "searcher.auth": {"searcher": {"auth": {"secretRef": {"name": "t"}, "policies": "Required"}}},
    "searcher.tls": {"searcher": {"tls": {"secretRef": {"name": "c"}}}},
    "searcher.cache": {"searcher": {"cache": {"claimName": "kept", "limit": "9Gi"}}},
    "searcher.params": {"searcher": {"params": {"allow": ["nprobe"], "max": {"nprobe": 9}}}},
    "searcher.network_policy": {"searcher": {"networkPolicy": {"mode": "Managed"}}},
    "searcher.service": {"searcher": {"service": {"annotations": {"a": "b"}}}},
    "searcher.pod": {"searcher": {"pod": {"serviceAccountName": "other"}}},
    "searcher.rerank": RERANK,
    "source": {"source": {"s3": {"secretRef": {"name": "rotated"}}}},
    "artifacts": {"artifacts": {"s3": {"secretRef": {"name": "rotated"}}}},
    "live_queries": {"gate": {"queries": {"live": {}}}},
    "encoder": {"embedding": ONNX},
    "encoder_url": {"embedding": {"model": "m", "encoder": {"textColumn": "title", "endpoint": AT}}},
    "encoder_secret": {
        "embedding": {
            "model": "m",
            "encoder": {"textColumn": "title", "endpoint": {**AT, "tokenSecretRef": {"name": "e"}}},
        }
    },
    "reranker": RERANK,
    "fresh": {"source": {"poll": "1m", "fresh": {"prefix": "fresh/"}}},
}
"""An edit of each live setting of an index in one part, while shards serve."""


def test_every_live_setting_is_tried_with_shards() -> None:
    fields = Live.model_fields.keys() - {"searcher"} | {f"searcher.{name}" for name in Searcher.model_fields}
    assert set(LIVE) == fields


def edited(of: VectorIndexSpec, before: Live | None = BEFORE, *, shards: bool = True) -> Observation:
    """A spec while a revision in shards serves; `before`: what was live. shards False: none is there any more."""
    obs = seen(of, *([SERVING] if shards else []), traffic=SERVING if shards else None)
    return replace(obs, index=replace(obs.index, status=obs.index.status.model_copy(update={"live": before})))


def pods(obs: Observation) -> list[dict[str, Any]]:
    """The pods of each Deployment of the revision in shards, the routers' last."""
    (ensure,) = actions(run(obs), EnsureSearchers)
    made = [one for one in render(ensure, obs, obs.index.spec, SETTINGS) if one["kind"] == "Deployment"]
    found = [one["spec"]["template"]["spec"] for one in made]
    assert [one["containers"][0]["args"][0] for one in found] == ["serve", "serve", "serve", "route"]
    return found


def env_of(pod: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in pod["containers"][0]["env"]}


@pytest.mark.parametrize("field", LIVE)
def test_pods_of_shards_start_whatever_an_index_in_one_part_is_told(field: str) -> None:
    *_, router = found = pods(edited(spec(**LIVE[field])))
    for pod in found:
        env = env_of(pod)
        assert env.keys().isdisjoint({LIVE_QUERIES_ENV, FRESH_ENV, SOURCE_ENV})
        assert json.loads(env[TASK_ENV]).keys().isdisjoint({"encoder", "rerank"})
    assert env_of(router).keys().isdisjoint({PROCESSES_ENV, CACHE_BYTES_ENV})
    assert {"name": "cache", "emptyDir": {}} in router["volumes"]


KEPT = {"auth": {"secretRef": {"name": "before"}}}
NEW: dict[str, Any] = {"auth": {"secretRef": {"name": "tenants"}, "policies": "Required"}}


def auth_of(obs: Observation) -> Any:
    live = run(obs).status.live
    assert live is not None
    return live.searcher.auth


def told_of_policies(obs: Observation) -> list[bool]:
    """Of each Deployment's pods."""
    return ["--policies" in pod["containers"][0]["args"] for pod in pods(obs)]


@pytest.mark.parametrize("shards", [None, 3])
def test_policies_hold_at_once_for_shards_and_routers(shards: int | None) -> None:
    """Whatever the spec says of the next revision: a router before shards that know none would be all that stands
    between a tenant and all rows."""
    index = {"index": {"shards": shards}} if shards else {}
    before, of = Live.of(spec(index={"shards": 3}, searcher=KEPT)), spec(searcher=NEW, **index)
    assert auth_of(edited(of, before)) == of.searcher.auth
    assert told_of_policies(edited(of, before)) == [True] * 4
    without = spec(searcher=KEPT, **index)
    assert told_of_policies(edited(without, Live.of(of))) == [False] * 4


def test_routers_keep_what_is_theirs_until_they_go() -> None:
    given = {"routerResources": {"requests": {"cpu": "3"}}, "partial": "Allow"}
    before = Live.of(spec(index={"shards": 3}, searcher=given))
    live = run(edited(spec(), before)).status.live
    assert live is not None
    assert live.searcher.router_resources == before.searcher.router_resources
    assert live.searcher.partial is Partial.ALLOW
    gone = run(edited(spec(), before, shards=False)).status.live
    assert gone is not None
    assert (gone.searcher.router_resources, gone.searcher.partial) == (None, None)


@pytest.mark.parametrize("given", [None, Partial.REFUSE, Partial.ALLOW])
def test_an_edit_of_partial_is_told_to_the_routers_of_what_serves_at_once(given: Partial | None) -> None:
    edit = spec(index={"shards": 3}, searcher={"partial": given} if given else {})
    *_, router = pods(edited(edit, Live.of(OF)))
    told = RouteTask.model_validate_json(env_of(router)[TASK_ENV])
    assert told.partial is (given or Partial.REFUSE)


def test_nothing_but_routers_start_anew_for_partial() -> None:
    plain, allowed = (pods(edited(spec(index={"shards": 3}, searcher=one))) for one in ({}, {"partial": "Allow"}))
    assert [before == after for before, after in zip(plain, allowed, strict=True)] == [True, True, True, False]


def test_routers_have_no_account() -> None:
    """A cloud identity is bound to it, and opens the store."""
    of = spec(index={"shards": 3}, searcher={"pod": {"serviceAccountName": "index-reader"}})
    found = pods(seen(of, a_revision(of, "Surging")))
    assert [pod.get("serviceAccountName") for pod in found] == ["index-reader"] * 3 + [None]
    assert not any(pod["automountServiceAccountToken"] for pod in found)
