"""The ports of one operator process: they fail as networks, API servers and processes do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from random import Random
from typing import Any, Protocol, TypeVar

from raw_objects import at_once
from simulator.clock import START
from simulator.faults import CrashError, Faults
from simulator.store import Json
from simulator.world import World

from vectorindex_operator.adapters.pairs import path_of as pairs_path
from vectorindex_operator.adapters.signing import Signer
from vectorindex_operator.adapters.source_looks import path_of
from vectorindex_operator.core.events import Event
from vectorindex_operator.core.fresh_looks import FreshAnswer, FreshQuestion
from vectorindex_operator.core.internal_keys import Addressee
from vectorindex_operator.core.judging.evidence import PodEvidence
from vectorindex_operator.core.judging.figures import FigureAnswer, FigureQuestion
from vectorindex_operator.core.judging.questions import Question
from vectorindex_operator.core.judging.shadow import PodPairs
from vectorindex_operator.core.notices import Notice
from vectorindex_operator.core.source_poll import SourceAnswer, SourceQuestion
from vectorindex_operator.core.state import Installation
from vectorindex_operator.reconcile.errors import (
    ConflictError,
    NamespaceTerminatingError,
    RefusedError,
    UnreachableError,
)
from vectorindex_searcher.contract import (
    FRESH_PATH,
    MIRROR_PATH,
    POINT_PATH,
    FreshOrder,
    InternalRequest,
    MirrorLease,
    PointOrder,
    TrafficLease,
)

T = TypeVar("T")


class Process(Protocol):
    """Whose ports these are."""

    name: str
    world: World
    faults: Faults
    settings: Installation
    automatic: bool
    on_event: Callable[[Event], None]

    def clock(self) -> float: ...

    def writing(self) -> AbstractContextManager[None]: ...


class Ports:
    """reconcile.ports.{Cluster, Searchers, Figures, Events} of one operator process."""

    def __init__(self, operator: Process) -> None:
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
        if kind == "HTTPRoute":
            self.reads -= 1  # nobody watches it, so each look asks for it
            self._check_gateway_api(kind)
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
        kind, name = manifest["kind"], manifest["metadata"]["name"]

        def act() -> Json:
            self._check_gateway_api(kind)
            if self.store.get(kind, name) is None:
                self._check_namespace()
            return self.store.apply(manifest, force=force)

        return self._write(kind, name, act)

    def merge(self, manifest: Json) -> Json:
        return self._write(manifest["kind"], manifest["metadata"]["name"], lambda: self.store.merge(manifest))

    def take_over(self, live: Json) -> str:
        """Nothing here has managed fields."""
        return str(live["metadata"]["resourceVersion"])

    def apply_status(self, manifest: Json) -> Json:
        return self._write(manifest["kind"], manifest["metadata"]["name"], lambda: self.store.apply_status(manifest))

    def create(self, manifest: Json) -> Json | None:
        kind, name = manifest["kind"], manifest["metadata"]["name"]

        def act() -> bool:
            self._check_gateway_api(kind)
            self._check_namespace()
            return self.store.create(manifest)

        created = self._write(kind, name, act)
        return self.store.get(kind, name) if created else None

    def judge(self, manifest: Json) -> None:
        self._write(manifest["kind"], manifest["metadata"]["name"], self._check_namespace)

    def delete(self, kind: str, namespace: str, name: str, uid: str, version: str = "") -> None:
        def act() -> None:
            live = self.store.get(kind, name)
            if live is not None and version not in ("", live["metadata"]["resourceVersion"]):
                raise ConflictError(f"{kind}/{name}: {version} is not the latest version")
            if live is not None and live["metadata"]["uid"] == uid:
                self.world.controllers.delete(kind, name)

        self._write(kind, name, act)

    def _check_gateway_api(self, kind: str) -> None:
        if kind == "HTTPRoute" and self.world.gateway.absent:
            raise RefusedError("404 : 404 page not found")

    def _check_namespace(self) -> None:
        if self.world.terminating:
            raise NamespaceTerminatingError("403 Forbidden: unable to create new content: it is being terminated")

    def _write(self, kind: str, name: str, act: Callable[[], Any]) -> Any:
        fault = self.faults.on_write()
        if fault:
            self._log(f"write {self.faults.count} ({kind}/{name}): {fault}")
        if kind in self.world.truth.refused or self.faults.is_refused(kind, self.world.now):
            raise RefusedError(f"403 Forbidden: {kind}/{name}: not now")
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
        self.world.sent += 1
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
        now, request = self.operator.clock(), InternalRequest("GET", "/v1/evidence")
        headers = self._headers(to, request)
        answers = self.world.searchers.evidence(pods, question.since, now, request, headers)
        if self.faults.happens(self.faults.silent):
            self._log("searchers do not answer")
            answers = tuple(PodEvidence(a.pod, None, a.received_at) for a in answers)
        return self._in_time(answers)

    def pairs(self, to: Addressee, pods: Iterable[tuple[str, str]], shadow: str) -> Future[tuple[PodPairs, ...]]:
        request = InternalRequest("GET", pairs_path(shadow))
        answers = self.world.searchers.pairs(pods, shadow, self.operator.clock(), request, self._headers(to, request))
        if self.faults.happens(self.faults.silent):
            self._log("searchers do not tell their pairs")
            answers = tuple(PodPairs(one.pod, None, "no whole answer") for one in answers)
        return self._in_time(answers)

    def _in_time(self, answers: T) -> Future[T]:
        if not self.faults.late or not self.operator.automatic:
            return at_once(answers)
        later: Future[T] = Future()
        self.world.clock.after(self.lateness.uniform(0.0, self.faults.late), lambda: later.set_result(answers))
        return later

    def source(self, to: Addressee, question: SourceQuestion) -> Future[SourceAnswer]:
        request = InternalRequest("GET", path_of(question))
        look = self.world.searchers.source(question, request, self._headers(to, request))
        answer = look if isinstance(look, SourceAnswer) else SourceAnswer(look)
        if self.faults.happens(self.faults.silent):
            self._log("a searcher does not answer about the source")
            answer = SourceAnswer(problem="no whole answer")
        later: Future[SourceAnswer] = Future()
        if self.faults.late and self.operator.automatic:
            self.world.clock.after(self.lateness.uniform(0.0, self.faults.late), lambda: later.set_result(answer))
        else:
            later.set_result(answer)
        return later

    def fresh(self, to: Addressee, question: FreshQuestion) -> Future[FreshAnswer]:
        request = InternalRequest("GET", FRESH_PATH)
        answer = self.world.searchers.fresh(question, request, self._headers(to, request))
        return self._in_time(FreshAnswer(problem="no answer") if self.faults.happens(self.faults.silent) else answer)

    def ask(self, namespace: str, questions: Sequence[FigureQuestion]) -> Future[tuple[FigureAnswer, ...]]:
        """Of Prometheus, which is away at times, and whose numbers are those of the revisions' users."""
        down = self.world.truth.no_figures or self.faults.happens(self.faults.silent)
        said = FigureAnswer(problem="no whole answer") if down else None
        return self._in_time(tuple(said or self.world.figures(one) for one in questions))

    def tell(self, to: Addressee, addresses: Iterable[str], lease: TrafficLease) -> None:
        request = InternalRequest("POST", "/v1/lease", lease.model_dump_json(by_alias=True).encode())
        if not self.faults.happens(self.faults.silent):
            self.world.searchers.tell(addresses, request, self._headers(to, request))

    def order(self, to: Addressee, addresses: Iterable[str], order: PointOrder | FreshOrder) -> None:
        path = POINT_PATH if isinstance(order, PointOrder) else FRESH_PATH
        request = InternalRequest("POST", path, order.model_dump_json(by_alias=True).encode())
        if not self.faults.happens(self.faults.silent):
            self.world.searchers.order(addresses, request, self._headers(to, request))

    def mirror(self, to: Addressee, addresses: Iterable[str], receiver: Addressee, lease: MirrorLease) -> None:
        sealed = lease.model_copy(update={"sealed_key": self._signer().seal(receiver, to)})
        body = sealed.model_dump_json(by_alias=True, exclude_none=True).encode()
        request = InternalRequest("POST", MIRROR_PATH, body)
        if not self.faults.happens(self.faults.silent):
            self.world.searchers.mirror(addresses, request, self._headers(to, request))

    def _headers(self, to: Addressee, request: InternalRequest) -> dict[str, str]:
        return self._signer().headers(to, request.method, request.path, request.body)

    def _signer(self) -> Signer:
        return Signer(self.operator.settings.internal_keys, self.operator.clock)

    def send(self, regarding: Json, event: Event) -> None:
        self.operator.on_event(event)


class Courier:
    """reconcile.ports.Courier: a webhook that is away at times. A class of its own, since Events are sent, too."""

    def __init__(self, ports: Ports) -> None:
        self.ports = ports

    def send(self, notice: Notice) -> Future[str]:
        world, faults = self.ports.world, self.ports.faults
        if world.truth.no_webhook or faults.happens(faults.silent):
            return self.ports._in_time("no answer")
        world.told.append(notice)
        lost = faults.happens(faults.silent)  # taken, and nobody hears of it
        return self.ports._in_time("no answer" if lost else "")
