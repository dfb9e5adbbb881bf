"""Subprocesses: argument lists only, bounded in time, failures with the end of what they printed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import HarnessError

SHOWN_LINES = 25


def run(
    command: Sequence[str | Path],
    *,
    timeout: float,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    show: bool = False,
) -> str:
    """Its standard output. `show`: it prints to this terminal instead. Raises HarnessError."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            timeout=timeout,
            env={**os.environ, **(environment or {})},
            stdout=None if show else subprocess.PIPE,
            stderr=None if show else subprocess.PIPE,
            text=True,
            check=False,
        )
    except FileNotFoundError as missing:
        raise HarnessError(f"{words[0]} is not on this machine") from missing
    except subprocess.TimeoutExpired as expired:
        raise HarnessError(f"`{_short(words)}` took longer than {timeout:.0f} s") from expired
    if done.returncode:
        lines = ((done.stderr or "") + (done.stdout or "")).strip().splitlines()
        said = "\n  ".join(lines[-SHOWN_LINES:])
        raise HarnessError(f"`{_short(words)}` ended with {done.returncode}" + (f":\n  {said}" if said else ""))
    return done.stdout or ""


def _short(words: Sequence[str]) -> str:
    text = " ".join([Path(words[0]).name, *words[1:]])
    return text if len(text) <= 200 else f"{text[:200]}..."
