"""Fresh rows while serving: files below a prefix, agreed on as numbered snapshots, and told to whoever asks.

Every pod looks at both, the snapshots and the files. Who sees files that no snapshot names reads them, and publishes
the next number; who loses that race takes the other's. So there is no pod whose death stops it, and none to agree on.
A snapshot names all files, good or bad. What a pod leaves out of it follows from its own artifact, so that all pods of
a revision leave out the same: what is built in, what cannot stand beside the index, and of too many the newest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from .. import contract
from ..artifact.fresh import Refusal, Snapshot, load, newest, publish
from ..artifact.layout import Layout
from ..dataset.fresh import FIELD, TOO_MANY, TooManyFiles, TooManyFresh, list_fresh, read_fresh
from ..dataset.listing import load_listing
from ..dataset.objects import FreshObject
from ..dataset.places import of_table, tables_within
from ..dataset.tombstones import list_tombstones, read_tombstones
from ..errors import BadData, BadSpec, SourceChanged, TaskError
from ..index.engine import Engine
from ..index.fresh import (
    DeletedIds,
    FreshFile,
    Gathered,
    check_hides,
    check_lengths,
    checked_file,
    gather,
    usual_lengths,
    without_held,
)
from ..proof.encoder import check_model
from ..storage.store import Role, open_store
from ..text.encoder import Encoder, EncoderUnavailableError

Name = tuple[str, str]
"""Key and etag of a file."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the last look came to; goes from process to process."""

    number: int = 0
    rows: int = 0
    files: int = 0
    absorbed: int = 0
    limit: str = ""
    """The bound that is exceeded, in words; empty: none is."""
    waiting: int = 0
    reason: str = ""
    message: str = ""
    refused: tuple[tuple[str, str, str], ...] = ()
    """Object, reason and message of each."""
    good_at: float | None = None
    """When the last look began that found the snapshot to be all there is, monotonic; while none did: since when it is
    looked for. None: it is not."""
    errors: int = 0
    """Looks that failed since the start."""

    def told(self, *, off: bool, now: float) -> contract.FreshLook:
        """`now`: monotonic."""
        reason, message = self.reason, self.message
        if not reason and self.refused:
            _, reason, message = self.refused[0]
        elif not reason and self.limit:
            reason, message = TOO_MANY, self.limit
        return contract.FreshLook(
            number=self.number,
            rows=self.rows,
            files=self.files,
            absorbed=self.absorbed,
            full=bool(self.limit),
            waiting=self.waiting,
            off=off,
            age_seconds=0.0 if self.good_at is None else max(0.0, now - self.good_at),
            reason=reason[:64],
            message=_short(message),
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


def comparing(task: contract.ServeTask, told: contract.FreshTask | None) -> contract.ServeTask:
    """The task with an encoder that makes of the texts of rows what it made of the index's."""
    if task.encoder is None or told is None or told.document_prefix is None:
        return task
    encoder = task.encoder.model_copy(update={"document_prefix": told.document_prefix})
    return task.model_copy(update={"encoder": encoder})


@dataclass(frozen=True, slots=True)
class _Found:
    """What of a snapshot stands beside the index."""

    rows: Gathered
    files: Mapping[Name, FreshFile]
    refused: tuple[Refusal, ...]
    waiting: int
    """Rows that were counted, also of the first file that was too many."""
    limit: str
    """As in Seen."""


def model_id(encoder: contract.EncoderTask | None, told: contract.FreshTask) -> str:
    """Names what files are compared with: a verdict of another model, prefix or column is none."""
    if encoder is None:
        return ""
    made_by = encoder.onnx.sha256 if encoder.onnx is not None else encoder.wire()
    return hashlib.sha256(json.dumps([made_by, told.text_column, encoder.document_prefix]).encode()).hexdigest()[:16]


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
        self._most = contract.most_fresh(told.max_rows, engine.count)
        """Rows, and bytes of their ids and metadata."""
        self._encoder = encoder if told.text_column in engine.metadata_columns else None
        self._text_column, self._model = told.text_column, model_id(task.encoder, told)
        self._compared: set[Name] = set()
        """Files that are of the encoder's model."""
        self._absorbed: frozenset[Name] | None = None
        self._built: tuple[float, str] | None = None
        """Store time and key of the newest file that the artifact holds."""
        self._usual: tuple[float, float] | None = None
        self._read: dict[Name, FreshFile | TaskError | None] = {}
        """What was read of the files that are there, so that each is read once."""
        self._newest: Snapshot | None = None
        """That is published, taken or not."""
        self._given: Gathered | None = None
        """The newest that this look has found."""
        self.seen = Seen(good_at=clock())

    def look(self) -> Gathered | None:
        """Look at snapshots and files; the snapshot that is to be searched from now on, None: that of before."""
        began, seen = self._clock(), self.seen
        self._given = None
        try:
            self._look()
        except TaskError as error:
            self._failed(error.reason, error.failure.message)
        except Exception as error:  # whatever it is, the index is served
            self._failed(type(error).__name__, str(error))
        else:
            good_at = self.seen.good_at if self.seen.limit else began
            self.seen = replace(self.seen, reason="", message="", good_at=good_at)
            if seen.reason:
                _log.info("fresh rows are read again")
        return self._given  # also where a newer one could not be made

    def _failed(self, reason: str, message: str) -> None:
        if (reason, message) != (self.seen.reason, self.seen.message):
            _log.error("fresh rows not read, the last snapshot stays", extra={"reason": reason, "problem": message})
        self.seen = replace(self.seen, reason=reason, message=message, errors=self.seen.errors + 1)

    def _look(self) -> None:
        if self._absorbed is None:
            self._absorbed = self._held()
            self._usual = usual_lengths(self._engine)
        published = newest(self._artifacts, self._layout)
        problem: TaskError | None = None
        if published > self.seen.number:
            try:
                self._take(published)
            except SourceChanged as error:
                problem = error  # what lies there by now is listed next
        listed, too_many = self._listed(max(published, self.seen.number) + 1)
        known = listed.same_as(self._newest) and published >= self.seen.number  # else somebody removed it
        if not known and (self._newest is not None or listed.files):
            self._publish(listed)
            problem = None
        if problem := problem or too_many:
            raise problem

    def _held(self) -> frozenset[tuple[str, str]]:
        """Files that the artifact holds itself, by its own listing."""
        listing = load_listing(self._artifacts, self._layout, self._engine.manifest.fingerprint)
        held = (listing.fresh if listing else None) or ()
        self._built = max(((item.stored_at, item.key) for item in held), default=None)
        return frozenset((item.key, item.etag) for item in held)

    def _listed(self, number: int) -> tuple[Snapshot, TooManyFiles | None]:
        """What is there now, as a snapshot. Of files that are too many the last list stays: what was deleted since is
        to be hidden all the same."""
        before, too_many = self._newest, None
        try:
            files = list_fresh(self._store)
        except TooManyFiles as error:
            if before is None:
                raise
            files, too_many = before.files, error
        deleted: tuple[FreshObject, ...] = ()
        if files and self._tombstones is not None:
            oldest = min(item.stored_at for item in files)
            deleted = tuple(item for item in list_tombstones(self._tombstones) if item.stored_at >= oldest)
        there = {(item.key, item.etag) for item in files}
        refused = tuple(
            one
            for one in (before.by_model if before is not None else ())
            if (one.key, one.etag) in there and (self._encoder is None or one.model == self._model)
        )
        return Snapshot(number=number, files=files, deleted=deleted, refused=refused, pod=self._pod), too_many

    def _take(self, number: int) -> None:
        """A published snapshot, if it is still there."""
        snapshot = load(self._artifacts, self._layout, number)
        if snapshot is not None:
            self._newest = snapshot
            self._taken(snapshot, self._found(snapshot))

    def _publish(self, listed: Snapshot) -> None:
        """What is there as the next number, or take what another pod has published as that."""
        found = self._found(listed)
        if another := self._of_another_model(found.files):
            listed = listed.model_copy(update={"refused": (*listed.refused, *another)})
            found = self._found(listed)
        listed = listed.model_copy(update={"refused": found.refused})
        if not publish(self._artifacts, self._layout, listed):
            self._take(listed.number)
            return
        _log.info("fresh rows published", extra={"number": listed.number, "files": len(listed.files)})
        self._newest = listed
        self._taken(listed, found)

    def _taken(self, snapshot: Snapshot, found: _Found) -> None:
        rows, known = found.rows, {key for key, _, _ in self.seen.refused}
        self.seen = replace(
            self.seen,
            number=rows.number,
            rows=len(rows.ids),
            files=len(found.files),
            absorbed=len(snapshot.files) - len(self._own(snapshot)),
            limit=found.limit,
            waiting=found.waiting,
            refused=tuple((one.key, one.reason, one.message) for one in found.refused[: contract.FRESH_REFUSED]),
        )
        _log.info("fresh rows taken", extra={"number": rows.number, "rows": len(rows.ids), "files": len(found.files)})
        for key, reason, message in self.seen.refused:
            if key not in known:
                _log.error("file refused", extra={"object": key, "reason": reason, "problem": message})
        self._given = rows

    def _own(self, snapshot: Snapshot) -> list[FreshObject]:
        """Its files without those that the artifact holds, the oldest first."""
        own = [item for item in snapshot.files if (item.key, item.etag) not in (self._absorbed or ())]
        return sorted(own, key=lambda item: (item.stored_at, item.key))

    def _found(self, snapshot: Snapshot) -> _Found:
        """The rows of a snapshot. Raises SourceChanged, StoreUnavailable."""
        own = self._own(snapshot)
        there = {(item.key, item.etag) for item in own}
        self._read = {name: one for name, one in self._read.items() if name in there}
        judged = {(one.key, one.etag): one for one in snapshot.by_model}
        tables = tables_within(self._store, (item.key for item in own))
        files: dict[Name, FreshFile] = {}
        refused: list[Refusal] = []
        limit, count, held = "", 0, 0
        for item in own:
            name = (item.key, item.etag)
            found = None if name in judged else of_table(self._store, item.key, tables) or self._file(item)
            if name in judged:
                refused.append(judged[name])
            elif isinstance(found, TooManyFresh):
                limit = found.failure.message  # a build is due for it, and no other file waits
            elif isinstance(found, TaskError):
                refused.append(_refusal(name, found))
            elif found is not None:
                count += len(found.ids)
                held += found.metadata.nbytes + found.ids.nbytes
                if exceeded := self._exceeded(len(files) + 1, count, held):
                    limit = exceeded
                    del self._read[name]
                    break
                files[name] = found
        kept = list(files.values())
        rows = gather(self._engine, snapshot.number, kept, self._deleted(snapshot, kept))
        return _Found(rows, files, tuple(sorted(refused, key=lambda one: one.key)), count, limit)

    def _exceeded(self, files: int, rows: int, held: int) -> str:
        """The bound that so much exceeds, in words. held: bytes of ids and metadata."""
        if files > contract.FRESH_FILES:
            return f"more than {contract.FRESH_FILES} files of fresh rows are listed"
        if rows > self._most[0]:
            return f"more than {self._most[0]} fresh rows are listed beside {self._engine.count} of the index"
        if held > self._most[1]:
            return f"ids and metadata of fresh rows take more than {self._most[1]} bytes"
        return ""

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
        schema = self._engine.metadata_schema
        table = read_fresh(self._store, item, self._columns, self._embedding, self._most, schema)
        if table is None:
            return None
        found = FreshFile(item.key, item.stored_at, table.ids, table.vectors, table.metadata)
        found = checked_file(self._engine, found)
        check_lengths(found, self._usual)
        if self._built is None or (item.stored_at, item.key) > self._built:
            check_hides(self._engine, found)
            return found
        # The listing left it out, or it came late. Rows of a later file may be built in, and no older one hides them.
        found = without_held(self._engine, found)
        return found if len(found.ids) else None

    def _of_another_model(self, files: Mapping[Name, FreshFile]) -> list[Refusal]:
        """Those whose vectors are not what the index's model makes of their texts, before others search them."""
        found: list[Refusal] = []
        self._compared &= files.keys()
        for name, one in files.items():
            if self._encoder is None or name in self._compared:
                continue
            try:
                check_model(self._encoder, self._engine.metric, one, self._text_column)
                self._compared.add(name)
            except BadData as error:
                found.append(_refusal(name, error, self._model))
            except EncoderUnavailableError as error:
                _log.warning("fresh rows are not compared with the model", extra={"problem": str(error)[:300]})
        return found

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


def _refusal(name: Name, error: TaskError, model: str = "") -> Refusal:
    key, etag = name
    return Refusal(key=key, etag=etag, reason=error.reason, message=_short(error.failure.message), model=model)
