"""What work costs: CPU time, as ratios that a busy machine does not change, and memory at its most."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent

AT_LEAST, AT_MOST = 7, 400
"""Rounds of a measurement."""


def cpu(work: Callable[[], object]) -> Callable[[], float]:
    """A measure: the CPU seconds that this thread needs for `work`."""

    def measured() -> float:
        began = time.thread_time()
        work()
        return time.thread_time() - began

    return measured


def least(*measures: Callable[[], float], until: Callable[..., bool]) -> tuple[float, ...]:
    """The least that each measure said, taken in turn until `until` holds of them; AT_MOST rounds if it never does.

    What else runs on the machine makes work longer, also in CPU time (caches, clock rates), never shorter: the least of
    many is nearest to what the work costs. A fixed number of rounds fails once in a thousand runs of all tests.
    """
    found = tuple(measure() for measure in measures)
    for number in range(1, AT_MOST):
        if number >= AT_LEAST and until(*found):
            break
        found = tuple(min(before, measure()) for before, measure in zip(found, measures, strict=True))
    return found


def memory(line: str, pid: int | str = "self") -> int:
    """Bytes of a process: "VmRSS" now, "VmHWM" at most so far.

    Not getrusage: its ru_maxrss begins with that of the process that started this one, so that in the child of a large
    process nothing is seen to grow.
    """
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(one.split()[1]) << 10 for one in status if one.startswith(f"{line}:"))


def forget_peak() -> None:
    """From here on "VmHWM" of this process begins anew, with what it holds."""
    Path("/proc/self/clear_refs").write_text("5")


def in_a_process_of_its_own(program: str, *arguments: object, **options: Any) -> str:
    """What this Python program prints. It finds the modules of the tests; `options`: of subprocess.run."""
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    places = [str(TESTS), str(TESTS / "unit"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
