"""A searcher in a process of its own, and what it logs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from waiting import until

from vectorindex_searcher import contract


@dataclass
class Searcher:
    process: subprocess.Popen[str]
    log: list[dict[str, Any]] = field(default_factory=list)
    said_all: threading.Event = field(default_factory=threading.Event)

    def follow(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(json.loads(line))
        self.said_all.set()

    def port(self, message: str = "ready") -> int:
        """The port that it names with this message; waited for as long as it may still say so."""
        until(lambda: self._port(message) or self.said_all.is_set(), 90)
        found = self._port(message)
        assert found, self.log
        return found

    def _port(self, message: str) -> int | None:
        return next((line["port"] for line in self.log if line["message"] == message), None)


PROGRAM = ("-m", "vectorindex_searcher")


@contextmanager
def started(
    task: contract.ServeTask, *, descriptors: int = 0, program: Sequence[str] = PROGRAM, **environment: str
) -> Iterator[Searcher]:
    """On ports of its own choice, unless the environment says otherwise. `descriptors`: hard limit on open files;
    `program`: what Python is to run."""
    chosen = {"VECTORINDEX_HOST": "127.0.0.1", "VECTORINDEX_HTTP_PORT": "0", "VECTORINDEX_ADMIN_PORT": "0"}
    known = os.environ | {contract.TASK_ENV: task.model_dump_json(by_alias=True)} | chosen | environment
    limit = f"ulimit -n {descriptors}; " if descriptors else ""
    command = ["sh", "-c", limit + 'exec "$@"', "sh", sys.executable, *program, "serve"]
    with subprocess.Popen(command, env=known, stderr=subprocess.PIPE, text=True) as process:
        searcher = Searcher(process)
        thread = threading.Thread(target=searcher.follow)
        thread.start()
        try:
            yield searcher
        finally:
            process.kill()
            thread.join()
