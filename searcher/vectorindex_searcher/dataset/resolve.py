"""`resolve`: list the source and the files of fresh rows, read headers, store the listing below the artifacts.

Reads no rows, but for formats whose header does not say how many there are: those are counted, once for each state of
the source, and the listing keeps the counts.
"""

from __future__ import annotations

import logging

from ..artifact.fresh import Snapshot, load, newest
from ..artifact.layout import Layout
from ..artifact.live_queries import forget_old
from ..contract import ResolveResult, ResolveTask
from ..errors import BadData, RetryableError
from ..storage.store import Role, Store, open_store
from .absorbed import absorbed
from .listing import Listing, fingerprint_with, list_source, load_listing, save_listing, with_counts
from .places import no_data
from .source import open_source

_log = logging.getLogger(__name__)


def resolve(task: ResolveTask) -> ResolveResult:
    """Raises TaskError: SourceMissing, BadSpec (unknown column), BadData (mixed dimensions, corrupt file) ..."""
    source_store = open_store(task.source, Role.SOURCE)
    alone = list_source(source_store, no_data(task))
    artifacts = open_store(task.artifacts, Role.ARTIFACTS)
    layout = Layout(artifacts.prefix, task.identity)
    forget_old(artifacts, layout)
    known = _stored(artifacts, layout, alone.fingerprint)
    source = open_source(source_store, known or alone, task.columns, task.embedding)
    counted = known or with_counts(alone, {item.key: found.rows for item, found in source.objects})
    if known is None:
        save_listing(artifacts, layout, counted)
    fresh = absorbed(task.fresh, source, _told_by_searchers(task, artifacts, layout))
    listing = counted.model_copy(
        update={"fingerprint": fingerprint_with(alone.fingerprint, fresh), "fresh": fresh or None}
    )
    if fresh:
        save_listing(artifacts, layout, listing)
    return ResolveResult(
        fingerprint=listing.fingerprint,
        objects=len(listing.objects),
        bytes=listing.bytes,
        rows=source.rows,
        dimension=source.dimension,
        source=alone.fingerprint if fresh else None,
        fresh=len(fresh) or None,
    )


def _told_by_searchers(task: ResolveTask, artifacts: Store, layout: Layout) -> Snapshot | None:
    """The newest snapshot of fresh rows; None when there is none, or a damaged one: it holds no build up."""
    number = newest(artifacts, layout) if task.fresh is not None else 0
    try:
        return load(artifacts, layout, number) if number else None
    except BadData as error:
        _log.warning("no word of the searchers on fresh rows", extra={"problem": error.failure.message})
        return None


def _stored(artifacts: Store, layout: Layout, fingerprint: str) -> Listing | None:
    """The listing of an earlier `resolve` of the same state; None when there is none, or a damaged one."""
    try:
        return load_listing(artifacts, layout, fingerprint)
    except RetryableError:
        return None
