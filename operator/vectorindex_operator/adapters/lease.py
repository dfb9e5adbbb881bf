"""One active operator at a time, by a Lease. Safety never rests on it: names are derived and writes have preconditions.

Losing the Lease ends the process, so that no half-stopped worker goes on; and no write is sent that the API server may
still carry out when another process holds the Lease (seconds_left). A request that hangs, or whose answer drips
for ever, is a failed try like any other; and a clock of its own (the library's is the wall clock, and it looks only
between two tries) ends the process before another one may hold the Lease.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Any

import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.leaderelection.electionconfig import Config
from kubernetes.leaderelection.leaderelection import LeaderElection
from kubernetes.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.leaderelection.resourcelock import leaselock

from vectorindex_operator.reconcile.claims import DEFAULT_CLASS

log = logging.getLogger(__name__)

NAME = "vectorindex-operator"
MOST_ABANDONED = 8


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Seconds. `duration` stands in the Lease: so long after a renewal nobody else takes it."""

    duration: int = 15
    renew_within: float = 10.0
    """So long after the last renewal the process ends."""
    retry: float = 2.0
    request: float = 3.0
    """The most that one request may take, answer included."""

    @classmethod
    def of(cls, duration: int) -> LeaseTimes:
        """The other times in proportion to `duration`."""
        return cls(duration, renew_within=duration * 2 / 3, retry=duration * 2 / 15, request=duration / 5)


def lease_name(operator_class: str) -> str:
    """One Lease for each class: operators of two classes work at the same time."""
    return NAME if operator_class == DEFAULT_CLASS else f"{NAME}-{operator_class}"


class LeaseLock(leaselock.LeaseLock):  # type: ignore[misc]
    """The library's lock, for which a request that breaks or does not end is a failed try.

    `api` must not retry by itself (adapters/kube.py: api_client), or one try would be several.
    """

    def __init__(
        self,
        namespace: str,
        identity: str,
        api: client.ApiClient,
        times: LeaseTimes | None = None,
        operator_class: str = DEFAULT_CLASS,
    ) -> None:
        super().__init__(lease_name(operator_class), namespace, identity)
        self.times = times or LeaseTimes()
        self.api_instance = _TimedApi(api, self.times.request)
        self.renewed_at: float | None = None
        """When the last renewal that succeeded began (monotonic): not before that the Lease says it was renewed."""
        self._released = threading.Event()
        self._writing = threading.Lock()

    def seconds_left(self) -> float:
        """The most that a write which is sent now may take; 0: none may be sent any more.

        Up to then nobody else holds the Lease. A process that was frozen finds out here, before it goes on.
        """
        if self.renewed_at is None or self._released.is_set():
            return 0.0
        age = time.monotonic() - self.renewed_at
        return self.times.duration - age if age < self.times.renew_within else 0.0

    def get(self, name: str, namespace: str) -> tuple[bool, Any]:
        try:
            return super().get(name, namespace)  # type: ignore[no-any-return]
        except urllib3.exceptions.HTTPError as error:
            return False, ApiException(status=0, reason=str(error))

    def create(self, name: str, namespace: str, election_record: Any) -> bool:
        return self._renewed(lambda: super(LeaseLock, self).create(name, namespace, election_record))

    def update(self, name: str, namespace: str, updated_record: Any) -> bool:
        return self._renewed(lambda: super(LeaseLock, self).update(name, namespace, updated_record))

    def _renewed(self, write: Callable[[], bool]) -> bool:
        began = time.monotonic()
        with self._writing:
            if self._released.is_set():
                return False  # a renewal that comes late must not take back what was given up
            try:
                done = bool(write())
            except urllib3.exceptions.HTTPError as error:
                log.info("lease not renewed: %s", error)
                return False
        if done:
            self.renewed_at = began
        return done

    def stop(self) -> None:
        """From now on nothing is written, and the Lease is not renewed."""
        self._released.set()

    def release(self) -> None:
        """Give the Lease up at a clean stop, so that the next process need not wait until it runs out."""
        self.stop()
        if self._writing.acquire(timeout=self.times.request):  # a renewal under way ends first, if it ends at all
            self._writing.release()
        try:
            lease = self.api_instance.read_namespaced_lease(self.name, self.namespace)
            if lease.spec.holder_identity == self.identity:
                lease.spec.holder_identity = ""
                self.api_instance.replace_namespaced_lease(self.name, self.namespace, lease)
        except (ApiException, urllib3.exceptions.HTTPError) as error:
            log.info("lease not released: %s", error)


def take_over(lock: LeaseLock) -> bool:
    """Write the Lease in this name, whoever holds it, or renew it; whether that succeeded.

    For whoever is about to remove the operator: the holder cannot renew it any more and ends. It may write for as long
    as its last renewal lasts.
    """
    there, _ = lock.get(lock.name, lock.namespace)
    now = str(datetime.now(UTC))
    record = LeaderElectionRecord(lock.identity, str(lock.times.duration), now, now)
    return (lock.update if there else lock.create)(lock.name, lock.namespace, record)


class _TimedApi:
    """The three calls of a Lease, each over within `seconds`, whatever the other side does.

    A timeout of the HTTP client is one of each read, so an answer that drips would never end. Each call runs in a
    thread that is left behind when it takes too long; of those there are few, and none is started while all are stuck.
    """

    def __init__(self, api: client.ApiClient, seconds: float) -> None:
        self._api, self._seconds = client.CoordinationV1Api(api), seconds
        self._abandoned: list[threading.Thread] = []

    def read_namespaced_lease(self, name: str, namespace: str) -> Any:
        return self._call(self._api.read_namespaced_lease, name, namespace)

    def create_namespaced_lease(self, namespace: str, body: Any) -> Any:
        return self._call(self._api.create_namespaced_lease, namespace, body)

    def replace_namespaced_lease(self, name: str, namespace: str, body: Any) -> Any:
        return self._call(self._api.replace_namespaced_lease, name, namespace, body)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self._abandoned = [thread for thread in self._abandoned if thread.is_alive()]
        if len(self._abandoned) >= MOST_ABANDONED:
            raise urllib3.exceptions.TimeoutError(f"{len(self._abandoned)} requests for the Lease do not end")
        answers: SimpleQueue[tuple[Any, Exception | None]] = SimpleQueue()

        def run() -> None:
            try:
                answers.put((function(*arguments, _request_timeout=self._seconds), None))
            except Exception as error:
                answers.put((None, error))

        thread = threading.Thread(target=run, name="lease", daemon=True)
        thread.start()
        try:
            answer, error = answers.get(timeout=self._seconds)
        except Empty:
            self._abandoned.append(thread)
            raise urllib3.exceptions.TimeoutError(f"no whole answer within {self._seconds:g} s") from None
        if error is not None:
            raise error
        return answer


def lead(lock: LeaseLock, work: Callable[[], None], lost: Callable[[], None]) -> None:
    """Wait for the Lease, run `work` while it is held, call `lost` when it is not any more. Blocks."""
    logging.getLogger("leaderelection").setLevel("WARNING")

    def held() -> None:
        threading.Thread(target=_watch, args=(lock, lost), name="lease-watch", daemon=True).start()
        work()

    LeaderElection(
        Config(
            lock,
            lease_duration=lock.times.duration,
            renew_deadline=lock.times.renew_within,
            retry_period=lock.times.retry,
            onstarted_leading=held,
            onstopped_leading=lost,
        )
    ).run()


def _watch(lock: LeaseLock, lost: Callable[[], None]) -> None:
    """Call `lost` as soon as the Lease was not renewed in time."""
    while (left := (lock.renewed_at or 0.0) + lock.times.renew_within - time.monotonic()) > 0:
        time.sleep(left)
    lost()
