"""The API server as far as the operator can tell: objects with versions, uids, generations, owners and preconditions.

Stored objects are never changed in place: every write puts a new dict there. So a read costs nothing, and the past is
kept for free: `as_of` answers what a reader saw then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from simulator.admission import admitted, applied, left_of

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.reconcile.errors import ConflictError, RefusedError

Json = dict[str, Any]
Key = tuple[str, str]

NAMESPACE = "search"
OURS = "vectorindex-operator"
NOTED = frozenset({"HTTPRoute"})
"""Kinds of which the operator asks when somebody changed them."""
WRITTEN = "written"
"""Stands for whoever creates and patches: what was written so is owned, and no apply of another manager removes it."""


def stamp(now: float) -> str:
    """A time as Kubernetes writes it: whole seconds."""
    return to_text(float(int(now)))


def _noted(old: Json | None, new: Json, now: str) -> list[Json]:
    """When the object and its status last changed: of managed fields that is all that the operator reads."""
    before = old["metadata"]["managedFields"] if old is not None else []
    part = "status" if old is not None and new.get("status") != old.get("status") else ""
    return [one for one in before if one.get("subresource", "") != part] + [{"subresource": part, "time": now}]


def owners(obj: Json) -> set[str]:
    return {owner["uid"] for owner in obj["metadata"].get("ownerReferences", ())}


def _merged(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    out = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = _merged(out.get(key), value)
    return out


class Store:
    """All objects of one namespace. `on_change(verb, kind, name, old, new)` is called after every commit."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.version = 100
        self.kinds: dict[str, dict[str, Json]] = {}
        self.past: dict[str, dict[str, list[tuple[float, Json | None]]]] = {}
        self.uids: dict[str, Key] = {}
        self.applied: dict[str, Json] = {}
        """Uid -> what our manager last applied."""
        self.others: dict[str, dict[str, Json]] = {}
        """Uid -> other managers, and what each of them owns of what it last applied."""
        self.webhooks: tuple[Callable[[Json], Json], ...] = ()
        self.on_change: Callable[[str, str, str, Json | None, Json | None], None] = lambda *_: None

    # ------------------------------------------------------------ reading

    def get(self, kind: str, name: str) -> Json | None:
        return self.kinds.get(kind, {}).get(name)

    def of_kind(self, kind: str) -> list[Json]:
        return list(self.kinds.get(kind, {}).values())

    def everything(self) -> Iterator[tuple[str, str, Json]]:
        for kind, group in self.kinds.items():
            for name, obj in group.items():
                yield kind, name, obj

    def as_of(self, kind: str, time: float) -> dict[str, Json]:
        """The objects of a kind as they were at `time`."""
        seen = {}
        for name, versions in self.past.get(kind, {}).items():
            found = next((obj for at, obj in reversed(versions) if at <= time), None)
            if found is not None:
                seen[name] = found
        return seen

    # ------------------------------------------------------------ writing

    def create(self, manifest: Json) -> bool:
        """Whether it was created; False when the name is taken."""
        kind, meta = manifest["kind"], manifest["metadata"]
        if self.get(kind, meta["name"]) is not None:
            return False
        if meta.get("resourceVersion"):
            raise ConflictError(f"{kind}/{meta['name']}: resourceVersion on an object that does not exist")
        uid = f"u{self.version}"
        new = admitted(manifest, self.webhooks)
        new = {
            **new,
            "metadata": {
                "namespace": NAMESPACE,
                **new["metadata"],
                "uid": uid,
                "generation": 1,
                "creationTimestamp": stamp(self.clock()),
            },
        }
        self.uids[uid] = (kind, meta["name"])
        self.others[uid] = {WRITTEN: manifest}
        self._commit("create", None, new)
        return True

    def apply(self, manifest: Json, manager: str = OURS, *, force: bool = True) -> Json:
        """Server-side apply by one manager. A status and another's resourceVersion are no part of it; a uid says that
        it is about this very object."""
        kind, meta = manifest["kind"], manifest["metadata"]
        manifest = {**manifest, "metadata": {name: value for name, value in meta.items() if name != "uid"}}
        old = self.get(kind, meta["name"])
        if meta.get("uid", "") not in ("", old["metadata"]["uid"] if old is not None else None):
            error = RefusedError if old is not None else ConflictError
            raise error(f"{kind}/{meta['name']}: uid {meta['uid']} is another object's")
        if old is None:
            self.create(manifest)
            live = self.kinds[kind][meta["name"]]
            del self.others[live["metadata"]["uid"]][WRITTEN]
            self._sent(live["metadata"]["uid"], manager, manifest)
            return live
        self._precondition(old, meta)
        uid = old["metadata"]["uid"]
        owned = {**self.others[uid], OURS: self.applied.get(uid, {})}
        before = owned.pop(manager, {})
        if not force and any(left_of(one, manifest) != one for one in owned.values()):
            raise ConflictError(f"{kind}/{meta['name']}: another manager owns fields of it")
        new = applied(old, before, manifest, others=tuple(owned.values()))
        for other, sent in owned.items():
            if sent:
                self._sent(uid, other, left_of(sent, manifest) or {})
        self._sent(uid, manager, manifest)
        new = admitted(new, self.webhooks)
        new["metadata"] = {**new["metadata"], "resourceVersion": old["metadata"]["resourceVersion"]}
        if new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        return self._commit("apply", old, new) if new != old else old

    def _sent(self, uid: str, manager: str, manifest: Json) -> None:
        if manager == OURS:
            self.applied[uid] = manifest
        else:
            self.others[uid][manager] = manifest

    def merge(self, manifest: Json) -> Json:
        """JSON merge patch: objects are merged, lists replace, null removes."""
        kind, meta = manifest["kind"], manifest["metadata"]
        old = self.get(kind, meta["name"])
        if old is None:
            raise ConflictError(f"{kind}/{meta['name']} is gone")
        self._precondition(old, meta)
        new = admitted(_merged(old, manifest), self.webhooks)
        kept = new["metadata"].get("finalizers") or []
        leaves = "deletionTimestamp" in old["metadata"]
        if leaves and set(kept) - set(old["metadata"].get("finalizers", ())):
            raise RefusedError(
                f"422 Invalid: {kind}/{meta['name']}: no new finalizers can be added while it is deleted"
            )
        owned = self.others[old["metadata"]["uid"]]
        for other, sent in owned.items():
            owned[other] = left_of(sent, manifest) or {}
        owned[WRITTEN] = _merged(owned.get(WRITTEN, {}), manifest)
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        if new == old:
            return old
        merged = self._commit("merge", old, new)
        if leaves and not kept:
            self.remove(kind, meta["name"])
        return merged

    def apply_status(self, manifest: Json) -> Json:
        kind, meta = manifest["kind"], manifest["metadata"]
        old = self.get(kind, meta["name"])
        if old is None:
            raise RefusedError(f"404 NotFound: {kind}/{meta['name']}")
        self._precondition(old, meta)
        new = {**old, "status": manifest["status"]}
        return self._commit("status", old, new) if new != old else old

    def change(self, kind: str, name: str, *, meta: Json | None = None, **fields: Any) -> Json:
        """Somebody else's update of top-level fields: a controller's status, a user's spec."""
        old = self.kinds[kind][name]
        metadata = {**old["metadata"], **(meta or {})}
        if "spec" in fields and fields["spec"] != old.get("spec"):
            metadata["generation"] += 1
        new = {**old, **fields, "metadata": metadata}
        return self._commit("change", old, new) if new != old else old

    def remove(self, kind: str, name: str) -> None:
        old = self.kinds[kind].pop(name)
        del self.uids[old["metadata"]["uid"]]
        self.version += 1
        self.past[kind][name].append((self.clock(), None))
        self.on_change("delete", kind, name, old, None)

    def _precondition(self, old: Json, meta: Json) -> None:
        wanted = meta.get("resourceVersion")
        if wanted and wanted != old["metadata"]["resourceVersion"]:
            raise ConflictError(f"{old['kind']}/{meta['name']}: {wanted} is not the latest version")

    def _commit(self, verb: str, old: Json | None, new: Json) -> Json:
        self.version += 1
        new["metadata"] = {**new["metadata"], "resourceVersion": str(self.version)}
        kind, name = new["kind"], new["metadata"]["name"]
        if kind in NOTED:
            new["metadata"]["managedFields"] = _noted(old, new, stamp(self.clock()))
        self.kinds.setdefault(kind, {})[name] = new
        self.past.setdefault(kind, {}).setdefault(name, []).append((self.clock(), new))
        self.on_change(verb, kind, name, old, new)
        return new
