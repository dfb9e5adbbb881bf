"""The searchers' admin port over HTTP: evidence in, leases out. Bounded in parallelism, time and size."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import urllib3
from pydantic import ValidationError

from vectorindex_operator.adapters.signing import Signer
from vectorindex_operator.core.internal_keys import Addressee
from vectorindex_operator.core.judging.judge import PodEvidence
from vectorindex_searcher.contract import ADMIN_PORT, Evidence, TrafficLease

log = logging.getLogger(__name__)

TIMEOUT = urllib3.Timeout(connect=1.0, read=2.0)
LARGEST_ANSWER = 16 * 2**20
PARALLEL = 16
LEASE_PATH = "/v1/lease"


@dataclass(slots=True)
class HttpSearchers:
    """Implements reconcile.ports.Searchers. A pod that does not answer in 2 s is silent; that is no exception."""

    signer: Signer = field(default_factory=Signer)
    pool: urllib3.PoolManager = field(
        default_factory=lambda: urllib3.PoolManager(num_pools=64, maxsize=PARALLEL, retries=False)
    )
    workers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(PARALLEL, thread_name_prefix="searchers")
    )

    @classmethod
    def with_connections(cls, parallel: int, signer: Signer) -> HttpSearchers:
        """So many pods are asked at the same time."""
        return cls(
            signer=signer,
            pool=urllib3.PoolManager(num_pools=64, maxsize=parallel, retries=False),
            workers=ThreadPoolExecutor(parallel, thread_name_prefix="searchers"),
        )

    def evidence(self, to: Addressee, pods: Iterable[tuple[str, str]], since: float) -> tuple[PodEvidence, ...]:
        path = f"/v1/evidence?since={since:.0f}"
        headers = self.signer.headers(to, "GET", path)
        return tuple(self.workers.map(lambda pod: self._ask(pod[0], pod[1], path, headers), pods))

    def tell(self, to: Addressee, addresses: Iterable[str], lease: TrafficLease) -> None:
        body = lease.model_dump_json(by_alias=True).encode()
        headers = {"Content-Type": "application/json", **self.signer.headers(to, "POST", LEASE_PATH, body)}
        list(self.workers.map(lambda address: self._tell(address, body, headers), addresses))

    def _ask(self, pod: str, address: str, path: str, headers: Mapping[str, str]) -> PodEvidence:
        try:
            answer = self.pool.request(
                "GET", f"{_base(address)}{path}", headers=headers, timeout=TIMEOUT, preload_content=False
            )
            try:
                data = answer.read(LARGEST_ANSWER)
            finally:
                answer.release_conn()
            if answer.status != 200:
                log.info("no evidence from %s: %d %s", pod, answer.status, data[:200])
            evidence = Evidence.model_validate_json(data) if answer.status == 200 else None
        except (urllib3.exceptions.HTTPError, ValidationError) as error:
            log.info("no evidence from %s: %s", pod, error)
            evidence = None
        return PodEvidence(pod=pod, evidence=evidence, received_at=time.time())

    def _tell(self, address: str, body: bytes, headers: Mapping[str, str]) -> None:
        try:
            answer = self.pool.request(
                "POST", f"{_base(address)}{LEASE_PATH}", body=body, headers=headers, timeout=TIMEOUT
            )
        except urllib3.exceptions.HTTPError as error:
            log.info("lease not delivered to %s: %s", address, error)
            return
        if answer.status != 200:
            log.info("lease not taken by %s: %d %s", address, answer.status, answer.data[:200])


def _base(address: str) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{ADMIN_PORT}"
