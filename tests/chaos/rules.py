"""What can befall a request to the API server on its way: which one, and what becomes of it."""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

WRITES = frozenset({"create", "update", "patch", "delete"})
READS = frozenset({"get", "list"})
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, in the words of an audit log. `resource`: with its subresource, as in "services/status"."""

    verb: str
    resource: str
    namespace: str = ""
    name: str = ""

    @property
    def is_write(self) -> bool:
        """Renewals of the Lease are none: they come by the clock, not by what there is to do."""
        return self.verb in WRITES and self.resource != "leases"

    def is_write_of(self, resource: str) -> bool:
        return self.verb in WRITES and self.resource == resource

    def __str__(self) -> str:
        return f"{self.verb} {self.resource} {self.name}".strip()


def read_request(method: str, path: str, query: Mapping[str, str], body: bytes = b"") -> Asked:
    """What a request to the API server asks for. `body`: names what is created."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = ""
    if len(parts) > 2 and parts[0] == "namespaces":
        namespace, parts = parts[1], parts[2:]
    resource, name, sub = (*parts, "", "", "")[:3]
    verb = _VERBS.get(method, "get" if name else "watch" if query.get("watch") in ("1", "true") else "list")
    if verb == "create":
        name = name or json.loads(body)["metadata"].get("name", "")
    return Asked(verb, f"{resource}/{sub}" if sub else resource, namespace, name)


# ---------------------------------------------------------------- what becomes of it


@dataclass(frozen=True, slots=True)
class Crash:
    """Whoever asked is killed at this moment. `carried_out`: the API server has done what was asked."""

    carried_out: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The answer of an API server that has done nothing."""

    status: int
    reason: str
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """Carried out, but the connection ends before the answer."""


@dataclass(frozen=True, slots=True)
class Slow:
    """It reaches the API server so many seconds later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Cut:
    """A watch ends in the middle of an event, so many events after it began."""

    events: int = 0


@dataclass(frozen=True, slots=True)
class Gone:
    """A watch is told that what it wants to go on from was compacted."""


@dataclass(frozen=True, slots=True)
class Stale:
    """A read is answered as the same read was answered the first time since the rule was made."""


Effect = Crash | Refused | Lost | Slow | Cut | Gone | Stale

CONFLICT = Refused(409, "Conflict")
TOO_MANY = Refused(429, "TooManyRequests", retry_after=1)
BROKEN = Refused(500, "InternalError")


@dataclass(slots=True)
class Rule:
    """An effect on some of the requests that match: on those numbered `first` to `last`, and of them on this `share`.

    Empty sets match everything. Leases are met only by a rule that names them: whoever loses its Lease ends.
    """

    effect: Effect
    verbs: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    first: int = 1
    last: float = float("inf")
    share: float = 1.0
    seed: int = 1
    """Of the share."""
    met: int = 0
    """How often it had its effect."""
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def meets(self, asked: Asked) -> bool:
        """Whether it is for this request; each that matches counts."""
        if asked.resource == "leases" and "leases" not in self.resources:
            return False
        pairs = ((self.verbs, asked.verb), (self.resources, asked.resource), (self.namespaces, asked.namespace))
        if any(wanted and found not in wanted for wanted, found in pairs):
            return False
        number = next(self._numbers)
        if not self.first <= number <= self.last or self._random.random() >= self.share:
            return False
        self.met += 1
        return True


@dataclass(slots=True)
class Rules:
    """Those in force, to be changed from any thread."""

    version: int = 0
    """Other rules, another number."""
    _rules: list[Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def set(self, rules: Iterable[Rule] = ()) -> None:
        """These from now on, and no others."""
        with self._lock:
            self._rules, self.version = list(rules), self.version + 1

    def effect(self, asked: Asked) -> Effect | None:
        """Of the first rule that is for this request."""
        with self._lock:
            return next((rule.effect for rule in self._rules if rule.meets(asked)), None)
