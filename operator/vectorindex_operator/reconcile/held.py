"""Frozen views of what a deleted VectorIndex left: revisions that finalizers of ours keep, Jobs and pods. Pure.

Everything here must be understood of what another release wrote, too: a finalizer that nobody takes off keeps a whole
namespace from being deleted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from vectorindex_operator.api.v1alpha1 import RevisionSpec, RevisionStatus
from vectorindex_operator.core.holds import ours
from vectorindex_operator.core.leftovers import Left, is_over
from vectorindex_operator.core.observation import Hold, JobState, JobView, Task
from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile import pods, raw
from vectorindex_operator.reconcile.ports import Raw

REVISION_KIND = "VectorIndexRevision"


def is_leaving(revision: Raw) -> bool:
    """Whether a revision, or the metadata of one, is being deleted and a finalizer of ours keeps it."""
    return raw.is_deleting(revision) and bool(_finalizers(revision))


def holds(revisions: list[Raw], *, whole: bool) -> tuple[Hold, ...]:
    """Those that finalizers of ours keep, whoever owns them. `whole`: with what their specs and statuses say."""
    return tuple(_hold(one, whole=whole) for one in revisions if _finalizers(one))


def left(namespace: str, name: str, index: Raw | None, children: Mapping[str, list[Raw]], finalizer: str) -> Left:
    """What is left of the VectorIndexes of a name. `index`: the one that is there; `children`: by kind."""
    live_uid = "" if index is None or raw.is_deleting(index) else raw.text(raw.part(index, "metadata").get("uid"))
    found = Left(namespace, name, live_uid, holds(children[REVISION_KIND], whole=True))
    going = [hold for hold in found.holds if is_over(found, hold, finalizer)]
    jobs = children["Job"]
    owners = {hold.uid for hold in going} | {hold.owner for hold in going if hold.owner}
    return Left(
        namespace,
        name,
        live_uid,
        found.holds,
        working=tuple(_working(jobs, owners)),
        busy={raw.name(one): _deleted_at(one) for one in children["Pod"] if _is_busy(one)},
        collecting={view.name: view for view in _collecting(jobs, children["Pod"])},
    )


def earlier(held: tuple[Hold, ...], jobs: list[Raw], all_pods: list[Raw], uid: str) -> str:
    """Something that is still there of a VectorIndex before the one with this uid, whose artifacts are removed."""
    of_others = (f"VectorIndexRevision/{hold.name}" for hold in held if hold.owner not in ("", uid))
    running = (f"Job/{view.name}" for view in _collecting(jobs, []) if view.state is JobState.RUNNING)
    working = (f"Pod/{raw.name(one)}" for one in all_pods if _is_collectors(one) and not _has_ended(one))
    return next((name for names in (of_others, running, working) for name in names), "")


def _finalizers(revision: Raw) -> frozenset[str]:
    given = raw.part(revision, "metadata").get("finalizers")
    return ours(one for one in given if isinstance(one, str)) if isinstance(given, list) else frozenset()


def _deleted_at(one: Raw) -> float | None:
    return raw.unix(raw.part(one, "metadata").get("deletionTimestamp"))


def _hold(one: Raw, *, whole: bool) -> Hold:
    meta, spec = raw.part(one, "metadata"), None
    with contextlib.suppress(ValidationError):
        spec = RevisionSpec.read(one.get("spec")) if whole else None
    return Hold(
        name=raw.name(one),
        uid=raw.text(meta.get("uid")),
        owner=raw.text(raw.controller(one).get("uid")),
        finalizers=_finalizers(one),
        created_at=raw.unix(meta.get("creationTimestamp")) or 0.0,
        deleted_at=(_deleted_at(one) or 0.0) if raw.is_deleting(one) else None,
        spec=spec,
        reach=RevisionStatus.read(raw.table(one.get("status"))).reach if whole else None,
    )


def _working(jobs: list[Raw], owners: set[str]) -> Iterator[tuple[str, str]]:
    """Jobs that these own and that still run. The garbage collector takes those of a revision only after it is gone."""
    for one in jobs:
        view = pods.job_view(one, [])
        if view is None or view.deleting or view.state is not JobState.RUNNING:
            continue
        if raw.controller(one).get("uid") in owners:
            yield view.name, view.uid


def _collecting(jobs: list[Raw], all_pods: list[Raw]) -> Iterator[JobView]:
    for one in jobs:
        view = pods.job_view(one, all_pods) if _is_collectors(one) else None
        if view is not None:
            yield view


def _is_collectors(one: Raw) -> bool:
    """A Job that removes everything of a VectorIndex, or a pod of it: it is of no revision."""
    return raw.label(one, labels.VERB) == Task.COLLECT and not raw.label(one, labels.REVISION)


def _is_busy(pod: Raw) -> bool:
    """Whether a pod may still read or write artifacts. A searcher that was told to end does no harm, on a node that is
    lost it would be waited for in vain."""
    ends = raw.label(pod, labels.COMPONENT) in (labels.SEARCHER, labels.SHARD_PODS) and raw.is_deleting(pod)
    return not ends and not _is_collectors(pod) and not _has_ended(pod)


def _has_ended(pod: Raw) -> bool:
    return raw.part(pod, "status").get("phase") in ("Succeeded", "Failed")
