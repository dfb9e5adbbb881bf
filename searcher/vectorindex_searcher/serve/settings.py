"""How this process listens and ends: what a laptop or a test may set, apart from the task."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from .. import contract
from ..errors import BadSpec
from ..index.threads import available_cores

_ENV_PREFIX = "VECTORINDEX_"
_T = TypeVar("_T", int, float, str)


@dataclass(frozen=True, slots=True)
class Settings:
    """Ports, threads, seconds."""

    host: str = ""
    """Address to listen on; empty: all, IPv4 and IPv6."""
    http_port: int = contract.HTTP_PORT
    admin_port: int = contract.ADMIN_PORT
    """0 takes any free port, which the log then names."""
    threads: int = 1
    """Searches at once."""
    grace_seconds: float = 5.0
    """After SIGTERM: how long new connections are still taken. A pod that ends leaves the Service's endpoints at about
    the moment of its SIGTERM, but every node's proxy learns of it a little later and sends connections until then."""
    drain_seconds: float = float(contract.DRAIN_SECONDS)
    """After SIGTERM: when the process ends even if answers are still owed. Includes the grace."""
    pod: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Settings from VECTORINDEX_HOST, _HTTP_PORT, _ADMIN_PORT, _SEARCH_THREADS, _GRACE_SECONDS, _DRAIN_SECONDS and
        _POD. Raises BadSpec for what is no number.
        """

        def read(name: str, kind: Callable[[str], _T], default: _T) -> _T:
            text = environment.get(_ENV_PREFIX + name, "")
            try:
                return kind(text) if text else default
            except ValueError:
                raise BadSpec("BadSetting", f"{_ENV_PREFIX}{name}: {text!r} is no number") from None

        return cls(
            host=read("HOST", str, ""),
            http_port=read("HTTP_PORT", int, contract.HTTP_PORT),
            admin_port=read("ADMIN_PORT", int, contract.ADMIN_PORT),
            threads=max(1, read("SEARCH_THREADS", int, available_cores())),
            grace_seconds=read("GRACE_SECONDS", float, 5.0),
            drain_seconds=read("DRAIN_SECONDS", float, float(contract.DRAIN_SECONDS)),
            pod=read("POD", str, socket.gethostname()),
        )


def from_process() -> Settings:
    """Settings of this process."""
    return Settings.from_environment(os.environ)
