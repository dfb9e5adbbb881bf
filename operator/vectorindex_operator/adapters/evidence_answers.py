"""Reads what a pod answered to the question for evidence. It may be forged: reading it costs in proportion to its size.

A model that collects errors multiplies them: a million wrong numbers in two megabytes took four seconds and hundreds of
megabytes. So brackets are counted before anything is made of them, and the first error ends reading.
"""

from __future__ import annotations

from typing import TypeVar

import pydantic_core
from pydantic import ValidationError

from vectorindex_operator.core.judging.evidence import PodCounts
from vectorindex_searcher.contract import EVIDENCE_ROWS, PAIR_ROWS, Evidence, EvidenceColumns, PairEvidence

Told = TypeVar("Told", Evidence, EvidenceColumns, PairEvidence)
_COLUMN_BRACKETS = 256
"""Objects and lists of a page: some eighty when it is full, whatever the number of its rows."""
_ROW_BRACKETS = 2 * EVIDENCE_ROWS + 16
"""Of rows: an object and a histogram each."""
_PAIR_BRACKETS = PAIR_ROWS + 16


def read_columns(body: bytes) -> EvidenceColumns:
    """ValueError with few words when it is none."""
    return _read(EvidenceColumns, body, _COLUMN_BRACKETS)


def read_rows(body: bytes) -> PodCounts:
    """From a searcher that knows no columns. ValueError with few words when it is none."""
    return PodCounts.of(_read(Evidence, body, _ROW_BRACKETS))


def read_pairs(body: bytes) -> PairEvidence:
    """ValueError with few words when it is none."""
    return _read(PairEvidence, body, _PAIR_BRACKETS)


def _read(model: type[Told], body: bytes, brackets: int) -> Told:
    if body.count(b"{") + body.count(b"[") > brackets:
        raise ValueError(f"more than {brackets} objects and lists")
    raw = pydantic_core.from_json(body)
    if not isinstance(raw, dict):
        raise ValueError("not an object")
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ValueError(first_fault(error)) from None


def first_fault(error: ValidationError) -> str:
    """Where the first one is and what, in few words and none of the input."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, first['loc']))[:80]}: {first['msg'][:120]}"
