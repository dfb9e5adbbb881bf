"""Who uses an artifact: a mark of each cluster beside its manifest, so that none removes what another one serves.

Indexes of one name in two clusters may share a bucket, and then an artifact: a build that finds its manifest builds
nothing. Two rules make that safe without a lock, since S3 shows what was written to whoever reads afterwards:

- who is going to use an artifact writes the mark first and reads the manifest then;
- who removes one removes the manifest first and reads the marks then, once more (collect.py).

So one of the two sees the other. A mark says `leave` while its cluster removes the artifact: it holds nobody else up,
and tells a Job that was killed halfway that it had begun. A build of the same cluster overwrites it: a Job that was cut
off with its node, and goes on an hour later, sees that and stops.
"""

from __future__ import annotations

from ..storage.store import Store
from .layout import Kind, Layout

USING, LEAVING = b"using", b"leave"


def mark_used(store: Store, layout: Layout, digest: str, cluster: str) -> None:
    """To be called before the manifest is read. Without a cluster nothing is marked."""
    if cluster:
        store.put(layout.users(digest, cluster), USING)


def mark_leaving(store: Store, layout: Layout, digest: str, cluster: str) -> None:
    store.put(layout.users(digest, cluster), LEAVING)


def take_off(store: Store, layout: Layout, digest: str, cluster: str) -> None:
    """Remove our mark, unless a Job of ours has begun to use the artifact again."""
    key = layout.users(digest, cluster)
    if cluster and _is_leaving(store, key):
        store.delete(key)


def users(store: Store, layout: Layout, digest: str, *, but: str = "") -> list[str]:
    """The clusters that use an artifact, sorted, but for one. What cannot be understood there counts as a user."""
    found = []
    for item in store.list(layout.users(digest)):
        owned = layout.parse(item.key)
        name = owned.name if owned is not None and owned.kind is Kind.USER else item.key.rpartition("/")[2]
        if name != but and not _is_leaving(store, item.key):
            found.append(name)
    return sorted(found)


def _is_leaving(store: Store, key: str) -> bool:
    try:
        return store.read(key, length=len(LEAVING) + 1) == LEAVING
    except FileNotFoundError:
        return True
