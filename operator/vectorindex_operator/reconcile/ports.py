"""What the loop needs from outside, as Protocols: the cluster, the searchers' admin port, the event sink.

Adapters implement them for real; the simulator implements them with faults.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from vectorindex_operator.core.events import Event
from vectorindex_operator.core.fresh_looks import FreshAnswer, FreshQuestion
from vectorindex_operator.core.internal_keys import Addressee
from vectorindex_operator.core.judging.evidence import PodEvidence
from vectorindex_operator.core.judging.figures import FigureAnswer, FigureQuestion
from vectorindex_operator.core.judging.questions import Question
from vectorindex_operator.core.judging.shadow import PodPairs
from vectorindex_operator.core.notices import Notice
from vectorindex_operator.core.source_poll import SourceAnswer, SourceQuestion
from vectorindex_searcher.contract import FreshOrder, MirrorLease, PointOrder, TrafficLease

Raw = Mapping[str, Any]


class Cluster(Protocol):
    """Objects as plain JSON. Raises only errors.ClusterError. `kind` is the Kubernetes kind."""

    def get(self, kind: str, namespace: str, name: str) -> Raw | None: ...

    def children(self, kind: str, namespace: str, selector: str) -> list[Raw]:
        """Objects of `kind` of one VectorIndex: `selector` names it."""
        ...

    def apply(self, manifest: Raw, *, force: bool = True) -> Raw:
        """Server-side apply by our one field manager: what it no longer holds is removed.

        `force` takes over fields that somebody else changed; without it they are a ConflictError.
        """
        ...

    def take_over(self, live: Raw) -> str:
        """Make what our manager wrote into `live` by other means count as applied, so that `apply` can remove it.

        Does nothing where there is no such thing; `live`'s resourceVersion is the precondition. Answers the one that it
        has then.
        """
        ...

    def merge(self, manifest: Raw) -> Raw:
        """JSON merge patch of an object that exists: lists replace, null removes.

        `metadata.resourceVersion`, where given, is the precondition; an object that is gone is a ConflictError.
        """
        ...

    def create(self, manifest: Raw) -> Raw | None:
        """Create. None: an object of that name was there already and is left as it is."""
        ...

    def judge(self, manifest: Raw) -> None:
        """Have an object judged as if it were made, by a dry run. Raises RefusedError, InvalidError for its own faults.

        An object of that name may be there.
        """
        ...

    def apply_status(self, manifest: Raw) -> Raw:
        """Server-side apply of the status subresource; `metadata.resourceVersion` is the precondition."""
        ...

    def delete(self, kind: str, namespace: str, name: str, uid: str, version: str = "") -> None:
        """Delete in the background, only while the uid is this one; gone already is success.

        `version`: only while nobody has written to it since; else it is a ConflictError.
        """
        ...


class Lists(Protocol):
    """All objects of a kind, for the cache. Raises only errors.ClusterError."""

    def pages(self, kind: str, namespace: str, selector: str, *, metadata_only: bool) -> Iterator[list[Raw]]:
        """Objects of one namespace, or of all with "", without managed fields. `metadata_only`: nor spec and status."""
        ...


class Searchers(Protocol):
    """The admin port of searcher pods. Never raises, and never waits for a pod."""

    def evidence(
        self, to: Addressee, pods: Iterable[tuple[str, str]], question: Question
    ) -> Future[tuple[PodEvidence, ...]]:
        """Ask each (pod name, address) in parallel; `question` says since when, and how urgent it is.

        The answers come within seconds, whatever the pods do: a silent pod is evidence too.
        """
        ...

    def pairs(self, to: Addressee, pods: Iterable[tuple[str, str]], shadow: str) -> Future[tuple[PodPairs, ...]]:
        """Ask each (pod name, address) what it counted of a shadow; as `evidence`."""
        ...

    def source(self, to: Addressee, question: SourceQuestion) -> Future[SourceAnswer]:
        """Ask one pod about the source; the answer comes within seconds, also that there is none."""
        ...

    def fresh(self, to: Addressee, question: FreshQuestion) -> Future[FreshAnswer]:
        """Ask one pod about the fresh rows; as `source`."""
        ...

    def tell(self, to: Addressee, addresses: Iterable[str], lease: TrafficLease) -> object:
        """Renew leases, best effort; nobody waits for it."""
        ...

    def order(self, to: Addressee, addresses: Iterable[str], order: PointOrder | FreshOrder) -> object:
        """Tell pods their operating point, or whether they answer fresh rows, best effort; nobody waits for it."""
        ...

    def mirror(self, to: Addressee, addresses: Iterable[str], receiver: Addressee, lease: MirrorLease) -> object:
        """Have pods send queries to those of `receiver`, best effort. `lease`: its key is sealed here."""
        ...


class Figures(Protocol):
    """The installation's Prometheus. Never raises, and nobody waits for it."""

    def ask(self, namespace: str, questions: Sequence[FigureQuestion]) -> Future[tuple[FigureAnswer, ...]]:
        """The answers, one for each question, within seconds; also that there are none. `namespace`: who asks."""
        ...


class Courier(Protocol):
    """Whoever wants to know what was decided. Never raises, and nobody waits for it."""

    def send(self, notice: Notice) -> Future[str]:
        """Empty: it was taken; else why not, in words for people, within seconds."""
        ...


class Events(Protocol):
    """Kubernetes Events about a VectorIndex. Never raises."""

    def send(self, regarding: Raw, event: Event) -> None: ...
