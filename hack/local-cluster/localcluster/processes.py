"""Starts and ends a set of namespaces: one `unshare` process, and its child, which is PID 1 in there.

Ends only processes recorded by id *and* start time, so an id the kernel gave to someone else is left alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .terminal import ClusterError, last_lines

# (id, start time in clock ticks since boot): together they name one process for as long as the machine is up.
Process = tuple[int, str]


def begin(script: Path, record: Path, log: Path, environment: Mapping[str, str]) -> int:
    """Runs `script` as PID 1 of new namespaces; its id as the host sees it, which `record` keeps."""
    with log.open("w") as out:
        process = subprocess.Popen(
            ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc",
             str(script)],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd="/",
            # A session of its own: closing the terminal, or Ctrl-C in it, does not end the cluster.
            start_new_session=True, env=environment,
        )  # fmt: skip
    return _recorded_child(process, record, log, "the node's namespaces")


def begin_inside(init: int, command: Sequence[str], record: Path, log: Path, environment: Mapping[str, str]) -> int:
    """Runs `command` in these namespaces' network and among their processes: it ends with them. Its id, as above."""
    with log.open("w") as out:
        process = subprocess.Popen(
            ["nsenter", "-t", str(init), "-n", "-p", *command],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd="/",
            start_new_session=True, env=environment,
        )  # fmt: skip
    return _recorded_child(process, record, log, Path(command[0]).name)


def _recorded_child(process: subprocess.Popen[bytes], record: Path, log: Path, what: str) -> int:
    init = _child_of(process)
    if init is None:
        process.kill()
        raise ClusterError(f"{what} did not start. {log} says:\n{last_lines(log)}")
    record.write_text(json.dumps({"unshare": [process.pid, start_time(process.pid)], "init": [init, start_time(init)]}))
    return init


def init_pid(record: Path) -> int | None:
    """Process id, as the host sees it, of PID 1 inside the namespaces; None when it is not ours or not there."""
    init = _recorded(record).get("init")
    return init[0] if init and same_process(init) else None


def inside(init: int) -> list[str]:
    """What a command line begins with that is to run in the namespaces."""
    return ["nsenter", "-t", str(init), "-n", "-m", "-p", "-u", "-i"]


def end(record: Path) -> None:
    """Ends the namespaces and with them everything inside."""
    known = _recorded(record)
    for name in ("init", "unshare"):  # the child first: unshare then reaps it and ends by itself
        if name in known and same_process(known[name]):
            with suppress(ProcessLookupError):
                os.kill(known[name][0], signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(same_process(process) for process in known.values()):
        if time.monotonic() > deadline:
            raise ClusterError(f"processes {known} do not end")
        time.sleep(0.05)
    record.unlink(missing_ok=True)


def remove_empty(cgroup: Path) -> None:
    """Deletes a tree of cgroups that a stop leaves behind; rmdir refuses one that has a process."""
    for folder, _, _ in os.walk(cgroup, topdown=False):
        with suppress(OSError):
            Path(folder).rmdir()


def start_time(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty when it is gone or a zombie."""
    fields = _stat_fields(pid)
    return fields[19] if fields and fields[0] not in "ZX" else ""


def same_process(process: Process) -> bool:
    """Whether the process of this id is the one that was recorded."""
    pid, started = process
    return bool(started) and start_time(pid) == started


def _child_of(process: subprocess.Popen[bytes]) -> int | None:
    """The first child of unshare, or of nsenter; None when it ended, or has none after 5 s."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and process.poll() is None:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _stat_fields(int(entry.name))[1:2] == [str(process.pid)]:
                return int(entry.name)
        time.sleep(0.02)
    return None


def _stat_fields(pid: int) -> list[str]:
    """/proc/PID/stat from the state on (state, parent, ...); empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _recorded(record: Path) -> dict[str, Process]:
    """The processes `begin` recorded, by name; empty without a record, or with a damaged one."""
    try:
        written = json.loads(record.read_text())
        return {name: (int(pid), str(started)) for name, (pid, started) in written.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
