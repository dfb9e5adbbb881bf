"""Serve one revision over HTTP: verified, proven, counted, drained. See docs/searcher-api.md."""

from __future__ import annotations

from collections.abc import Mapping

from .. import contract


def main(task: contract.ServeTask, flags: Mapping[str, object] = {}) -> int:
    """Serve until SIGTERM; returns contract.ExitCode.OK. `flags`: settings from the command line, by name.

    Raises TaskError, with the exit code to end with, when the artifact is refused: the command line writes it down.
    """
    # Here, because FAISS takes a second to load and the package is imported for less.
    from .process import serve

    return serve(task, flags)
