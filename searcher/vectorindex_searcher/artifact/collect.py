"""`collect`: remove artifacts that nobody names any more, and what was left beside them.

What goes is found by `plan`, a pure function of one listing. An artifact goes in an order that leaves something sound
wherever it is cut off, and a second run goes on from there:

    our mark says `leave`            we use it no more; if another cluster does, our mark goes and all else stays
    the manifest                     nothing new can begin to use it
    look at the marks once more      who came in between gets the manifest back, whole: no file is gone yet
    unfinished uploads               no listing shows them: while there is an object, a second run knows of them
    of a sharded one, plan and parts what says that a part is whole, before the first of its files
    reports, checkpoints, files      in batches, the marks read before each
    marks

Never touched: what is not below the index's own prefix, what does not parse as ours (Layout.parse), an artifact that
bears the mark of another cluster, one without our mark that was built for another VectorIndex.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ..contract import CollectResult, CollectTask, ExitCode
from ..errors import BadData, TaskError
from ..storage.store import DELETE_BATCH, ObjectInfo, Role, Store, open_store
from .layout import Kind, Layout
from .manifest import find_manifest
from .publish import UNFINISHED_SECONDS
from .sharded import find_sharded
from .users import mark_leaving, take_off, users

OLD_LISTING_SECONDS = 86_400.0
"""A listing this much older than the newest object of the index is read by no Job that runs."""
_MOST_ROWS = 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one listing says should go. `artifacts` and `reports`: by digest."""

    artifacts: dict[str, list[ObjectInfo]]
    reports: dict[str, list[ObjectInfo]]
    """Of artifacts that stay: reports that nobody names."""
    listings: list[ObjectInfo]
    last: list[ObjectInfo]
    """What goes with the last artifact: all listings, ground truths, live queries, encoded texts, outcomes."""
    unknown: int
    """Objects that are not ours."""


def plan(found: Iterable[ObjectInfo], layout: Layout, task: CollectTask) -> Plan:
    """What of the objects below `layout.base` the task means. Holds only what may go."""
    out = Plan({digest: [] for digest in task.digests}, {}, [], [], 0)
    stays = {*task.keep, *task.building}
    unknown, newest = 0, 0.0
    for item in found:
        newest = max(newest, item.modified)
        owned = layout.parse(item.key)
        if owned is None:
            unknown += 1
        elif not owned.digest:
            if task.everything:
                out.last.append(item)
            if owned.kind is Kind.LISTING and task.listings is not None and owned.name not in task.listings:
                out.listings.append(item)
        elif owned.digest in out.artifacts or (task.everything and owned.digest not in stays):
            out.artifacts.setdefault(owned.digest, []).append(item)
        elif owned.kind is Kind.REPORT and owned.digest in task.keep and owned.name not in task.keep[owned.digest]:
            out.reports.setdefault(owned.digest, []).append(item)
    # By the store's clock on both sides.
    old = [item for item in out.listings if newest - item.modified > OLD_LISTING_SECONDS]
    return Plan(out.artifacts, out.reports, old, out.last, unknown)


def collect(task: CollectTask) -> CollectResult:
    """Remove what the task means. Raises TaskError: NotRemoved when the store refused some, StoreUnavailable."""
    store = open_store(task.artifacts, Role.ARTIFACTS)
    return _Collector(store, Layout(store.prefix, task.identity), task).run()


@dataclass(slots=True)
class _Collector:
    store: Store
    layout: Layout
    task: CollectTask
    artifacts: int = 0
    objects: int = 0
    size: int = 0
    """Bytes of these objects."""
    uploads: int = 0
    left: int = 0
    stays: dict[str, str] = field(default_factory=dict)
    """Why an artifact stays that was to go, by digest."""
    done: list[str] = field(default_factory=list)
    """Digests of those that went."""
    refused: dict[str, str] = field(default_factory=dict)

    def run(self) -> CollectResult:
        wanted = plan(self.store.list(self.layout.base), self.layout, self.task)
        for digest, objects in wanted.artifacts.items():
            if why := self._artifact(digest, objects):
                self.stays[digest] = why
                self.left += len(objects)
                _log.info("artifact stays", extra={"digest": digest, "why": why})
        for digest, reports in wanted.reports.items():
            if not users(self.store, self.layout, digest, but=self.task.cluster):
                self._remove(reports)
        nobody_left = self.task.everything and not (self.task.keep or self.task.building or self.stays)
        self._remove(wanted.last if nobody_left else wanted.listings)
        self._discard_uploads(self.layout.base, 0.0 if nobody_left else UNFINISHED_SECONDS)
        if self.refused:
            raise self._not_removed()
        return CollectResult(
            dry_run=self.task.dry_run,
            artifacts=self.artifacts,
            objects=self.objects,
            bytes=self.size,
            uploads=self.uploads,
            left=self.left,
            stays=tuple(f"{digest}: {why}"[:300] for digest, why in self.stays.items())[:_MOST_ROWS],
            unknown=wanted.unknown,
        )

    def _artifact(self, digest: str, objects: Sequence[ObjectInfo]) -> str:
        """Remove an artifact; why it stays, or nothing when it is gone. `objects`: what the plan has of it."""
        mark = self.layout.users(digest, self.task.cluster) if self.task.cluster else ""
        marked = any(item.key == mark for item in objects)
        if self.task.dry_run:
            why = self._why_it_stays(digest, marked=marked)
            if not why:
                self.artifacts += bool(objects)
                self._remove(objects)
                self._discard_uploads(self.layout.attempts(digest), 0.0)
                self.done.append(digest)
            return why
        if marked:
            mark_leaving(self.store, self.layout, digest, self.task.cluster)
        why = self._why_it_stays(digest, marked=marked) or self._remove_artifact(digest)
        if why:
            take_off(self.store, self.layout, digest, self.task.cluster)
        return why

    def _why_it_stays(self, digest: str, *, marked: bool) -> str:
        """Nothing when we may remove it. marked: it bears our mark."""
        if others := users(self.store, self.layout, digest, but=self.task.cluster):
            return f"used by {', '.join(others[:3])}"
        if marked:
            return ""
        try:
            published = find_sharded(self.store, self.layout, digest) or find_manifest(self.store, self.layout, digest)
        except BadData as error:
            return f"its owner is not known: {error}"
        uid = published[0].identity.uid if published else self.task.identity.uid
        return "" if uid == self.task.identity.uid else f"built for the VectorIndex with the uid {uid or '(none)'}"

    def _remove_artifact(self, digest: str) -> str:
        manifest = self._take_manifest(digest)
        found = [(item, self.layout.parse(item.key)) for item in self.store.list(self.layout.attempts(digest))]
        ours = [(item, owned.kind) for item, owned in found if owned is not None]
        ours.sort(key=lambda one: one[1] is not Kind.PART)  # a part that lacks files must not pass for a whole one
        again = any(kind is Kind.MANIFEST for _, kind in ours)
        if again or (begun := users(self.store, self.layout, digest)):
            if manifest is not None:
                self.store.put(self.layout.manifest(digest), manifest, exclusive=True)
            return "published again" if again else f"used by {', '.join(begun[:3])}"
        if manifest is not None:
            self.objects, self.size = self.objects + 1, self.size + len(manifest)
        self._discard_uploads(self.layout.attempts(digest), 0.0)
        before = len(self.refused)
        if not self._remove([item for item, kind in ours if kind is not Kind.USER], digest):
            return "somebody began to build it again"
        if len(self.refused) == before:
            self._remove([item for item, kind in ours if kind is Kind.USER])
            self.artifacts += bool(ours) or manifest is not None
            _log.info("artifact removed", extra={"digest": digest, "objects": len(ours)})
        self.done.append(digest)
        return ""

    def _take_manifest(self, digest: str) -> bytes | None:
        """Remove the manifest; its bytes, None when there was none."""
        key = self.layout.manifest(digest)
        try:
            data = self.store.read(key)
        except FileNotFoundError:
            return None
        self.store.delete(key)
        return data

    def _remove(self, objects: Sequence[ObjectInfo], digest: str = "") -> bool:
        """Remove objects, or count them in a dry run. digest: whose marks are read before each batch; False when
        somebody uses it by now."""
        for batch in _batches(objects):
            if digest and users(self.store, self.layout, digest):
                return False
            refused = {}
            if self.task.dry_run:
                for item in batch:
                    _log.info("would go", extra={"object": self.store.describe(item.key), "bytes": item.size})
            else:
                refused = self.store.delete_many([item.key for item in batch])
            gone = [item for item in batch if item.key not in refused]
            self.objects += len(gone)
            self.size += sum(item.size for item in gone)
            self.refused |= refused
        return True

    def _discard_uploads(self, prefix: str, older_than: float) -> None:
        # Those of artifacts that stay for others are theirs; those of what is gone are counted already.
        spared = {*self.task.building, *self.stays, *self.done}

        def ours(key: str) -> bool:
            owned = self.layout.parse(key)
            return owned is not None and owned.digest not in spared

        self.uploads += self.store.discard_unfinished(prefix, older_than, ours=ours, dry_run=self.task.dry_run)

    def _not_removed(self) -> TaskError:
        for key, why in list(self.refused.items())[:_MOST_ROWS]:
            _log.warning("object not removed", extra={"object": self.store.describe(key), "why": why[:300]})
        first, why = next(iter(self.refused.items()))
        message = f"{len(self.refused)} of {len(self.refused) + self.objects} objects could not be removed"
        return TaskError(
            "NotRemoved",
            f"{message}, the first: {self.store.describe(first)}: {why[:300]}",
            object=first,
            field=Role.ARTIFACTS.field,
            remedy="Grant s3:DeleteObject on the bucket; what is gone is not looked for again.",
            exit_code=ExitCode.STORE_UNAVAILABLE,
        )


def _batches(objects: Sequence[ObjectInfo]) -> Iterator[Sequence[ObjectInfo]]:
    for start in range(0, len(objects), DELETE_BATCH):
        yield objects[start : start + DELETE_BATCH]
