"""A way to a Service of the cluster from here: `kubectl port-forward`, for as long as a block lasts.

kubectl is there, since it ran us; it knows the user's logins, and its forwards need no right that NetworkPolicies take.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vectorindex_plugin.exits import EndedError, Exit

_READY = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ")


@contextmanager
def forwarded(service: str, port: str, flags: Sequence[str]) -> Iterator[int]:
    """The local port behind which a port of a Service answers. `flags`: context and namespace, as kubectl has them.
    Raises EndedError where there is no way."""
    program = shutil.which("kubectl")
    if program is None:
        raise EndedError(Exit.UNREACHABLE, "kubectl is not on the PATH: it forwards the port")
    command = [program, *flags, "port-forward", "--address=127.0.0.1", f"service/{service}", f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline()
            found = _READY.match(line)
            if found is None:
                said = f"{line}{process.stderr.read()}".strip() or "it said nothing"
                raise EndedError(Exit.UNREACHABLE, f"kubectl port-forward: {said}")
            yield int(found[1])
        finally:
            process.terminate()
