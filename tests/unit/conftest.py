"""What every unit test leaves as it found it."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("unhurried", deadline=None)  # how fast a machine is proves nothing
settings.load_profile("unhurried")

DRAW = os.environ.get("DRAW", "0")
"""Which rows builds leave out to measure with: `make test-flakes` takes another number each time."""


@pytest.fixture(scope="session", autouse=True)
def _same_rows_left_out() -> Iterator[None]:
    """The draw follows the source's fingerprint, and that of a local folder has the time of writing in it: where a test
    judges recall, each run would be another throw of the dice. Session-wide, for fixtures of a module build too."""
    from vectorindex_searcher.build import task

    real = task.draw_left_out

    def drawn(vectors: Any, queries: int, fingerprint: str, fallback: Any) -> Any:
        return real(vectors, queries, f"draw {DRAW}", fallback)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "draw_left_out", drawn)
        yield


@pytest.fixture(autouse=True)
def _log_handlers() -> Iterator[None]:
    """A verb run in-process logs to the standard error of its own test, which is closed when the next one logs."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    for handler in list(root.handlers):
        if handler not in before:
            root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """With SIGPIPE's default, the next test whose other end hangs up ends the whole process, and nothing says why."""
    yield
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN, "this test changed what SIGPIPE does for all others"
