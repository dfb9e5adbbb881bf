"""Cold rollback on a real cluster: from the trip to the first good answer, by size of the index, under queries that
never stop.

    python bench/cold.py [--quick] [--sizes 0.1 1 4] [--rounds 1] [--rate 20] [--write]

For each size an index (IVF, full vectors) is built, proven and rolled out; `refresh` makes a second revision of the
same artifact, which is promoted; the first one's searchers drain and are gone. Then `rollback` trips the second one as
a guardrail does, and the first is loaded again from a real S3 server: node, container, download with SHA-256, map,
canary queries, probe, switch, first answer. Pods are looked at five times a second, the switch is the operator's own
time, and the searcher tells what its load took (vectorindex_load_seconds).

A pod's cache of files is a volume of its own, empty in every new pod. What a filled one would save is seen on a
container that is killed and starts again in its pod: it finds the files, hashes them anew and downloads nothing. *With
the files there* is the same way back with that load in it, which is computed. The image is on the node.

Needs memory of twice the largest index for the two revisions, and about eight times its size of disk. `--quick` takes
one small index and writes nothing; `--write` puts page and figures into bench/results; `--rounds` goes back so often.
CLUSTER= chooses the cluster as for `make test`; a release that is there is upgraded.
"""

from __future__ import annotations

import argparse
import json
import re
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT / "hack"), str(CHECKOUT / "tests")]

import results  # noqa: E402
from cold_page import WayBack, expected_of, figures, page, table  # noqa: E402
from datasets import Dataset, clustered  # noqa: E402
from e2e.operator_release import kill_container  # noqa: E402
from e2e.vectors import bodies  # noqa: E402
from e2e.workspace import Workspace, merged  # noqa: E402

from harness import cluster, images, release, s3, traffic  # noqa: E402
from harness.base import Cluster  # noqa: E402
from harness.errors import HarnessError  # noqa: E402
from harness.images import Images  # noqa: E402
from harness.kube import Json, Kube  # noqa: E402
from harness.s3 import ObjectStore  # noqa: E402
from harness.traffic import Traffic  # noqa: E402
from harness.vix import unix  # noqa: E402

DIMENSION = 768
GB = 1e9
DISK_TIMES = 8
"""Source, vectors.npy and index in the store, what a build has on its disk, and the searchers' copies."""
LOOK_SECONDS = 0.2
STEP_SECONDS = 1200
QUIET_SECONDS = 5
"""So long without an answer, and a revision has given its last one."""
CLIENT_RETRIES = 3
"""The Python client's default."""
LOADS = ("manifest", "fetch", "open", "canary")
"""Phases of vectorindex_load_seconds."""


@dataclass(slots=True)
class PodTimes:
    """When the first pod of a revision got how far, by this machine's clock."""

    scheduled: float = 0.0
    running: float = 0.0
    ready: float = 0.0
    name: str = ""


@dataclass(slots=True)
class Watcher:
    """Looks at the pods of one revision until told to stop."""

    space: Workspace
    revision: str
    times: PodTimes = field(default_factory=PodTimes)
    _over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self._over.wait(LOOK_SECONDS) and not self.times.ready:
            for pod in self.space.index.pods(self.revision):
                note(self.times, pod, time.time())

    def stop(self) -> None:
        self._over.set()


def note(times: PodTimes, pod: Json, now: float) -> None:
    """What is true of the pod for the first time. Pods on their way out are none."""
    if "deletionTimestamp" in pod["metadata"]:
        return
    status = pod.get("status", {})
    so = {row["type"] for row in status.get("conditions", ()) if row["status"] == "True"}
    runs = any("running" in one.get("state", {}) for one in status.get("containerStatuses", ()))
    times.scheduled = times.scheduled or now * ("PodScheduled" in so)
    times.running = times.running or now * runs
    if "Ready" in so and not times.ready:
        times.ready, times.name = now, pod["metadata"]["name"]


def steps_of(trip: float, times: PodTimes, load: Mapping[str, float], switched: float, answered: float) -> Json:
    """Seconds of each of STEPS. They add up to the whole: what is no phase of the load is the start of the process and
    the wait for the kubelet's next probe. The operator may see a pod ready before it is looked at here."""
    loaded, ready = sum(load[name] for name in LOADS), min(times.ready, switched)
    return {
        "node": times.scheduled - trip,
        "container": times.running - times.scheduled,
        "fetch": load["manifest"] + load["fetch"],
        "map": load["open"],
        "canary": load["canary"],
        "start and probe": ready - times.running - loaded,
        "switch": switched - ready,
        "answer": answered - switched,
    }


# ---------------------------------------------------------------- the index


def vectors(gigabytes: float) -> Dataset:
    """Clustered float32 vectors of that size."""
    return clustered(max(1000, round(gigabytes * GB / (4 * DIMENSION) / 1000) * 1000), DIMENSION)


def factory(gigabytes: float) -> str:
    """Lists by the square root of the rows, a power of two."""
    rows = gigabytes * GB / (4 * DIMENSION)
    return f"IVF{1 << max(4, round(rows**0.5).bit_length() - 1)},Flat"


def spec(space: Workspace, gigabytes: float) -> Json:
    """Nothing polls, a soak lasts until a person ends it, and no rule but those that always hold is judged."""
    build = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": f"{round(2048 + 2048 * gigabytes)}Mi"}}
    mine = {
        "source": {"poll": "0", "minInterval": "1s"},
        "index": {"factory": factory(gigabytes), "objective": {"recall": 0.96}},
        "gate": {"recall": {"min": 0.9}},
        "build": {"resources": build, "retries": 1},
        "searcher": {"replicas": 1, "resources": {"requests": {"cpu": "50m"}}},
        "rollout": {"soak": {"duration": "1h", "minQueries": 1_000_000, "maxDuration": "6h"}, **space.rollout},
        "guardrails": {"rules": []},
    }
    small = space.smallest("source")
    return {**small, "spec": merged(small["spec"], mine)}


# ---------------------------------------------------------------- the run


@dataclass(frozen=True, slots=True)
class Place:
    cluster: Cluster
    kube: Kube
    store: ObjectStore
    images: Images
    rate: float
    rounds: int


def measure(place: Place, gigabytes: float) -> list[WayBack]:
    """All rounds of one size, in a namespace of their own."""
    data = vectors(gigabytes)
    space = Workspace.create(place.kube, place.store, place.images, f"bench-cold-{secrets.token_hex(2)}")
    try:
        say(gigabytes, f"{data.name}, {factory(gigabytes)}: building and proving it")
        place.store.client.upload_file(str(data.path), space.bucket, "source/vectors.npy")
        space.index.apply(spec(space, gigabytes))
        space.index.wait(lambda: rolled_out(space), STEP_SECONDS, "the first revision to be stable")
        first = space.index.traffic()
        queries = bodies(data.queries(200))
        settings: dict[str, Any] = {"rate": place.rate, "retries": CLIENT_RETRIES, "max_seconds": 10_000.0}
        with traffic.to_index(space.kube, space.images, space.index, queries, **settings) as running:
            running.wait(lambda seen: seen.queries >= place.rate, 60, "the first second of traffic")
            return [round_trip(place, space, running, first, gigabytes) for _ in range(place.rounds)]
    finally:
        # Nobody waits until the searchers have drained: the namespace goes after them.
        space.retire()
        place.store.remove_bucket(space.bucket)
        place.kube.delete("Namespace", space.namespace)


def rolled_out(space: Workspace) -> bool:
    """Whether it is. Raises HarnessError where nothing goes on."""
    if stalled := space.index.condition("Stalled"):
        raise HarnessError(f"{stalled['reason']}: {stalled['message']}\n{space.index.explain()}")
    return bool(space.index.condition("RolledOut").get("status") == "True")


def round_trip(place: Place, space: Workspace, running: Traffic, first: str, gigabytes: float) -> WayBack:
    """A second revision is promoted, the first one's searchers go, and the traffic goes back."""
    index, known = space.index, set(space.index.revisions())
    index.verb("refresh", f"n-{len(known)}")
    second = index.wait_new_revision(known)
    index.wait_revision(second, "Soaking", timeout=STEP_SECONDS)
    say(gigabytes, f"{second} soaks; the container of {first} starts again with its files there")
    there = load_again(place, space, first)
    index.verb("promote", f"n-{len(known)}")
    index.wait_revision(second, "Stable", timeout=60)
    say(gigabytes, f"{second} is stable; the searchers of {first} drain")
    index.wait(lambda: not index.pods(first), 180, f"the searchers of {first} to go")
    # Its conditions are written in the pass that sees this.
    possible = index.wait_condition("RollbackPossible", reason="Cold", timeout=60)
    return go_back(place, space, running, (first, second), gigabytes, expected_of(possible["message"]), there)


def go_back(
    place: Place,
    space: Workspace,
    running: Traffic,
    revisions: tuple[str, str],
    gigabytes: float,
    expected: float | None,
    there: float,
) -> WayBack:
    """The rollback itself."""
    (first, second), index = revisions, space.index
    watcher = Watcher(space, first)
    looking = threading.Thread(target=watcher.run, name="pods", daemon=True)
    before, asked = running.snapshot(), time.time()
    looking.start()
    try:
        index.verb("rollback", f"n-{secrets.token_hex(2)}")
        space.wait_phase(second, "RolledBack", timeout=STEP_SECONDS)
    finally:
        watcher.stop()
        looking.join()
    seen = running.wait(
        lambda s: first in s.revisions and s.at - s.revisions[second].last_at > QUIET_SECONDS, 120, f"{first} to answer"
    )
    decision, trip = index.decision(), unix(index.revision(second)["rollout"]["trip"]["at"])
    if decision is None or decision.to_revision != first:
        raise HarnessError(f"the last decision is {decision}, not the way back to {first}")
    answered = seen.revisions[first].first_after(trip)
    if answered is None or not watcher.times.ready:
        raise HarnessError(f"{first} answered at {answered}, its pod: {watcher.times}\n{index.explain()}")
    load = load_of(place.kube, space.namespace, watcher.times.name)
    return WayBack(
        gigabytes=gigabytes,
        decided=trip - asked,
        steps=steps_of(trip, watcher.times, load, decision.at, answered),
        total=answered - trip,
        last_bad=max(0.0, seen.revisions[second].last_at - trip),
        expected=expected,
        there=there,
        queries=seen.queries - before.queries,
        failed=seen.failed - before.failed,
        answered_again=seen.answered_again - before.answered_again,
    )


def load_again(place: Place, space: Workspace, revision: str) -> float:
    """Seconds of fetching in a container that is started again in its pod, where the files lie."""
    (pod,) = (one for one in space.index.pods(revision) if "deletionTimestamp" not in one["metadata"])
    kill_container(place.cluster, place.kube, pod)
    name = pod["metadata"]["name"]

    def ready() -> Json | None:
        live = place.kube.get("Pod", name, space.namespace)
        if live is None:
            raise HarnessError(f"{name} is gone: only the local cluster's containers can be killed in their pods")
        (one,) = live["status"]["containerStatuses"]
        return live if one["restartCount"] and one["ready"] else None

    space.kube.wait_for(ready, STEP_SECONDS, f"{name} to be ready again")
    load = load_of(place.kube, space.namespace, name)
    return load["manifest"] + load["fetch"]


def load_of(kube: Kube, namespace: str, pod: str) -> dict[str, float]:
    """vectorindex_load_seconds of a pod, by phase."""
    status, body = kube.call("GET", f"/api/v1/namespaces/{namespace}/pods/{pod}:8081/proxy/metrics")
    if status != 200:
        raise HarnessError(f"no metrics of {pod}: {status} {body}")
    rows = re.findall(r'^vectorindex_load_seconds\{[^}]*phase="(\w+)"[^}]*\} (\S+)$', body["text"], re.MULTILINE)
    return {phase: float(value) for phase, value in rows}


def say(gigabytes: float, text: str) -> None:
    print(f"{gigabytes:g} GB: {text}", file=sys.stderr, flush=True)


def check_disk(sizes: Sequence[float]) -> None:
    free, needed = shutil.disk_usage(CHECKOUT).free / GB, DISK_TIMES * max(sizes)
    if free < needed:
        raise SystemExit(f"{free:.0f} GB of disk are free; an index of {max(sizes):g} GB needs about {needed:.0f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small index; writes no results")
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.1, 1, 4], help="GB of index")
    parser.add_argument("--rounds", type=int, default=1, help="rollbacks of each size")
    parser.add_argument("--rate", type=float, default=20.0, help="queries per second")
    parser.add_argument("--write", action="store_true", help="replace bench/results/cold.md and its figures")
    asked = parser.parse_args()
    sizes: list[float] = [0.02] if asked.quick else asked.sizes
    check_disk(sizes)
    chosen = cluster.choose()
    chosen.up()
    built = images.build(chosen)
    kube, store = Kube(chosen), s3.connect(chosen)
    release.install(chosen, built)
    place = Place(chosen, kube, store, built, asked.rate, asked.rounds)
    found: list[WayBack] = []
    for size in sizes:
        found += measure(place, size)
        print(json.dumps(asdict(found[-1])), file=sys.stderr, flush=True)
    print(table(found))
    if asked.write and not asked.quick:
        command = (
            f"python bench/cold.py --sizes {' '.join(f'{one:g}' for one in sizes)} --rounds {asked.rounds} --write"
        )
        results.write_page("cold", page(found, command, asked.rate))
        results.add_to_summary(figures(found))
    return int(any(one.failed for one in found))


if __name__ == "__main__":
    sys.exit(main())
