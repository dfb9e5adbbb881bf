"""Processes that have read a file through a mapping, as pods on one node read one index."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MAPS = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
print(sum(mapped[::4096]), flush=True)
sys.stdin.read()
"""


@contextmanager
def reader_of(file: Path) -> Iterator[int]:
    """The pid of a process that has read all pages of `file`, and ends with the block."""
    command = [sys.executable, "-c", _MAPS, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdout.readline()
            yield child.pid
        finally:
            child.stdin.close()
