"""`resolve`: list the source, read its headers, store the listing below the artifacts.

Reads no rows, but for formats whose header does not say how many there are: those are counted, once for each state of
the source, and the listing keeps the counts.
"""

from __future__ import annotations

from ..artifact.layout import Layout
from ..artifact.live_queries import forget_old
from ..contract import ResolveResult, ResolveTask
from ..errors import RetryableError
from ..storage.store import Role, Store, open_store
from .listing import Listing, list_source, load_listing, save_listing, with_counts
from .places import no_data
from .source import open_source


def resolve(task: ResolveTask) -> ResolveResult:
    """Raises TaskError: SourceMissing, BadSpec (unknown column), BadData (mixed dimensions, corrupt file) ..."""
    source_store = open_store(task.source, Role.SOURCE)
    listing = list_source(source_store, no_data(task))
    artifacts = open_store(task.artifacts, Role.ARTIFACTS)
    layout = Layout(artifacts.prefix, task.identity)
    forget_old(artifacts, layout)
    stored = _stored(artifacts, layout, listing.fingerprint)
    source = open_source(source_store, stored or listing, task.columns, task.embedding)
    if stored is None:
        save_listing(artifacts, layout, with_counts(listing, {item.key: found.rows for item, found in source.objects}))
    return ResolveResult(
        fingerprint=listing.fingerprint,
        objects=len(listing.objects),
        bytes=listing.bytes,
        rows=source.rows,
        dimension=source.dimension,
    )


def _stored(artifacts: Store, layout: Layout, fingerprint: str) -> Listing | None:
    """The listing of an earlier `resolve` of the same state; None when there is none, or a damaged one."""
    try:
        return load_listing(artifacts, layout, fingerprint)
    except RetryableError:
        return None
