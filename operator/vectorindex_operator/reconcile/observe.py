"""Read what the cluster tells one pass, through the port, into a frozen Observation. What the objects mean: views.py.

What the pods counted comes on top of it (looks.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from vectorindex_operator.core.observation import Observation
from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile import held, raw, views
from vectorindex_operator.reconcile.ports import Cluster, Raw

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
    slices = cluster.children("EndpointSlice", namespace, f"{selector},{labels.SERVICE_NAME}={name}") if service else []
    return observation(index, service, children | {"EndpointSlice": slices}, now)


def observation(index: Raw, service: Raw | None, children: Mapping[str, list[Raw]], now: float) -> Observation:
    """What these objects say, however they were read. `children`: every kind of CHILD_KINDS, and the Service's
    EndpointSlices. Without evidence.

    Never raises for what stands in children, the Service, or the spec and status of the VectorIndex.
    """
    view = views.index_view(index)
    revisions, unreadable = views.revision_views(children["VectorIndexRevision"], view.uid)
    held_ones = held.holds(children["VectorIndexRevision"], whole=False)
    return Observation(
        index=view,
        revisions=revisions,
        jobs=views.job_views(children["Job"], children["Pod"], view.uid, children["VectorIndexRevision"]),
        loaded=views.loaded_views(children["Deployment"], children["Pod"], view.uid, now),
        traffic=views.traffic_view(service, view.uid, children["EndpointSlice"]),
        network_policies=views.owned_uids(children["NetworkPolicy"], view.uid),
        objects=_objects(index, service, children),
        unreadable=unreadable,
        holds=held_ones,
        earlier=held.earlier(held_ones, children["Job"], children["Pod"], view.uid),
        seen_at=now,
    )


def _objects(index: Raw, service: Raw | None, children: Mapping[str, list[Raw]]) -> dict[tuple[str, str], Raw]:
    objects = {(kind, raw.name(child)): child for kind in CHILD_KINDS for child in children[kind]}
    objects["VectorIndex", raw.name(index)] = index
    if service is not None:
        objects["Service", raw.name(service)] = service
    return objects
