"""Starts operators that have everything imported: it forks itself, a tenth of the time that a new interpreter needs.

A line of JSON in, {"arguments": [...], "environment": {...}, "log": PATH}: the id of a new process out, as
{"begun": id}. When one ends: {"ended": id, "code": N}. The end of input kills all that are left.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import traceback
from typing import Any

from kubernetes.config import kube_config

from vectorindex_operator.__main__ import main as operate

LOOK_SECONDS = 0.02


def begin(order: dict[str, Any]) -> int:
    """The id of the process in which the operator runs."""
    process = os.fork()
    if process:
        return process
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(order["environment"])
    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = os.environ["KUBECONFIG"]  # read when it was imported
    code = 70
    try:
        code = operate(order["arguments"])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def say(**what: int) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Until the end of input."""
    alive: set[int] = set()
    rest = b""
    while True:
        if select.select([0], [], [], LOOK_SECONDS)[0]:
            piece = os.read(0, 1 << 16)
            if not piece:
                break
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                alive.add(process := begin(json.loads(line)))
                say(begun=process)
        while alive:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                break
            alive.discard(process)
            say(ended=process, code=os.waitstatus_to_exitcode(status))
    for process in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    main()
