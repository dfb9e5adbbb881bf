"""`resolve`: list the source, read its headers, store the listing below the artifacts. Reads no rows."""

from __future__ import annotations

from .artifact import Layout
from .contract import ResolveResult, ResolveTask
from .dataset.listing import list_source, save_listing
from .dataset.source import open_source
from .store import Role, open_store


def resolve(task: ResolveTask) -> ResolveResult:
    """Raises TaskError: SourceMissing, BadSpec (unknown column), BadData (mixed dimensions, corrupt file) ..."""
    source_store = open_store(task.source, Role.SOURCE)
    listing = list_source(source_store)
    source = open_source(source_store, listing, task.columns, task.embedding)
    artifacts = open_store(task.artifacts, Role.ARTIFACTS)
    save_listing(artifacts, Layout(artifacts.prefix, task.identity), listing)
    return ResolveResult(
        fingerprint=listing.fingerprint,
        objects=len(listing.objects),
        bytes=listing.bytes,
        rows=source.rows,
        dimension=source.dimension,
    )
