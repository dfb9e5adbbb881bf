"""Operator processes: the real Reconciler on ports that fail as networks, API servers and processes do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, TypeVar

from raw_objects import at_once
from simulator.clock import START
from simulator.store import Json
from simulator.world import ASKED, NAME, NAMESPACE, World

from vectorindex_operator.adapters.signing import Signer
from vectorindex_operator.core.events import Event
from vectorindex_operator.core.internal_keys import Addressee, InternalKeys
from vectorindex_operator.core.judging.evidence import PodEvidence
from vectorindex_operator.core.judging.questions import Question
from vectorindex_operator.core.state import Installation
from vectorindex_operator.handlers import told
from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile.cache import LiveCluster, ReadCache
from vectorindex_operator.reconcile.claims import DEFAULT_CLASS
from vectorindex_operator.reconcile.errors import (
    ClusterError,
    ConflictError,
    RefusedError,
    ReportedError,
    UnreachableError,
)
from vectorindex_operator.reconcile.loop import Reconciler
from vectorindex_operator.reconcile.relist import Relist
from vectorindex_operator.reconcile.watches import WATCHED
from vectorindex_searcher.contract import TrafficLease

T = TypeVar("T")

SETTINGS = Installation(
    searcher_image="searcher:1",
    gpu_image="searcher:1-gpu",
    internal_keys=InternalKeys("a master key of 32 characters..."),
)
ON_WRITE = ("crash before", "crash after", "lost answer", "conflict", "error", "refused", "pause")
READ_SECONDS = (0.1, 1.0, 5.0, 18.0)
"""An answer that takes 20 s is none any more (adapters/kube.py)."""
RELIST_SECONDS = 60.0
WATCHED_WITHOUT_CACHE = ("VectorIndex", "VectorIndexRevision", "Job", "Deployment", "Pod", "Service", "EndpointSlice")


class CrashError(BaseException):
    """The process is gone. Not an Exception: nothing may catch it."""


@dataclass(slots=True)
class Faults:
    """What goes wrong, drawn from the seed. `single`: exactly one fault, at that write of all operators' writes."""

    rng: Random
    single: tuple[int, str] | None = None
    writes: float = 0.0
    reads: float = 0.0
    hung: float = 0.0
    """Of passes: before it the watches fall silent for a while."""
    slow: float = 0.0
    """Of reads: the world goes on before the answer is there."""
    lost_events: float = 0.0
    silent: float = 0.0
    late: float = 0.0
    """Seconds at most until searchers answer; 0: they do at once."""
    pauses: tuple[float, ...] = (0.5, 3.0, 15.0, 40.0)
    """Seconds for which a write stands still."""
    lasts: tuple[float, float] = (60.0, 1200.0)
    """Seconds, at least and at most, until nothing goes wrong any more."""
    active: bool = True
    count: int = 0
    log: list[str] = field(default_factory=list)

    @classmethod
    def drawn(cls, rng: Random) -> Faults:
        """A third of the seeds has a single fault, at any write; the others have a mix of their own."""
        if rng.random() < 0.35:
            return cls(rng, single=(rng.randrange(1, 60), rng.choice(ON_WRITE)))

        def some(high: float) -> float:
            return rng.uniform(0.0, high) if rng.random() < 0.6 else 0.0

        return cls(
            rng,
            writes=some(0.25),
            reads=some(0.05),
            hung=some(0.08),
            lost_events=rng.choice((0.0, 0.2, 0.6, 1.0)),
            silent=some(0.1),
            slow=some(0.1),
        )

    @classmethod
    def none(cls, rng: Random) -> Faults:
        return cls(rng, active=False)

    def on_write(self) -> str:
        self.count += 1
        if not self.active:
            return ""
        if self.single is not None:
            return self.single[1] if self.count == self.single[0] else ""
        return self.rng.choice(ON_WRITE) if self.rng.random() < self.writes else ""

    def happens(self, share: float) -> bool:
        return self.active and share > 0 and self.rng.random() < share

    def read_takes(self) -> tuple[float, bool]:
        """Seconds until an answer is there, and whether it shows what was so when it was asked for."""
        if not self.happens(self.slow):
            return 0.0, False
        return self.rng.choice(READ_SECONDS), self.rng.random() < 0.5


class Ports:
    """reconcile.ports.{Cluster, Searchers, Events} of one operator process."""

    def __init__(self, operator: Operator) -> None:
        self.operator, self.world, self.faults = operator, operator.world, operator.faults
        self.store = operator.world.store
        self.lateness = Random(0)
        """Of its own: the same run with and without late answers has the same other faults."""
        self.reads = 0
        """Requests so far, besides those of the relist."""

    # ------------------------------------------------------------ reads

    def pages(self, kind: str, namespace: str, selector: str, *, metadata_only: bool) -> Iterator[list[Json]]:
        """What the relist asks; pages of three, between which the world does not stop."""
        found = self._read(kind, lambda: self._labelled(kind, selector))
        self.reads -= 1
        for first in range(0, max(1, len(found)), 3):
            page = found[first : first + 3]
            yield [{"kind": kind, "metadata": o["metadata"]} for o in page] if metadata_only else page

    def get(self, kind: str, namespace: str, name: str) -> Json | None:
        return self._read(kind, lambda: self.store.get(kind, name))

    def children(self, kind: str, namespace: str, selector: str) -> list[Json]:
        return self._read(kind, lambda: self._labelled(kind, selector))

    def _labelled(self, kind: str, selector: str) -> list[Json]:
        wanted = [part.split("=") for part in selector.split(",") if part]
        return [o for o in self.store.of_kind(kind) if all(o["metadata"]["labels"].get(k) == v for k, v in wanted)]

    def _read(self, kind: str, look: Callable[[], T]) -> T:
        """An answer shows what was so at some time between the question and its arrival, and never anything older.

        A read without resourceVersion is "Most Recent": consistent, a quorum read of etcd
        (kubernetes.io/docs/reference/using-api/api-concepts, "Semantics for get and list"). Every read of the operator
        is one (adapters/kube.py); what it may see late is what the watches tell: Operator.hear.
        """
        self.reads += 1
        if self.faults.happens(self.faults.reads / 7):
            self._log(f"read of {kind} fails")
            raise UnreachableError(f"GET {kind}: 500")
        seconds, old = self.faults.read_takes()
        if not seconds:
            return look()
        self._log(f"read of {kind} takes {seconds} s, and shows its {'beginning' if old else 'end'}")
        if not old:
            self.world.clock.run_until(self.world.now + seconds)
            return look()
        found = look()
        self.world.clock.run_until(self.world.now + seconds)
        return found

    # ------------------------------------------------------------ writes

    def apply(self, manifest: Json, *, force: bool = True) -> Json:
        return self._write(manifest["kind"], manifest["metadata"]["name"], lambda: self.store.apply(manifest))

    def merge(self, manifest: Json) -> Json:
        return self._write(manifest["kind"], manifest["metadata"]["name"], lambda: self.store.merge(manifest))

    def take_over(self, live: Json) -> None:
        """Nothing here has managed fields."""

    def apply_status(self, manifest: Json) -> Json:
        return self._write(manifest["kind"], manifest["metadata"]["name"], lambda: self.store.apply_status(manifest))

    def create(self, manifest: Json) -> Json | None:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        created = self._write(kind, name, lambda: self.store.create(manifest))
        return self.store.get(kind, name) if created else None

    def delete(self, kind: str, namespace: str, name: str, uid: str, version: str = "") -> None:
        def act() -> None:
            live = self.store.get(kind, name)
            if live is not None and version not in ("", live["metadata"]["resourceVersion"]):
                raise ConflictError(f"{kind}/{name}: {version} is not the latest version")
            if live is not None and live["metadata"]["uid"] == uid:
                self.world.controllers.delete(kind, name)

        self._write(kind, name, act)

    def _write(self, kind: str, name: str, act: Callable[[], Any]) -> Any:
        fault = self.faults.on_write()
        if fault:
            self._log(f"write {self.faults.count} ({kind}/{name}): {fault}")
        if fault == "crash before":
            raise CrashError
        if fault == "conflict":
            raise ConflictError(f"{kind}/{name}: drawn")
        if fault == "refused":
            raise RefusedError(f"403 Forbidden: {kind}/{name}: drawn")
        if fault == "error":
            raise UnreachableError(f"PATCH {kind}/{name}: 500")
        if fault == "pause":
            self.world.clock.run_until(self.world.now + self.faults.rng.choice(self.faults.pauses))
        with self.operator.writing():
            result = act()
        if fault == "crash after":
            raise CrashError
        if fault == "lost answer":
            raise UnreachableError(f"PATCH {kind}/{name}: timed out")
        return result

    def _log(self, text: str) -> None:
        self.faults.log.append(f"{self.world.now - START:9.2f} {self.operator.name}: {text}")

    # ------------------------------------------------------------ searchers, events

    def evidence(
        self, to: Addressee, pods: Iterable[tuple[str, str]], question: Question
    ) -> Future[tuple[PodEvidence, ...]]:
        headers = Signer(SETTINGS.internal_keys, self.operator.clock).headers(to, *ASKED)
        answers = tuple(
            answer if self.world.takes(answer.pod, headers) else PodEvidence(answer.pod, None, answer.received_at)
            for answer in self.world.evidence(pods, question.since, self.operator.clock())
        )
        if self.faults.happens(self.faults.silent):
            self._log("searchers do not answer")
            answers = tuple(PodEvidence(a.pod, None, a.received_at) for a in answers)
        if not self.faults.late or not self.operator.automatic:
            return at_once(answers)
        later: Future[tuple[PodEvidence, ...]] = Future()
        self.world.clock.after(self.lateness.uniform(0.0, self.faults.late), lambda: later.set_result(answers))
        return later

    def tell(self, to: Addressee, addresses: Iterable[str], lease: TrafficLease) -> None:
        """Nobody listens."""

    def send(self, regarding: Json, event: Event) -> None:
        self.operator.on_event(event)


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
        self._due = float("inf")
        self._failures = 0
        self._start()

    def _start(self) -> None:
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

    def hear(self, verb: str, kind: str, old: Json | None, new: Json | None, after: float) -> None:
        """A watch tells of a change after a while; two that tell of one object may do so in the wrong order."""
        after += max(0.0, self.hung.get(kind, 0.0) - self.world.now)
        if not self.cached:
            if kind in WATCHED_WITHOUT_CACHE:
                self.mark(after)
            return
        raw = new if new is not None else old
        assert raw is not None
        if verb == "delete":
            raw = {**raw, "metadata": {**raw["metadata"], "resourceVersion": str(self.world.store.version)}}
        if kind != "VectorIndex" and raw["metadata"].get("labels", {}).get(labels.MANAGED_BY) != labels.OPERATOR:
            return
        event = {"type": "DELETED" if verb == "delete" else "MODIFIED", "object": raw}
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
        self._start()

    def upgrade(self, image: str) -> None:
        """The process is replaced by one of a newer version."""
        self.settings = replace(self.settings, searcher_image=image)
        self._start()
        self.mark(0.1)

    def clock(self) -> float:
        return self.world.now + self.skew

    def writing(self) -> _Writing:
        return _Writing(self)

    def mark(self, after: float) -> None:
        """A pass in `after` seconds at the latest."""
        due = self.world.now + after
        if self.automatic and due < self._due:
            self._due = due
            self.world.clock.after(after, lambda: self._take(due))

    def relist(self) -> None:
        if not self.automatic:
            return
        self.world.clock.after(RELIST_SECONDS, self.relist)
        if not self.cached:
            self.mark(self.faults.rng.uniform(0.0, 0.5))
        elif self.filled and not self.busy:
            with contextlib.suppress(ClusterError):
                self.lists.run_once()

    def _take(self, due: float) -> None:
        if due != self._due:
            return
        self._due = float("inf")
        if self.busy or not self.filled:
            self.mark(1.0)
            return
        self.run()

    def run(self) -> None:
        """One pass, with whatever befalls it."""
        self.busy, self.started_at = True, self.world.now
        self.passes += 1
        self._maybe_hang()
        try:
            after = self.reconciler.run(NAMESPACE, NAME)
        except CrashError:
            self._start()
            self._failures = 0
            self.mark(self.faults.rng.uniform(0.5, 10.0))
        except ClusterError as error:
            self._failures += 1
            after = min(60.0, 0.5 * 2.0 ** min(self._failures - 1, 10)) * self.faults.rng.uniform(0.5, 1.0)
            self.mark(min(after, error.look_after) if isinstance(error, ReportedError) else after)
        except Exception as error:
            import traceback

            self.on_bug(f"a pass raised {error!r}\n{traceback.format_exc()}")
        else:
            self._failures = 0
            self.requeue = 300.0 if after is None else after
            if after is not None:
                self.mark(after)
            self.on_pass(self)
        finally:
            self.busy = False


@dataclass(frozen=True, slots=True)
class _Marks:
    """The queue, as far as a watch needs it."""

    mark: Callable[[str, str], None]


class _Writing:
    """While a write of this operator is committed."""

    def __init__(self, operator: Operator) -> None:
        self.operator = operator

    def __enter__(self) -> None:
        self.operator.acting(self.operator)

    def __exit__(self, *_: object) -> None:
        self.operator.acting(None)
