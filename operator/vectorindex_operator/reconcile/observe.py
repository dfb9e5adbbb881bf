"""Read everything one pass may know, through the ports, into a frozen Observation. What the objects mean: views.py.

Reads come first and are all from the API server itself; the searchers are asked last, so that evidence is as fresh as
the decision made on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vectorindex_operator.core.internal_keys import addressee
from vectorindex_operator.core.judging.evidence import PodEvidence
from vectorindex_operator.core.judging.questions import questions
from vectorindex_operator.core.observation import Observation
from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile import pods, views
from vectorindex_operator.reconcile.ports import Cluster, Raw, Searchers

CHILD_KINDS = ("VectorIndexRevision", "Job", "Deployment", "PodDisruptionBudget", "NetworkPolicy", "Pod")


def observe(cluster: Cluster, searchers: Searchers, namespace: str, name: str, now: float) -> Observation | None:
    """What there is about one VectorIndex; None when it is gone. Raises errors.ClusterError."""
    raw = cluster.get("VectorIndex", namespace, name)
    if raw is None:
        return None
    selector = labels.of_index(name)
    children = {kind: cluster.children(kind, namespace, selector) for kind in CHILD_KINDS}
    service = cluster.get("Service", namespace, name)
    obs = observation(raw, service, children, now)
    return replace(obs, evidence=_evidence(searchers, obs, now))


def observation(raw: Raw, service: Raw | None, children: Mapping[str, list[Raw]], now: float) -> Observation:
    """What these objects say, however they were read; `children` has every kind of CHILD_KINDS. Without evidence."""
    index = views.index_view(raw)
    return Observation(
        index=index,
        revisions=views.revision_views(children["VectorIndexRevision"], index.uid),
        jobs=tuple(pods.job_view(job, children["Pod"]) for job in children["Job"]),
        loaded=views.loaded_views(children["Deployment"], children["Pod"], now),
        traffic=views.traffic_view(service, index.uid),
        objects=_objects(raw, service, children),
        conflict=views.conflict(children["Deployment"], index.uid),
    )


def _objects(raw: Raw, service: Raw | None, children: Mapping[str, list[Raw]]) -> dict[tuple[str, str], Raw]:
    objects: dict[tuple[str, str], Raw] = {
        (kind, child["metadata"]["name"]): child for kind, group in children.items() for child in group
    }
    objects["VectorIndex", raw["metadata"]["name"]] = raw
    if service is not None:
        objects["Service", service["metadata"]["name"]] = service
    return objects


def _evidence(searchers: Searchers, obs: Observation, now: float) -> dict[str, tuple[PodEvidence, ...]]:
    evidence = {}
    for question in questions(obs, now):
        loaded = obs.loaded.get(question.revision)
        # Pods that are not ready serve nothing and owe no evidence; Unavailable looks after them.
        serving = [(pod.name, pod.address) for pod in (loaded.pods if loaded else ()) if pod.ready and pod.address]
        to = addressee(obs, question.revision)
        evidence[question.revision] = searchers.evidence(to, serving, question)
    return evidence
