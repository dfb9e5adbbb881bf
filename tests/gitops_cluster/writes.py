"""Every change of every object in some namespaces, and who made it: by watches, for which nothing is too short.

A write that changes nothing leaves no trace here; who makes such writes counts them (the operator's
vectorindex_api_writes_total, Argo CD its syncs and its runs of kubectl).
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import urllib3
from control_plane import Api

Json = dict[str, Any]
HEARTBEATS = frozenset({"leases"})
"""Written every few seconds by whoever is at work, by design."""
APPLICATIONS, EVENTS = "applications", "events"
WATCH_SECONDS = 300
GONE = 410


@dataclass(frozen=True, slots=True)
class Change:
    """`at`: Unix seconds, by this machine's clock. `what`: ADDED, MODIFIED, DELETED; MISSED: while a watch was cut off.
    `by`: field managers. `says`: of an Application, its sync and its health."""

    at: float
    kind: str
    namespace: str
    name: str
    what: str
    by: tuple[str, ...]
    says: str = ""

    @property
    def by_design(self) -> bool:
        """A heartbeat, or an Event whose hour is over, which etcd forgets by itself."""
        return self.kind in HEARTBEATS or (self.kind == EVENTS and self.what == "DELETED")

    def __str__(self) -> str:
        return f"{self.what} {self.kind} {self.namespace}/{self.name} by {', '.join(self.by) or 'nobody named'}"


def writers(before: Json | None, after: Json) -> tuple[str, ...]:
    """Who made `after` of `before`: the managers of fields whose entry is new or another; where none is, those whose
    entry is the newest, since an entry has the precision of a second."""
    old, new = _entries(before or {}), _entries(after)
    changed = {who[0] for who, entry in new.items() if old.get(who) != entry}
    if not changed and new:
        newest = max(at for at, _ in new.values())
        changed = {who[0] for who, (at, _) in new.items() if at == newest}
    return tuple(sorted(changed))


def says(obj: Json) -> str:
    """Of an Application, as in "Synced/Healthy"."""
    status = obj.get("status", {})
    return f"{status.get('sync', {}).get('status', '')}/{status.get('health', {}).get('status', '')}"


def _entries(obj: Json) -> dict[tuple[str, str, str], tuple[str, str]]:
    """Manager, operation and subresource -> when, and which fields."""
    return {
        (one["manager"], one["operation"], one.get("subresource", "")): (
            one.get("time", ""),
            json.dumps(one.get("fieldsV1"), sort_keys=True),
        )
        for one in obj.get("metadata", {}).get("managedFields", ())
    }


@dataclass(slots=True)
class Recorder:
    """Watches from `start` to `stop`. `only`: these kinds, by the name of the resource; empty: all that there are."""

    api: Api
    namespaces: tuple[str, ...]
    only: frozenset[str] = frozenset()
    changes: list[Change] = field(default_factory=list)
    _paths: list[tuple[str, str]] = field(default_factory=list)
    _known: dict[tuple[str, str, str], Json] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)
    _open: set[urllib3.BaseHTTPResponse] = field(default_factory=set)

    def start(self) -> None:
        """Everything that is written after this call is seen."""
        for prefix, kind in kinds(self.api):
            if self.only and kind not in self.only:
                continue
            for namespace in self.namespaces:
                path = f"{prefix}/namespaces/{namespace}/{kind}"
                version = self._look(path, kind, began=True)
                self._paths.append((path, kind))
                threading.Thread(target=self._follow, args=(path, kind, version), daemon=True).start()

    def stop(self, settle: float = 2.0) -> list[Change]:
        """All changes. `settle`: seconds for what is still under way; what no watch told by then was missed."""
        time.sleep(settle)
        self._ended.set()
        with self._lock:
            for answer in self._open:
                with contextlib.suppress(OSError, RuntimeError, ValueError):  # it may have ended by itself
                    answer.shutdown()
        for path, kind in self._paths:
            self._look(path, kind)
        return list(self.changes)

    @property
    def watches(self) -> int:
        """How many: a kind in a namespace each."""
        return len(self._paths)

    def __enter__(self) -> Recorder:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def last(self) -> float:
        """When something was last written, Unix seconds; 0: nothing was."""
        return max((one.at for one in list(self.changes) if not one.by_design), default=0.0)

    # ------------------------------------------------------------ one kind in one namespace

    def _follow(self, path: str, kind: str, version: str) -> None:
        while not self._ended.is_set():
            try:
                for event in self._events(path, version):
                    obj = event["object"]
                    if event["type"] == "ERROR":
                        if obj.get("code") != GONE:
                            break
                        version = self._look(path, kind)
                        break
                    version = obj["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        self._seen(kind, event["type"], obj)
            except (urllib3.exceptions.HTTPError, RuntimeError, ValueError):
                self._ended.wait(1.0)  # the API server begins anew, or this recorder has ended

    def _events(self, path: str, version: str) -> Iterator[Json]:
        """The events of one watch, until the server ends it."""
        query = f"watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={version}"
        timeout = urllib3.Timeout(connect=5.0, read=WATCH_SECONDS + 60)
        answer = self.api.pool.request(
            "GET", f"{self.api.url}{path}?{query}", preload_content=False, retries=False, timeout=timeout
        )
        with self._lock:
            self._open.add(answer)
        try:
            if answer.status == GONE:
                yield {"type": "ERROR", "object": {"code": GONE}}
            elif answer.status >= 400:
                self._ended.wait(1.0)
            else:
                for line in answer:
                    yield json.loads(line)
        finally:
            with self._lock:
                self._open.discard(answer)
            answer.close()

    def _seen(self, kind: str, what: str, obj: Json) -> None:
        meta = obj["metadata"]
        key = (kind, meta["namespace"], meta["name"])
        with self._lock:
            before = self._known.pop(key, None)
            if what != "DELETED":
                self._known[key] = obj
            by = () if what == "DELETED" else writers(before, obj)
            told = says(obj) if kind == APPLICATIONS else ""
            self.changes.append(Change(time.time(), *key, what, by, told))

    def _look(self, path: str, kind: str, *, began: bool = False) -> str:
        """Lists; what is other than what was known last was missed. The version to watch from."""
        answer = self.api.get(path)
        if not answer.ok:
            raise RuntimeError(f"{path}: {answer.status} {answer.message}")
        listed = {one["metadata"]["name"]: one for one in answer.body["items"]}
        namespace = path.rsplit("/", 2)[1]
        with self._lock:
            known = {name: one for (of, where, name), one in self._known.items() if (of, where) == (kind, namespace)}
            for name in () if began else known.keys() | listed.keys():
                old, new = known.get(name), listed.get(name)
                if _version(old) != _version(new):
                    what, by = ("MISSED", writers(old, new)) if new else ("DELETED", ())
                    self.changes.append(Change(time.time(), kind, namespace, name, what, by, says(new or {})))
            for name in known:
                del self._known[kind, namespace, name]
            self._known |= {(kind, namespace, name): one for name, one in listed.items()}
        return str(answer.body["metadata"]["resourceVersion"])


def kinds(api: Api) -> list[tuple[str, str]]:
    """Prefix and resource of every kind that lives in namespaces and can be watched."""
    groups = api.get("/apis").body["groups"]
    prefixes = ["/api/v1", *(f"/apis/{one['preferredVersion']['groupVersion']}" for one in groups)]
    found = []
    for prefix in prefixes:
        for one in api.get(prefix).body.get("resources", ()):
            if one["namespaced"] and "watch" in one["verbs"] and (prefix, one["name"]) != ("/api/v1", "events"):
                found.append((prefix, one["name"]))  # Events are served twice: there and by events.k8s.io
    return found


def without_heartbeats(changes: Iterable[Change]) -> list[Change]:
    """What somebody had a reason to write."""
    return [one for one in changes if not one.by_design]


def _version(obj: Mapping[str, Any] | None) -> str:
    return str(obj["metadata"]["resourceVersion"]) if obj else ""
