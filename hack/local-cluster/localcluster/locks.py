"""Locks between `cluster` commands."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from . import layout
from .terminal import say


@contextmanager
def exclusive(what: str = "cluster") -> Iterator[None]:
    """One changing verb at a time: two `up` must not both start a node.

    Builds take locks of their own (`what`), so that a long one holds up only who needs what is built.
    """
    layout.CACHE.mkdir(parents=True, exist_ok=True)
    with (layout.CACHE / f"{what}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another `cluster` command to finish ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
