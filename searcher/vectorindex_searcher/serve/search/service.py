"""From checked searches to answers: what can be one call of the engine, and what is written of the result.

Knows no HTTP but the answer's body. Its functions run on the event loop or on a search thread, as the pool decides.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.engine import Engine
from ..evidence.feedback import Feedback
from ..evidence.live_sample import LiveSample
from ..evidence.ring import Outcome
from ..http.messages import Deferred, Problem, Response
from .answers import SingleAnswers, binary_answer, json_answer
from .pool import Group, SearchPool
from .query import Search

SMALL_K = 100
Scores = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
_NOTHING: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class SearchPlan:
    """A search without its vectors, as any number of requests may share it. The vectors of `search` mean nothing."""

    search: Search
    group: Group
    binary: bool
    """How the answer is written."""
    live: bool
    """Whether the answer says something about the revision's own recall."""


@dataclass(slots=True, eq=False)
class PendingSearch:
    """A search on its way. `vectors`: float32 [d] or [n, d]. `began`: monotonic time when its request had arrived."""

    plan: SearchPlan
    vectors: Vectors
    outcome: Outcome
    began: float


class SearchService:
    """Runs the searches of one revision. `segment_params`: parameters of the segments that have their own."""

    def __init__(
        self,
        engine: Engine,
        pool: SearchPool,
        revision: str,
        segment_params: Mapping[str, Mapping[str, int]],
        live: LiveSample | None,
        feedback: Feedback,
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._revision = revision
        self._segment_params = segment_params
        self._live = live
        self._feedback = feedback
        self._group = functools.lru_cache(maxsize=256)(self._make_group)

    def plan(self, search: Search, *, binary: bool) -> SearchPlan:
        """What a search wants besides its vectors. Raises Problem 400 for what a binary answer cannot hold."""
        if binary and search.track:
            raise Problem(
                400,
                "InvalidField",
                "a binary answer holds ids and scores only",
                field="track",
                value=True,
                remedy="send Accept: application/json, or leave track out",
            )
        if binary and search.include_metadata:
            raise Problem(
                400,
                "InvalidField",
                "a binary answer holds ids and scores only",
                field="include",
                value="metadata",
                remedy="send Accept: application/json, or leave include out",
            )
        group = self._group(search.k, tuple(sorted(search.params.items())), search.include_metadata)
        # What a client chose by itself is not the revision's recall.
        own = search.params == self._segment_params.get(search.segment, {})
        return SearchPlan(search, group, binary, self._live is not None and own and search.filter is None)

    def _make_group(self, k: int, params: tuple[tuple[str, int], ...], metadata: bool) -> Group:
        """The group of all searches for one vector with this k and these parameters."""
        run = functools.partial(self._run_group, k, dict(params))
        # Parameters of the revision's own are known to be quick; those that users name may be anything.
        own = not params or dict(params) in self._segment_params.values()
        return Group(run, small=k <= SMALL_K and own and not metadata)

    def ask(
        self, plan: SearchPlan, vectors: Vectors, outcome: Outcome, began: float, seconds: float | None
    ) -> Deferred:
        """Search `vectors`, float32 [d] or [n, d], checked. `seconds`: what the client allows, from `began` on.

        Fills `outcome` when it is answered. Raises Problem 503 or 504.
        """
        asked = PendingSearch(plan, vectors, outcome, began)
        deadline = None if seconds is None else began + seconds
        # A filter may have to read whole columns: never on the event loop, and no two are the same rows.
        if outcome.queries > 1 or plan.search.filter is not None:
            return self._pool.submit(functools.partial(self._run_alone, asked), outcome.queries, deadline)
        return self._pool.submit_one(plan.group, asked, deadline)

    # ------------------------------------------------------------ where the pool says

    def _run_group(self, k: int, params: Mapping[str, int], asked: Sequence[PendingSearch]) -> list[Response]:
        """Answer searches for one vector each by one call of the engine."""
        parts = [one.vectors for one in asked]
        vectors = (parts[0] if len(parts) == 1 else np.concatenate(parts, axis=None)).reshape(len(parts), -1)
        scores, rows = self._engine.search(vectors, k, params)
        if self._live is not None:
            for number, one in enumerate(asked):
                self._offer(one, vectors[number : number + 1], rows[number : number + 1])
        if asked[0].plan.search.include_metadata or np.count_nonzero(rows < 0):
            return [self._answer(one, scores[n : n + 1], rows[n : n + 1]) for n, one in enumerate(asked)]
        # The usual case: what all answers need is looked up once for all.
        firsts, now, flat = scores[:, 0].tolist(), time.monotonic(), rows.ravel()
        binaries = sum([one.plan.binary for one in asked])
        binary = SingleAnswers(self._engine.raw_ids(flat), scores) if binaries else None
        ids = self._engine.ids(flat) if binaries < len(asked) else None
        answers = []
        for number, one in enumerate(asked):
            bound = one.plan.search.min_score
            count = k if bound is None else int(np.count_nonzero(scores[number] >= bound))
            one.outcome.top_scores, one.outcome.hits = (firsts[number],), (count,)
            if one.plan.binary and binary is not None:
                answers.append(binary.of(number, count))
            elif ids is not None:
                start, found = number * k, scores[number, :count]
                answers.append(self._document(one, [{"ids": ids[start : start + count], "scores": found}], now))
        return answers

    def _run_alone(self, asked: PendingSearch) -> Response:
        """Answer a search for any number of vectors, with or without a filter."""
        search, vectors = asked.plan.search, asked.vectors.reshape(asked.outcome.queries, -1)
        if search.filter is None:
            scores, rows = self._engine.search(vectors, search.k, search.params)
            self._offer(asked, vectors, rows)
            return self._answer(asked, scores, rows)
        allowed_rows = self._engine.matching(search.filter)
        scores, rows, strategy = self._engine.search_with_strategy(vectors, search.k, search.params, allowed_rows)
        return self._answer(asked, scores, rows, {"filter": {"rows": allowed_rows.matching, "search": strategy.value}})

    def _offer(self, asked: PendingSearch, vectors: Vectors, rows: Rows) -> None:
        """To the live sample."""
        if asked.plan.live and self._live is not None:
            self._live.offer(asked.plan.search.segment, vectors, asked.plan.search.k, rows)

    # ------------------------------------------------------------ answers

    def _answer(
        self, asked: PendingSearch, scores: Scores, rows: Rows, how: Mapping[str, object] = _NOTHING
    ) -> Response:
        """Write down what was found, and what of it is evidence."""
        search, outcome = asked.plan.search, asked.outcome
        firsts = zip(rows[:, 0].tolist(), scores[:, 0].tolist(), strict=True)
        outcome.top_scores = [score for row, score in firsts if row >= 0]
        outcome.hits = hits = _hits(scores, rows, search.min_score)
        kept = [rows[number, :count] for number, count in enumerate(hits)]
        if asked.plan.binary:
            ends = np.cumsum(hits).tolist()
            spans = list(zip((0, *ends[:-1]), ends, strict=True))
            found = [scores[number, :count] for number, count in enumerate(hits)]
            return binary_answer(self._engine.raw_ids(np.concatenate(kept)), spans, found)
        results: list[dict[str, Any]] = []
        for number, some in enumerate(kept):
            result: dict[str, Any] = {"ids": self._engine.ids(some), "scores": scores[number, : len(some)]}
            if search.include_metadata:
                result["metadata"] = self._engine.metadata(some)
            results.append(result)
        return self._document(asked, results, time.monotonic(), how)

    def _document(
        self,
        asked: PendingSearch,
        results: Sequence[Mapping[str, Any]],
        now: float,
        how: Mapping[str, object] = _NOTHING,
    ) -> Response:
        search = asked.plan.search
        if search.track:
            bucket, ids = self._feedback.ids(search.segment, search.k, len(results))
            results = [{**result, "queryId": query_id} for result, query_id in zip(results, ids, strict=True)]
            asked.outcome.tracked = (bucket, search.k)
        document = {
            "revision": self._revision,
            "k": search.k,
            "results": results,
            "zeroResults": asked.outcome.hits.count(0),
            "tookMs": round((now - asked.began) * 1e3, 3),
        }
        return json_answer({**document, **how} if how else document)


def _hits(scores: Scores, rows: Rows, min_score: float | None) -> list[int]:
    """How many of each query's best-first answers [n, k] are hits: those with a row, and a score of at least the bound.

    Hits are the first ones of a line, so a count says which they are.
    """
    found = rows >= 0
    if min_score is not None:
        found &= scores >= min_score
    counts: list[int] = np.count_nonzero(found, axis=1).tolist()
    return counts
