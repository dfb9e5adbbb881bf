"""What looking costs: idle VectorIndexes are looked at for hours without a read, besides watches and relist."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from random import Random
from typing import Any

import pytest
from raw_objects import at_once
from simulator.operators import SETTINGS
from simulator.simulation import QUIET_GAPS, run
from simulator.store import NAMESPACE, Json
from simulator.world import NAME

from vectorindex_operator.core.internal_keys import Addressee
from vectorindex_operator.core.judging.evidence import PodCounts, PodEvidence
from vectorindex_operator.core.judging.questions import Question
from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile.cache import LiveCluster, ReadCache
from vectorindex_operator.reconcile.drift import marked
from vectorindex_operator.reconcile.loop import Reconciler
from vectorindex_operator.reconcile.observe import CHILD_KINDS
from vectorindex_operator.reconcile.relist import Relist
from vectorindex_operator.reconcile.watches import WATCHED

IDLE = 1000
PAGE = 500


class Server:
    """An API server that counts, and takes no writes."""

    def __init__(self, objects: Iterable[Json]) -> None:
        self.objects: dict[str, dict[tuple[str, str], Json]] = {}
        for raw in objects:
            meta = raw["metadata"]
            self.objects.setdefault(raw["kind"], {})[meta["namespace"], meta["name"]] = raw
        self.reads: list[str] = []

    def get(self, kind: str, namespace: str, name: str) -> Json | None:
        self.reads.append(f"get {kind}")
        return self.objects.get(kind, {}).get((namespace, name))

    def children(self, kind: str, namespace: str, selector: str) -> list[Json]:
        self.reads.append(f"list {kind}")
        wanted = dict(part.split("=") for part in selector.split(","))
        found = [raw for (space, _), raw in self.objects.get(kind, {}).items() if space == namespace]
        return [raw for raw in found if wanted.items() <= raw["metadata"].get("labels", {}).items()]

    def pages(self, kind: str, namespace: str, selector: str, *, metadata_only: bool) -> Iterator[list[Json]]:
        found = list(self.objects.get(kind, {}).values())
        for first in range(0, max(1, len(found)), PAGE):
            self.reads.append(f"page {kind}")
            yield found[first : first + PAGE]

    def _refuse(self, *arguments: Any, **_: Any) -> Any:
        pytest.fail(f"a write: {arguments}")

    apply = apply_status = create = delete = merge = take_over = _refuse


class Quiet:
    """Searchers and Events of indexes at rest: they answer, and nobody has queried them."""

    def __init__(self, clock: list[float]) -> None:
        self.clock = clock

    def evidence(
        self, to: Addressee, pods: Iterable[tuple[str, str]], question: Question
    ) -> Future[tuple[PodEvidence, ...]]:
        nothing = PodCounts(question.revision, self.clock[0], None, ())
        return at_once(tuple(PodEvidence(name, nothing, self.clock[0]) for name, _ in pods))

    def tell(self, *_: Any, **__: Any) -> None: ...

    def send(self, *arguments: Any) -> None:
        pytest.fail(f"an Event: {arguments}")


def at_rest(copies: int) -> tuple[list[Json], float]:
    """The objects of so many VectorIndexes that are stable for two hours, and the time."""
    world = run("second", 0).world
    sent = world.store.applied
    text = json.dumps([(raw, sent.get(raw["metadata"]["uid"])) for _, _, raw in world.store.everything()])
    objects: list[Json] = []
    for number in range(copies):
        moved = text.replace(f'"namespace": "{NAMESPACE}"', f'"namespace": "{namespace(number)}"')
        # The task in a pod's environment, which is JSON within the JSON.
        moved = moved.replace(rf"\"namespace\":\"{NAMESPACE}\"", rf"\"namespace\":\"{namespace(number)}\"")
        objects += [_marked_anew(raw, rendered) for raw, rendered in json.loads(moved)]
    return objects, world.now


def _marked_anew(raw: Json, sent: Json | None) -> Json:
    """An object of ours in another namespace, with the hash of what would be rendered there."""
    if sent is None:
        return raw
    meta = sent["metadata"]
    others = {name: text for name, text in meta["annotations"].items() if name != labels.RENDERED}
    bare = {name: value for name, value in meta.items() if name != "annotations"}
    rendered = {**sent, "metadata": bare | ({"annotations": others} if others else {})}
    return {**raw, "metadata": {**raw["metadata"], "annotations": marked(rendered)["metadata"]["annotations"]}}


def namespace(number: int) -> str:
    return f"team-{number}"


def test_a_thousand_idle_indexes_cost_no_reads() -> None:
    objects, now = at_rest(IDLE)
    server, cache, looks = Server(objects), ReadCache(), 0
    clock = [now]
    quiet: Any = Quiet(clock)
    relist = Relist(cache, server, lambda namespace, name: None)
    relist.fill()
    server.reads.clear()
    reconciler = Reconciler(LiveCluster(server, cache), quiet, quiet, SETTINGS, cache, clock=lambda: clock[0])
    chosen = Random(7).sample(range(IDLE), 40)  # every look is like every other; all of them would take a minute
    for gap in QUIET_GAPS:
        clock[0] += gap
        for number in chosen:
            assert reconciler.run(namespace(number), NAME).again_after is not None
            looks += 1
    assert (looks, server.reads) == (40 * len(QUIET_GAPS), [])
    assert relist.run_once() == 0
    pages = {kind.kind: -(-len(server.objects.get(kind.kind, ())) // PAGE) or 1 for kind in WATCHED}
    assert len(server.reads) == sum(pages.values()), "the relist: pages of metadata, nothing else"


def test_a_change_costs_one_live_look_and_then_none() -> None:
    objects, now = at_rest(3)
    server, cache = Server(objects), ReadCache()
    quiet: Any = Quiet([now])
    Relist(cache, server, lambda namespace, name: None).fill()
    server.reads.clear()
    reconciler = Reconciler(LiveCluster(server, cache), quiet, quiet, SETTINGS, cache, clock=lambda: now)
    cache.forget("Service", namespace(1), NAME, cache.turn())
    for _ in range(5):
        reconciler.run(namespace(1), NAME)
    assert len(server.reads) == len(CHILD_KINDS) + 3, (
        "what the cache had lost was found by the one look that would have written"
    )
