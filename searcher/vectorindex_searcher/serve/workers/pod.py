"""A pod with several search processes: loads once, forks, and ends when one of them does.

Three kinds of processes. This one is the pod's first: it makes the front process (front.py) before anything is loaded,
loads and proves the artifact, forks the workers (worker.py), which so share every page of it, and waits. It has no
event loop, and when it forks no thread that it made is left, so that no child inherits a lock that nobody opens again.

A worker that dies ends the pod, as the death of a single process does: the others answer what they owe, and Kubernetes
starts the container again, which the operator sees. Nothing serves on with a part of itself missing.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import uvloop

from ... import contract
from ...errors import TaskError
from ...index.selection.rowset import RowSet
from .. import load
from ..evidence.metrics import Gauges
from ..evidence.nearest import NearestScans
from ..fresh import comparing, fresh_task
from ..http import limits
from ..http.auth import Tokens
from ..http.tls import Certificate
from ..point import serving_points
from ..search.policies import Policies
from ..settings import Settings
from ..tombstones import Deletions, load_without_deleted
from .board import Board
from .channel import Channel
from .fresh import PodFresh
from .front import Front
from .memory import descriptor_of, read
from .rates import SharedRates
from .recall import PodRecall
from .scans import give
from .sending import PodSender
from .system import check_system
from .worker import Worker, WorkerParts

LEFT_SECONDS = 5.0
"""How long what is left of a pod has to end by itself once the front process is gone."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_log = logging.getLogger(__name__)


class Pod:
    """`run` once, on the main thread of a process that has made no threads."""

    def __init__(self, task: contract.ServeTask, settings: Settings) -> None:
        """Raises BadSpec when token file or certificate cannot be used, or this is no system for several processes:
        before anything is downloaded."""
        check_system()
        self._fresh_told = fresh_task(settings.fresh)
        self._task, self._settings = comparing(task, self._fresh_told), settings
        self._tokens = Tokens(settings.token_file) if settings.token_file else None
        self._policies = Policies.told(settings.policy_file, self._tokens)
        self._certificate: Certificate | None = None
        if settings.tls_cert is not None and settings.tls_key is not None:
            self._certificate = Certificate(settings.tls_cert, settings.tls_key)
        self._board = Board()
        self._control, self._fronts = Channel.pair()
        self._telling = threading.Lock()
        """The loading thread speaks, too."""
        self._front = 0
        self._workers: dict[int, int] = {}
        """Number of each worker that runs, by process id."""
        self._loaded: load.Loaded | None = None
        self._gauges = Gauges()
        self._recall: PodRecall | None = None
        self._scans: NearestScans | None = None
        self._sender: PodSender | None = None
        self._deletions: Deletions | None = None
        self._fresh: PodFresh | None = None
        self._failure: BaseException | None = None
        self._ending = False
        self._code = int(contract.ExitCode.OK)
        self._give_up = float("inf")
        """When what is left is killed, monotonic."""

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, then drain; the exit code. Raises TaskError when the artifact is refused."""
        descriptors = limits.raise_descriptors()
        tls = self._certificate is not None
        self._limits, admin = limits.share_descriptors(descriptors, limits.open_descriptors(), tls=tls)
        with _signals() as signals:
            self._front = self._fork(lambda: self._be_front(admin))
            self._fronts.close()
            loading, loaded = self._begin_loading()
            try:
                self._wait(signals, loading, loaded)
            finally:
                for pid in [*self._workers, *([self._front] if self._front else [])]:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                if self._loaded is not None:
                    self._loaded.release()
        if self._failure is not None:
            raise self._failure
        return self._code

    # ------------------------------------------------------------ children

    def _fork(self, be: Callable[[], None]) -> int:
        """A child that does `be` and nothing else; its process id. What there is now stays to the end: no collector
        shall touch, and so copy, the pages that it is in."""
        gc.collect()
        gc.freeze()
        pid = os.fork()
        if pid:
            return pid
        code = int(contract.ExitCode.BUG)
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # The first process tells when to end, whoever the signal was sent to.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            be()
            code = int(contract.ExitCode.OK)
        except BaseException:
            _log.exception("bug")
        finally:
            logging.shutdown()
            os._exit(code)

    def _be_front(self, admin: limits.Limits) -> None:
        self._control.close()
        uvloop.run(Front(self._task, self._settings, self._fronts, self._board, admin, self._tokens).run())

    def _be_worker(self, parts: WorkerParts, number: int, channel: Channel) -> None:
        self._control.close()
        uvloop.run(Worker(parts, number, channel, self._board.line(number)).run())

    def _start_workers(self, loaded: load.Loaded) -> None:
        """All of them."""
        count = self._settings.processes
        parts = WorkerParts(
            task=self._task,
            settings=self._settings,
            loaded=loaded,
            tokens=self._tokens,
            policies=self._policies,
            certificate=self._certificate,
            limits=limits.share_limits(self._limits, count),
            threads=-(-self._settings.threads // count),
            count=count,
            rates=SharedRates(len(self._task.segments) + 1),
            deleted=self._deletions.fingerprint if self._deletions is not None else "",
            fresh=self._fresh.freshness if self._fresh is not None else None,
        )
        self._tell({"do": "gauges", "gauges": self._told_gauges(loaded)})
        self._tell({"do": "loaded", "workers": count, "facts": self._facts(loaded), "points": self._points(loaded)})
        if loaded.canary is not None:
            give(self._tell, {"do": "canary"}, loaded.canary)
        loaded.rest()
        for number in range(count):
            fronts, workers = Channel.pair()

            def be(number: int = number, fronts: Channel = fronts, workers: Channel = workers) -> None:
                fronts.close()
                self._be_worker(parts, number, workers)

            pid = self._fork(be)
            self._workers[pid] = number
            workers.close()
            self._control.send({"do": "worker", "pid": pid}, fronts.fileno())
            fronts.close()
        loaded.keep()
        self._recall = recall = PodRecall(self._task, loaded, self._live(), self._tell)
        if self._task.judges_live:
            recall.start(count)
        elif self._task.live_recall:
            self._scans = NearestScans(self._task, loaded.engine, recall.note_origin, self._note_spent)
            self._scans.start()
        differ = self._deletions.look_again if self._deletions is not None else lambda: None
        self._sender = PodSender(self._task, loaded.engine, lambda: recall.vectors, differ, self._tell)
        if self._deletions is not None and self._task.tombstone_poll_seconds:
            # After the last fork. Ends with the process.
            threading.Thread(target=self._watch_deletions, name="deletions", daemon=True).start()
        if (fresh := self._fresh) is not None:
            self._tell({"do": "fresh", "what": "seen", "seen": fresh.seen})
            threading.Thread(target=lambda: fresh.watch(self._tell, recall.learn), name="fresh", daemon=True).start()

    def _live(self) -> RowSet | None:
        """The artifact's rows that may be answered."""
        assert self._loaded is not None
        return self._fresh.live() if self._fresh is not None else self._loaded.engine.live

    def _watch_deletions(self) -> None:
        deletions, loaded, recall = self._deletions, self._loaded, self._recall
        assert deletions is not None
        assert loaded is not None
        assert recall is not None
        seconds = self._task.tombstone_poll_seconds
        while True:
            time.sleep(deletions.pause(seconds))
            if not deletions.is_due(seconds):
                continue
            if deletions.try_refresh():
                live = loaded.engine.live
                descriptor, known = None if live is None else descriptor_of(live), deletions.fingerprint
                with nullcontext() if self._fresh is None else self._fresh.changing:
                    number = recall.learn(self._live())
                    self._tell({"do": "rows", "number": number, "fingerprint": known}, descriptor)
                if descriptor is not None:
                    os.close(descriptor)
            self._tell({"do": "gauges", "gauges": self._told_gauges(loaded)})

    def _told_gauges(self, loaded: load.Loaded) -> dict[str, object]:
        """Fields of Gauges that are known here."""
        return {
            "index_bytes": loaded.engine.resident_bytes,
            "index_vectors": loaded.engine.count,
            "load_seconds": loaded.seconds,
            "canary_recall": loaded.canary_recall,
            "origins": loaded.origins,
            "tombstones": self._gauges.tombstones,
            "tombstones_checked": self._gauges.tombstones_checked,
            "tombstone_errors": self._gauges.tombstone_errors,
        }

    def _note_spent(self, cpu_seconds: float) -> None:
        """By exact scans, so far."""
        self._tell({"do": "gauges", "gauges": {"live_recall_cpu_seconds": cpu_seconds}})

    def _points(self, loaded: load.Loaded) -> list[str]:
        """The operating points that each worker has."""
        own = loaded.points.params if loaded.points else {}
        return [point.value for point in serving_points(loaded.engine, own, self._task.segments)]

    def _facts(self, loaded: load.Loaded) -> dict[str, object]:
        """What the log says when the pod is ready."""
        return {
            "revision": self._task.revision,
            "count": loaded.engine.count,
            "dimension": loaded.engine.dimension,
            "processes": self._settings.processes,
            "tls": self._certificate is not None,
            "tokens": self._tokens is not None,
            "loadSeconds": round(sum(loaded.seconds.values()), 3),
            "canaryRecall": loaded.canary_recall,
        }

    # ------------------------------------------------------------ loading

    def _begin_loading(self) -> tuple[threading.Thread, int]:
        """A thread, whose OpenMP threads end with it, and a descriptor that can be read when it is done."""
        done, end = os.pipe()

        def run() -> None:
            try:
                self._loaded = self._load()
            except BaseException as error:
                self._failure = error
            finally:
                os.close(end)

        thread = threading.Thread(target=run, name="load", daemon=True)
        thread.start()
        return thread, done

    def _load(self) -> load.Loaded:
        loaded, self._deletions = load_without_deleted(self._task, self._say, self._settings, self._gauges)
        told = self._fresh_told
        if told is not None:
            self._say("reading fresh rows")
            self._fresh = PodFresh(loaded.engine, self._task, told, self._settings.pod, loaded.encoder)
            self._fresh.look()
        if loaded.engine.metadata_columns or self._deletions is not None or told is not None:
            loaded.engine.share_among(self._settings.processes)
        return loaded

    def _say(self, sentence: str) -> None:
        _log.info(sentence, extra={"revision": self._task.revision})
        self._tell({"do": "progress", "sentence": sentence})

    def _tell(self, message: dict[str, object], descriptor: int | None = None) -> None:
        with self._telling:
            self._control.send(message, descriptor)

    # ------------------------------------------------------------ waiting

    def _wait(self, signals: int, loading: threading.Thread, loaded: int) -> None:
        """Until no child is left, or a signal came before there was anything to drain."""
        watched = [signals, loaded, self._control.fileno()]
        while self._front or self._workers:
            left = self._give_up - time.monotonic()
            if left <= 0:
                return
            ready, _, _ = select.select(watched, (), (), None if left == float("inf") else left)
            if loaded in ready:
                watched.remove(loaded)
                os.close(loaded)
                loading.join()
                if self._loaded is not None and not self._ending:
                    self._start_workers(self._loaded)
                else:
                    self._end(0.0)
            # Before the signal that says it ended: why it did.
            if self._control.fileno() in ready and not self._hear():
                watched.remove(self._control.fileno())
            if signals in ready:
                self._take_signals(os.read(signals, 64))

    def _take_signals(self, came: bytes) -> None:
        for number in came:
            if number == signal.SIGCHLD:
                continue
            name, grace = signal.Signals(number).name, self._settings.grace_seconds
            grace = grace if number == signal.SIGTERM else 0.0  # a person at a terminal has no endpoints to wait for
            _log.info("ending", extra={"signal": name, "graceSeconds": grace})
            self._end(grace)
        self._reap()

    def _end(self, grace: float) -> None:
        if not self._ending:
            self._ending = True
            self._tell({"do": "end", "grace": grace})

    def _hear(self) -> bool:
        """What the front process says; False when it is gone."""
        try:
            found = self._control.receive()
        except EOFError:
            return False
        if found is not None:
            self._obey(*found)
        return True

    def _obey(self, message: dict[str, Any], descriptor: int) -> None:
        match message["say"]:
            case "failed":
                self._ending = True
                self._failure = _failed(message)
            case "nearest":
                self._scan(message["number"], read(descriptor))
            case "sample" if self._recall is not None:
                self._recall.add_sample(message, descriptor)
            case "fresh" if self._fresh is not None and self._recall is not None:
                self._fresh.switch(message["off"], self._tell, self._recall.learn)
            case _ if self._sender is not None:
                self._sender.hear(message, descriptor)
            case _:
                raise ValueError(message)

    def _scan(self, number: int, data: bytes) -> None:
        """What a router asked for live recall."""

        def then(found: bytes) -> None:
            give(self._tell, {"do": "nearest", "number": number}, found)

        if self._scans is None or not self._scans.ask(data, then):
            then(b"")

    def _reap(self) -> None:
        """Children that ended."""
        while self._front or self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            if pid == self._front:
                self._front = 0
                self._give_up = time.monotonic() + LEFT_SECONDS
                self._lost("the front process", code)
            elif pid in self._workers:
                self._lost(f"search process {self._workers.pop(pid)}", code)

    def _lost(self, who: str, code: int) -> None:
        """A child ended. Where none was to end, all do, and the pod ends as that one did."""
        if self._ending and code == 0:
            return
        how = f"{who} ended with " + (f"signal {-code}" if code < 0 else f"exit code {code}")
        _log.error(how)
        if not self._ending:
            self._ending = True
            self._tell({"do": "died", "how": how})
        if self._code == contract.ExitCode.OK:
            self._code = 128 - code if code < 0 else code or int(contract.ExitCode.BUG)


def _failed(message: dict[str, Any]) -> TaskError:
    """What the front process could not do."""
    failure = contract.Failure.model_validate(message["failure"])
    error = TaskError(failure.reason, failure.message, exit_code=contract.ExitCode(message["code"]))
    error.failure = failure
    return error


@contextmanager
def _signals() -> Iterator[int]:
    """A descriptor from which the numbers of the signals that came can be read."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
    previous = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read)
        os.close(write)
