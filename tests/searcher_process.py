"""A searcher in a process of its own, and what it logs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
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
    task: contract.ServeTask | contract.RouteTask,
    *,
    descriptors: int = 0,
    program: Sequence[str] = PROGRAM,
    **environment: str,
) -> Iterator[Searcher]:
    """On ports of its own choice, unless the environment says otherwise. `descriptors`: hard limit on open files;
    `program`: what Python is to run."""
    chosen = {"VECTORINDEX_HOST": "127.0.0.1", "VECTORINDEX_HTTP_PORT": "0", "VECTORINDEX_ADMIN_PORT": "0"}
    known = os.environ | {contract.TASK_ENV: task.model_dump_json(by_alias=True)} | chosen | environment
    verb = "route" if isinstance(task, contract.RouteTask) else "serve"
    limit = f"ulimit -n {descriptors}; " if descriptors else ""
    with _followed(["sh", "-c", limit + 'exec "$@"', "sh", sys.executable, *program, verb], known) as searcher:
        yield searcher


@contextmanager
def _followed(command: Sequence[str], environment: dict[str, str]) -> Iterator[Searcher]:
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        searcher = Searcher(process)
        thread = threading.Thread(target=searcher.follow)
        thread.start()
        try:
            yield searcher
        finally:
            process.kill()
            thread.join()


@contextmanager
def built_and_served(
    folder: Path, rows: Iterable[dict[str, Any]], *, metadata: Sequence[str], factory: str, serve: Sequence[str] = ()
) -> Iterator[int]:
    """The user port of a searcher of these rows: built and served in `folder` by the command line, as a person does.
    `serve`: further flags."""
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    program = [sys.executable, *PROGRAM]
    build = ["build", "--source", str(folder / "rows.jsonl"), "--out", str(folder / "out")]
    build += ["--metadata", *metadata, "--factory", factory]
    subprocess.run([*program, *build], check=True, capture_output=True, timeout=120)
    flags = ["serve", "--artifact", str(folder / "out"), "--cache-dir", str(folder / "cache"), "--host", "127.0.0.1"]
    flags += ["--http-port", "0", "--admin-port", "0", *serve]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VECTORINDEX_")}
    environment["VECTORINDEX_LOG_FORMAT"] = "json"
    with _followed([*program, *flags], environment) as searcher:
        yield searcher.port()
