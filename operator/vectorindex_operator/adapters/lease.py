"""One active operator at a time, by a Lease. Safety never rests on it: names are derived and writes have preconditions.

Losing the Lease ends the process, so that no half-stopped worker goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.leaderelection.electionconfig import Config
from kubernetes.leaderelection.leaderelection import LeaderElection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

log = logging.getLogger(__name__)

NAME = "vectorindex-operator"
DURATION_SECONDS = 15
RENEW_DEADLINE_SECONDS = 10
RETRY_SECONDS = 2


class PatientLeaseLock(LeaseLock):  # type: ignore[misc]
    """The library's lock, for which a connection that breaks is a failed try and not the end of the process."""

    def __init__(self, namespace: str, identity: str, api: client.ApiClient) -> None:
        super().__init__(NAME, namespace, identity)
        self.api_instance = client.CoordinationV1Api(api)

    def get(self, name: str, namespace: str) -> tuple[bool, Any]:
        try:
            return super().get(name, namespace)  # type: ignore[no-any-return]
        except urllib3.exceptions.HTTPError as error:
            return False, ApiException(status=0, reason=str(error))

    def create(self, name: str, namespace: str, election_record: Any) -> bool:
        try:
            return bool(super().create(name, namespace, election_record))
        except urllib3.exceptions.HTTPError:
            return False

    def update(self, name: str, namespace: str, updated_record: Any) -> bool:
        try:
            return bool(super().update(name, namespace, updated_record))
        except urllib3.exceptions.HTTPError:
            return False

    def release(self) -> None:
        """Give the Lease up at a clean stop, so that the next process need not wait until it runs out."""
        try:
            lease = self.api_instance.read_namespaced_lease(self.name, self.namespace)
            if lease.spec.holder_identity == self.identity:
                lease.spec.holder_identity = ""
                self.api_instance.replace_namespaced_lease(self.name, self.namespace, lease)
        except (ApiException, urllib3.exceptions.HTTPError) as error:
            log.info("lease not released: %s", error)


def lead(lock: PatientLeaseLock, work: Callable[[], None], lost: Callable[[], None]) -> None:
    """Wait for the Lease, run `work` while it is held, call `lost` when it is not any more. Blocks."""
    logging.getLogger("leaderelection").setLevel("WARNING")
    LeaderElection(
        Config(
            lock,
            lease_duration=DURATION_SECONDS,
            renew_deadline=RENEW_DEADLINE_SECONDS,
            retry_period=RETRY_SECONDS,
            onstarted_leading=work,
            onstopped_leading=lost,
        )
    ).run()
