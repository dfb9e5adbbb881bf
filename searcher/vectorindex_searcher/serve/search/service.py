"""From plans and vectors to answers: what can be one call of the engine, and what is written of the result.

Knows no HTTP but the answer's body. Its functions run on the event loop or on a search thread, as the pool decides.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from ...index.engine import Engine
from ...index.filters import Predicate
from ...index.selection.rowset import RowSet
from ..evidence.feedback import QueryIds
from ..evidence.live_queries import LiveQueries
from ..evidence.live_sample import LiveSample
from ..evidence.recorder import Outcome
from ..http.limits import LIGHT_CANDIDATES, MAX_VECTORS, SLICE_CANDIDATES
from ..http.messages import Deferred, Problem, Response
from ..shadow.mirror import Mirror
from .answers import SingleAnswers, json_answer, json_of, long_json_answer
from .asked import (
    Candidates,
    Encoding,
    PendingSearch,
    Rows,
    Scores,
    Vectors,
    Written,
    cut_of,
    hits_of,
    joined,
    note,
    told,
    warnings_of,
    with_filter,
)
from .freshness import Freshness
from .plan import SearchPlan, check_work
from .pool import BATCH_SEARCHES, Group, SearchPool, deadline_exceeded
from .reader import Read
from .work import Work, WorkBudget
from .written import binary_of, metadata_of

SMALL_K = 100
DEADLINE_VECTORS = 32
"""Of one call, where a deadline may end the search between two: enough for FAISS to compare them by matrices."""
Params = tuple[tuple[str, int], ...]
_NOTHING: Mapping[str, object] = MappingProxyType({})


class SearchService:
    """Runs the searches of one revision. `own`: parameters that it has proven itself, besides the default point's.
    `fresh`: None where there are no rows besides the artifact's. Samples and shadows see the artifact's alone."""

    def __init__(
        self,
        engine: Engine,
        pool: SearchPool,
        revision: str,
        own: Iterable[Mapping[str, int]],
        live: LiveSample | None,
        feedback: QueryIds,
        queries: LiveQueries | None = None,
        mirror: Mirror | None = None,
        fresh: Freshness | None = None,
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._revision = revision
        self._own = [{}, *map(dict, own)]
        self._live = live
        self._feedback = feedback
        self._queries = queries
        self._samples = live is not None or queries is not None
        self._mirror = mirror or Mirror()
        self._fresh = fresh
        self._budget = WorkBudget()
        self._groups: WeakValueDictionary[tuple[int, Params, bool, Predicate | None], Group] = WeakValueDictionary()
        """Those of the plans that are there."""

    def group(self, k: int, params: Params, metadata: bool, candidates: int, policy: Predicate | None = None) -> Group:
        """The group of all searches for one vector with this k and these parameters, by tokens that may see the same
        rows (`policy`; None: all)."""
        key = (k, params, metadata, policy)
        group = self._groups.get(key)
        if group is None:
            run = functools.partial(self._run_group, k, dict(params), policy)
            # Parameters of the revision's own are known to be quick; those that users name may be anything, and so may
            # a search of some rows, which looks farther where it found too few.
            small = k <= SMALL_K and not metadata and policy is None and dict(params) in self._own
            # One at a time with metadata: its size is known only when its rows are.
            most = 1 if metadata else max(1, min(BATCH_SEARCHES, LIGHT_CANDIDATES // candidates))
            group = self._groups.setdefault(key, Group(run, small=small, most=most))
        return group

    def ask(
        self,
        plan: SearchPlan,
        vectors: Vectors,
        outcome: Outcome,
        began: float,
        seconds: float | None,
        encoding: Encoding | None = None,
    ) -> Deferred:
        """Search `vectors`, float32 [d] or [n, d], checked. `seconds`: what the client allows, from `began` on.

        Fills `outcome` when it is answered. Raises Problem 503 or 504.
        """
        deadline = None if seconds is None else began + seconds
        asked = PendingSearch(plan, vectors, outcome, began, deadline, encoding)
        # A filter may have to read whole columns, and hardly two are the same rows. A policy is one that comes again.
        at_hand = plan.filter is None or (not plan.filtered and self._engine.keeps_matching(plan.filter))
        if vectors.ndim == 2 or not at_hand or plan.candidates > LIGHT_CANDIDATES:
            return self._pool.submit(functools.partial(self._run_alone, asked), outcome.queries, deadline)
        return self._pool.submit_one(plan.group, asked, deadline)

    def ask_unread(
        self, read: Callable[[], Read], size: int, outcome: Outcome, began: float, seconds: float | None
    ) -> Deferred:
        """As `ask`, for a request of `size` bytes that is read on the search thread, and may be refused there."""
        deadline = None if seconds is None else began + seconds

        def job() -> Response:
            with Work(self._budget) as work:
                work.read(size)
                plan, vectors = read()
            return self._run_alone(PendingSearch(plan, vectors, outcome, began, deadline))

        # A number and its comma are two bytes at least.
        most = min(MAX_VECTORS, 1 + size // (2 * self._engine.dimension))
        return self._pool.submit(job, most, deadline)

    def find(self, plan: SearchPlan, vector: Vectors, deadline: float) -> tuple[Scores, Rows, RowSet | None, int]:
        """What a request for one vector, float32 [d], finds: scores and rows [k], the rows that its filter allows, and
        how many are hits. No answer is written, and nothing counted; on a search thread. Raises Problem 503, and 504
        once the monotonic time `deadline` has passed."""
        check_work(plan, 1)
        with Work(self._budget) as work:
            work.search(plan, 1)
            allowed = None if plan.filter is None else self._matching(plan.filter, work, deadline)
            if self._fresh is not None:
                allowed = self._fresh.live(allowed)
            scores, rows, _ = self._searched(plan, vector.reshape(1, -1), allowed, deadline)
        return scores[0], rows[0], allowed, hits_of(scores, rows, plan.min_score)[0]

    # ------------------------------------------------------------ where the pool says

    def _run_group(
        self, k: int, params: Mapping[str, int], policy: Predicate | None, asked: Sequence[PendingSearch]
    ) -> list[Response]:
        """Answer searches for one vector each by one call of the engine."""
        parts = [one.vectors for one in asked]
        vectors = (parts[0] if len(parts) == 1 else np.concatenate(parts, axis=None)).reshape(len(parts), -1)
        fresh = None if self._fresh is None else self._fresh.wanted(one.plan.min_fresh for one in asked)
        allowed = None if policy is None else self._engine.matching(policy)
        if fresh is not None:
            allowed = fresh.only(allowed)
        if allowed is None:
            scores, rows = self._engine.search(vectors, k, params)
        else:
            scores, rows = self._engine.search(vectors, k, params, allowed_rows=allowed)
        if self._samples:
            for number, one in enumerate(asked):
                self._offer(one, vectors[number : number + 1], rows[number : number + 1])
        if self._mirror.lease is not None:
            self._mirror.offer(asked, vectors, rows, scores)
        if fresh is not None:
            scores, rows = fresh.merged(vectors, k, scores, rows, policy)
            for one in asked:
                one.fresh = fresh
            return [self._answered(one, scores[n : n + 1], rows[n : n + 1]) for n, one in enumerate(asked)]
        if asked[0].plan.include_metadata or np.count_nonzero(rows < 0):
            return [self._answered(one, scores[n : n + 1], rows[n : n + 1]) for n, one in enumerate(asked)]
        # The usual case: what all answers need is looked up once for all.
        firsts, now, flat = scores[:, 0].tolist(), time.monotonic(), rows.ravel()
        binaries = sum([one.plan.binary for one in asked])
        binary = SingleAnswers(self._engine.raw_ids(flat), scores) if binaries else None
        ids = self._engine.ids(flat) if binaries < len(asked) else None
        answers = []
        for number, one in enumerate(asked):
            bound = one.plan.min_score
            count = k if bound is None else int(np.count_nonzero(scores[number] >= bound))
            one.outcome.top_scores, one.outcome.hits = (firsts[number],), (count,)
            if one.plan.binary and binary is not None:
                answers.append(told(one, binary.of(number, count)))
            elif ids is not None:
                start = number * k
                result: dict[str, object] = {"ids": ids[start : start + count], "scores": scores[number, :count]}
                if one.plan.track:
                    result["queryId"] = self._query_ids(one, 1)[0]
                answers.append(self._document(one, [result], now))
        return answers

    def _run_alone(self, asked: PendingSearch) -> Response:
        """Answer a search for any number of vectors, with or without a filter."""
        asked.outcome.filtered = asked.plan.filtered
        with Work(self._budget) as work:
            work.search(asked.plan, asked.outcome.queries)
            scores, rows, how = self._found(asked, self._allowed(asked, work))
            return self._answer(asked, scores, rows, work, how)

    def _allowed(self, asked: PendingSearch, work: Work) -> RowSet | None:
        """The artifact's rows that may be answered, beside the snapshot that the search has from here on; None: all."""
        plan = asked.plan
        if self._fresh is not None:
            asked.fresh = self._fresh.wanted((plan.min_fresh,))
        allowed = None if plan.filter is None else self._matching(plan.filter, work, asked.deadline)
        return allowed if asked.fresh is None else asked.fresh.only(allowed)

    def _found(self, asked: PendingSearch, allowed: RowSet | None) -> tuple[Scores, Rows, Mapping[str, object]]:
        """Scores and rows [n, k], offered to the samples, and what an answer says of how they were found."""
        plan, vectors = asked.plan, asked.vectors.reshape(asked.outcome.queries, -1)
        scores, rows, strategy = self._searched(plan, vectors, allowed, asked.deadline)
        if self._mirror.lease is not None:
            self._mirror.offer_one(asked, vectors, rows, scores)
        if not plan.filtered:
            self._offer(asked, vectors, rows)
        elif self._queries is not None:
            self._queries.leave_out(len(vectors), filtered=True)
        matching = 0 if allowed is None else allowed.matching
        if (fresh := asked.fresh) is not None:
            scores, rows = fresh.merged(vectors, plan.k, scores, rows, plan.filter)
            matching += 0 if plan.filter is None else fresh.matching(plan.filter).matching
        return scores, rows, {"filter": {"rows": matching, "search": strategy}} if plan.filtered else _NOTHING

    def candidates(self, asked: PendingSearch, most: int) -> Candidates:
        """Search as for a vector, with all its evidence, and for the first `most` besides, among the same rows; on a
        search thread. Raises Problem as `find`, for the vectors' own search only."""
        plan, outcome = asked.plan, asked.outcome
        outcome.filtered = plan.filtered
        with Work(self._budget) as work:
            work.search(plan, outcome.queries)
            allowed = self._allowed(asked, work)
            scores, rows, how = self._found(asked, allowed)
            note(asked, scores, rows)
            query_ids = self._query_ids(asked, len(rows)) if plan.track else None
            written = self._results(asked, rows, scores, outcome.hits, query_ids, work)
            whole = most <= plan.k or not any(outcome.hits)
            if not whole:
                # Another search, since more candidates find more: what is evidence shall not depend on it.
                with suppress(Problem):  # 503 or 504: the vectors' answer is there
                    wide, vectors = plan.wider(most), asked.vectors.reshape(outcome.queries, -1)
                    work.search(wide, outcome.queries)
                    scores, rows, _ = self._searched(wide, vectors, allowed, asked.deadline)
                    if asked.fresh is not None:
                        scores, rows = asked.fresh.merged(vectors, most, scores, rows, plan.filter)
                    whole = True
            return Candidates(scores, rows, how, query_ids, written, whole)

    def reordered(self, asked: PendingSearch, found: Candidates, orders: Sequence[npt.NDArray[np.int64]]) -> Written:
        """The results of each query with its rows in this order: places in `found`, of which the first k are told."""
        lines = [order[: asked.plan.k] for order in orders]
        hits = [len(line) for line in lines]
        rows, scores = np.full((len(lines), max(hits)), -1, np.int64), np.zeros((len(lines), max(hits)), np.float32)
        for number, line in enumerate(lines):
            rows[number, : len(line)] = found.rows[number, line]
            scores[number, : len(line)] = found.scores[number, line]
        with Work(self._budget) as work:
            return self._results(asked, rows, scores, hits, found.query_ids, work)

    def wrapped(self, asked: PendingSearch, written: Written, how: Mapping[str, object]) -> Response:
        """The answer around results that are written. `how`: fields that say how they were found."""
        if isinstance(written, Response):
            return told(asked, with_filter(written, how))
        before, after = self._around(asked, time.monotonic(), how)
        return told(asked, long_json_answer(before, written, after))

    def _matching(self, predicate: Predicate, work: Work, deadline: float | None) -> RowSet:
        """The rows of a filter. Raises Problem 503, and 504 when they are not there in time."""
        if not self._engine.keeps_matching(predicate):
            work.filter(self._engine.count)
        try:
            return self._engine.matching(predicate, math.inf if deadline is None else deadline)
        except TimeoutError:
            raise deadline_exceeded() from None

    def _searched(
        self, plan: SearchPlan, vectors: Vectors, allowed: RowSet | None, deadline: float | None
    ) -> tuple[Scores, Rows, str]:
        """Search all vectors, slice by slice. Raises Problem 504 when nobody waits for the next one any more: FAISS
        itself ends no search of one thread and goes on with those of others."""
        step = max(1, SLICE_CANDIDATES // plan.candidates)
        if deadline is not None:
            step = min(step, DEADLINE_VECTORS)
        parts = []
        for at in range(0, len(vectors), step):
            if deadline is not None and time.monotonic() >= deadline:
                raise deadline_exceeded()
            parts.append(self._slice(plan, vectors[at : at + step], allowed, deadline))
        return parts[0] if len(parts) == 1 else joined(parts)

    def _slice(
        self, plan: SearchPlan, vectors: Vectors, allowed: RowSet | None, deadline: float | None
    ) -> tuple[Scores, Rows, str]:
        """Search so many vectors as fit into one call. Raises Problem 504 where a filter needs another, wider one and
        nobody waits for that."""
        if allowed is None:
            return *self._engine.search(vectors, plan.k, dict(plan.params)), ""
        until = math.inf if deadline is None else deadline
        try:
            scores, rows, strategy = self._engine.search_with_strategy(
                vectors, plan.k, dict(plan.params), allowed, until
            )
        except TimeoutError:
            raise deadline_exceeded() from None
        return scores, rows, strategy.value

    def _offer(self, asked: PendingSearch, vectors: Vectors, rows: Rows) -> None:
        """To the samples: of what was answered, and of what was asked."""
        plan = asked.plan
        if not plan.own:
            if self._queries is not None:
                self._queries.leave_out(len(vectors), filtered=False)
            return
        # Among all rows: where a policy leaves some out, what was found says nothing of that.
        if self._live is not None and plan.filter is None:
            self._live.offer(plan.segment, vectors, plan.k, rows)
        if self._queries is not None:
            self._queries.offer(plan.segment, asked.outcome.sender, plan.k, vectors)

    # ------------------------------------------------------------ answers

    def _answered(self, asked: PendingSearch, scores: Scores, rows: Rows) -> Response:
        with Work(self._budget) as work:
            return self._answer(asked, scores, rows, work)

    def _answer(
        self, asked: PendingSearch, scores: Scores, rows: Rows, work: Work, how: Mapping[str, object] = _NOTHING
    ) -> Response:
        """Write down what was found, and what of it is evidence."""
        note(asked, scores, rows)
        query_ids = self._query_ids(asked, len(rows)) if asked.plan.track else None
        return self.wrapped(asked, self._results(asked, rows, scores, asked.outcome.hits, query_ids, work), how)

    def _results(
        self,
        asked: PendingSearch,
        rows: Rows,
        scores: Scores,
        hits: Sequence[int],
        query_ids: Sequence[str] | None,
        work: Work,
    ) -> Written:
        """The first `hits` of each line of rows and scores [n, k]."""
        plan, source = asked.plan, asked.fresh or self._engine
        if plan.binary:
            return binary_of(source, rows, scores, hits, work, metadata=plan.include_metadata)
        results: list[bytes] = []
        for number, count in enumerate(hits):
            some = rows[number, :count]
            result: dict[str, object] = {"ids": source.ids(some), "scores": scores[number, :count]}
            if query_ids is not None:
                result["queryId"] = query_ids[number]
            # As text at once: as Python objects many hits take ten times the memory.
            text = json_of(result)
            work.answer(len(text))
            results.append(b"," + text if number else text)
            if plan.include_metadata:
                results[-1] = results[-1][:-1]
                results += [b',"metadata":[', *metadata_of(source, some, work), b"]}"]
        return results

    def _query_ids(self, asked: PendingSearch, count: int) -> list[str]:
        """One for each query, for clicks."""
        bucket, ids = self._feedback.ids(asked.plan.segment, asked.plan.k, count)
        asked.outcome.tracked = (bucket, asked.plan.k)
        return ids

    def _document(self, asked: PendingSearch, results: Sequence[Mapping[str, object]], now: float) -> Response:
        before, after = self._around(asked, now)
        return told(asked, json_answer({**before, "results": results, **after}))

    def _around(
        self, asked: PendingSearch, now: float, how: Mapping[str, object] = _NOTHING
    ) -> tuple[dict[str, object], dict[str, object]]:
        """The fields before and after the results."""
        after: dict[str, object] = {
            "zeroResults": asked.outcome.hits.count(0),
            "tookMs": round((now - asked.began) * 1e3, 3),
        }
        if asked.fresh is not None:
            after["fresh"] = asked.fresh.number
        warnings = warnings_of(asked.plan.ignored)
        if (encoding := asked.encoding) is not None:
            after["encodeMs"] = round(encoding.seconds * 1e3, 3)
            warnings += cut_of(encoding)
        if warnings:
            after["warnings"] = warnings
        return {"revision": self._revision, "k": asked.plan.k}, {**after, **how}
