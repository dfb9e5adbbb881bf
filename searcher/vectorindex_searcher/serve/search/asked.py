"""A search on its way: what was asked, what was found, and what of it is evidence and said in its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ... import contract
from ..evidence.recorder import Outcome
from ..http.messages import Response
from ..tracing.context import Stage
from .plan import SearchPlan

if TYPE_CHECKING:  # a router has no FAISS
    from ...index.fresh import FreshRows

Scores = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
_IGNORED = contract.IGNORED_PARAMS_HEADER.encode()
_FILTERED = contract.FILTERED_HEADER.encode()
_FRESH = contract.FRESH_HEADER.encode()


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the vectors of a search came about, for its answer."""

    seconds: float
    """From the request to its vectors."""
    truncated: tuple[str, ...] = ()
    """Fields whose text had more tokens than the model takes."""
    most_tokens: int = 0
    texts: tuple[str, ...] = ()
    """What was asked, in words."""
    holder: bytes = b""
    """Of ReadTexts: whose turn it is where searches wait for a model."""


@dataclass(slots=True, eq=False)
class PendingSearch:
    """A search on its way. `vectors`: float32 [d] or [n, d]. Monotonic times: `began`, when its request had arrived,
    and `deadline`, after which nobody wants its answer. `encoding`: None where it came with vectors. `fresh`: the
    snapshot that its rows are of, besides the artifact; None: there is none."""

    plan: SearchPlan
    vectors: Vectors
    outcome: Outcome
    began: float
    deadline: float | None
    encoding: Encoding | None = None
    fresh: FreshRows | None = None


Written = list[bytes] | Response
"""Results of all queries as JSON with their commas, or an answer that is whole: a binary one."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What was found for queries in words, best first: scores float32 [n, m] and rows int64 [n, m]."""

    scores: Scores
    rows: Rows
    how: Mapping[str, object]
    """Fields of the answer."""
    query_ids: Sequence[str] | None
    written: Written
    """The first k, in the order of vectors."""
    whole: bool
    """Whether scores and rows are all that were to be read; else there was no memory or time to find them."""


def warnings_of(ignored: Sequence[str]) -> list[dict[str, str]]:
    """That search parameters of another kind of index were ignored."""
    detail = "this kind of index has no such search parameter; it was searched without"
    return [{"kind": "IgnoredParam", "field": f"params.{name}", "detail": detail} for name in ignored]


def cut_of(encoding: Encoding) -> list[dict[str, str]]:
    """That only the beginning of a text was encoded."""
    detail = f"only its first {encoding.most_tokens} tokens were encoded: no more are taken"
    return [{"kind": "TextTruncated", "field": place, "detail": detail} for place in encoding.truncated]


def told(asked: PendingSearch, response: Response) -> Response:
    """The answer, whose headers say its snapshot and which parameters were ignored: a binary one has no other place."""
    if asked.encoding is not None:
        response.stages = (Stage("encode", 0.0, asked.encoding.seconds),)
    if asked.fresh is not None:
        response.headers = (*response.headers, (_FRESH, b"%d" % asked.fresh.number))
    if asked.plan.ignored:
        asked.outcome.ignored = asked.plan.ignored
        response.headers = (*response.headers, (_IGNORED, ", ".join(asked.plan.ignored).encode()))
    return response


def with_filter(response: Response, how: Mapping[str, Any]) -> Response:
    """A binary answer, whose header says what a filter left and how that was searched."""
    if (found := how.get("filter")) is not None:
        said = f"rows={found['rows']}; search={found['search']}".encode()
        response.headers = (*response.headers, (_FILTERED, said))
    return response


def note(asked: PendingSearch, scores: Scores, rows: Rows) -> None:
    """What of rows and scores [n, k], in the order of their vectors, is evidence."""
    outcome = asked.outcome
    firsts = zip(rows[:, 0].tolist(), scores[:, 0].tolist(), strict=True)
    outcome.top_scores = [score for row, score in firsts if row >= 0]
    outcome.hits = hits_of(scores, rows, asked.plan.min_score)
    if asked.fresh is not None:
        outcome.fresh = asked.fresh.among(rows, outcome.hits)


def joined(parts: Sequence[tuple[Scores, Rows, str]]) -> tuple[Scores, Rows, str]:
    """Slices of one search as one. How the first was searched stands for all."""
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]), parts[0][2]


def hits_of(scores: Scores, rows: Rows, min_score: float | None) -> list[int]:
    """How many of each query's best-first answers [n, k] are hits: those with a row, and a score of at least the bound.

    Hits are the first ones of a line, so a count says which they are.
    """
    found = rows >= 0
    if min_score is not None:
        found &= scores >= min_score
    counts: list[int] = np.count_nonzero(found, axis=1).tolist()
    return counts
