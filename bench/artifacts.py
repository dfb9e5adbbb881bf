"""Artifacts for the benchmarks, built once with the command line of the searcher, and that searcher as a process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from datasets import FOLDER, Dataset

from vectorindex_searcher.artifact.manifest import Manifest

PROGRAM = (sys.executable, "-m", "vectorindex_searcher")
_READY_SECONDS = 120.0
CACHE = FOLDER / "cache"
"""Of all searchers here."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A published artifact in a folder."""

    folder: Path
    manifest: Manifest

    @property
    def files(self) -> Path:
        """Where index.faiss and the others lie."""
        (found,) = self.folder.rglob("manifest.json")
        return found.parent / self.manifest.attempt


def built(
    dataset: Dataset, factory: str, recall: float = 0.95, metric: str = "Cosine", metadata: Sequence[str] = ()
) -> Artifact:
    """Build once: the name of the folder tells data, factory string, recall, metric and metadata columns."""
    name = "-".join((dataset.name, factory, f"{recall:g}", metric, *metadata))
    name = re.sub(r"[^A-Za-z0-9.]+", "-", name)
    folder = FOLDER / "artifacts" / name
    if not any(folder.rglob("manifest.json")):
        print(f"building {name} (once)", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        flags = ["--source", str(dataset.path), "--out", str(folder), "--factory", factory]
        flags += ["--recall", f"{recall:g}", "--metric", metric]
        flags += ["--metadata", *metadata] if metadata else []
        subprocess.run([*PROGRAM, "build", *flags], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (found,) = folder.rglob("manifest.json")
    return Artifact(folder, Manifest.model_validate_json(found.read_text()))


@dataclass(frozen=True, slots=True)
class Serving:
    """A searcher process."""

    port: int
    pid: int
    admin: int = 0

    def cpu(self) -> float:
        """CPU seconds of the whole searcher so far, all processes and threads, user and system, to the nanosecond."""
        return sum(cpu_of(pid) for pid in (self.pid, *self.children()))

    def children(self) -> list[int]:
        """Process ids: the front process and the search processes, where there are several."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]


def cpu_of(pid: int) -> float:
    """CPU seconds of one process."""
    # clock_getcpuclockid(3): the process clock of another process.
    return time.clock_gettime((~pid << 3) | 2)


@contextlib.contextmanager
def serving(
    artifact: Artifact,
    *,
    threads: int = 1,
    core: int | None = None,
    processes: int = 1,
    program: Sequence[str] = PROGRAM,
    environment: Mapping[str, str] = MappingProxyType({}),
    gate: str = "",
) -> Iterator[Serving]:
    """`vectorindex-searcher serve` by flags on free ports, ended afterwards. `core`: the only one it may use;
    `environment`: more of it; `gate`: of which report it repeats the canary queries."""
    chosen = {"VECTORINDEX_SEARCH_THREADS": str(threads), "VECTORINDEX_PROCESSES": str(processes), **environment}
    flags = ["--artifact", str(artifact.folder), "--cache-dir", str(CACHE)]
    flags += ["--gate", gate] if gate else []
    with running("serve", *flags, core=core, program=program, environment=chosen) as found:
        yield found


@contextlib.contextmanager
def running(
    *arguments: str,
    core: int | None = None,
    program: Sequence[str] = PROGRAM,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Serving]:
    """A verb that serves, with its flags, on free ports; as `serving`. One search thread, unless it is said."""
    ports = {"VECTORINDEX_HOST": "127.0.0.1", "VECTORINDEX_HTTP_PORT": "0", "VECTORINDEX_ADMIN_PORT": "0"}
    known = os.environ | ports | {"VECTORINDEX_SEARCH_THREADS": "1"} | environment
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("wb", prefix="serve-", suffix=".log", dir=FOLDER) as sink:
        process = subprocess.Popen([*program, *arguments], stdout=sink, stderr=sink, env=known, preexec_fn=pin(core))
        try:
            log = Path(sink.name)
            yield Serving(_port(process, log, "ready"), process.pid, _port(process, log, "admin port open"))
        finally:
            process.kill()  # its children end when it is gone
            process.wait()


def pin(core: int | None) -> Callable[[], None] | None:
    """For Popen's preexec_fn: the child may use this core only."""
    return None if core is None else lambda: os.sched_setaffinity(0, {core})


def _port(process: subprocess.Popen[bytes], log: Path, message: str) -> int:
    end = time.monotonic() + _READY_SECONDS
    while process.poll() is None and time.monotonic() < end:
        for line in log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if said.get("message") == message:
                    return int(said["port"])
        time.sleep(0.05)
    raise SystemExit(f"the searcher did not become ready:\n{log.read_text(errors='replace')[-2000:]}")
