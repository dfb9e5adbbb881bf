"""Writing single objects: made once, kept as they were rendered, never taken from somebody else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vectorindex_operator.manifests.labels import Manifest
from vectorindex_operator.reconcile import raw
from vectorindex_operator.reconcile.drift import changed_by_others, difference, marked, same_rules
from vectorindex_operator.reconcile.errors import ConflictError, NotOursError, UndoneError
from vectorindex_operator.reconcile.ports import Cluster, Raw

WITH_A_BACKEND = frozenset({"group", "kind", "name", "port", "weight"})
"""Fields of a route's backend that we write."""


@dataclass(frozen=True, slots=True)
class Repair:
    """What somebody else had changed, and is put back."""

    subject: str
    field: str


@dataclass(slots=True)
class Objects:
    """Writes objects through the cluster port."""

    cluster: Cluster

    def create(self, manifest: Manifest) -> None:
        """Make it. One that is there stays as it is: names are derived from what they stand for.

        Raises NotOursError when one of that name is somebody else's, or is ours and cannot be read any more.
        """
        if self.cluster.create(manifest) is not None:
            return
        meta = manifest["metadata"]
        live = self.cluster.get(manifest["kind"], meta["namespace"], meta["name"])
        if live is None:
            return
        _check_owner(manifest, live)
        lost = difference({"metadata": {"labels": meta["labels"]}}, live)
        if lost is not None and manifest["kind"] == "Job":
            raise NotOursError(f"{_subject(manifest)} has lost {lost}: delete it, and it is made again")

    def make(self, manifest: Manifest) -> None:
        """Make what was not there when that was decided. One that is there by now, of another operator or of somebody
        else, is left as it is, however late this write is carried out: an apply would take it for ours to change.

        Raises ConflictError, so that it is looked at; NotOursError when it is somebody else's.
        """
        if self.cluster.create(marked(manifest)) is not None:
            return
        meta = manifest["metadata"]
        live = self.cluster.get(manifest["kind"], meta["namespace"], meta["name"])
        if live is not None:
            _check_owner(manifest, live)
        raise ConflictError(f"{_subject(manifest)} was made meanwhile")

    def ensure(self, manifest: Manifest, live: Raw | None, version: str = "") -> Repair | None:
        """Apply it unless the live object says the same already. `live`: as it was observed by its labels. `version`:
        only while nobody has written to it since.

        Raises NotOursError when one of that name is somebody else's.
        """
        wanted, meta = marked(manifest), manifest["metadata"]
        if live is None:  # or it lost our labels
            live = self.cluster.get(manifest["kind"], meta["namespace"], meta["name"])
        if live is None:
            # Unforced: what somebody else makes in this very moment stays theirs.
            self.cluster.apply(wanted, force=False)
            return None
        _check_owner(manifest, live)
        field = _fault(wanted, live)
        if field is None:
            return None
        by_others = changed_by_others(wanted, live)
        now = self.cluster.take_over(live)
        self._put_right(wanted, live, field, now if version else "")
        return Repair(_subject(manifest), field) if by_others else None

    def _put_right(self, wanted: Manifest, live: Raw, field: str, version: str) -> None:
        """Raises UndoneError where a webhook changes it in the very write: the next one would fare no better.

        With the uid of what was looked at: one that is gone by now is not made again, and what somebody else has made
        under its name stays theirs, however late this write is carried out.
        """
        looked_at = {"uid": uid} if (uid := raw.text(raw.part(live, "metadata").get("uid"))) else {}
        looked_at |= {"resourceVersion": version} if version else {}
        try:
            answer = self.cluster.apply({**wanted, "metadata": wanted["metadata"] | looked_at})
        except UndoneError as error:
            raise UndoneError(f"{error}, {field} above all") from error
        _check_done(_fault(wanted, answer))

    def point(self, service: Manifest, live: Raw | None) -> None:
        """Give the front Service exactly this selector and these ports, in one write; without resourceVersion, make it.

        Not applied: that would leave what others added there, and a port of theirs with our name would be refused.
        """
        if "resourceVersion" not in service["metadata"]:
            self.create(service)
            return
        self._replace(service, live)

    def repair_front(self, service: Manifest, live: Raw) -> Repair | None:
        """Put back what somebody else changed about selector, ports and labels of the front Service."""
        field = _front_fault(service, live)
        if field is None:
            return None
        _check_done(_front_fault(service, self._replace(service, live)))
        return Repair(_subject(service), field[: raw.NAME])

    def dress_front(self, patch: Manifest, live: Raw) -> None:
        """Have annotations and fields of the front Service as a merge patch says, where they are not."""
        there = {part: raw.part(live, *path) for part, path in _PARTS.items()}
        wanted = {"metadata": patch["metadata"]["annotations"], "spec": patch["spec"]}
        if any(there[part].get(name) != value for part, of in wanted.items() for name, value in of.items()):
            uid = raw.part(live, "metadata").get("uid")
            self.cluster.merge({**patch, "metadata": patch["metadata"] | {"uid": uid}})

    def _replace(self, service: Manifest, live: Raw | None) -> Raw:
        mine = {key: value for key, value in service["metadata"].items() if key != "ownerReferences"}
        return self.cluster.merge(
            {**service, "metadata": mine, "spec": _exact(service["spec"], raw.part(live, "spec"))}
        )


_PARTS = {"metadata": ("metadata", "annotations"), "spec": ("spec",)}


def _fault(wanted: Manifest, live: Raw) -> str | None:
    """Path of the first thing that is not so in an object."""
    field = difference(wanted, live)
    if field is None and wanted["kind"] == "NetworkPolicy" and not same_rules(wanted, live):
        field = "spec.ingress"
    if field is None and wanted["kind"] == "HTTPRoute":
        field = _added_to_route(wanted, live)
    return field


def _added_to_route(wanted: Manifest, live: Raw) -> str | None:
    """Path of what somebody added to a rule of a route, or to one of its backends: a filter may send queries
    anywhere."""
    (rule,), (there,) = wanted["spec"]["rules"], raw.rows(raw.part(live, "spec")["rules"])
    added = [key for key in there if key not in rule]
    added += [
        f"backendRefs.{key}" for one in raw.rows(there["backendRefs"]) for key in one if key not in WITH_A_BACKEND
    ]
    return f"spec.rules.{added[0]}" if added else None


def _front_fault(service: Manifest, live: Raw) -> str | None:
    """Path of the first thing that is not so about the front Service, or that is there too much."""
    spec = raw.part(live, "spec")
    field = difference({"spec": service["spec"], "metadata": {"labels": service["metadata"]["labels"]}}, live)
    extra = [key for key in raw.part(spec, "selector") if key not in service["spec"]["selector"]]
    if field is None and extra:
        field = f"spec.selector[{extra[0]}]"
    if field is None and spec.get("publishNotReadyAddresses"):
        field = "spec.publishNotReadyAddresses"
    return field


def _check_done(undone: str | None) -> None:
    """`undone`: what is not so in the answer to a write that was to put it right."""
    if undone is not None:
        raise UndoneError(f"undone each time: a webhook changes {undone} in the very write; exempt the object there")


def _exact(wanted: Mapping[str, Any], live: Mapping[str, Any]) -> dict[str, Any]:
    """As a merge patch: lists replace, and null removes what else is in the selector."""
    gone = dict.fromkeys(raw.part(live, "selector"))
    return {**wanted, "selector": gone | wanted["selector"], "publishNotReadyAddresses": None}


def _check_owner(manifest: Manifest, live: Raw) -> None:
    if not raw.is_owned(live, manifest["metadata"]["ownerReferences"][0]["uid"]):
        raise NotOursError(
            f"{_subject(manifest)} exists and belongs to somebody else: remove it, or rename the VectorIndex"
        )


def _subject(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"
