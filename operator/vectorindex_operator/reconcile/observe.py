"""Read what the cluster tells one pass, through the port, into a frozen Observation. What the objects mean: views.py.

What the pods counted comes on top of it (looks.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from vectorindex_operator.core.observation import Observation
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile import held, kueue, raw, views
from vectorindex_operator.reconcile.errors import RefusedError
from vectorindex_operator.reconcile.ports import Cluster, Raw
from vectorindex_operator.reconcile.routes import route_view

ROUTE = "HTTPRoute"
CHILD_KINDS = ("VectorIndexRevision", "Job", "Deployment", "PodDisruptionBudget", "NetworkPolicy", "Pod")


def observe(cluster: Cluster, namespace: str, name: str, now: float) -> Observation | None:
    """What there is about one VectorIndex, but for evidence; None when it is gone. Raises errors.ClusterError.

    `now`: before the first read, Unix seconds.
    """
    index = cluster.get("VectorIndex", namespace, name)
    if index is None:
        return None
    selector = labels.of_index(name)
    children = {kind: cluster.children(kind, namespace, selector) for kind in CHILD_KINDS}
    service = cluster.get("Service", namespace, name)
    routed = has_route(index, children["VectorIndexRevision"])
    of_front = "" if routed else f",{labels.SERVICE_NAME}={name}"
    slices = cluster.children("EndpointSlice", namespace, f"{selector}{of_front}") if service else []
    listed = routed or in_shards(children["VectorIndexRevision"])
    services = cluster.children("Service", namespace, selector) if listed else []
    children |= {"EndpointSlice": slices, "Service": services}
    route, problem = _route(cluster, namespace, name) if routed else (None, "")
    mine = views.our_jobs(children["Job"], _uid(index), children["VectorIndexRevision"])
    queued = kueue.words(cluster, namespace, mine)
    return observation(index, service, children, now, route=route, problem=problem, queued=queued)


def _uid(index: Raw) -> str:
    return raw.text(raw.part(index, "metadata").get("uid"))


def has_route(index: Raw, revisions: list[Raw]) -> bool:
    """Whether a route is wanted, or was, so that there may be one. Others cost no request."""
    wanted = raw.part(index, "spec", "rollout").get("route") is not None
    noted = bool(raw.part(index, "status").get("route"))
    return wanted or noted or any(raw.part(one, "status").get("phase") == Phase.SHIFTING for one in revisions)


def in_shards(revisions: list[Raw]) -> bool:
    """Whether a revision has shards, each of which has a Service."""
    return any(raw.part(one, "spec", "indexSpec").get("shards") for one in revisions)


def _route(cluster: Cluster, namespace: str, name: str) -> tuple[Raw | None, str]:
    """The route, or why none can be read: there is no such API in the cluster, or no right to read it."""
    try:
        return cluster.get(ROUTE, namespace, name), ""
    except RefusedError as error:
        return None, str(error)


def observation(
    index: Raw,
    service: Raw | None,
    children: Mapping[str, list[Raw]],
    now: float,
    *,
    route: Raw | None = None,
    problem: str = "",
    queued: Mapping[str, str] = MappingProxyType({}),
) -> Observation:
    """What these objects say, however they were read. `children`: every kind of CHILD_KINDS, and the EndpointSlices of
    the Service; with a `route`, those of all Services of the index, and these. `queued`: uid of a Job -> why it
    waits in a queue. Without evidence.

    Never raises for what stands in children, the Service, or the spec and status of the VectorIndex.
    """
    view = views.index_view(index)
    services, slices = children.get("Service", []), children["EndpointSlice"]
    jobs = views.our_jobs(children["Job"], view.uid, children["VectorIndexRevision"])
    of_front = [one for one in slices if raw.label(one, labels.SERVICE_NAME) in ("", view.name)]
    revisions, unreadable = views.revision_views(children["VectorIndexRevision"], view.uid)
    held_ones = held.holds(children["VectorIndexRevision"], whole=False)
    return Observation(
        index=view,
        revisions=revisions,
        jobs=views.job_views(jobs, children["Pod"], queued),
        loaded=views.loaded_views(children["Deployment"], children["Pod"], view.uid, now),
        traffic=views.traffic_view(service, view.uid, of_front),
        route=route_view(route, problem, services, slices, view.uid),
        network_policies=views.owned_uids(children["NetworkPolicy"], view.uid),
        objects=_objects(index, service, children, route),
        unreadable=unreadable,
        holds=held_ones,
        earlier=held.earlier(held_ones, children["Job"], children["Pod"], view.uid),
        seen_at=now,
    )


def _objects(
    index: Raw, service: Raw | None, children: Mapping[str, list[Raw]], route: Raw | None
) -> dict[tuple[str, str], Raw]:
    objects = {("Service", raw.name(one)): one for one in children.get("Service", ())}
    objects |= {(kind, raw.name(child)): child for kind in CHILD_KINDS for child in children[kind]}
    objects["VectorIndex", raw.name(index)] = index
    if service is not None:
        objects["Service", raw.name(service)] = service
    if route is not None:
        objects[ROUTE, raw.name(route)] = route
    return objects
