"""What Kueue says of the Jobs that wait in its queues: it keeps a Workload for each, whose conditions tell why.

Nobody watches Workloads (a cluster may have none): they are read while a Job waits, and no longer. Whatever goes wrong
with that is words in the status; it never ends a pass, since a way back must not wait for a queue.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile import raw
from vectorindex_operator.reconcile.errors import ClusterError
from vectorindex_operator.reconcile.ports import Cluster, Raw

WORKLOAD = "Workload"
JOB_UID = "kueue.x-k8s.io/job-uid"
"""Label by which Kueue tells whose Workload one is."""
MOST_ASKED = 10
"""Jobs of a VectorIndex whose Workloads are read in one pass. Two wait at a time, ordinarily one."""
UNHEARD = "Kueue has not said yet why"


def is_held(job: Raw) -> bool:
    """Whether somebody holds a Job back, or stopped it."""
    return raw.part(job, "spec").get("suspend") is True


def queue_of(job: Raw) -> str:
    """The LocalQueue that a Job was given to, by us or, where a namespace has a default one, by Kueue; empty: none."""
    return raw.label(job, labels.QUEUE)


def words(cluster: Cluster, namespace: str, jobs: Iterable[Raw]) -> dict[str, str]:
    """Uid of each of these Jobs that waits in a queue -> what Kueue says of it."""
    waiting = [raw.text(raw.part(job, "metadata").get("uid")) for job in jobs if is_held(job) and queue_of(job)]
    return {uid: _said_of(cluster, namespace, uid) for uid in waiting[:MOST_ASKED]}


def _said_of(cluster: Cluster, namespace: str, uid: str) -> str:
    try:
        found = cluster.children(WORKLOAD, namespace, f"{JOB_UID}={uid}")
    except ClusterError as error:
        return (
            f"its Workload cannot be read ({error}): is Kueue there, and has the operator the right to read Workloads "
            "(kueue.enabled of its chart)?"
        )
    mine = [one for one in found if raw.is_owned(one, uid)]
    return _said(mine[0]) if mine else "Kueue has no Workload for it yet: is Kueue at work?"


def _said(workload: Raw) -> str:
    """Why a Workload is not admitted: what its next condition lacks, and for what it was stopped, if it ran before."""
    status = raw.part(workload, "status")
    conditions = {raw.text(one.get("type")): one for one in raw.rows(status.get("conditions"))}
    reserved = _is_true(conditions.get("QuotaReserved"))
    said = [_message(conditions.get("Admitted" if reserved else "QuotaReserved"))]
    if reserved:
        said += [
            f"{raw.text(one.get('name'), raw.NAME)}: {_message(one) or one['state']}"
            for one in raw.rows(status.get("admissionChecks"))
            if one.get("state") in ("Pending", "Retry", "Rejected")
        ]
    if _is_true(conditions.get("Evicted")):
        said.append(_message(conditions["Evicted"]))
    return "; ".join(dict.fromkeys(one for one in said if one))[: raw.MESSAGE] or UNHEARD


def _is_true(condition: Mapping[str, object] | None) -> bool:
    return raw.table(condition).get("status") == "True"


def _message(condition: Mapping[str, object] | None) -> str:
    return raw.text(raw.table(condition).get("message")).strip()
