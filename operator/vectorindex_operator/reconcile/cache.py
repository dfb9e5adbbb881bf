"""What the watches told, kept: a look at an idle VectorIndex costs no read.

A pass over the cache may look but not write. The first write that it wants ends it, and the pass begins anew on live
reads: so what is switched, retired, deleted or reported is always decided on the API server's own word, and a stale
cache can delay a decision but never make one (docs/adr/0020-the-read-cache.md).

- Whatever comes in, an event, a read or the answer to a write of our own, never replaces what is newer.
- A list replaces what it lists whole: what vanished while no watch looked is found by its absence.
- Only children of a VectorIndex that is known are kept, and of each kind no more than MOST_OF_A_KIND: labels are
  anybody's to write. What is not kept is read live.
- Objects are kept as packed JSON without what nobody here reads: a twentieth of the memory, and each reader gets its
  own.
"""

from __future__ import annotations

import json
import sys
import threading
import zlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile.held import is_leaving
from vectorindex_operator.reconcile.leaving import Leaving
from vectorindex_operator.reconcile.ports import Cluster, Raw

INDEX_KIND = "VectorIndex"
UNWATCHED = frozenset({"HTTPRoute", "Workload"})
"""Kinds that are always read live: there may be no such kind in the cluster, and a watch of none never begins."""
MOST_OF_A_KIND = 300
MOST_BYTES_OF_A_KIND = 4 << 20
"""Of one VectorIndex and kind, unpacked: labels are anybody's to write, and objects may be large."""
MOST_TOMBSTONES = 4096
_LEVEL = 1
"""Of packing: the others take long and save little."""
APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

Key = tuple[str, str, str]
"""Kind, namespace, name."""


class NotCachedError(Exception):
    """The cache cannot answer: the pass is to be made on live reads. No ClusterError: nothing went wrong."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object. `turn`: when it came in, counted over all that came in. `size`: bytes of `data` when unpacked."""

    uid: str
    version: int
    turn: int
    index: str
    data: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Tombstone:
    """An object that is gone, and when that was told: an answer that comes late does not bring it back, a list that was
    begun after this does."""

    version: int
    turn: int


@dataclass(slots=True)
class ReadCache:
    """Objects by kind, namespace and name. Safe to use from many threads."""

    leaving: Leaving = field(default_factory=Leaving)
    _entries: dict[Key, Entry] = field(default_factory=dict)
    _groups: defaultdict[Key, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Names by kind, namespace and VectorIndex."""
    _sizes: Counter[Key] = field(default_factory=Counter)
    """Bytes of each group, unpacked: what a look at it takes."""
    _crowded: set[Key] = field(default_factory=set)
    """Groups that are larger than what is kept."""
    _gone: OrderedDict[Key, Tombstone] = field(default_factory=OrderedDict)
    _changed: dict[tuple[str, str], int] = field(default_factory=dict)
    """By namespace and name of each VectorIndex: see `changed`."""
    _turn: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    # ------------------------------------------------------------ what comes in

    def turn(self) -> int:
        """Now. To be asked before a list is begun: what comes in after this is newer than the list."""
        with self._lock:
            return self._turn

    def put(self, raw: Raw, since: int = -1) -> bool:
        """Keep an object unless a newer one is kept. Whether it told anything new. `since`: when a read was begun."""
        small = trimmed(raw, fields=False)
        meta = small["metadata"]
        key, version, index = _key(small), _version(meta), index_of(small)
        with self._lock:
            had, gone = self._entries.get(key), self._gone.get(key)
            if had is not None and had.version >= version:
                return False
            if gone is not None and gone.version >= version and gone.turn > since:
                return False
            self.leaving.note(key, small, index, self._turn)
            self._drop(key)
            self._gone.pop(key, None)
            group = (key[0], key[1], index)
            data = json.dumps(small, separators=(",", ":")).encode()
            if key[0] != INDEX_KIND and not self._has_room(group, len(data)):
                return True
            self._turn += 1
            self._changed[key[1], index] = self._turn
            self._entries[key] = Entry(meta["uid"], version, self._turn, index, zlib.compress(data, _LEVEL), len(data))
            self._groups[group].add(key[2])
            self._sizes[group] += len(data)
            return True

    def remove(self, raw: Raw) -> None:
        """A watch told that an object is gone."""
        key, meta = _key(raw), raw["metadata"]
        with self._lock:
            had = self._entries.get(key)
            if had is None or had.version <= _version(meta):
                self._bury(key, _version(meta))

    def forget(self, kind: str, namespace: str, name: str, since: int) -> None:
        """A read that was begun at turn `since` did not find an object, or we deleted it."""
        with self._lock:
            had = self._entries.get((kind, namespace, name))
            if had is not None and had.turn <= since:
                self._drop((kind, namespace, name))

    def replace(self, kind: str, namespace: str, index: str, raws: Iterable[Raw], since: int) -> None:
        """What a list of one VectorIndex, begun at turn `since`, says: the rest of them is gone."""
        raws = list(raws)
        with self._lock:
            group = (kind, namespace, index)
            self._crowded.discard(group)
            listed = {raw["metadata"]["name"] for raw in raws}
            missing = {(kind, namespace, name) for name in self._groups.get(group, set()) - listed}
            self._vanish(missing, since)
            self.leaving.only(kind, namespace, {(kind, namespace, name) for name in listed}, since, index)
            for raw in raws[: MOST_OF_A_KIND + 1]:
                self.put(raw, since)

    def compare(
        self, kind: str, namespace: str, metas: Iterable[Raw], since: int
    ) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
        """What a list of all metadata of a kind (`namespace`: of one, or "" for all), begun at turn `since`, says.

        Returns the VectorIndexes (namespace, name) whose objects are to be read again, and those that lost some.
        """
        # Read before the lock is taken: the pages come over the network.
        listed, leaving = {}, []
        for raw in metas:
            meta, index = raw["metadata"], index_of(raw)
            listed[kind, meta["namespace"], meta["name"]] = (meta["uid"], _version(meta), index)
            leaving += [(raw, index)] if is_leaving(raw) else []
        different = set()
        with self._lock:
            self.leaving.only(kind, namespace, listed, since)
            for raw, index in leaving:
                self.leaving.note((kind, raw["metadata"]["namespace"], raw["metadata"]["name"]), raw, index, since)
            for key, (uid, version, index) in listed.items():
                had = self._entries.get(key)
                if had is not None and had.uid == uid and had.version >= version:
                    continue
                if kind == INDEX_KIND or self._has_room((kind, key[1], index)):
                    different.add((key[1], index))
            ours = {key for key in self._entries if key[0] == kind and namespace in ("", key[1])}
            lost = self._vanish(ours - listed.keys(), since)
        return different, lost

    # ------------------------------------------------------------ what is asked

    def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        with self._lock:
            entry = self._entries.get((kind, namespace, name))
        return None if entry is None else _parsed(entry)

    def children(self, kind: str, namespace: str, selector: str) -> list[Raw]:
        """Objects of one VectorIndex with all labels of `selector`. Raises NotCachedError when there are too many."""
        wanted = _wanted(selector)
        group = (kind, namespace, _index_in(wanted))
        with self._lock:
            if group in self._crowded:
                raise NotCachedError(f"more than {MOST_OF_A_KIND} objects of kind {kind} name {namespace}/{group[2]}")
            entries = [self._entries[kind, namespace, name] for name in sorted(self._groups.get(group, ()))]
        found = [_parsed(entry) for entry in entries]
        return [raw for raw in found if wanted.items() <= raw["metadata"].get("labels", {}).items()]

    def changed(self, namespace: str, name: str) -> int:
        """The turn in which anything of a VectorIndex last came in or went: while it is the same, so is all that the
        cache says of it. 0: the VectorIndex is not there."""
        with self._lock:
            return self._changed.get((namespace, name), 0)

    def names(self) -> list[tuple[str, str]]:
        """Namespace and name of every VectorIndex."""
        with self._lock:
            return [key[1:] for key in self._entries if key[0] == INDEX_KIND]

    def knows(self, namespace: str, name: str) -> bool:
        """Whether this VectorIndex is there."""
        with self._lock:
            return (INDEX_KIND, namespace, name) in self._entries

    def size(self) -> tuple[int, int]:
        """Objects, and the bytes that they are kept in."""
        with self._lock:
            return len(self._entries), sum(len(entry.data) for entry in self._entries.values())

    # ------------------------------------------------------------ under the lock

    def _has_room(self, group: Key, size: int = 0) -> bool:
        """Whether another object of this group, of `size` bytes, is kept; one too many, and none of them is."""
        if (INDEX_KIND, group[1], group[2]) not in self._entries or group in self._crowded:
            return False
        names = self._groups.get(group, set())
        if len(names) < MOST_OF_A_KIND and self._sizes[group] + size <= MOST_BYTES_OF_A_KIND:
            return True
        self._crowded.add(group)
        for name in tuple(self._groups[group]):
            self._drop((group[0], group[1], name))
        return False

    def _vanish(self, missing: set[Key], since: int) -> set[tuple[str, str]]:
        """Drop what a list did not show, unless it came in later. Whose it was: namespaces and VectorIndexes."""
        lost = set()
        for key in missing:
            had = self._entries.get(key)
            if had is not None and had.turn <= since:
                lost.add((key[1], had.index))
                self._bury(key, had.version)
        return lost

    def _bury(self, key: Key, version: int) -> None:
        self._drop(key)
        self.leaving.gone(key)
        self._turn += 1
        self._gone[key] = Tombstone(version, self._turn)
        while len(self._gone) > MOST_TOMBSTONES:
            self._gone.popitem(last=False)
        if key[0] == INDEX_KIND:
            for group in [group for group in self._crowded if group[1:] == key[1:]]:
                self._crowded.discard(group)

    def _drop(self, key: Key) -> None:
        had = self._entries.pop(key, None)
        if had is None:
            return
        group = (key[0], key[1], had.index)
        self._groups[group].discard(key[2])
        self._sizes[group] -= had.size
        if not self._groups[group]:
            del self._groups[group], self._sizes[group]
        if key[0] == INDEX_KIND:
            self._changed.pop((key[1], had.index), None)
        elif (key[1], had.index) in self._changed:
            self._turn += 1
            self._changed[key[1], had.index] = self._turn


@dataclass(slots=True)
class CachedCluster:
    """The cluster as the cache knows it, for a pass that only looks. Implements reconcile.ports.Cluster."""

    cache: ReadCache
    live: Cluster | None = None
    """Where kinds are read that nobody watches."""

    def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        if kind not in UNWATCHED:
            return self.cache.get(kind, namespace, name)
        if self.live is None:
            raise NotCachedError(f"nobody watches {kind}/{name}")
        return self.live.get(kind, namespace, name)

    def children(self, kind: str, namespace: str, selector: str) -> list[Raw]:
        if kind not in UNWATCHED:
            return self.cache.children(kind, namespace, selector)
        if self.live is None:
            raise NotCachedError(f"nobody watches objects of kind {kind}")
        return self.live.children(kind, namespace, selector)

    def apply(self, manifest: Raw, *, force: bool = True) -> Raw:  # noqa: ARG002 - the port's signature
        raise NotCachedError(f"apply {manifest['kind']}/{manifest['metadata']['name']}")

    def take_over(self, live: Raw) -> str:  # noqa: ARG002 - the port's signature
        """Managed fields are not kept; the apply that follows ends the pass, unless it is not made either."""
        return ""

    def merge(self, manifest: Raw) -> Raw:
        raise NotCachedError(f"merge {manifest['kind']}/{manifest['metadata']['name']}")

    def apply_status(self, manifest: Raw) -> Raw:
        raise NotCachedError(f"status {manifest['kind']}/{manifest['metadata']['name']}")

    def create(self, manifest: Raw) -> Raw | None:
        raise NotCachedError(f"create {manifest['kind']}/{manifest['metadata']['name']}")

    def judge(self, manifest: Raw) -> None:
        raise NotCachedError(f"judge {manifest['kind']}/{manifest['metadata']['name']}")

    def delete(self, kind: str, namespace: str, name: str, uid: str, version: str = "") -> None:  # noqa: ARG002
        raise NotCachedError(f"delete {kind}/{namespace}/{name} ({uid})")


@dataclass(slots=True)
class LiveCluster:
    """The cluster itself; what it answers goes into the cache. Implements reconcile.ports.Cluster."""

    inner: Cluster
    cache: ReadCache

    def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        since = self.cache.turn()
        raw = self.inner.get(kind, namespace, name)
        if kind in UNWATCHED:
            return None if raw is None else trimmed(raw)
        if raw is None:
            self.cache.forget(kind, namespace, name, since)
            return None
        self.cache.put(raw, since)
        return trimmed(raw)

    def children(self, kind: str, namespace: str, selector: str) -> list[Raw]:
        since = self.cache.turn()
        raws = self.inner.children(kind, namespace, selector)
        if kind in UNWATCHED:
            return [trimmed(raw) for raw in raws]
        self.cache.replace(kind, namespace, _index_in(_wanted(selector)), raws, since)
        return [trimmed(raw) for raw in raws]

    def apply(self, manifest: Raw, *, force: bool = True) -> Raw:
        return self._kept(self.inner.apply(manifest, force=force))

    def take_over(self, live: Raw) -> str:
        return self.inner.take_over(live)

    def merge(self, manifest: Raw) -> Raw:
        return self._kept(self.inner.merge(manifest))

    def apply_status(self, manifest: Raw) -> Raw:
        return self._kept(self.inner.apply_status(manifest))

    def create(self, manifest: Raw) -> Raw | None:
        created = self.inner.create(manifest)
        return None if created is None else self._kept(created)

    def judge(self, manifest: Raw) -> None:
        self.inner.judge(manifest)

    def delete(self, kind: str, namespace: str, name: str, uid: str, version: str = "") -> None:
        since = self.cache.turn()
        self.inner.delete(kind, namespace, name, uid, version)
        self.cache.forget(kind, namespace, name, since)

    def _kept(self, raw: Raw) -> Raw:
        if raw["kind"] not in UNWATCHED:
            self.cache.put(raw)
        return raw


def trimmed(raw: Raw, *, fields: bool = True) -> dict[str, Any]:
    """An object without what nobody here reads: how Jobs and pods are made, except for what is mounted into pods, and
    whether somebody holds a Job back.

    Live reads are trimmed too, so that code cannot come to need what the cache does not have; except for the managed
    `fields`, which only a write asks for, and a write is always made on live reads.
    """
    meta = {name: value for name, value in raw["metadata"].items() if fields or name != "managedFields"}
    if APPLIED in meta.get("annotations", {}):
        meta["annotations"] = {name: value for name, value in meta["annotations"].items() if name != APPLIED}
    small = {**raw, "metadata": meta}
    if raw["kind"] == "Pod":
        volumes = raw.get("spec", {}).get("volumes", ())
        mounted = [volume for volume in volumes if volume.get("secret") or volume.get("configMap")]
        small["spec"] = {"volumes": mounted} if mounted else {}
    elif raw["kind"] == "Job":
        small["spec"] = {"suspend": True} if raw.get("spec", {}).get("suspend") else {}
    return small


def index_of(raw: Raw) -> str:
    """The VectorIndex that an object belongs to: by its label; without one (another's front Service) by its name.

    EndpointSlices carry their Service's labels; those of another's Service name it only.
    """
    meta = raw["metadata"]
    marks = {} if raw["kind"] == INDEX_KIND else meta.get("labels") or {}
    return sys.intern(str(marks.get(labels.INDEX) or marks.get(labels.SERVICE_NAME) or meta["name"]))


def _wanted(selector: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in selector.split(","))


def _index_in(wanted: Mapping[str, str]) -> str:
    """The VectorIndex that a selector is about; the Service of its name stands for it."""
    return wanted.get(labels.INDEX) or wanted[labels.SERVICE_NAME]


def _key(raw: Raw) -> Key:
    meta = raw["metadata"]
    return sys.intern(raw["kind"]), sys.intern(meta["namespace"]), sys.intern(meta["name"])


def _version(meta: Mapping[str, Any]) -> int:
    """Kubernetes' versions are decimal numbers that grow over all objects of a kind, those of one name included."""
    text = str(meta.get("resourceVersion", ""))
    return int(text) if text.isdecimal() and len(text) < 40 else 0


def _parsed(entry: Entry) -> Raw:
    parsed: Raw = json.loads(zlib.decompress(entry.data))
    return parsed
