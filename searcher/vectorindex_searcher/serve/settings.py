"""How this process listens and ends: what a laptop or a test may set, apart from the task."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from .. import contract
from ..errors import BadSpec
from ..index.threads import available_cores
from .http.limits import MOST_THREADS
from .tracing.spans import Collector

_ENV_PREFIX = "VECTORINDEX_"
_PORTS = "a port from 1 to 65535, or 0 for any free one"
_log = logging.getLogger(__name__)
_LETTERS = TypeAdapter(dict[str, str])
_T = TypeVar("_T", bound=int | float | str | Path | None)


@dataclass(frozen=True, slots=True)
class Settings:
    """Ports, threads, seconds."""

    host: str = ""
    """Address to listen on; empty: all, IPv4 and IPv6."""
    http_port: int = contract.HTTP_PORT
    admin_port: int = contract.ADMIN_PORT
    """0 takes any free port, which the log then names."""
    threads: int = 1
    """Searches at once, all processes together."""
    processes: int = 1
    """That answer users. One: no other process is made."""
    grace_seconds: float = 5.0
    """After SIGTERM: how long new connections are still taken. A pod that ends leaves the Service's endpoints at about
    the moment of its SIGTERM, but every node's proxy learns of it a little later and sends connections until then."""
    drain_seconds: float = float(contract.DRAIN_SECONDS)
    """After SIGTERM: when the process ends even if answers are still owed. Includes the grace."""
    pod: str = ""
    cache_bytes: int = 0
    """How much the artifacts in the cache may take together; 0: no limit."""
    huge_pages: bool = False
    """Hold the index in memory of its own, in huge pages (index/huge_pages.py), and not mapped from its file."""
    token_file: Path | None = None
    """A file or folder of bearer tokens; None: the user port answers everybody who reaches it."""
    policy_file: Path | None = None
    """Which rows each token may see (search/policies.py); None: every token all. With `token_file` only."""
    tls_cert: Path | None = None
    """Certificate chain of the user port, PEM; with `tls_key`. None: in clear."""
    tls_key: Path | None = None
    params: contract.ParamLimits = field(default_factory=contract.ParamLimits)
    """What queries may choose for themselves."""
    columns_before: Mapping[str, str] | None = None
    """Metadata columns of the revision before, with the letters of their types; None: not known."""
    internal_key: str = field(default="", repr=False)
    """Key of the revision, which signs evidence and leases; empty: unsigned ones are taken."""
    source: str = ""
    """What of the index's source is listed when the operator asks (contract.SOURCE_ENV); empty: nothing."""
    fresh: str = ""
    """Where fresh rows are (contract.FRESH_ENV); empty: the artifact is all that is answered."""
    collector: Collector | None = None
    """Who is told spans of traced searches; None: nobody."""
    live_queries: bool = False
    """Keep a sample of what users ask, for the gate of the next revision. Never without the key."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], flags: Mapping[str, object] = {}) -> Settings:
        """Settings from the environment: VECTORINDEX_ and the upper-case name (VECTORINDEX_SEARCH_THREADS for
        `threads`). `flags`: the same names in lower case from the command line; one that is not None wins.

        Raises BadSpec for what is no number, for a certificate without key or a key without certificate, and for
        policies without tokens.
        """

        def read(name: str, kind: Callable[[str], _T], default: _T) -> _T:
            given = flags.get(name.lower())
            text = environment.get(_ENV_PREFIX + name, "") if given is None else str(given)
            try:
                return kind(text) if text else default
            except ValueError:
                raise _bad_setting(name, text, from_flag=given is not None) from None

        processes = min(contract.MOST_PROCESSES, max(1, read("PROCESSES", int, 1)))
        key = environment.get(contract.INTERNAL_KEY_ENV, "")  # no flag: command lines can be read by many
        tls_cert, tls_key = read("TLS_CERT", Path, None), read("TLS_KEY", Path, None)
        if (tls_cert is None) is not (tls_key is None):
            remedy = "Give both --tls-cert and --tls-key, or VECTORINDEX_TLS_CERT and VECTORINDEX_TLS_KEY, or none."
            raise BadSpec("BadSetting", "a certificate needs its key and a key its certificate", remedy=remedy)
        token_file, policy_file = read("TOKEN_FILE", Path, None), read("POLICIES", Path, None)
        if policy_file is not None and token_file is None:
            remedy = "Give --token-file or VECTORINDEX_TOKEN_FILE as well, or no policies."
            raise BadSpec("BadSetting", "policies are of tokens, and there are none", field="--policies", remedy=remedy)
        return cls(
            host=read("HOST", str, ""),
            http_port=read("HTTP_PORT", _port, contract.HTTP_PORT),
            admin_port=read("ADMIN_PORT", _port, contract.ADMIN_PORT),
            # With one thread a process searches on its event loop, which is quicker for all that is short.
            threads=max(1, read("SEARCH_THREADS", int, processes if processes > 1 else _most_threads())),
            processes=processes,
            grace_seconds=read("GRACE_SECONDS", float, 5.0),
            drain_seconds=read("DRAIN_SECONDS", float, float(contract.DRAIN_SECONDS)),
            pod=read("POD", str, socket.gethostname()),
            cache_bytes=read("CACHE_BYTES", byte_count, 0),
            huge_pages=environment.get(_ENV_PREFIX + "HUGE_PAGES", "") == "1",
            token_file=token_file,
            policy_file=policy_file,
            tls_cert=tls_cert,
            tls_key=tls_key,
            params=_param_limits(environment.get(contract.PARAM_LIMITS_ENV, "")),
            columns_before=_columns_before(environment.get(contract.COLUMNS_BEFORE_ENV, "")),
            source=environment.get(contract.SOURCE_ENV, ""),
            fresh=read("FRESH", str, ""),
            live_queries=_may_keep_queries(environment.get(contract.LIVE_QUERIES_ENV, "") == "1", key),
            internal_key=key,
            collector=Collector.told(environment),
        )


def _may_keep_queries(asked: bool, key: str) -> bool:
    """Whether live queries are kept: if that is asked for, and nobody but the gate can read them."""
    if asked and not key:
        _log.warning("no live queries are kept: without a key for internal requests anybody could read them")
    return asked and bool(key)


def _most_threads() -> int:
    """Of a single process, as many as it may use cores."""
    return min(MOST_THREADS, available_cores())


def _param_limits(text: str) -> contract.ParamLimits:
    """Raises BadSpec for what is no ParamLimits in JSON: better no searcher than one without its limits."""
    try:
        return contract.ParamLimits.model_validate_json(text or "{}")
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"])) or "it"
        message = f"{contract.PARAM_LIMITS_ENV}: {place}: {fault['msg']}"
        remedy = 'Give JSON such as {"allow": ["nprobe"], "max": {"nprobe": 64}}.'
        raise BadSpec("BadSetting", message, field=contract.PARAM_LIMITS_ENV, remedy=remedy) from None


def _columns_before(text: str) -> Mapping[str, str] | None:
    """Raises BadSpec for what is no JSON object of names and letters."""
    try:
        return _LETTERS.validate_json(text) if text else None
    except ValidationError as error:
        message = f"{contract.COLUMNS_BEFORE_ENV}: {error.errors(include_url=False)[0]['msg']}"
        remedy = 'Give JSON such as {"section": "s", "size": "i"}, or nothing.'
        raise BadSpec("BadSetting", message, field=contract.COLUMNS_BEFORE_ENV, remedy=remedy) from None


def _bad_setting(name: str, text: str, *, from_flag: bool) -> BadSpec:
    """What is wrong with a number, by the name under which it was given."""
    flag = "--cache-limit" if name == "CACHE_BYTES" else "--" + name.lower().replace("_", "-")
    given = flag if from_flag else _ENV_PREFIX + name
    wanted = {"CACHE_BYTES": "a size such as 20Gi", "HTTP_PORT": _PORTS, "ADMIN_PORT": _PORTS}.get(name, "a number")
    message = f"{given}: {text!r} is not usable as a number here"
    return BadSpec("BadSetting", message, field=given, remedy=f"Give {wanted}.")


def _port(text: str) -> int:
    """A port number, 0 to 65535. Raises ValueError."""
    if not 0 <= int(text) <= 65535:
        raise ValueError(text)
    return int(text)


def byte_count(text: str) -> int:
    """Bytes, as a number with or without a unit of Kubernetes (500Mi, 20Gi, 1T). Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,15})(k|[MGT]|[KMGT]i)?", text.strip())
    if found is None:
        raise ValueError(text)
    unit = found[2] or ""
    factor = 1 if not unit else pow(1024 if unit.endswith("i") else 1000, "KMGT".index(unit[0].upper()) + 1)
    return int(found[1]) * factor


def from_process(flags: Mapping[str, object]) -> Settings:
    """Settings of this process, with its command line's `flags`."""
    return Settings.from_environment(os.environ, flags)
