"""The rows that a build is of: those of a source, or those that `partition` has laid ready for one shard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..artifact.layout import Layout
from ..artifact.publish import fetch_files
from ..artifact.sharded import Plan, ShardRows, find_rows
from ..contract import BuildTask, EncodedTexts, PartitionTask
from ..dataset.listing import Listing, list_source, load_listing
from ..dataset.places import no_data
from ..dataset.source import Source, open_source
from ..dataset.stage import stage
from ..dataset.tombstones import current_tombstones
from ..errors import BadSpec, RetryableError, SourceChanged
from ..progress import TEXTS
from ..storage.store import Role, Store, open_store
from . import imported


@dataclass(frozen=True, slots=True)
class Given:
    """What is known of the rows before one is read."""

    rows: int
    dimension: int
    half: bool
    """float16 holds every vector exactly."""
    text_ids: bool
    fingerprint: str
    """Of the source."""
    tombstones: str
    """Of the listing of deleted ids; empty without any."""
    deleted: int
    """Rows of the whole source that were left out for it."""
    stage: Callable[[Path], EncodedTexts | None]
    """Writes ids.arrow, metadata.arrow and vectors.npy into a folder; what became of texts, where rows have some."""
    imported: Callable[[Path], Any] = lambda folder: None
    """An index that was built elsewhere, with the staged files of the folder put in its order; None: one is built."""


def of_source(task: BuildTask, artifacts: Store, layout: Layout) -> Given:
    """All rows of the task's source that are not deleted."""
    source, fingerprint, tombstones = read_source(task, artifacts, layout)
    return Given(
        rows=source.rows,
        dimension=source.dimension,
        half=source.half,
        text_ids=str(source.id_type) == "string",
        fingerprint=fingerprint,
        tombstones=tombstones,
        deleted=len(source.gone),
        stage=lambda folder: _staged(task, source, (artifacts, layout), folder),
        imported=lambda folder: imported.take(
            task.index, source.store, source, folder, hides=task.tombstones is not None, memory=task.memory_limit_bytes
        ),
    )


def _staged(task: BuildTask, source: Source, place: tuple[Store, Layout], folder: Path) -> EncodedTexts | None:
    if task.columns.text is None:
        stage(source, folder)
        return None
    from .texts import encoding  # an extra

    before = replace(TEXTS)
    with encoding(task, *place, folder) as rows:
        stage(replace(source, encode=rows), folder)
    names = ("encoded", "known", "cut", "seconds")
    return EncodedTexts(**{name: round(getattr(TEXTS, name) - getattr(before, name), 3) for name in names})


def vectors_of(task: BuildTask, dimension: int) -> str:
    """What vectors are of, besides the rows: what was trained on others is no beginning."""
    if task.columns.text is None or task.encoder is None:
        return task.columns.vector
    from .texts import encoder_name

    return f"{task.columns.text}/{encoder_name(task.encoder, dimension)}"


def of_shard(artifacts: Store, layout: Layout, plan: Plan, plan_sha256: str) -> Given:
    """The rows of the shard of `layout`. Raises Retry/RowsNotFound where none are laid ready by this plan."""
    assert layout.shard is not None
    found = find_rows(artifacts, layout, plan.digest, plan_sha256)
    if found is None:
        message = f"no rows are laid ready for shard {layout.shard} by the plan {plan_sha256[:16]}"
        remedy = "Run `partition` again, with the same flags: it goes on where it ended."
        raise RetryableError("RowsNotFound", message, object=layout.rows(plan.digest), remedy=remedy)
    return Given(
        rows=plan.counts[layout.shard],
        dimension=plan.dimension,
        half=plan.vector_dtype == "float16",
        text_ids=plan.id_type == "string",
        fingerprint=plan.fingerprint,
        tombstones=plan.tombstones,
        deleted=plan.deleted,
        stage=lambda folder: _fetch(artifacts, layout, plan.digest, found, folder),
    )


def _fetch(artifacts: Store, layout: Layout, digest: str, rows: ShardRows, folder: Path) -> None:
    """Raises ChecksumMismatch: nothing opens what is not what `partition` wrote."""
    fetch_files(artifacts, [(layout.file(digest, rows.attempt, file.name), file) for file in rows.files], folder)


def read_source(task: BuildTask, artifacts: Store, layout: Layout) -> tuple[Source, str, str]:
    """The source without the deleted rows; the fingerprints of its listing and of the tombstones. Reads headers.

    Raises SourceChanged, SourceMissing, BadSpec, BadData.
    """
    if task.columns.text is not None and (task.index.imported or isinstance(task, PartitionTask)):
        message = "rows with texts are encoded for an index that is built whole, from its rows"
        remedy = "Leave out columns.text and name the column of vectors."
        raise BadSpec("TextsNotTaken", message, field="spec.source.columns.text", remedy=remedy)
    if task.columns.bare and (isinstance(task, PartitionTask) or not task.index.imported):
        message = "rows without vectors are taken only with an index that has them"
        remedy = "Name the column of vectors, or an index that was built elsewhere (index.import)."
        raise BadSpec("NoVectors", message, field="spec.source.columns.vector", remedy=remedy)
    source_store = open_store(task.source, Role.SOURCE)
    listing = _listing(task, source_store, artifacts, layout)
    source = open_source(source_store, listing, task.columns, task.embedding)
    if task.fresh is not None:
        source = replace(source, fresh_store=open_store(task.fresh, Role.FRESH))
    source = source.with_fresh(listing.fresh or ())
    # What is in an index that was built elsewhere stays in it: searchers hide what is deleted.
    deleted = None if task.index.imported else task.tombstones
    tombstones = current_tombstones(deleted, task.columns.id, source.id_type)
    return source.without(tombstones.ids), listing.fingerprint, tombstones.fingerprint


def _listing(task: BuildTask, source: Store, artifacts: Store, layout: Layout) -> Listing:
    """The listing that `resolve` stored; without one (a laptop) a new one. Raises SourceChanged when it is another."""
    if task.fingerprint and (stored := load_listing(artifacts, layout, task.fingerprint)) is not None:
        return stored
    listing = list_source(source, no_data(task))
    if task.fingerprint and listing.fingerprint != task.fingerprint:
        raise SourceChanged(source.describe(source.prefix))
    return listing
