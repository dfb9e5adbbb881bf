"""Fresh rows: how a searcher learns where they are, what it tells of them, and how they are switched off.

Neither in ServeTask: what is told here may change while a revision serves, and an image of before must not refuse its
task for it. See docs/adr/0078-fresh-rows.md.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from .encoder import Prefix
from .model import Model
from .places import Location
from .spec import Columns

FRESH_ENV = "VECTORINDEX_FRESH"
"""Environment variable of a searcher with FreshTask as JSON; absent: it answers its artifact alone."""
FRESH_PATH = "/v1/fresh"
"""Of the admin port. GET: FreshLook. POST: FreshOrder, answered with FreshLook. Not there without FRESH_ENV."""
MAX_FRESH_ROWS = 50_000
"""Every query is compared with all of them."""
FRESH_SHARE = 0.05
"""Of the artifact's rows, at most; an index of few rows may have FEW_FRESH_ROWS all the same."""
FEW_FRESH_ROWS = 100
FRESH_FILES = 1_000
"""That are answered, without absorbed and refused ones."""
FRESH_FILE_BYTES = 16 << 20
"""Of one file."""
FRESH_ROW_BYTES = 1024
"""Of ids and metadata in memory, for each row that there may be: what is small in a file may be large there."""
FEW_FRESH_BYTES = 4 << 20
"""Of an index of few rows all the same."""
FRESH_COPIES = 5
"""So many times a process holds vectors, ids and metadata while it takes a snapshot beside the one before: the files,
both, the new one's vectors as they are added to its index. Measured with 45,000 rows of 384 numbers and 900 bytes:
4.8."""
FRESH_POLL_SECONDS = 10.0
FRESH_REFUSED = 5
"""Files that FreshLook names, at most."""
SEEN_BY_SEARCHERS = frozenset({"UnusualLengths", "AnotherModel", "FileTooLarge"})
"""Reasons of refusals that searchers alone can see, beside their artifact: a listing takes their word, by the newest
snapshot."""


def most_fresh(max_rows: int, count: int) -> tuple[int, int]:
    """How many fresh rows may be answered beside an artifact of `count`, and bytes of their ids and metadata."""
    rows = min(max_rows, max(FEW_FRESH_ROWS, int(FRESH_SHARE * count)))
    return rows, max(FEW_FRESH_BYTES, rows * FRESH_ROW_BYTES)


PollSeconds = Annotated[float, Field(ge=1, le=3600)]


class FreshTask(Model):
    """Where fresh rows are, beside the artifact of the ServeTask."""

    place: Location
    """Files of rows in formats with ids (Parquet, JSON lines): never below the source's own place."""
    columns: Columns = Columns()
    """As the source has them."""
    max_rows: Annotated[int, Field(ge=1, le=MAX_FRESH_ROWS)] = MAX_FRESH_ROWS
    poll_seconds: PollSeconds = FRESH_POLL_SECONDS
    text_column: Annotated[str, Field(max_length=128)] = ""
    """Metadata column of the texts that vectors were made of: a searcher with the index's encoder compares some rows of
    each new file. Empty: nobody does."""
    document_prefix: Prefix | None = None
    """Stood before each of these texts; None: what the encoder's folder says."""


class FreshOrder(Model):
    """Body of POST FRESH_PATH. `off`: answer the artifact alone for so long. It runs out by itself, and an operator
    that is away changes nothing; `off` false ends it at once."""

    off: bool
    ttl_seconds: Annotated[float, Field(strict=True, gt=0, le=300)] = 60.0


class RefusedFile(Model):
    """A file that cannot stand beside the index, and why: its rows are not answered, and no build takes it in."""

    model_config = ConfigDict(extra="ignore")

    object: Annotated[str, Field(max_length=1024)]
    reason: Annotated[str, Field(max_length=64)]
    message: Annotated[str, Field(max_length=300)] = ""


class FreshLook(Model):
    """What a pod knows of the fresh rows: also SourceLook.fresh."""

    model_config = ConfigDict(extra="ignore")

    number: Annotated[int, Field(ge=0)] = 0
    """Of the snapshot that searches see, or would if they were not switched off; 0: none yet."""
    rows: Annotated[int, Field(ge=0)] = 0
    """In it: newest of each id, without deleted ones."""
    files: Annotated[int, Field(ge=0)] = 0
    """That it is made of: below the place, not refused, and not absorbed by the artifact's own listing."""
    absorbed: Annotated[int, Field(ge=0)] = 0
    """Files below the place that the artifact holds already: they may be removed once no other revision needs them."""
    full: bool = False
    """What lies there is more than the bounds allow (rows, share, files): the oldest are answered, a build is due."""
    waiting: Annotated[int, Field(ge=0)] = 0
    """Rows below the place that count towards the bounds, as far as they were counted."""
    off: bool = False
    age_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Since the last look that found no more than the bounds allow; or since the start, while none did."""
    reason: Annotated[str, Field(max_length=64)] = ""
    """Why not all that lies there is answered: the newest look failed (StoreUnavailable, AccessDenied), the first
    refused file's, or TooManyFreshRows; empty: all of it is."""
    message: Annotated[str, Field(max_length=300)] = ""
    refused: Annotated[tuple[RefusedFile, ...], Field(max_length=FRESH_REFUSED)] = ()
