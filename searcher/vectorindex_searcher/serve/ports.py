"""Ports by the flags that name them: what is wrong when one cannot be had."""

from __future__ import annotations

import errno

from ..errors import BadSpec


def port_unavailable(error: OSError, name: str, port: int, host: str) -> BadSpec:
    """Why --NAME-port could not be opened."""
    flag = f"--{name}-port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
    message = f"--{name}-port {port}, --host {host or 'all addresses'}: {error.strerror or error}"
    remedy = f"Give another {flag}; port 0 takes any free one."
    return BadSpec("PortUnavailable", message, field=flag, remedy=remedy)
