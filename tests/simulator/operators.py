"""Operator processes: the real Reconciler on the real queue, with ports that fail and a clock that is simulated."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from simulator.clock import START
from simulator.faults import CrashError, Faults
from simulator.network import Courier, Ports
from simulator.store import NAMESPACE, Json
from simulator.world import NAME, World

from vectorindex_operator.core.events import Event
from vectorindex_operator.core.internal_keys import InternalKeys
from vectorindex_operator.core.state import Installation
from vectorindex_operator.handlers import told
from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile.cache import UNWATCHED, LiveCluster, ReadCache
from vectorindex_operator.reconcile.claims import DEFAULT_CLASS, finalizer_of
from vectorindex_operator.reconcile.errors import ClusterError
from vectorindex_operator.reconcile.loop import Reconciler
from vectorindex_operator.reconcile.queue import Key, KeyedQueue, Outcome
from vectorindex_operator.reconcile.relist import Relist
from vectorindex_operator.reconcile.watches import WATCHED

SETTINGS = Installation(
    searcher_image="searcher:1",
    gpu_image="searcher:1-gpu",
    internal_keys=InternalKeys("a master key of 32 characters..."),
)
RELIST_SECONDS = 60.0
WATCHED_WITHOUT_CACHE = ("VectorIndex", "VectorIndexRevision", "Job", "Deployment", "Pod", "Service", "EndpointSlice")


class Operator:
    """One operator process: a queue of one key, and a Reconciler that is thrown away when it crashes."""

    def __init__(self, name: str, world: World, faults: Faults, skew: float = 0.0, *, cached: bool = True) -> None:
        self.cached = cached
        """Whether it looks at what the watches told, as the real one does, or reads everything in each pass."""
        self.name, self.world, self.faults, self.skew = name, world, faults, skew
        self.on_event: Callable[[Event], None] = lambda event: None
        self.on_bug: Callable[[str], None] = lambda text: None
        self.on_pass: Callable[[Operator], None] = lambda operator: None
        self.acting: Callable[[Operator | None], None] = lambda operator: None
        self.passes = 0
        self.requeue = 0.0
        self.started_at = 0.0
        self.busy = False
        self.automatic = True
        self.settings = SETTINGS
        self.operator_class = DEFAULT_CLASS
        self.hung: dict[str, float] = {}
        """Kinds whose watch tells nothing, and until when."""
        self._start()

    def _start(self) -> None:
        self.queue = Turns(
            self._work, on_result=self._counted, clock=lambda: self.world.now, jitter=self.faults.rng.uniform
        )
        self.queue.later = partial(self._later, self.queue)
        self.ports = Ports(self)
        self.cache = ReadCache()
        self.lists = Relist(self.cache, self.ports, self._marked)
        cluster = LiveCluster(self.ports, self.cache) if self.cached else self.ports
        cache = self.cache if self.cached else None
        self.reconciler = Reconciler(
            cluster,
            self.ports,
            self.ports,
            self.settings,
            cache,
            self.operator_class,
            on_answer=self._marked,
            figures=self.ports,
            courier=Courier(self.ports) if self.settings.notifies else None,
            clock=self.clock,
        )
        self.filled = not self.cached
        if self.cached:
            self._fill(self.cache)

    def _fill(self, cache: ReadCache) -> None:
        """Before its first pass a process reads everything, and tries again until it could."""
        if cache is not self.cache:
            return
        try:
            self.lists.fill()
        except ClusterError:
            self.world.clock.after(self.faults.rng.uniform(2.5, 7.5), lambda: self._fill(cache))
        else:
            self.filled = True

    def _marked(self, namespace: str, name: str) -> None:
        self.mark(self.faults.rng.uniform(0.0, 0.05))

    def hear(self, kind: str, old: Json | None, new: Json | None, after: float) -> None:
        """A watch tells of a change after a while; two that tell of one object may do so in the wrong order."""
        if kind in UNWATCHED:
            return
        after += max(0.0, self.hung.get(kind, 0.0) - self.world.now)
        if not self.cached:
            if kind in WATCHED_WITHOUT_CACHE:
                self.mark(after)
            return
        raw, gone = new, False
        if not _is_watched(kind, new):
            if not _is_watched(kind, old):
                return
            # Also what only lost the label that is watched for: then the watch tells that it is gone.
            assert old is not None
            raw, gone = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.world.store.version)}}, True
        event = {"type": "DELETED" if gone else "MODIFIED", "object": raw}
        self.world.clock.after(after, lambda: told(_Marks(self._marked), self.cache, event))

    def _maybe_hang(self) -> None:
        """A connection that is half open tells nothing until it is given up; then its events come all at once."""
        rng, now = self.faults.rng, self.world.now
        if any(until > now for until in self.hung.values()) or not self.faults.happens(self.faults.hung):
            return
        kinds = [kind.kind for kind in WATCHED]
        if rng.random() < 0.5:
            kinds = rng.sample(kinds, rng.randrange(1, 4))
        until = now + rng.uniform(1.0, 20.0)
        self.hung = dict.fromkeys(kinds, until)
        self.faults.log.append(
            f"{now - START:9.2f} {self.name}: watches of {', '.join(kinds)} hang for {until - now:.0f} s"
        )

    def become(self, operator_class: str) -> None:
        """It is of this class from now on."""
        self.operator_class = operator_class
        self.settings = replace(self.settings, finalizer=finalizer_of(operator_class))
        self._start()

    def notifies(self) -> None:
        """It tells a webhook what is decided."""
        self.settings = replace(self.settings, notifies=True)
        self._start()

    def takes_over(self) -> None:
        """It keeps what was decided beside the artifacts, and begins with it."""
        self.settings = replace(self.settings, outcomes=True)
        self._start()

    def collects(self) -> None:
        """It removes the artifacts of what falls out of the history."""
        self.settings = replace(self.settings, collect_history=True, cluster_uid="cluster-1")
        self._start()

    def upgrade(self, image: str) -> None:
        """The process is replaced by one of a newer version."""
        self.settings = replace(self.settings, searcher_image=image)
        self._start()
        self.mark(0.1)

    def clock(self) -> float:
        return self.world.now + self.skew

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """While a write of this operator is committed."""
        self.acting(self)
        try:
            yield
        finally:
            self.acting(None)

    def mark(self, after: float) -> None:
        """A pass in `after` seconds at the latest."""
        if self.automatic:
            self.queue.mark(NAMESPACE, NAME, after)

    def _later(self, queue: Turns, after: float) -> None:
        if self.automatic:
            self.world.clock.after(after, lambda: self._turn(queue))

    def _turn(self, queue: Turns) -> None:
        """A worker of the queue looks for something to do; those of a process that is gone do not."""
        if queue is not self.queue:
            return
        if self.world.nobody_until > self.world.now:
            self._later(queue, self.world.nobody_until - self.world.now)
        elif not self.filled:
            self._later(queue, 1.0)
        elif (key := queue.take_due()) is not None:
            self._pass(key)

    def relist(self) -> None:
        if not self.automatic:
            return
        self.world.clock.after(RELIST_SECONDS, self.relist)
        if self.world.nobody_until > self.world.now:
            return
        if not self.cached:
            self.mark(self.faults.rng.uniform(0.0, 0.5))
        elif self.filled and not self.busy:
            with contextlib.suppress(ClusterError):
                self.lists.run_once()

    def run(self) -> None:
        """One pass, now."""
        KeyedQueue.mark(self.queue, NAMESPACE, NAME)
        key = self.queue.take_due()
        assert key is not None, "a pass is running"
        self._pass(key)

    def _pass(self, key: Key) -> None:
        """One pass, with whatever befalls it."""
        queue = self.queue
        self.busy, self.started_at = True, self.world.now
        self.passes += 1
        try:
            queue.run_one(key)
        except CrashError:
            self._start()
            self.mark(self.faults.rng.uniform(0.5, 10.0))
        finally:
            self.busy = False
        self._later(queue, 0.0)  # what was marked meanwhile found the key taken

    def _work(self, namespace: str, name: str) -> Outcome:
        self._maybe_hang()
        try:
            outcome = self.reconciler.run(namespace, name)
        except ClusterError:
            raise
        except Exception as error:
            self.on_bug(f"a pass raised {error!r}\n{traceback.format_exc()}")
            raise
        self.requeue = 300.0 if outcome.again_after is None else outcome.again_after
        return outcome

    def _counted(self, result: str, seconds: float) -> None:
        if result in ("ok", "refused"):
            self.on_pass(self)


def _is_watched(kind: str, obj: Json | None) -> bool:
    if obj is None or kind == "VectorIndex":
        return obj is not None
    return bool(obj["metadata"].get("labels", {}).get(labels.MANAGED_BY) == labels.OPERATOR)


class Turns(KeyedQueue):
    """The operator's own queue. Instead of threads that wait, `later` has somebody look when something may be due."""

    later: Callable[[float], None]

    def mark(self, namespace: str, name: str, after: float = 0.0) -> None:
        super().mark(namespace, name, after)
        self.later(after)


@dataclass(frozen=True, slots=True)
class _Marks:
    """The queue, as far as a watch needs it."""

    mark: Callable[[str, str], None]
