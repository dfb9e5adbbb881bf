"""Frozen views of raw objects: the VectorIndex, its revisions, their searchers, the front Service. Pure: reads nothing.

Jobs and pods have a file of their own (pods.py).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pydantic import ValidationError

from vectorindex_operator.api.v1alpha1 import (
    RevisionSpec,
    RevisionStatus,
    VectorIndexSpec,
    VectorIndexStatus,
)
from vectorindex_operator.core.commands import read_commands
from vectorindex_operator.core.loaded import ROUTER, SEARCHER, SHARD, Group, LoadedRevision
from vectorindex_operator.core.observation import IndexView, JobView, RevisionView
from vectorindex_operator.core.traffic import Traffic
from vectorindex_operator.manifests import labels
from vectorindex_operator.manifests.service import read_decision
from vectorindex_operator.reconcile import pods, raw
from vectorindex_operator.reconcile.ports import Raw

log = logging.getLogger(__name__)

REASONS = 8
"""Faults that are named of an object that cannot be read."""
LONGEST_DECISION = 8192
"""Characters of the front Service's annotation that are read."""


def index_view(index: Raw) -> IndexView:
    """The VectorIndex; a spec that cannot be read is None, and `spec_error` names field and value."""
    meta = raw.part(index, "metadata")
    spec, error = None, ""
    try:
        spec = VectorIndexSpec.model_validate(index.get("spec", {}))
    except ValidationError as problem:
        error = _reasons("spec", problem)
    return IndexView(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        generation=raw.count(meta.get("generation")),
        created_at=raw.unix(meta.get("creationTimestamp")) or 0.0,
        spec=spec,
        status=VectorIndexStatus.read(_status(index)),
        deleting=raw.is_deleting(index),
        spec_error=error,
        commands=read_commands(dict(raw.table(meta.get("annotations")))),
    )


def _status(one: Raw) -> Mapping[str, object]:
    """Its fields all have defaults, so a status is unreadable only where it is no object, and then it says nothing."""
    return raw.table(one.get("status"))


def revision_views(revisions: list[Raw], uid: str) -> tuple[dict[str, RevisionView], dict[str, str]]:
    """Our revisions, and why others of ours cannot be read (name -> why): another release wrote these. What cannot be
    read is neither built, chosen nor retired: its searchers stay as they are."""
    views, unreadable = {}, {}
    for one in revisions:
        if not raw.is_owned(one, uid):
            continue
        name = raw.name(one)
        try:
            views[name] = _revision(one)
        except ValidationError as error:
            unreadable[name] = _reasons("spec", error)
            log.error("the spec of %s cannot be read: %s", name, unreadable[name])
    return views, unreadable


def _reasons(root: str, error: ValidationError) -> str:
    """Field, problem and value of the first few faults."""
    return "; ".join(
        f"{'.'.join(str(part) for part in (root, *fault['loc']))}: {fault['msg']} (got {fault['input']!r})"[:300]
        for fault in error.errors(include_url=False)[:REASONS]
    )


def _revision(one: Raw) -> RevisionView:
    meta = raw.part(one, "metadata")
    return RevisionView(
        name=raw.name(one),
        uid=raw.text(meta.get("uid")),
        created_at=raw.unix(meta.get("creationTimestamp")) or 0.0,
        spec=RevisionSpec.read(one.get("spec")),
        status=RevisionStatus.read(_status(one)),
        deleting=raw.is_deleting(one),
    )


def job_views(jobs: list[Raw], all_pods: list[Raw], queued: Mapping[str, str]) -> tuple[JobView, ...]:
    """Of our Jobs. One that does not say what it is for is none. `queued`: uid -> why it waits in a queue."""
    views = (pods.job_view(job, all_pods, queued) for job in jobs)
    return tuple(view for view in views if view is not None)


def our_jobs(jobs: list[Raw], uid: str, revisions: list[Raw]) -> list[Raw]:
    """Those that the VectorIndex, or one of its revisions, manages."""
    owners = {uid: ""} | {
        raw.text(raw.part(one, "metadata").get("uid")): raw.name(one) for one in revisions if raw.is_owned(one, uid)
    }
    return [
        job
        for job in jobs
        if isinstance(owner := raw.controller(job).get("uid"), str)
        and owners.get(owner) == raw.label(job, labels.REVISION)
    ]


def loaded_views(deployments: list[Raw], all_pods: list[Raw], uid: str, now: float) -> dict[str, LoadedRevision]:
    """Revision -> the searchers of its Deployment, which the VectorIndex owns. `now`: unix seconds; see pods.pod_view.

    What carries our labels and is not ours is passed over: it is neither loaded nor in anybody's way.
    """
    loaded: dict[str, LoadedRevision] = {}
    for one in deployments:
        if not raw.is_owned(one, uid) or raw.is_deleting(one):
            continue
        revision, group = _group(one)
        if not revision:
            continue  # somebody took the label away, which is put back
        mine = [pod for pod in all_pods if pods.belongs_to(pod, one, revision)]
        views = tuple(sorted((pods.pod_view(pod, now) for pod in mine), key=lambda view: view.name))
        view = LoadedRevision(
            revision,
            exists=True,
            groups={group: views},
            unready_since=pods.unready_since(one, mine),
            replicas=raw.count(raw.part(one, "spec").get("replicas")),
            live=raw.annotation(one, labels.LIVE, raw.NAME),
            outdated=_outdated(one),
            refused_since=pods.refused_since(one),
            refused=pods.refusal(one),
        )
        loaded[revision] = loaded[revision].beside(view) if revision in loaded else view
    asked = {_group(one)[0]: raw.count(raw.annotation(one, labels.SHARDS)) for one in deployments}
    return {name: one.in_shards(asked[name], now) if asked[name] else one for name, one in loaded.items()}


def _group(deployment: Raw) -> tuple[str, Group]:
    """The revision that a Deployment is of, and what its pods are there."""
    if raw.label(deployment, labels.COMPONENT) == labels.SHARD_PODS:
        return raw.label(deployment, labels.REVISION), Group(SHARD, raw.count(raw.label(deployment, labels.SHARD)))
    role = ROUTER if raw.count(raw.annotation(deployment, labels.SHARDS)) else SEARCHER
    return raw.name(deployment), Group(role)


def _outdated(deployment: Raw) -> int:
    """Pods that do not run the Deployment's template of now; all of them while its controller has not seen it."""
    status = raw.part(deployment, "status")
    there = raw.count(status.get("replicas"))
    if raw.count(status.get("observedGeneration")) < raw.count(raw.part(deployment, "metadata").get("generation")):
        return max(1, there)
    return max(0, there - raw.count(status.get("updatedReplicas")))


def traffic_view(service: Raw | None, uid: str, slices: list[Raw]) -> Traffic:
    """The front Service: whom it points to, the decision written with that, and how many addresses are behind it."""
    if service is None:
        return Traffic()
    if not raw.is_owned(service, uid):
        return Traffic(exists=True, owned=False)
    return Traffic.to(
        raw.text(raw.part(service, "spec", "selector").get(labels.REVISION), raw.NAME),
        raw.text(raw.part(service, "metadata").get("resourceVersion")),
        read_decision(raw.annotation(service, labels.DECISION, LONGEST_DECISION)),
        endpoints=sum(ready_addresses(one) for one in slices),
    )


def owned_uids(objects: list[Raw], uid: str) -> dict[str, str]:
    """Name -> uid of those that the VectorIndex owns."""
    return {raw.name(one): raw.text(raw.part(one, "metadata").get("uid")) for one in objects if raw.is_owned(one, uid)}


def ready_addresses(one: Raw) -> int:
    """Of an EndpointSlice."""
    endpoints = raw.rows(one.get("endpoints"))
    # Absent means ready: that is how whoever routes by them reads it.
    ready = [endpoint for endpoint in endpoints if raw.part(endpoint, "conditions").get("ready") is not False]
    return sum(bool(endpoint.get("addresses")) for endpoint in ready)
