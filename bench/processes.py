"""Helper processes of the benchmarks: a line in, a line of JSON out; and how the load client is driven."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifacts import cpu_of, pin

_WARM_SECONDS = 0.3


class Child:
    """A Python script as a process that takes one line and answers with one line of JSON."""

    def __init__(self, *arguments: str, core: int | None, python: Path = Path(sys.executable)) -> None:
        """`core`: the only one it may use."""
        self._process = subprocess.Popen(
            [python, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            preexec_fn=pin(core),
        )

    def ask(self, line: str) -> dict[str, Any]:
        """Its answer; ends the benchmark when the process has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self.hear()

    def hear(self) -> dict[str, Any]:
        """The next line it says."""
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said:
            raise SystemExit(f"a process of the benchmark ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(said)
        return answer

    def cpu(self) -> float:
        """CPU seconds of the process so far."""
        return cpu_of(self._process.pid)

    def close(self) -> None:
        """End of its input, which is its sign to clean up; killed when it does not end soon."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def connect(
    load: Child, port: int, connections: int, kind: str, params: Mapping[str, int] | None = None, token: str = ""
) -> None:
    """Let the load client open connections, and warm the server up. `params`: search parameters of every query;
    `token`: bearer token of every request."""
    wanted = {"port": port, "connections": connections, "format": kind, "params": dict(params or {}), "token": token}
    load.ask(json.dumps({"do": "connect", **wanted}))
    load.ask(json.dumps({"do": "closed", "seconds": _WARM_SECONDS}))


def per_query(answer: dict[str, Any]) -> float:
    """CPU microseconds a query of an answer {"count", "cpu"}."""
    return float(answer["cpu"]) / int(answer["count"]) * 1e6
