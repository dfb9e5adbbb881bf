"""How much of a node a revision's searchers take: their memory, their disk, and how many processes answer users."""

from __future__ import annotations

from dataclasses import dataclass

from vectorindex_operator.api.quantities import memory_bytes, whole_cores
from vectorindex_operator.api.v1alpha1 import Resources, RevisionSpec
from vectorindex_operator.core.plan import EnsureSearchers
from vectorindex_operator.manifests import labels
from vectorindex_operator.manifests.labels import Manifest
from vectorindex_operator.manifests.podspec import DISK, disk_mebibytes
from vectorindex_searcher.contract import LIVE_QUERY_BYTES, LIVE_SAMPLE_BYTES, LIVE_SAMPLE_QUERIES, MOST_PROCESSES

PROCESS_BYTES = 256 * 2**20
"""What a searcher needs besides the artifact: the interpreter, libraries, buffers."""

BUSY_BYTES = 1152 * 2**20
"""What it may take besides the artifact, whatever is asked of it, with TLS and many CPUs: serve/http/limits.py adds it
up, and a test compares."""

WORKER_BYTES = 64 * 2**20
"""What each process beyond the first needs: all of them share what was loaded."""

BUSY_WORKER_BYTES = 256 * 2**20
"""What each process beyond the first may take, whatever is asked of it."""

LIVE_RECALL_BYTES = 160 * 2**20
"""What live recall needs: a sample of queries, a block of vectors, and what a scan keeps for each query."""

WORKER_SAMPLE_BYTES = 40 * 2**20
"""Of that, what each process beyond the first has, too: its sample, of vectors of 4,096 numbers, and the message that
it goes in."""

LIVE_QUERIES_BYTES = LIVE_SAMPLE_BYTES + 16 * 2**20
"""What a sample of live queries needs, with the hour of it that is being told."""

WORKER_QUERIES_BYTES = LIVE_SAMPLE_QUERIES * LIVE_QUERY_BYTES
"""Of that, what each process beyond the first has, too: the sample without its vectors."""

ENCODER_BYTES = 256 * 2**20
"""What a process takes besides the encoder's files: ONNX Runtime, and one call of a model of some size."""

ENCODER_TIMES = 2
"""An encoder is in memory as it was read and as ONNX Runtime laid it out for its processor; processes share both."""

LISTING_BYTES = 160 * 2**20
"""What listing a source takes for a moment, with as many objects and as long keys as there may be (a test compares).
Above the limit only: most sources take a hundredth of it."""

COUNTS_BUSY = "busy"
"""Of revisions whose memory limit counts BUSY_BYTES. Others keep theirs: an upgrade of ours restarts no pods."""

ONE_A_CORE = "cores"
"""Of revisions whose pods have a process for each core. Those of before have one, for the same reason."""


def frozen_sizing() -> dict[str, str]:
    """Annotations of the pod template of a new revision: how its pods are sized, for as long as there are any."""
    return {labels.MEMORY: COUNTS_BUSY, labels.PROCESSES: ONE_A_CORE}


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of one searcher with one process (`held`: its artifact, its encoder, fresh rows, what it keeps of queries;
    `listing`: for moments), and what each further one keeps. `busy`: the limit counts BUSY_BYTES."""

    held: int
    worker: int = 0
    busy: bool = True
    listing: int = 0

    @classmethod
    def of(cls, action: EnsureSearchers, frozen: RevisionSpec) -> Need:
        """Of a pod of this revision, as it is wanted now."""
        recall = action.live_recall
        queries = bool(action.live.live_queries) and not frozen.in_shards
        models = (action.encoder_bytes, action.reranker_bytes)
        runs = sum(size > 0 for size in models) * ENCODER_BYTES
        return cls(
            held=action.resident_bytes
            + recall * LIVE_RECALL_BYTES
            + queries * LIVE_QUERIES_BYTES
            + ENCODER_TIMES * sum(models)
            + runs
            + action.fresh_bytes,
            worker=recall * WORKER_SAMPLE_BYTES + queries * WORKER_QUERIES_BYTES + runs + action.fresh_bytes,
            busy=_annotation(frozen, labels.MEMORY) == COUNTS_BUSY,
            listing=LISTING_BYTES if frozen.source_poll is not None else 0,
        )

    def memory(self, processes: int = 1) -> tuple[int, int]:
        """Request and limit of so many processes, in MiB."""
        request, most = (_mebibytes(self.held + size) for size in (PROCESS_BYTES, BUSY_BYTES))
        limit = max(2 * request, most if self.busy else 0) + _mebibytes(self.listing)
        further = processes - 1
        more, most_more = (_mebibytes(self.worker + size) for size in (WORKER_BYTES, BUSY_WORKER_BYTES))
        return request + further * more, limit + further * most_more

    def fitting(self, limit: int) -> int:
        """How many processes have room in a memory limit of so many bytes, whatever is asked of them."""
        left = limit - self.held - BUSY_BYTES - self.listing
        return 1 + max(0, left) // (BUSY_WORKER_BYTES + self.worker)


def processes(frozen: RevisionSpec, resources: Resources, need: Need) -> int:
    """How many processes of a pod answer users: one for each whole core of its CPU limit, else of its request; no more
    than there is room for, where the memory limit is the user's own."""
    if _annotation(frozen, labels.PROCESSES) != ONE_A_CORE:
        return 1
    cores = whole_cores(resources.limits.get("cpu", resources.requests.get("cpu", "1")))
    given = resources.limits.get("memory")
    room = cores if given is None else need.fitting(memory_bytes(given))
    return max(1, min(cores, room, MOST_PROCESSES))


def besides_bytes(frozen: RevisionSpec, resources: Resources) -> int:
    """What a searcher of this revision asks for whatever it holds."""
    nothing = Need(0)
    request, _ = nothing.memory(processes(frozen, resources, nothing))
    return request * 2**20


def container_resources(resources: Resources, need: Need, disk_bytes: int | None, processes: int) -> Manifest:
    """What the user gave, and what is computed where nothing was given."""
    requests, limits = dict(resources.requests), dict(resources.limits)
    if "memory" not in requests and "memory" not in limits:
        request, limit = need.memory(processes)
        requests["memory"], limits["memory"] = f"{request}Mi", f"{limit}Mi"
    if disk := disk_mebibytes(disk_bytes, requests, limits):
        requests[DISK] = f"{disk}Mi"
        # Twice that: a file that is fetched again lies beside the one that it replaces.
        limits[DISK] = f"{2 * disk}Mi"
    rendered = {"requests": requests, "limits": limits}
    return {kind: values for kind, values in rendered.items() if values}


def _annotation(frozen: RevisionSpec, name: str) -> object:
    return frozen.pod_template["metadata"].get("annotations", {}).get(name)


def _mebibytes(size: int) -> int:
    return -(-size // 2**20)
