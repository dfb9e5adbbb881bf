"""The process around the server: its event loop, and the exit code of a refusal."""

from __future__ import annotations

from collections.abc import Mapping

import uvloop

from .. import contract
from ..errors import TaskError
from . import load, settings
from .server import Server


def serve(task: contract.ServeTask, flags: Mapping[str, object]) -> int:
    """Serve `task` until SIGTERM. `flags`: see Settings.from_environment.

    Raises TaskError with the exit code of a searcher when the artifact is refused."""
    chosen = settings.from_process(flags)
    try:
        if chosen.processes > 1:
            from .workers.pod import Pod

            return Pod(task, chosen).run()
        uvloop.run(Server(task, chosen).run())
    except TaskError as error:
        error.exit_code = load.exit_code(error)
        raise
    except MemoryError as error:
        raise TaskError(
            "OutOfMemory",
            "the index does not fit into the searcher's memory",
            field="spec.searcher.resources",
            remedy="Raise spec.searcher.resources.limits.memory.",
            exit_code=contract.ExitCode.MEMORY,
        ) from error
    return contract.ExitCode.OK
