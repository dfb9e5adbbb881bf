"""Ports by the flags that name them, and what is wrong when one cannot be had."""

from __future__ import annotations

import errno
import ssl

from ..errors import BadSpec
from .http.listener import Listener


async def open_port(listener: Listener, name: str, port: int, host: str, tls: ssl.SSLContext | None = None) -> int:
    """Open the port that --NAME-port says; the port it got. Raises BadSpec when it cannot be had."""
    try:
        return await listener.open(port, host, tls)
    except OSError as error:
        raise port_unavailable(error, name, port, host) from error


def port_unavailable(error: OSError, name: str, port: int, host: str) -> BadSpec:
    """Why --NAME-port could not be opened."""
    flag = f"--{name}-port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
    message = f"--{name}-port {port}, --host {host or 'all addresses'}: {error.strerror or error}"
    remedy = f"Give another {flag}; port 0 takes any free one."
    return BadSpec("PortUnavailable", message, field=flag, remedy=remedy)
