"""Fresh rows while serving: files below a prefix, agreed on as numbered snapshots, and told to whoever asks.

Every pod looks at both, the snapshots and the files. Who sees files that no snapshot names reads them, and publishes
the next number; who loses that race takes the other's. So there is no pod whose death stops it, and none to agree on.
What cannot be read leaves the last snapshot in place, and shows in the metrics, in the evidence and in the log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from .. import contract
from ..artifact.fresh import Snapshot, earlier, load, newest, publish
from ..artifact.layout import Layout
from ..dataset.fresh import FIELD, TooManyFresh, list_fresh, read_fresh
from ..dataset.listing import load_listing
from ..dataset.objects import FreshObject
from ..dataset.tombstones import list_tombstones, read_tombstones
from ..errors import BadData, BadSpec, SourceChanged, TaskError
from ..index.engine import Engine
from ..index.fresh import (
    DeletedIds,
    FreshFile,
    Gathered,
    check_file,
    check_lengths,
    gather,
    usual_lengths,
    without_held,
)
from ..proof.encoder import check_model
from ..storage.store import Role, open_store
from ..text.encoder import Encoder, EncoderUnavailableError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the last look came to; goes from process to process."""

    number: int = 0
    rows: int = 0
    files: int = 0
    absorbed: int = 0
    full: bool = False
    waiting: int = 0
    reason: str = ""
    message: str = ""
    refused: tuple[tuple[str, str, str], ...] = ()
    """Object, reason and message of each."""
    good_at: float | None = None
    """When the last look began that found the snapshot to be all there is, monotonic; None: none did."""
    errors: int = 0
    """Looks that failed since the start."""

    def told(self, *, off: bool, now: float) -> contract.FreshLook:
        """`now`: monotonic."""
        return contract.FreshLook(
            number=self.number,
            rows=self.rows,
            files=self.files,
            absorbed=self.absorbed,
            full=self.full,
            waiting=self.waiting,
            off=off,
            age_seconds=0.0 if self.good_at is None else max(0.0, now - self.good_at),
            reason=self.reason[:64],
            message=_short(self.message),
            refused=tuple(
                contract.RefusedFile(object=key[:1024], reason=reason[:64], message=_short(message))
                for key, reason, message in self.refused
            ),
        )


def _short(text: str) -> str:
    return " ".join(text.split())[:300]


def fresh_task(text: str) -> contract.FreshTask | None:
    """Of contract.FRESH_ENV. None without it, and for a text that this image does not understand."""
    try:
        return contract.FreshTask.model_validate_json(text) if text else None
    except ValidationError as error:
        _log.error("no fresh rows are read", extra={"problem": f"{error.error_count()} errors in their task"})
        return None


class _FilesRefused(BadData):
    """Files that cannot stand beside the index."""

    def __init__(self, errors: list[tuple[str, TaskError]]) -> None:
        key, first = errors[0]
        super().__init__(first.reason, first.failure.message, object=key, field=FIELD)
        self.files = tuple((key, error.reason, error.failure.message) for key, error in errors)


class FreshSource:
    """The fresh rows of one engine. `look` does not raise; one thread."""

    def __init__(
        self,
        engine: Engine,
        task: contract.ServeTask,
        told: contract.FreshTask,
        pod: str,
        encoder: Encoder | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """encoder: the index's own, which what is to be published is compared with. Raises BadSpec for a shard of an
        index. Makes no request yet."""
        if task.shard is not None:
            remedy = "Serve the index in one part, or without fresh rows."
            raise BadSpec("FreshOfShard", "fresh rows are not of one shard", field=FIELD, remedy=remedy)
        self._engine, self._pod, self._clock = engine, pod, clock
        self._store = open_store(told.place, Role.FRESH)
        self._artifacts = open_store(task.artifacts, Role.ARTIFACTS)
        self._layout = Layout(self._artifacts.prefix, task.identity)
        self._tombstones = None if task.tombstones is None else open_store(task.tombstones, Role.TOMBSTONES)
        self._id_column = task.id_column
        self._columns = told.columns.model_copy(update={"metadata": engine.metadata_columns})
        self._embedding = engine.manifest.embedding.model_copy(update={"dimension": engine.dimension})
        share = max(contract.FEW_FRESH_ROWS, int(contract.FRESH_SHARE * engine.count))
        self._most = min(told.max_rows, share)
        self._encoder = encoder if told.text_column in engine.metadata_columns else None
        self._text_column = told.text_column
        self._compared: set[tuple[str, str]] = set()
        """Files that the encoder has seen, by key and etag."""
        self._absorbed: frozenset[tuple[str, str]] | None = None
        self._built: tuple[float, str] | None = None
        """Store time and key of the newest file that the artifact holds."""
        self._usual: tuple[float, float] | None = None
        self._read: dict[tuple[str, str], FreshFile | TaskError | None] = {}
        """By key and etag: what was read of the files that are there, so that each is read once."""
        self._newest: Snapshot | None = None
        """That is published, taken or not."""
        self._given: Gathered | None = None
        """The newest that this look has found."""
        self.seen = Seen()

    def look(self) -> Gathered | None:
        """Look at snapshots and files; the snapshot that is to be searched from now on, None: that of before."""
        began, seen = self._clock(), self.seen
        self._given = None
        try:
            self._look()
        except TooManyFresh as error:
            waiting = sum(len(one.ids) for one in self._read.values() if isinstance(one, FreshFile))
            self._failed(error.reason, error.failure.message, full=True, waiting=waiting)
        except _FilesRefused as error:
            refused = error.files[: contract.FRESH_REFUSED]
            self._failed(error.reason, error.failure.message, full=False, refused=refused)
        except TaskError as error:
            self._failed(error.reason, error.failure.message)
        except Exception as error:  # whatever it is, the index is served
            self._failed(type(error).__name__, str(error))
        else:
            quiet = {"full": False, "waiting": self.seen.rows, "reason": "", "message": "", "refused": ()}
            self.seen = replace(self.seen, **quiet, good_at=began)  # type: ignore[arg-type]
            if seen.reason:
                _log.info("fresh rows are read again")
        return self._given  # also where a newer one could not be made

    def _failed(self, reason: str, message: str, **seen: Any) -> None:
        if (reason, message) != (self.seen.reason, self.seen.message):
            _log.error("fresh rows not read, the last snapshot stays", extra={"reason": reason, "problem": message})
        self.seen = replace(self.seen, reason=reason, message=message, errors=self.seen.errors + 1, **seen)

    def _look(self) -> None:
        if self._absorbed is None:
            self._absorbed = self._held()
            self._usual = usual_lengths(self._engine)
        published = newest(self._artifacts, self._layout)
        refusal: TaskError | None = None
        if published > self.seen.number:
            try:
                self._take(published)
            except (_FilesRefused, TooManyFresh, SourceChanged) as error:
                refusal = error  # what lies there by now may be better
                if not self.seen.number:
                    self._begin_before(published)
        listed = self._listed(max(published, self.seen.number) + 1)
        known = listed.same_as(self._newest) and published >= self.seen.number  # else somebody removed it
        if known or (self._newest is None and not listed.files):
            if refusal is not None:
                raise refusal
            return
        found = self._gathered(listed)
        self._compare()
        if not publish(self._artifacts, self._layout, listed):
            self._take(listed.number)
            return
        _log.info("fresh rows published", extra={"number": listed.number, "files": len(listed.files)})
        self._taken(listed, found)

    def _held(self) -> frozenset[tuple[str, str]]:
        """Files that the artifact holds itself, by its own listing."""
        listing = load_listing(self._artifacts, self._layout, self._engine.manifest.fingerprint)
        held = (listing.fresh if listing else None) or ()
        self._built = max(((item.stored_at, item.key) for item in held), default=None)
        return frozenset((item.key, item.etag) for item in held)

    def _listed(self, number: int) -> Snapshot:
        """What is there now, as a snapshot."""
        files = list_fresh(self._store)
        deleted: tuple[FreshObject, ...] = ()
        if files and self._tombstones is not None:
            oldest = min(item.stored_at for item in files)
            deleted = tuple(item for item in list_tombstones(self._tombstones) if item.stored_at >= oldest)
        return Snapshot(number=number, files=files, deleted=deleted, pod=self._pod)

    def _take(self, number: int) -> None:
        """A published snapshot, if it is still there."""
        snapshot = load(self._artifacts, self._layout, number)
        if snapshot is not None:
            self._newest = snapshot
            self._taken(snapshot, self._gathered(snapshot))

    def _begin_before(self, number: int) -> None:
        """Take the highest snapshot below `number` that can stand beside this artifact, if one is left. After a way
        back it is the one that older pods of the revision stayed at: theirs holds less than what was published since.
        """
        published = self._newest
        for one in earlier(self._artifacts, self._layout, number):
            try:
                self._take(one)
                break
            except (_FilesRefused, TooManyFresh, SourceChanged):
                continue
        self._newest = published  # that is what is compared with what lies there

    def _taken(self, snapshot: Snapshot, rows: Gathered) -> None:
        files = len(self._own(snapshot))
        self._newest = snapshot
        self.seen = replace(
            self.seen, number=rows.number, rows=len(rows.ids), files=files, absorbed=len(snapshot.files) - files
        )
        _log.info("fresh rows taken", extra={"number": rows.number, "rows": len(rows.ids), "files": files})
        self._given = rows

    def _own(self, snapshot: Snapshot) -> list[FreshObject]:
        """Its files without those that the artifact holds."""
        return [item for item in snapshot.files if (item.key, item.etag) not in (self._absorbed or ())]

    def _gathered(self, snapshot: Snapshot) -> Gathered:
        """The rows of a snapshot. Raises TooManyFresh, _FilesRefused, SourceChanged, StoreUnavailable."""
        own = self._own(snapshot)
        if len(own) > contract.FRESH_FILES:
            message = f"{len(own)} fresh files are listed, at most {contract.FRESH_FILES} are read"
            raise TooManyFresh(own[0].key, message)
        there = {(item.key, item.etag) for item in own}
        self._read = {name: one for name, one in self._read.items() if name in there}
        files: list[FreshFile] = []
        refused: list[tuple[str, TaskError]] = []
        count = held = 0
        for item in own:
            found = self._file(item)
            if isinstance(found, TooManyFresh):
                raise found
            if isinstance(found, TaskError):
                refused.append((item.key, found))
            elif found is not None:
                files.append(found)
                count += len(found.ids)
                held += found.metadata.nbytes + found.ids.nbytes
            if held > contract.FRESH_METADATA_BYTES:
                message = f"ids and metadata of fresh rows take more than {contract.FRESH_METADATA_BYTES} bytes"
                raise TooManyFresh(item.key, message)
            if count > self._most:
                message = f"more than {self._most} fresh rows are listed beside {self._engine.count} of the index"
                raise TooManyFresh(item.key, message)
        if refused:
            raise _FilesRefused(refused)
        return gather(self._engine, snapshot.number, files, self._deleted(snapshot, files))

    def _file(self, item: FreshObject) -> FreshFile | TaskError | None:
        """A file as it was listed; None without rows; what is wrong with it."""
        name = (item.key, item.etag)
        if name not in self._read:
            try:
                self._read[name] = self._checked(item)
            except (BadData, BadSpec) as error:
                self._read[name] = error
        return self._read[name]

    def _checked(self, item: FreshObject) -> FreshFile | None:
        table = read_fresh(self._store, item, self._columns, self._embedding, self._engine.metadata_schema)
        if table is None:
            return None
        found = FreshFile(item.key, item.stored_at, table.ids, table.vectors, table.metadata)
        check_file(self._engine, found)
        check_lengths(found, self._usual)
        if self._built is None or (item.stored_at, item.key) > self._built:
            return found
        # The listing left it out, or it came late. Rows of a later file may be built in, and no older one hides them.
        found = without_held(self._engine, found)
        return found if len(found.ids) else None

    def _compare(self) -> None:
        """With what the index's model makes of their texts, before others search them. Raises _FilesRefused."""
        refused: list[tuple[str, TaskError]] = []
        for name, one in self._read.items():
            if self._encoder is None or name in self._compared or not isinstance(one, FreshFile):
                continue
            try:
                check_model(self._encoder, self._engine.metric, one, self._text_column)
                self._compared.add(name)
            except BadData as error:
                refused.append((name[0], error))
            except EncoderUnavailableError as error:
                _log.warning("fresh rows are not compared with the model", extra={"problem": str(error)[:300]})
        self._compared &= self._read.keys()
        if refused:
            raise _FilesRefused(refused)

    def _deleted(self, snapshot: Snapshot, files: list[FreshFile]) -> list[DeletedIds]:
        """Ids of fresh rows that were deleted since. Read anew for each snapshot: of a long list few are kept."""
        if not files or self._tombstones is None:
            return []
        named, oldest = pa.concat_arrays([one.ids for one in files]), min(one.stored_at for one in files)
        found = []
        for item in snapshot.deleted:
            if item.stored_at >= oldest:
                ids = read_tombstones(self._tombstones, (item,), self._id_column, named.type).ids
                found.append(DeletedIds(item.stored_at, ids.filter(pc.is_in(ids, value_set=named))))
        return found
