"""A bad revision by Git that a guardrail takes back: what Argo CD shows of it, and what it writes meanwhile."""

from __future__ import annotations

import time
from dataclasses import dataclass

from e2e.vectors import Corpus
from gitops_cluster.site import Index
from gitops_cluster.writes import Change, Recorder, without_heartbeats

ARGO_CD = "argocd-"
"""How the names begin under which it writes."""
LOOKS = 5


@dataclass(frozen=True, slots=True)
class RolledBack:
    """`selfheal_writes`: of Argo CD to anything but its own Applications, from the end of the sync that brought the
    revision on: seen by watches, or runs of kubectl that its controller counted, whichever are more. `seconds`: for how
    long that was counted; `changes`: all that was written meanwhile."""

    revision: str
    message: str
    syncs: int
    selfheal_writes: int
    seconds: float
    changes: tuple[Change, ...]


def roll_back(index: Index, corpus: Corpus, folder: str, watched: float) -> RolledBack:
    """Have Git bring half-spoiled data, wait until it was taken back, and go on looking for `watched` seconds.

    Queries have to be under way: a guardrail judges answers.
    """
    space, argo = index.space, index.site.argo
    known, traffic = set(index.handle.revisions()), index.handle.traffic()
    space.put(folder, corpus.spoiled(0.5))
    index.push(space.manifest(folder))
    argo.wait("the sync to end", lambda: _synced(index), name=index.name)
    began, applied, syncs = time.time(), argo.applied(), index.syncs()
    with Recorder(argo.plane.api, (space.namespace,)) as recorder:
        bad = index.handle.wait_new_revision(known)
        index.handle.wait_revision(bad, "RolledBack")
        message = index.becomes("Degraded", 60)
        assert index.handle.traffic() == traffic
        for _ in range(LOOKS):
            argo.refresh(index.name)
            time.sleep(watched / LOOKS)
        changes = without_heartbeats(recorder.stop())
    seen = sum(any(by.startswith(ARGO_CD) for by in one.by) for one in changes)
    counted = (argo.applied() - applied).total()
    return RolledBack(bad, message, index.syncs() - syncs, max(seen, counted), time.time() - began, tuple(changes))


def _synced(index: Index) -> bool:
    """The last operation has ended, and Git and the cluster are one."""
    argo = index.site.argo
    phase = argo.get(index.name)["status"].get("operationState", {}).get("phase")
    return phase == "Succeeded" and argo.states(index.name)[0] == "Synced"
