"""The pods of a revision in shards: searchers of each shard behind a headless Service, and routers that ask them all.

The routers are what users reach, so they have the Deployment that is named like the revision, and the labels that the
front Service selects: a switch and a rollback are the same one write as of any revision.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from vectorindex_operator.api.v1alpha1 import Resources, RevisionSpec
from vectorindex_operator.core.internal_keys import InternalKeys
from vectorindex_operator.core.observation import IndexView, RevisionView
from vectorindex_operator.core.plan import EnsureSearchers
from vectorindex_operator.manifests import labels, searchers
from vectorindex_operator.manifests.labels import Manifest
from vectorindex_operator.manifests.podspec import TOKENS_DIR, resources, task_env
from vectorindex_searcher.contract import (
    ADMIN_PORT,
    CACHE_BYTES_ENV,
    HTTP_PORT,
    PROCESSES_ENV,
    SHARD_TOKEN_ENV,
    Partial,
    RouteTask,
)

ROUTER_RESOURCES = Resources(requests={"cpu": "500m", "memory": "640Mi"}, limits={"memory": "640Mi"})
"""A router is one process without an index; the memory is of answers that are on their way."""
_OF_SEARCHERS = frozenset({PROCESSES_ENV, CACHE_BYTES_ENV})
"""Variables that say something about an index in a pod's memory and on its disk."""


def shards(
    action: EnsureSearchers,
    index: IndexView,
    revision: RevisionView,
    keys: InternalKeys,
    made: Mapping[tuple[str, str], Mapping[str, Any]],
) -> tuple[Manifest, ...]:
    """All objects of a loaded revision in shards, what routers ask before the routers. `made`: what is there already.

    A Service is that of a Deployment, and goes with it: the operator may delete no Service. So it is made in the next
    pass.
    """
    objects: list[Manifest] = []
    for number in range(action.shards):
        deployment = searchers.deployment(action, index, revision, keys, shard=number)
        budget = searchers.disruption_budget(action, index)
        objects += [_of_shard(one, action, number, index) for one in (deployment, budget)]
        there = made.get(("Deployment", labels.shard_name(action.revision, number)))
        if there is not None:
            objects.append(_headless(action.revision, number, index, there))
    return *objects, _routers(action, index, revision, keys), searchers.disruption_budget(action, index)


def _headless(revision: str, number: int, index: IndexView, deployment: Mapping[str, Any]) -> Manifest:
    """By whose name routers find the ready pods of one shard."""
    name, marks = labels.shard_name(revision, number), _marks(revision, number, index)
    uid = deployment["metadata"]["uid"]
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": uid, "controller": True}
    port = {"name": "http", "port": HTTP_PORT, "targetPort": "http", "protocol": "TCP"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": labels.metadata(name, index.namespace, marks, owner),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "selector": labels.of_shard(revision, number),
            "ports": [port],
        },
    }


def _marks(revision: str, number: int, index: IndexView) -> dict[str, str]:
    return labels.common(index.name, labels.SHARD_PODS, revision) | {labels.SHARD: str(number)}


def _of_shard(one: Manifest, action: EnsureSearchers, number: int, index: IndexView) -> Manifest:
    """A Deployment or budget of searchers as that of one shard's."""
    marks, selected = _marks(action.revision, number, index), labels.of_shard(action.revision, number)
    name = {"name": labels.shard_name(action.revision, number), "labels": marks}
    shard = {**one, "metadata": one["metadata"] | name, "spec": one["spec"] | {"selector": {"matchLabels": selected}}}
    if "template" in one["spec"]:
        template = deepcopy(one["spec"]["template"])
        template["metadata"]["labels"] = template["metadata"]["labels"] | selected
        for spread in template["spec"].get("topologySpreadConstraints", ()):
            if spread.get("labelSelector") == {"matchLabels": labels.selector(action.revision)}:
                spread["labelSelector"] = {"matchLabels": selected}
        shard["spec"]["template"] = template
        shard["metadata"]["annotations"] = one["metadata"]["annotations"] | {labels.SHARDS: str(action.shards)}
    return shard


def _routers(action: EnsureSearchers, index: IndexView, revision: RevisionView, keys: InternalKeys) -> Manifest:
    """The Deployment of the routers: the revision's own pods without its data, and without the account whose cloud
    identity opens its store.

    Policies stay in their arguments, as in those of the searchers of shards: a token that reaches one of these sees no
    more there. Routers of before they knew policies do not start with them, instead of showing all rows to every token.
    """
    deployment = searchers.deployment(action, index, revision, keys)
    deployment["metadata"]["annotations"][labels.SHARDS] = str(action.shards)
    pod = deployment["spec"]["template"]["spec"]
    pod.pop("serviceAccountName", None)
    one = pod["containers"][0]
    given = action.live.searcher.router_resources or ROUTER_RESOURCES
    one["args"], one["envFrom"], one["resources"] = ["route", *one["args"][1:]], [], resources(given)
    _, *rest = one["env"]
    rest = [variable for variable in rest if variable["name"] not in _OF_SEARCHERS]
    one["env"] = [task_env(_task(action, index, revision.spec)), *rest]
    if action.live.searcher.auth is not None:
        one["env"].append({"name": SHARD_TOKEN_ENV, "value": TOKENS_DIR})
    stores = {volume["name"] for volume in pod["volumes"] if volume["name"].startswith("store-")}
    volumes = (volume for volume in pod["volumes"] if volume["name"] not in stores)
    pod["volumes"] = [{"name": "cache", "emptyDir": {}} if each["name"] == "cache" else each for each in volumes]
    one["volumeMounts"] = [mount for mount in one["volumeMounts"] if mount["name"] not in stores]
    return deployment


def _task(action: EnsureSearchers, index: IndexView, frozen: RevisionSpec) -> RouteTask:
    names = (labels.shard_name(action.revision, number) for number in range(action.shards))
    return RouteTask(
        identity=searchers.owner_of(index),
        revision=action.revision,
        digest=frozen.digest,
        shards=tuple((f"http://{name}.{index.namespace}.svc:{HTTP_PORT}",) for name in names),
        segments=frozen.segments,
        min_score=frozen.min_score,
        partial=action.live.searcher.partial or Partial.REFUSE,
        gate_hash=action.gate_hash if action.merged_canary else "",
        live_recall=action.live_recall,
        admin_ports=(ADMIN_PORT,) * action.shards if action.merged_canary or action.live_recall else (),
    )
