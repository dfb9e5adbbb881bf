"""What a user's filtered queries find: each is answered among the rows that its filter keeps, as a searcher does, and
the truth is an exact scan of the same rows. Queries with the same filter are asked together.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import BadSpec
from ..index.engine import Engine
from ..index.filters import Predicate
from ..index.vectors import VectorFile
from .exact import exact_search
from .filtered import drawn
from .measure import Measured, Params, measure, served_answers
from .queries import Queries
from .query_filters import FIELD

MOST = 2000
"""Filtered queries that are asked. Each costs a scan of its own, which twenty unfiltered ones share."""
JUDGED_SHARE = 0.05
"""Of all queries: a larger share of filtered ones is judged by the floor, a smaller one reported."""
_log = logging.getLogger(__name__)

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Filtered:
    """The answers to the m filtered queries that were asked, and that have a neighbour."""

    numbers: Numbers
    """[m], rising: which queries."""
    rows: Numbers
    """[m, k], -1 where there is none."""
    measured: Measured


def check_filterable(engine: Engine) -> None:
    """Raises BadSpec where this kind of index cannot be searched with a filter: its searchers would refuse them."""
    if not engine.supports_filter:
        message = f"an index of type {engine.manifest.index_type} cannot be filtered, and gate queries have filters"
        remedy = "Build with factory Flat, IVF or HNSW, or leave gate.queries.filterColumn out."
        raise BadSpec("CannotFilter", message, field=FIELD, remedy=remedy)


def ask_filtered(engine: Engine, vectors: VectorFile, queries: Queries, k: int, params: Params) -> Filtered:
    """Ask them, MOST at most, at the default point or their segment's own. One whose filter keeps no row, or only its
    own, has nothing to find and is left out."""
    chosen = np.flatnonzero(queries.filtered)
    chosen = chosen[drawn(len(chosen), MOST)]
    rows = np.full((len(chosen), k), -1, np.int64)
    recall, rank = np.zeros(len(chosen)), np.zeros(len(chosen))
    there = np.zeros(len(chosen), np.bool_)
    for predicate, places in by_filter(queries, chosen):
        allowed, asked = engine.matching(predicate), queries.of(chosen[places])
        if not allowed.matching:
            continue
        truth = exact_search(vectors, asked.vectors, k, engine.metric, asked.own_rows, among=allowed.rows())
        found = served_answers(engine, asked.vectors, k, asked.own_rows, asked.segments, params, allowed_rows=allowed)
        measured = measure(truth, found, vectors, asked.vectors)
        rows[places], there[places] = found, truth.available > 0
        recall[places], rank[places] = measured.recall, measured.reciprocal_rank
    if without := int((~there).sum()):
        _log.warning("filters of gate queries that keep no row: these are not judged", extra={"queries": without})
    return Filtered(chosen[there], rows[there], Measured(recall[there], rank[there]))


def by_filter(queries: Queries, chosen: Numbers) -> Iterator[tuple[Predicate, Numbers]]:
    """Each different filter with the places in `chosen` of its queries."""
    groups: dict[Predicate, list[int]] = {}
    for place, number in enumerate(chosen.tolist()):
        predicate = queries.filters[number] if queries.filters is not None else None
        if predicate is not None:
            groups.setdefault(predicate, []).append(place)
    for predicate, places in groups.items():
        yield predicate, np.array(places)
