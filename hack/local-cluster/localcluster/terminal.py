"""What the user sees, and running one long command with a log file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


class ClusterError(Exception):
    """Something the user must know: the message says what happened and what to do."""


def say(message: str) -> None:
    """One progress line, on standard error so that `kubeconfig` and `env` stay usable in $( )."""
    print(message, file=sys.stderr, flush=True)


def last_lines(log: Path, count: int = 15) -> str:
    """The end of a log file, indented, for an error message."""
    lines = log.read_text(errors="replace").splitlines()[-count:] if log.exists() else []
    return "\n".join(f"    {line}" for line in lines)


def run_logged(
    what: str,
    expect: str,
    command: Sequence[str | os.PathLike[str]],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Runs a long step quietly; a failure shows the end of its log.

    `expect` is how long it usually takes, as words. `env` adds to this process's environment.
    """
    say(f"{what} ({expect}) ...")
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("w") as out:
        done = subprocess.run(
            command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})}, cwd=cwd, check=False,
        )  # fmt: skip
    if done.returncode != 0:
        raise ClusterError(
            f"{what} failed (exit {done.returncode}). The log is {log}; its last lines:\n{last_lines(log)}"
        )
    say(f"  done in {time.monotonic() - started:.0f} s")


def output_of(command: Sequence[str | os.PathLike[str]], *, text_in: str | None = None) -> str:
    """Standard output of a short command; ClusterError with its standard error when it fails."""
    done = subprocess.run(command, input=text_in, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shown = " ".join(str(part) for part in command)
        raise ClusterError(f"`{shown}` failed (exit {done.returncode}): {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
