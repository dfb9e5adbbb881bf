"""Queries that never stop, from a process of its own: start it, look at its numbers, stop it.

It runs on this machine where that reaches ClusterIPs, else in a pod: a port-forward would stick to one pod and see no
switch of the Service.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import pyarrow.parquet as pq

from harness.errors import HarnessError
from harness.images import Images
from harness.kube import Kube
from harness.vix import VectorIndexHandle
from harness.waiting import wait_for

WORKER = Path(__file__).with_name("load_worker.py")
POD = "traffic"
LAST_WORDS_SECONDS = 10
"""How long a worker that has ended, or listens no more, may still have something to say."""
Make = TypeVar("Make", bound="Traffic")


@dataclass(frozen=True, slots=True)
class Settings:
    """`rate`: queries per second, intended start times evenly spaced. Bounds end it by itself."""

    host: str
    port: int
    rate: float = 250.0
    connections: int = 16
    path: str = "/v1/search"
    name: str = ""
    """The host that requests name, as a gateway tells indexes apart; empty: `host` and `port`."""
    timeout: float = 10.0
    retries: int = 0
    """Further attempts of a query that got no connection, as the Python client makes them (there 3)."""
    tokens: tuple[str, ...] = ()
    """Bearer tokens: request after request by one after the other. None: nothing is shown."""
    expected: tuple[tuple[str, ...], ...] = ()
    """Of each query the ids that are right answers to it. None: nobody looks what was found."""
    max_seconds: float = 3600.0
    max_queries: int = 5_000_000
    report_seconds: float = 0.25


@dataclass(frozen=True, slots=True)
class RevisionAnswers:
    """Answers of one revision. Times are Unix seconds; `episodes`: first, last and count of each uninterrupted run."""

    answers: int
    zero_results: int
    top_scores: int
    top_sum: float
    first_at: float
    last_at: float
    episodes: tuple[tuple[float, float, int], ...] = ()

    @property
    def top_score(self) -> float:
        """Mean score of the first hit."""
        return self.top_sum / self.top_scores if self.top_scores else 0.0

    @property
    def zero_rate(self) -> float:
        return self.zero_results / self.answers if self.answers else 0.0

    def first_after(self, at: float) -> float | None:
        """When it first answered after `at`, to the precision of the episodes: None when it never did."""
        for first, last, _ in self.episodes:
            if first >= at:
                return first
            if last >= at:
                return at
        return None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Numbers since the start. `queries`: answered or failed; latencies count from the intended start."""

    sent: int = 0
    queries: int = 0
    failed: int = 0
    found: int = 0
    """Answers with one of the expected ids among their hits."""
    sent_again: int = 0
    """Repetitions: an idle connection had been closed by the server; with `retries` also what those are for."""
    answered_again: int = 0
    """Queries answered at a further attempt."""
    connections: int = 0
    closed_by_server: int = 0
    worst_lag: float = 0.0
    at: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    kinds: Mapping[str, int] = field(default_factory=dict)
    failures: Sequence[Mapping[str, Any]] = ()
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    revisions: Mapping[str, RevisionAnswers] = field(default_factory=dict)
    done: bool = False

    @property
    def cpu_share(self) -> float:
        """Of one core."""
        return self.cpu_seconds / self.seconds if self.seconds else 0.0

    @property
    def newest(self) -> str:
        """The revision of the last answer."""
        return max(self.revisions, key=lambda name: self.revisions[name].last_at, default="")

    def describe_failures(self, limit: int = 5) -> str:
        """For a person: how many of which kind, and the first ones."""
        kinds = ", ".join(f"{count} x {kind}" for kind, count in self.kinds.items())
        rows = [f"{row['at']:.3f} {row['kind']}: {row['detail']}" for row in self.failures[:limit]]
        return "\n  ".join([f"{self.failed} of {self.queries} queries failed ({kinds})", *rows])


class Traffic:
    """A running load generator. Use it as a context manager, or call start and stop."""

    def __init__(self, settings: Settings, bodies: Sequence[str], command: Sequence[str] = ()) -> None:
        """`command` runs the worker; default: on this machine."""
        if not bodies:
            raise HarnessError("no queries to send")
        self.settings, self._bodies = settings, list(bodies)
        self._command = list(command) or [sys.executable, "-u", str(WORKER)]
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._latest = Snapshot()
        self._said = ""

    def start(self) -> None:
        """Returns at once; queries go out within a second."""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is for us; the worker ends with its standard input
        )
        self._reader = threading.Thread(target=self._read, name="traffic", daemon=True)
        self._reader.start()
        try:
            self._say(asdict(self.settings) | {"bodies": self._bodies})
        except HarnessError:
            self._end()
            raise

    def snapshot(self) -> Snapshot:
        """The newest numbers, at most `report_seconds` old. Raises HarnessError when the process ended by itself."""
        if self._process is not None and self._process.poll() is not None and not self._latest.done:
            self._hear_out()
        return self._latest

    def pace(self, rate: float) -> None:
        """Another rate from now on."""
        self._say({"rate": rate})

    def stop(self) -> Snapshot:
        """Sends no more, waits for what is under way, ends the process; the final numbers."""
        if self._process is None:
            return self._latest
        try:
            if not self._latest.done:
                self._say({"stop": True})
            most = self.settings.timeout + 10
            wait_for(lambda: self.snapshot().done, most, "the load generator's final numbers", last_seen=self._words)
            return self._latest
        finally:
            self._end()

    def wait_answers(self, revision: str, timeout: float = 60) -> Snapshot:
        """Until `revision` has answered."""
        return self.wait(lambda s: revision in s.revisions, timeout, f"an answer of {revision}")

    def wait(self, holds: Callable[[Snapshot], bool], timeout: float, what: str) -> Snapshot:
        """Until the numbers are so; the numbers."""

        def probe() -> Snapshot | None:
            seen = self.snapshot()
            return seen if holds(seen) else None

        return wait_for(probe, timeout, what, last_seen=lambda: f"{self._latest}\n{self._words()}", every=0.1)

    def __enter__(self: Make) -> Make:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.stop()
        else:
            self._end()

    # ------------------------------------------------------------ the process

    def _say(self, document: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(document) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._hear_out()

    def _hear_out(self) -> None:
        """Of a worker that listens no more: reads to the end of its stream. Raises unless it ended with its numbers."""
        assert self._process is not None
        assert self._reader is not None
        try:
            self._process.wait(LAST_WORDS_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reader.join(LAST_WORDS_SECONDS)
        if not self._latest.done:
            raise HarnessError(f"the load generator ended: {self._said or 'it said nothing'}")

    def _words(self) -> str:
        """What it said that are no numbers: kubectl may outlive a worker that died in its pod."""
        return self._said or "it said nothing else"

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                self._latest = read_snapshot(json.loads(line))
            except (ValueError, TypeError, KeyError):
                self._said = f"{self._said}{line}"[-2000:]

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            if process.stdin is not None:
                process.stdin.close()
            process.wait(timeout=5)
        except (subprocess.TimeoutExpired, OSError):
            process.kill()
            process.wait(timeout=5)
        if self._reader is not None:
            self._reader.join(timeout=5)
        if process.stdout is not None:
            process.stdout.close()


def read_snapshot(document: dict[str, Any]) -> Snapshot:
    """A report of the worker."""
    revisions = {
        name: RevisionAnswers(**{**row, "episodes": tuple((a, b, int(n)) for a, b, n in row["episodes"])})
        for name, row in document["revisions"].items()
    }
    return Snapshot(**{**document, "revisions": revisions})


def bodies(path: Path, *, k: int = 10, segments: bool = True, limit: int = 0) -> list[str]:
    """Search requests of a Parquet file with `vector` and `query_class`, which names the segment of each.

    Shuffled, always in the same way: every few seconds of traffic ask the same mix of questions.
    """
    with pq.ParquetFile(path) as file:
        table = file.read(columns=["vector", "query_class"])
    made = []
    for vector, segment in zip(table["vector"].to_pylist(), table["query_class"].to_pylist(), strict=True):
        request: dict[str, Any] = {"vector": [round(x, 6) for x in vector], "k": k}
        made.append(json.dumps(request | ({"segment": segment} if segments else {}), separators=(",", ":")))
    random.Random(7).shuffle(made)
    return made[: limit or None]


@contextmanager
def to_index(
    kube: Kube, images: Images, index: VectorIndexHandle, queries: Sequence[str], *, pod: str = POD, **settings: Any
) -> Iterator[Traffic]:
    """Live traffic to the Service of `index`, from the first answerable moment to the end of the block.

    `pod`: where this machine reaches no ClusterIP, the name of the pod that sends: each load its own.
    """
    service = index.service()
    if service is None:
        raise HarnessError(f"{index.label} has no Service yet: wait for Ready")
    port = int(service["spec"]["ports"][0]["port"])
    if kube.cluster.direct:
        with Traffic(Settings(host=service["spec"]["clusterIP"], port=port, **settings), queries) as traffic:
            yield traffic
        return
    host = f"{index.name}.{index.namespace}.svc"
    command = _pod(kube, images, index.namespace, pod)
    try:
        with Traffic(Settings(host=host, port=port, **settings), queries, command) as traffic:
            yield traffic
    finally:
        kube.delete("Pod", pod, index.namespace, grace=0)


def _pod(kube: Kube, images: Images, namespace: str, name: str) -> list[str]:
    """A pod that does nothing, and the command that runs the worker in it."""
    restricted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    one = {
        "name": name,
        "image": images.searcher.reference,
        "command": ["python", "-c", "import time; time.sleep(7200)"],
        "resources": {"requests": {"cpu": "250m", "memory": "64Mi"}},  # without, a busy node lets it wait
        "securityContext": restricted,
    }
    spec = {"containers": [one], "restartPolicy": "Never", "automountServiceAccountToken": False}
    if kube.cluster.pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in kube.cluster.pull_secrets]
    meta = {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/name": name}}
    if kube.delete("Pod", name, namespace, grace=0):
        kube.wait_gone("Pod", name, namespace)
    kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    kube.kubectl("-n", namespace, "wait", f"pod/{name}", "--for=condition=Ready", "--timeout=120s", timeout=130)
    return kube.cluster.kubectl_command(
        "-n", namespace, "exec", "-i", name, "--", "python", "-u", "-c", WORKER.read_text()
    )
