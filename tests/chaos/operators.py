"""Operators as processes of this machine, started again whenever they end, as a kubelet does it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ports import held
from waiting import until

KILLED = -9
RESTART_SECONDS = 1.0
"""Until one that ended by itself is started again."""
SPAWNER = Path(__file__).with_name("spawner.py")


class Spawner:
    """The process that all operators of a run are forked from."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-u", str(SPAWNER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._begun: list[int] = []
        self._ended: dict[int, int] = {}
        self._told, self._asking = threading.Condition(), threading.Lock()
        self._hearing = threading.Thread(target=self._hear, daemon=True)
        self._hearing.start()

    def begin(self, arguments: list[str], environment: Mapping[str, str], log: Path) -> int:
        """The id of a new operator's process."""
        order = {"arguments": arguments, "environment": dict(environment), "log": str(log)}
        assert self._process.stdin is not None
        with self._asking, self._told:
            count = len(self._begun)
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            assert self._told.wait_for(lambda: len(self._begun) > count, 60), "no operator was started"
            return self._begun[-1]

    def wait(self, process: int) -> int:
        """Its exit code, once it has ended."""
        with self._told:
            self._told.wait_for(lambda: process in self._ended)
            return self._ended[process]

    def close(self) -> None:
        """Ends all operators that are left."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._hearing.join(10)

    def _hear(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                told = json.loads(line)
                with self._told:
                    if "begun" in told:
                        self._begun.append(told["begun"])
                    else:
                        self._ended[told["ended"]] = told["code"]
                    self._told.notify_all()


@dataclass(slots=True)
class Operator:
    """One that is always started again. `flags`: of `run`, without the port of its metrics."""

    spawner: Spawner
    kubeconfig: Path
    namespace: str
    identity: str
    flags: list[str]
    log: Path
    process: int = 0
    ends: list[int] = field(default_factory=list)
    """Exit codes of those that ended; -9: killed."""
    port: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[Operator]:
        """Until the end of the block. It leads when nobody else does."""
        with held() as (self.port,):
            self._begin()
            keeper = threading.Thread(target=self._keep, daemon=True)
            keeper.start()
            try:
                yield self
            finally:
                self._over.set()
                self._signal(signal.SIGCONT)
                self.kill()
                keeper.join(10)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It stands still for as long as the block."""
        process = self.process
        os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)

    def wait_leads(self, seconds: float = 60.0) -> None:
        until(self.leads, seconds)

    def leads(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                return "\nvectorindex_leader 1.0" in answer.read().decode()
        except OSError:
            return False

    def _begin(self) -> None:
        names = {"KUBECONFIG": str(self.kubeconfig), "POD_NAMESPACE": self.namespace, "POD_NAME": self.identity}
        self.process = self.spawner.begin(["run", *self.flags, f"--http-port={self.port}"], names, self.log)

    def _keep(self) -> None:
        while True:
            self.ends.append(self.spawner.wait(self.process))
            if self._over.wait(0.0 if self.ends[-1] == KILLED else RESTART_SECONDS):
                return
            self._begin()
            if self._over.is_set():  # it was set while this one began
                self.kill()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, number)
