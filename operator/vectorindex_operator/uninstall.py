"""`vectorindex-operator remove-finalizers`: what the chart runs before it is uninstalled.

A finalizer that nobody takes off keeps a revision, and its whole namespace, from ever being deleted. The operator still
runs and would put it back, so this takes the Lease from it: who held it ends, and nobody else takes it while it is
renewed here. Once the old holder's time is over the finalizers go.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vectorindex_operator.adapters.kube import KubeCluster, connect
from vectorindex_operator.adapters.lease import LeaseLock, LeaseTimes, take_over
from vectorindex_operator.reconcile import raw
from vectorindex_operator.reconcile.errors import ClusterError, ConflictError, RefusedError
from vectorindex_operator.reconcile.held import REVISION_KIND
from vectorindex_operator.reconcile.leftovers import with_finalizer
from vectorindex_operator.reconcile.ports import Raw
from vectorindex_operator.reconcile.relist import MANAGED, Listed
from vectorindex_operator.settings import OperatorSettings

log = logging.getLogger(__name__)

GIVE_UP_SECONDS = 240.0
AGAIN_SECONDS = 1.0
NOT_FOUND = "404"


@dataclass(slots=True)
class Uninstall:
    """Takes the finalizers of one class of operator off all revisions. `take_lease`: takes or renews it; whether it is
    ours."""

    cluster: Listed
    take_lease: Callable[[], bool]
    namespaces: tuple[str, ...]
    finalizer: str
    lease_seconds: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep

    def run(self) -> bool:
        """Whether no revision has one any more."""
        ends, since = self.clock() + GIVE_UP_SECONDS, None
        while self.clock() < ends:
            try:
                if since is None and not self._is_needed():
                    return True
                if self.take_lease():
                    since = self.clock() if since is None else since
                    if self.clock() - since >= self.lease_seconds and self._remove() == 0:
                        return self.take_lease()  # for as long as it takes to remove the operator
            except ClusterError as error:
                log.warning("tried again: %s", error)
            self.sleep(AGAIN_SECONDS)
        return False

    def _is_needed(self) -> bool:
        """Whether anybody asks for finalizers, or some are there: else the operator is left in peace."""
        asks = any(
            raw.part(one, "spec", "artifacts").get("deletionPolicy") == "Delete"
            for one in self._all("VectorIndex", "", metadata_only=False)
        )
        return asks or any(self._held())

    def _remove(self) -> int:
        """Take off those that are there; how many there were."""
        found = 0
        for one in self._held():
            found += 1
            try:
                self.cluster.merge(with_finalizer(one, ""))
                log.info("let go: %s/%s", one["metadata"]["namespace"], raw.name(one))
            except ConflictError:
                log.info("somebody wrote to %s, looking again", raw.name(one))
        return found

    def _held(self) -> Iterator[Raw]:
        for one in self._all(REVISION_KIND, MANAGED, metadata_only=True):
            if self.finalizer in (one["metadata"].get("finalizers") or ()):
                yield one

    def _all(self, kind: str, selector: str, *, metadata_only: bool) -> Iterator[Raw]:
        try:
            for namespace in self.namespaces or ("",):
                for page in self.cluster.pages(kind, namespace, selector, metadata_only=metadata_only):
                    yield from page
        except RefusedError as error:
            if not str(error).startswith(NOT_FOUND):  # the CRDs are gone, and all of the kind with them
                raise


def remove_finalizers(settings: OperatorSettings) -> int:
    """Exit code: 0 done, 1 some are left."""
    cluster = KubeCluster(connect(), seconds=settings.tuning.request_seconds)
    times = LeaseTimes.of(settings.tuning.lease_seconds)
    lock = LeaseLock(settings.namespace, settings.identity, cluster.api, times, settings.operator_class)
    finalizer = settings.installation.finalizer
    namespaces = settings.watch_namespaces
    if Uninstall(cluster, lambda: take_over(lock), namespaces, finalizer, times.duration).run():
        return 0
    log.error(
        "finalizers %s are left, and keep revisions and their namespaces from being deleted: take them off by hand "
        "(docs/operations.md)",
        finalizer,
    )
    return 1
