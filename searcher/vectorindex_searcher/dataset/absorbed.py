"""Which files of fresh rows a listing takes in: those that a build of the source can read.

What is malformed is left out and stays what it was, refused by the searchers, which name it: nobody's one bad file
holds up the next revision. Reads headers, and of small files all rows. What only searchers see beside their artifact
(vectors of another model or length) is taken from their newest snapshot, and so is that they have looked: a file that
came a moment ago waits for the next build, and is answered meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ..artifact.fresh import Snapshot
from ..contract import FRESH_FILE_BYTES, SEEN_BY_SEARCHERS, ExitCode, Location
from ..errors import TaskError
from ..storage.store import ObjectInfo, Role, Store, list_all, open_store
from .blocks import check_vectors
from .column_values import Keeper
from .formats import format_of
from .fresh import check_name
from .listing import is_data
from .objects import FreshObject
from .places import of_table, refuse_broken_links, tables_within
from .source import Source

_REFUSALS = (ExitCode.BAD_DATA, ExitCode.BAD_SPEC)
_log = logging.getLogger(__name__)


def absorbed(place: Location | None, source: Source, said: Snapshot | None) -> tuple[FreshObject, ...]:
    """The files of fresh rows that go into the next build of `source`, the oldest first. said: the searchers' newest
    snapshot; None: there is none, and every file is judged by itself.

    Raises TaskError when the store refuses or cannot be reached, SourceChanged for a file that changes meanwhile.
    """
    if place is None:
        return ()
    store = open_store(place, Role.FRESH)
    listed = list_all(store)
    tables = tables_within(store, (item.key for item in listed))
    rows = [item for item in listed if is_data(item.key, store.prefix, ("",)) and not _is_of(store, item, tables)]
    source = replace(source, fresh_store=store)
    taken = [item for item in _passed(store, rows, said) if _is_taken(store, item, source)]
    ordered = sorted(taken, key=lambda item: (item.modified, item.key))
    return tuple(FreshObject(key=i.key, size=i.size, etag=i.etag, stored_at=i.modified) for i in ordered)


def _is_of(store: Store, item: ObjectInfo, tables: Mapping[str, str]) -> bool:
    """Whether a table has the file, whose log alone says whether it counts."""
    problem = of_table(store, item.key, tables)
    if problem is not None:
        _left_out(store, item, problem.reason, problem.failure.message)
    return problem is not None


def _passed(store: Store, rows: Iterable[ObjectInfo], said: Snapshot | None) -> Iterator[ObjectInfo]:
    """Those that searchers have looked at, and have not refused for what they alone can see."""
    seen = {(one.key, one.etag) for one in said.files} if said is not None else set()
    refused = {(one.key, one.etag): one for one in said.refused} if said is not None else {}
    for item in rows:
        name, one = (item.key, item.etag), refused.get((item.key, item.etag))
        if one is not None and one.reason in SEEN_BY_SEARCHERS:
            _left_out(store, item, one.reason, one.message)
        elif said is None or name in seen:
            yield item


def _is_taken(store: Store, item: ObjectInfo, source: Source) -> bool:
    try:
        refuse_broken_links(store, [item])
        _check(item, source)
    except TaskError as error:
        if error.exit_code not in _REFUSALS:
            raise
        _left_out(store, item, error.reason, error.failure.message)
        return False
    return True


def _left_out(store: Store, item: ObjectInfo, reason: str, problem: str) -> None:
    facts = {"object": store.describe(item.key), "reason": reason, "problem": problem}
    _log.warning("a file of fresh rows is not taken into the listing", extra=facts)


def _check(item: ObjectInfo, source: Source) -> None:
    """Raises BadData, BadSpec for what no build of the source takes."""
    check_name(item.key)
    file = FreshObject(key=item.key, size=item.size, etag=item.etag, stored_at=item.modified)
    whole = source.and_files([file])
    if len(whole.objects) == len(source.objects) or item.size > FRESH_FILE_BYTES:
        return  # no rows; or so large that no searcher reads it, and the build says what is wrong with it
    keeper, (_, header) = Keeper(whole.metadata), whole.objects[-1]
    for block in format_of(item.key).blocks(source.store_of(file), file, source.columns, header):
        check_vectors(block, source.embedding.metric)
        if len(whole.metadata):
            keeper.keep(block.metadata, item.key, block.first_row)
