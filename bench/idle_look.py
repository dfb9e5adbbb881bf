"""Looks at one VectorIndex that soaks, in a process with nothing else in it: what one costs, in CPU and wall time.

    idle_look.py KUBECONFIG NAMESPACE NAME IMAGE

The operator's own classes (Reconciler, Looks, the read cache, the admin port), without its queue and its watches: no
other operator may run meanwhile. A line with a number in, so many looks, a second apart; a line of JSON out, with a
row for each: milliseconds of CPU of the whole process, of wall time, writes.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from kubernetes import client, config

from vectorindex_operator.adapters.events import KubeEvents
from vectorindex_operator.adapters.evidence import HttpSearchers
from vectorindex_operator.adapters.kube import KubeCluster, api_client
from vectorindex_operator.core.state import Installation
from vectorindex_operator.reconcile.cache import LiveCluster, ReadCache
from vectorindex_operator.reconcile.loop import Reconciler
from vectorindex_operator.reconcile.relist import Relist

ANSWER_SECONDS = 20.0


class Looks:
    """One index, looked at as the operator's workers do."""

    def __init__(self, kubeconfig: str, namespace: str, name: str, image: str) -> None:
        config.load_kube_config(kubeconfig)
        self._writes = 0
        self._answered = threading.Event()
        cluster = KubeCluster(api_client(client.Configuration.get_default_copy()), on_write=self._wrote)
        cache = ReadCache()
        self._key = namespace, name
        self._reconciler = Reconciler(
            LiveCluster(cluster, cache),
            HttpSearchers(),
            KubeEvents(cluster, "bench"),
            Installation(searcher_image=image, namespace="vectorindex-system"),
            cache=cache,
            on_answer=lambda _namespace, _name: self._answered.set(),
        )
        Relist(cache, cluster, lambda _namespace, _name: None, (namespace,)).fill()

    def look(self) -> tuple[float, float, int]:
        """Both halves of it: up to where the pods are asked, and from where they have answered."""
        before, cpu, wall = self._writes, time.process_time(), time.perf_counter()
        self._answered.clear()
        self._reconciler.run(*self._key)
        if self._reconciler.looks._looks.get(self._key) is not None:
            if not self._answered.wait(ANSWER_SECONDS):
                raise SystemExit("the pods did not answer")
            self._reconciler.run(*self._key)
        took = (time.process_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3
        return *took, self._writes - before

    def _wrote(self, _kind: str) -> None:
        self._writes += 1


def main() -> None:
    looks = Looks(*sys.argv[1:5])
    for line in sys.stdin:
        rows = []
        for _ in range(int(line)):
            rows.append(looks.look())
            time.sleep(1.0)
        sys.stdout.write(json.dumps(rows) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
