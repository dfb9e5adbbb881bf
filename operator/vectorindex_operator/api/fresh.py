"""VectorIndex.spec.source.fresh as pydantic models: rows that are answered before they are built in."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vectorindex_operator.api.fields import CelRule
from vectorindex_operator.api.places import PREFIX_OF
from vectorindex_searcher.contract import MAX_FRESH_ROWS, Model

SHORTEST_FRESH_POLL, LONGEST_FRESH_POLL = 1.0, 3600.0
"""Seconds between two looks of a searcher, whatever `poll` says."""


class Fresh(Model):
    """New and changed rows in small files, answered within a `poll` and 5 s without a build. A row takes the place of
    that of the same id."""

    prefix: Annotated[str, Field(min_length=2, max_length=512, pattern=r"^[^/].*/$")]
    """A folder of the source's bucket, ending in a slash, beside the vectors: neither holds the other."""
    max_rows: Annotated[int, Field(ge=1, le=MAX_FRESH_ROWS)] = MAX_FRESH_ROWS
    """With more the next revision is built at once, of the source and of these files, and the last rows that were read
    go on being answered. So it is with more than 5 % of the rows of the index."""


RULES_OF_SOURCE = (
    CelRule(
        "!has(self.fresh) || !has(self.volume)",
        "source.fresh needs the source in a bucket: a volume says too little about which of two rows is the newer one",
        ".fresh",
    ),
    CelRule(
        f"!has(self.fresh) || ![{PREFIX_OF}].exists(p, p == '' || (p + '/').startsWith(self.fresh.prefix)"
        " || self.fresh.prefix.startsWith(p.endsWith('/') ? p : p + '/'))",
        "fresh.prefix must lie beside the prefix of the vectors, neither below the other: give each its own folder",
        ".fresh.prefix",
    ),
    CelRule(
        "!has(self.fresh) || !has(self.tombstones) || !(self.tombstones.prefix.startsWith(self.fresh.prefix)"
        " || self.fresh.prefix.startsWith(self.tombstones.prefix))",
        "fresh.prefix must lie beside tombstones.prefix, neither below the other",
        ".fresh.prefix",
    ),
    CelRule(
        "!has(self.fresh) || string(self.poll).matches('[1-9]')",
        "source.fresh needs a source.poll above 0: it says how often fresh rows are looked for",
        ".fresh",
    ),
)
RULES_OF_SPEC = (
    CelRule(
        "!has(self.source.fresh) || !has(self.artifacts.volume)",
        "source.fresh needs artifacts in a bucket: searchers publish snapshots there, and mount volumes read-only",
        ".source.fresh",
    ),
    CelRule(
        "!has(self.source.fresh) || !has(self.index.__import__)",
        "source.fresh and index.import do not go together: no build takes the rows into an index that is built",
        ".source.fresh",
    ),
    CelRule(
        "!has(self.source.fresh) || !has(self.source.columns.text)",
        "source.fresh and source.columns.text do not go together: searchers make no vectors of rows; write vectors",
        ".source.fresh",
    ),
)
