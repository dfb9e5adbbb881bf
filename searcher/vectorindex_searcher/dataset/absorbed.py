"""Which files of fresh rows a listing takes in: those that a build of the source can read.

What is malformed is left out and stays what it was, refused by the searchers, which name it: nobody's one bad file
holds up the next revision. Reads headers, and of small files all rows.
"""

from __future__ import annotations

import logging

from ..contract import FRESH_FILE_BYTES, ExitCode, Location
from ..errors import BadData, TaskError
from ..storage.store import ObjectInfo, Role, Store, list_all, open_store
from .blocks import check_vectors
from .column_values import Keeper
from .formats import find_format
from .fresh import FIELD
from .listing import is_data
from .objects import FreshObject
from .places import refuse_tables
from .source import Source

_REFUSALS = (ExitCode.BAD_DATA, ExitCode.BAD_SPEC)
_log = logging.getLogger(__name__)


def absorbed(place: Location | None, source: Source) -> tuple[FreshObject, ...]:
    """The files of fresh rows that go into the next build of `source`, the oldest first.

    Raises TaskError when the store refuses or cannot be reached, SourceChanged for a file that changes meanwhile.
    """
    if place is None:
        return ()
    store = open_store(place, Role.FRESH)
    listed = list_all(store)
    refuse_tables(store, (item.key for item in listed), above=False)
    taken = [item for item in listed if is_data(item.key, store.prefix, ("",)) and _is_taken(store, item, source)]
    ordered = sorted(taken, key=lambda item: (item.modified, item.key))
    return tuple(FreshObject(key=i.key, size=i.size, etag=i.etag, stored_at=i.modified) for i in ordered)


def _is_taken(store: Store, item: ObjectInfo, source: Source) -> bool:
    try:
        _check(item, source)
    except TaskError as error:
        if error.exit_code not in _REFUSALS:
            raise
        facts = {"object": store.describe(item.key), "reason": error.reason, "problem": error.failure.message}
        _log.warning("a file of fresh rows is not taken into the listing", extra=facts)
        return False
    return True


def _check(item: ObjectInfo, source: Source) -> None:
    """Raises BadData, BadSpec for what no build of the source takes."""
    made = find_format(item.key)
    if made is None or made.ids is None:
        remedy = "Write fresh rows as Parquet or JSON lines; begin the names of other files with _."
        message = f"{item.key} is no file of rows with ids, by its name"
        raise BadData("UnknownFormat", message, object=item.key, field=FIELD, remedy=remedy)
    file = FreshObject(key=item.key, size=item.size, etag=item.etag, stored_at=item.modified)
    whole = source.and_files([file])
    if len(whole.objects) == len(source.objects) or item.size > FRESH_FILE_BYTES:
        return  # no rows; or so large that no searcher reads it, and the build says what is wrong with it
    keeper, (_, header) = Keeper(whole.metadata), whole.objects[-1]
    for block in made.blocks(source.store, file, source.columns, header):
        check_vectors(block, source.embedding.metric)
        if len(whole.metadata):
            keeper.keep(block.metadata, item.key, block.first_row)
